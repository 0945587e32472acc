//! Options of an injector, and its opening sequence.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::geometry::TxGeometry;
use super::head_patience::HeadPatience;
use super::injector::{Bound, Injector};
use super::netns::NetNs;
use super::open::{check_passed, index_of, map_ring, vanished};
use crate::error::{Error, Result, Step};
use crate::packet::{Framing, Offload};
use crate::ring::slot::TxRing;
use crate::sys::netdev::Netdev;
use crate::sys::{packet_socket, sockopt, tx_timestamp};
use crate::trace;

impl Injector {
    /// Opens an injector with the default options on an interface of this network namespace.
    ///
    /// # Errors
    /// The errors of [`InjectorBuilder::build`].
    pub fn open(interface: &str) -> Result<Self> {
        Self::builder().interface(interface).build()
    }

    /// Opens an injector with the default options on a socket that was opened before: see
    /// [`InjectorBuilder::build_on`].
    ///
    /// # Errors
    /// The errors of [`InjectorBuilder::build_on`].
    pub fn from_owned_fd(socket: OwnedFd, interface: &str) -> Result<Self> {
        Self::builder().interface(interface).build_on(socket)
    }

    /// Returns a builder for an injector with custom options.
    pub fn builder() -> InjectorBuilder {
        InjectorBuilder::new()
    }
}

/// Builds an [`Injector`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct InjectorBuilder {
    interface: Option<String>,
    netns: Option<NetNs>,
    frame_size: Option<usize>,
    frame_count: usize,
    qdisc_bypass: bool,
    tx_timestamps: bool,
    offloads: bool,
    sndbuf: Option<usize>,
    give_up_after: Duration,
}

/// The smallest default size of a slot.
const LEAST_SLOT: usize = 2048;
/// The longest frame that can be left to be split (`GSO_LEGACY_MAX_SIZE`), with a header and a tag.
const LONGEST_SEGMENTED: usize = 65_535 + 18;

impl InjectorBuilder {
    pub(super) fn new() -> Self {
        Self {
            interface: None,
            netns: None,
            frame_size: None,
            frame_count: 256,
            qdisc_bypass: false,
            tx_timestamps: false,
            offloads: false,
            sndbuf: None,
            give_up_after: Duration::from_secs(1),
        }
    }

    /// Sets the interface to send on. Required.
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.interface = Some(name.into());
        self
    }

    /// Sets the network namespace of the interface. Default: the namespace of the calling thread.
    ///
    /// Another namespace is entered by a short-lived thread that creates the socket (`setns(2)`, which needs
    /// `CAP_SYS_ADMIN`); the calling thread stays where it is.
    pub fn netns(mut self, netns: NetNs) -> Self {
        self.netns = Some(netns);
        self
    }

    /// Sets the bytes of a slot: a multiple of 16, of which 32 are header.
    ///
    /// Default: enough for the longest frame (by the interface's MTU, or 64 KiB with [`offloads`](Self::offloads)),
    /// at least 2048.
    pub fn frame_size(mut self, bytes: usize) -> Self {
        self.frame_size = Some(bytes);
        self
    }

    /// Sets the number of slots of the ring, rounded up to whole blocks. Default: 256.
    pub fn frame_count(mut self, frames: usize) -> Self {
        self.frame_count = frames;
        self
    }

    /// Sets whether frames bypass the interface's queueing discipline and go straight to the driver
    /// (`PACKET_QDISC_BYPASS`). Default: false.
    ///
    /// This is faster, but the card drops frames when it is full.
    pub fn qdisc_bypass(mut self, on: bool) -> Self {
        self.qdisc_bypass = on;
        self
    }

    /// Sets whether the kernel reports when it handed each frame to the driver; see
    /// [`Injector::read_tx_timestamp`]. Default: false.
    pub fn tx_timestamps(mut self, on: bool) -> Self {
        self.tx_timestamps = on;
        self
    }

    /// Sets whether frames may leave checksums and segmentation to the kernel or the card
    /// ([`TxSlot::set_offload`](crate::inject::TxSlot::set_offload), `PACKET_VNET_HDR`). Default: false.
    ///
    /// This uses 10 bytes of each slot, and frames to be split need slots of up to 64 KiB. Together with
    /// [`qdisc_bypass`](Self::qdisc_bypass) the kernel splits nothing itself: frames that the card cannot split are
    /// refused, after 100 ms.
    pub fn offloads(mut self, on: bool) -> Self {
        self.offloads = on;
        self
    }

    /// Sets the bytes of frames that may be under way (`SO_SNDBUFFORCE`, or else `SO_SNDBUF`, which the system
    /// limits). Default: twice the ring.
    pub fn sndbuf(mut self, bytes: usize) -> Self {
        self.sndbuf = Some(bytes);
        self
    }

    /// Sets how long the first frame in line may block the others while the kernel reports a full queue. Default:
    /// one second.
    ///
    /// The limit applies while the kernel has no earlier frames of this injector in its queue; it is ten times as
    /// long while it has some. After that the frame is dropped and counted in [`rejected`](Injector::rejected).
    /// Raise the limit on links slower than about 10 kbit/s.
    ///
    /// The kernel gives the same answer for a full queue and for a frame that the driver drops, as veth does if the
    /// far end's MTU is smaller. The limit is 100 ms at most for a frame with an offload, and for a frame at least
    /// as long as one that blocked the others within the last ten seconds.
    pub fn give_up_after(mut self, patience: Duration) -> Self {
        self.give_up_after = patience;
        self
    }

    /// Opens the socket and its ring.
    ///
    /// The socket has protocol 0: it receives nothing. The ring is TPACKET_V2: with V3, the kernel expects headers
    /// other than those of V2, and sends nothing although every counter says it did.
    ///
    /// # Errors
    /// The errors of [`CaptureBuilder::build`](crate::capture::CaptureBuilder::build).
    pub fn build(self) -> Result<Injector> {
        let opening = trace::opening("injector", self.interface.as_deref());
        let name = self.checked()?;
        let injector = self.open(self.open_socket()?, name).map_err(|error| error.of(name))?;
        opening.done();
        Ok(injector)
    }

    /// Opens an injector on a socket that was opened before: by [`open_socket`](Self::open_socket), in this process or in
    /// one with more rights.
    ///
    /// Only opening a packet socket takes `CAP_NET_RAW`. A helper that has it can open the socket and pass it on
    /// (`SCM_RIGHTS`, unix(7)), and an ordinary process sends. The interface is looked for in the network namespace of
    /// the socket; [`netns`](Self::netns) has no effect.
    ///
    /// # Errors
    /// [`Error::Unusable`] if it is no packet socket, is bound already, or takes frames without their link-layer headers;
    /// otherwise the errors of [`build`](Self::build).
    pub fn build_on(self, socket: OwnedFd) -> Result<Injector> {
        const COOKED: &str =
            "the socket is of type SOCK_DGRAM; this takes SOCK_RAW, as from `open_socket`";
        let opening = trace::opening("injector", self.interface.as_deref());
        let name = self.checked()?;
        check_passed(socket.as_fd(), Some((libc::SOCK_DGRAM, COOKED)), name)?;
        let injector = self.open(socket, name).map_err(|error| error.of(name))?;
        opening.done();
        Ok(injector)
    }

    /// Opens the socket for [`build_on`](Self::build_on): the only step that takes `CAP_NET_RAW`. It sends nothing by itself.
    ///
    /// # Errors
    /// [`Error::InterfaceMissing`]; [`Error::Os`] if the kernel refuses.
    pub fn open_socket(&self) -> Result<OwnedFd> {
        let name = self.interface.as_deref().ok_or(Error::InterfaceMissing)?;
        let opened = match &self.netns {
            Some(netns) => netns.within(packet_socket::open),
            None => packet_socket::open(),
        };
        opened.map_err(|error| error.of(name))
    }

    /// Returns the interface. Invalid sizes are reported before any request to the kernel.
    fn checked(&self) -> Result<&str> {
        let name = self.interface.as_deref().ok_or(Error::InterfaceMissing)?;
        TxGeometry::new(self.frame_size.unwrap_or(LEAST_SLOT), self.frame_count)?;
        Ok(name)
    }

    fn open(&self, socket: OwnedFd, name: &str) -> Result<Injector> {
        let index = index_of(socket.as_fd(), name)?;
        let (mtu, framing) = self.ask(socket.as_fd(), name)?;
        let geometry = TxGeometry::new(self.slot_size(mtu, framing), self.frame_count)?;
        self.set_options(socket.as_fd(), &geometry)?;
        let created = sockopt::try_set(socket.as_fd(), sockopt::TX_RING, &geometry.request());
        let mapping = map_ring(socket.as_fd(), created, geometry.ring_bytes())?;
        packet_socket::bind(socket.as_fd(), index, 0).map_err(|error| vanished(error, name))?;
        // A down interface leaves ENETDOWN on the socket; a kick will report that itself.
        packet_socket::take_error(socket.as_fd())?;
        let ring = TxRing::new(mapping, geometry.slots());
        let bound = Bound { socket, name: name.to_owned(), index, framing };
        let patience = HeadPatience::new(self.give_up_after);
        Ok(Injector::new(ring, bound, mtu, self.offloads, patience))
    }

    /// Returns the interface's MTU, and the length it accepts beyond that.
    fn ask(&self, socket: BorrowedFd<'_>, name: &str) -> Result<(usize, Framing)> {
        let asker = Netdev(socket);
        let failed =
            |what| move |source| vanished(Error::os(Step::QueryInterface(what), source), name);
        let mtu = asker.mtu(name).map_err(failed("MTU"))? as usize;
        let hardware = asker.hardware(name).map_err(failed("kind"))?;
        Ok((mtu, Framing::of_hardware(hardware)))
    }

    /// Returns the bytes of a slot.
    fn slot_size(&self, mtu: usize, framing: Framing) -> usize {
        self.frame_size.unwrap_or_else(|| {
            let longest = framing.longest_tagged(mtu);
            let longest = if self.offloads { longest.max(LONGEST_SEGMENTED) } else { longest };
            let prefix = if self.offloads { Offload::LEN } else { 0 };
            TxRing::slot_size(prefix + longest).max(LEAST_SLOT)
        })
    }

    fn set_options(&self, socket: BorrowedFd<'_>, geometry: &TxGeometry) -> Result<()> {
        let version = libc::tpacket_versions::TPACKET_V2 as i32;
        sockopt::set(socket, sockopt::VERSION, &version)?;
        if self.qdisc_bypass {
            sockopt::set(socket, sockopt::QDISC_BYPASS, &1_i32)?;
        }
        if self.offloads {
            sockopt::set(socket, sockopt::VNET_HDR, &1_i32)?;
        }
        if self.tx_timestamps {
            sockopt::set(socket, sockopt::TIMESTAMPING, &tx_timestamp::SOFTWARE)?;
        }
        // If the system allows less, the kernel takes the ring in several steps.
        let bytes = self.sndbuf.unwrap_or(2 * geometry.ring_bytes());
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        if sockopt::try_set(socket, sockopt::SNDBUF_FORCE, &bytes).is_err() {
            sockopt::set(socket, sockopt::SNDBUF, &bytes)?;
        }
        Ok(())
    }
}
