//! The opening sequence.
//!
//! ```text
//!   socket, protocol 0        nothing is received
//!   version, options, ring, mmap
//!   filter `ret #0`           nothing will pass
//!   bind with protocol        received from here on: from this interface only, and discarded
//!   promiscuous, join group   joining needs a bound, running socket
//!   open_intake               the real filter: the first packet passes
//! ```
//! Any other order lets packets of other interfaces into the first blocks, unfiltered, or makes a fanout group hand
//! packets to a member that is not ready.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::builder::{CaptureBuilder, Excluded, TimestampSource};
use super::capture::{Capture, RxRing};
use super::exclusion::Exclusion;
use super::gate::{Headers, Intake, SocketFilter};
use super::geometry::{RingLayout, RxGeometry};
use super::outgoing;
use super::socket::Socket;
use crate::error::{Error, GeometryError, Result, Step};
use crate::interface::Interface;
use crate::packet::LinkType;
use crate::ring::rx_features::Extras;
use crate::sys::netdev::{self, Netdev};
use crate::sys::{Mapping, packet_socket, sockopt};
use crate::trace;

/// Bytes of the longest packet that is expected of all interfaces: the MTU of the loopback, and headers.
const LONGEST_OF_ANY: usize = 65_536 + 40;

impl CaptureBuilder {
    /// Opens the socket and its ring.
    ///
    /// A down interface is not an error: packets arrive once it is up. (Older kernels do not let a socket on such
    /// an interface join a fanout group.)
    ///
    /// # Errors
    /// [`Error::InterfaceMissing`](crate::Error::InterfaceMissing) and
    /// [`Error::Geometry`](crate::Error::Geometry) before any request to the kernel, as far as sizes do not depend on
    /// the interface; [`Error::Os`](crate::Error::Os) with the step that failed, most often opening the socket without
    /// `CAP_NET_RAW`; [`Error::NoSuchInterface`](crate::Error::NoSuchInterface);
    /// [`Error::Filter`](crate::Error::Filter) if the interface's packets lack what the filter tests;
    /// [`Error::NoHardwareClock`](crate::Error::NoHardwareClock);
    /// [`Error::RingTooLarge`](crate::Error::RingTooLarge) and [`Error::Fanout`](crate::Error::Fanout) with their
    /// reasons.
    pub fn build(self) -> Result<Capture> {
        let opening = trace::opening("capture", self.interface.as_ref().map(Interface::name));
        Plan::new(&self)?; // invalid options are reported before any request to the kernel
        let capture = self.open_on(self.open_socket()?)?;
        opening.done();
        Ok(capture)
    }

    fn open_on(&self, socket: OwnedFd) -> Result<Capture> {
        let mut capture = self.open_closed(socket)?;
        if let Some(membership) = self.effective_membership() {
            capture.join(&membership).map_err(|error| self.named(error))?;
        }
        capture.open_intake().map_err(|error| self.named(error))?;
        Ok(capture)
    }

    /// Opens a capture on a socket that was opened before: by [`open_socket`](Self::open_socket), in this process or in
    /// one with more rights.
    ///
    /// Only opening a packet socket takes `CAP_NET_RAW`. A helper that has it can open the socket and pass it on
    /// (`SCM_RIGHTS`, unix(7)), and an ordinary process captures. The interface is looked for in the network namespace
    /// of the socket; [`netns`](Self::netns) has no effect. Nor has [`promiscuous`](Self::promiscuous) on `any`: that is
    /// done when the socket is opened.
    ///
    /// # Errors
    /// [`Error::Unusable`] if it is no packet socket, is bound already, or delivers packets with link-layer headers where
    /// [cooked](crate::packet::LinkType::LINUX_SLL2) ones are needed; otherwise the errors of [`build`](Self::build).
    pub fn build_on(self, socket: OwnedFd) -> Result<Capture> {
        let opening = trace::opening("capture", self.interface.as_ref().map(Interface::name));
        self.check_socket(socket.as_fd())?;
        let capture = self.open_on(socket)?;
        opening.done();
        Ok(capture)
    }

    /// Whether a socket that was opened before can be used with these options.
    pub(crate) fn check_socket(&self, socket: BorrowedFd<'_>) -> Result<()> {
        Plan::new(self)?.check(socket).map_err(|error| self.named(error))
    }

    /// Opens the socket for [`build_on`](Self::build_on): the only step that takes `CAP_NET_RAW`. It receives nothing
    /// yet.
    ///
    /// # Errors
    /// [`Error::InterfaceMissing`]; [`Error::Os`] if the kernel refuses.
    // A separate step inside of this crate, too: when the interface goes down and up, the kernel renumbers a group's
    // members in the order in which their sockets were created.
    pub fn open_socket(&self) -> Result<OwnedFd> {
        // A socket belongs to the namespace in which it is created, and all other requests go through the socket.
        let interface = self.interface.as_ref().ok_or(Error::InterfaceMissing)?;
        let open = || open_for(interface, self.promiscuous);
        let opened = match &self.netns {
            Some(netns) => netns.within(open),
            None => open(),
        };
        opened.map_err(|error| self.named(error))
    }

    /// Adds the interface's name to the error.
    fn named(&self, error: Error) -> Error {
        match &self.interface {
            Some(interface) => error.of(interface),
            None => error,
        }
    }

    /// Opens like [`build`](Self::build), but joins no group, and no packet gets in until
    /// [`open_intake`](Capture::open_intake).
    pub(crate) fn open_closed(&self, socket: OwnedFd) -> Result<Capture> {
        Plan::new(self)?.open(socket).map_err(|error| self.named(error))
    }
}

/// Checks a socket that others have opened: that it is a packet socket of no type that is `refused`, and unbound.
pub(super) fn check_passed(
    socket: BorrowedFd<'_>,
    refused: Option<(i32, &'static str)>,
    interface: &str,
) -> Result<()> {
    let is = |option| sockopt::get::<i32>(socket, option);
    let (domain, kind) = (is(sockopt::SOCKET_DOMAIN)?, is(sockopt::SOCKET_TYPE)?);
    let (of_type, of_wrong_type) = refused.unwrap_or((0, ""));
    let faults = [
        (domain != libc::AF_PACKET, "the socket is no packet socket; `open_socket` opens one"),
        (kind == of_type, of_wrong_type),
        (
            packet_socket::is_bound(socket),
            "the socket is bound, and may have packets of other interfaces; `open_socket` leaves it unbound",
        ),
    ];
    match faults.into_iter().find(|(is_so, _)| *is_so) {
        Some((_, why)) => {
            let interface = interface.to_owned();
            Err(Error::Unusable { option: "build_on", interface, why })
        }
        None => Ok(()),
    }
}

const COOKED_HAVE_NONE: &str = "cooked packets have none; leave the option out";

/// A checked plan of what to open; no request has been made to the kernel yet.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    options: &'a CaptureBuilder,
    interface: &'a Interface,
    geometry: RxGeometry,
}

/// Puts all interfaces of the calling thread's namespace into promiscuous mode for as long as the socket lives.
fn all_promiscuous(socket: BorrowedFd<'_>) -> Result<()> {
    let names = netdev::names();
    let names = names.map_err(|source| Error::os(Step::QueryInterface("name"), source))?;
    for name in names {
        // One that is gone by now needs nothing.
        let Ok(index) = Netdev(socket).index(&name) else { continue };
        match packet_socket::promiscuous(socket, index) {
            Err(error) if error.raw_os_error() != Some(libc::ENODEV) => return Err(error.of(name)),
            _ => {}
        }
    }
    Ok(())
}

/// Opens a socket in the calling thread's namespace: a cooked one if the headers of the interface's packets are not
/// known, or differ.
fn open_for(interface: &Interface, is_promiscuous: bool) -> Result<OwnedFd> {
    let name = match interface {
        Interface::Any => {
            let socket = packet_socket::open_cooked()?;
            if is_promiscuous {
                all_promiscuous(socket.as_fd())?;
            }
            return Ok(socket);
        }
        Interface::Named(name) => name,
    };
    let socket = packet_socket::open()?;
    match Netdev(socket.as_fd()).hardware(name) {
        Ok(kind) if LinkType::of_hardware(kind).is_none() => packet_socket::open_cooked(),
        // A failure to ask is reported by the next step.
        _ => Ok(socket),
    }
}

impl<'a> Plan<'a> {
    pub(super) fn new(options: &'a CaptureBuilder) -> Result<Self> {
        let interface = options.interface.as_ref().ok_or(Error::InterfaceMissing)?;
        let geometry = RxGeometry::new(options.sizes)?;
        if options.snap_len == Some(0) {
            return Err(GeometryError::NoSnapLen.into());
        }
        if options.offloads && geometry.layout() == RingLayout::Frames {
            return Err(GeometryError::OffloadsNeedBlocks.into());
        }
        let is_any = *interface == Interface::Any;
        let unusable = [
            (is_any && options.offloads, "offloads", COOKED_HAVE_NONE),
            (
                !is_any && !options.excluded.is_empty(),
                "exclude",
                "it is for captures on `any`; leave the option out",
            ),
        ];
        if let Some((_, option, why)) = unusable.into_iter().find(|(is_set, ..)| *is_set) {
            return Err(Error::Unusable { option, interface: interface.to_string(), why });
        }
        Ok(Self { options, interface, geometry })
    }

    /// Checks a socket that others have opened.
    fn check(&self, socket: BorrowedFd<'_>) -> Result<()> {
        let needs_cooked = match self.interface {
            Interface::Any => true,
            Interface::Named(name) => Netdev(socket)
                .hardware(name)
                .is_ok_and(|hardware| LinkType::of_hardware(hardware).is_none()),
        };
        let refused = match needs_cooked {
            true => Some((
                libc::SOCK_RAW,
                "the socket is of type SOCK_RAW; this takes SOCK_DGRAM, as from `open_socket`",
            )),
            false => None,
        };
        check_passed(socket, refused, self.interface.name())
    }

    /// Returns the geometry, with frames sized for the packets of the interface.
    fn geometry(&self, asker: Netdev<'_>) -> Result<RxGeometry> {
        let sizes = self.options.sizes;
        if sizes.layout == RingLayout::Blocks || sizes.frame_size.is_some() {
            return Ok(self.geometry);
        }
        let longest = match self.interface {
            // Interfaces with larger packets may appear later.
            Interface::Any => Ok(LONGEST_OF_ANY),
            Interface::Named(name) => {
                let longest = asker.longest_packet(name);
                let longest =
                    longest.map_err(|source| Error::os(Step::QueryInterface("MTU"), source));
                longest.map_err(|error| vanished(error, name))
            }
        }?;
        let most = self.options.snap_len.map_or(longest, |snap_len| longest.min(snap_len as usize));
        Ok(RxGeometry::new(sizes.for_packets_of(most))?)
    }

    /// Returns what no filter may let in.
    fn exclusions(&self, asker: Netdev<'_>) -> Result<Vec<Exclusion>> {
        let asks =
            self.options.effective_membership().is_some_and(|group| group.ignores_outgoing());
        let skips_outgoing = asks && !outgoing::are_left_out_by_groups();
        let outgoing = skips_outgoing.then_some(Ok(Exclusion::Outgoing));
        let excluded = self.options.excluded.iter().map(|excluded| match excluded {
            Excluded::Name(name) => Ok(Exclusion::Interface(index_of(asker.0, name)?)),
            Excluded::Hardware(kind) => Ok(Exclusion::Hardware(*kind)),
        });
        outgoing.into_iter().chain(excluded).collect()
    }

    /// Opens a capture on a fresh socket. Its intake is still closed, and it is in no group yet.
    pub(super) fn open(self, fd: OwnedFd) -> Result<Capture> {
        let Self { options, interface, .. } = self;
        let (asker, name) = (Netdev(fd.as_fd()), interface.name());
        let index = match interface {
            Interface::Any => packet_socket::ANY,
            Interface::Named(name) => index_of(fd.as_fd(), name)?,
        };
        let geometry = self.geometry(asker)?;
        // On `any`, some interfaces have a clock and others do not: packets say it (`Packet::clock`).
        if options.timestamp_source == TimestampSource::RawHardware && index != packet_socket::ANY {
            check_clock(asker, name)?;
        }
        set_version(fd.as_fd(), geometry.layout())?;
        let is_cooked = sockopt::get::<i32>(fd.as_fd(), sockopt::SOCKET_TYPE)? == libc::SOCK_DGRAM;
        if is_cooked && options.offloads {
            let (option, why) = ("offloads", COOKED_HAVE_NONE);
            return Err(Error::Unusable { option, interface: interface.to_string(), why });
        }
        set_options(fd.as_fd(), options)?;
        #[cfg(feature = "record")]
        if options.for_recording && index != packet_socket::ANY && !is_cooked {
            // The kernel puts the network header at a multiple of 16 bytes, behind one of 14.
            let is_ethernet = link_of(fd.as_fd(), name)? == LinkType::ETHERNET;
            let reserved = i32::from(is_ethernet && !options.offloads) * 2;
            sockopt::set(fd.as_fd(), sockopt::RESERVE, &reserved)?;
        }
        let mapping = create_ring(fd.as_fd(), &geometry, options.fill_rxhash)?;
        let decider = options.filter.clone().map_or(SocketFilter::AcceptAll, SocketFilter::Classic);
        let headers = match is_cooked {
            true => Headers::Cooked,
            false => Headers::Of(link_of(fd.as_fd(), name)?),
        };
        let intake = Intake::new(decider, options.snap_len, self.exclusions(asker)?, headers)?;
        let socket = Socket::new(fd, name.to_owned(), index, intake);
        socket.close_intake()?;
        packet_socket::bind(socket.as_fd(), index, packet_socket::ALL)
            .map_err(|error| vanished(error, name))?;
        // A down interface leaves ENETDOWN on the socket, which no later wait should report.
        packet_socket::take_error(socket.as_fd())?;
        if options.promiscuous && index != packet_socket::ANY {
            packet_socket::promiscuous(socket.as_fd(), index)?;
        }
        let malformed = Arc::clone(&socket.totals().malformed);
        let extras = Extras {
            rxhash: options.fill_rxhash && geometry.layout() == RingLayout::Blocks,
            offload: options.offloads,
            retag: options.vlan_reinsert,
            cooked: is_cooked,
        };
        let ring = RxRing::new(mapping, &geometry, extras, malformed);
        Ok(Capture::new(ring, Arc::new(socket), geometry.block_timeout()))
    }
}

pub(super) fn index_of(socket: BorrowedFd<'_>, name: &str) -> Result<u32> {
    Netdev(socket).index(name).map_err(|source| match source.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => Error::NoSuchInterface { name: name.to_owned() },
        _ => Error::os(Step::QueryInterface("index"), source),
    })
}

/// Returns an error if the interface has no clock that timestamps received packets.
fn check_clock(asker: Netdev<'_>, name: &str) -> Result<()> {
    // A driver that cannot be asked has no clock.
    match asker.rx_stamps(name).unwrap_or((false, false)) {
        (true, _) => Ok(()),
        (false, has_software) => {
            Err(Error::NoHardwareClock { name: name.to_owned(), has_software })
        }
    }
}

/// Returns the link-layer header of the interface's packets on a socket that is not cooked.
fn link_of(socket: BorrowedFd<'_>, name: &str) -> Result<LinkType> {
    let hardware = Netdev(socket).hardware(name);
    let hardware = hardware.map_err(|source| Error::os(Step::QueryInterface("kind"), source));
    let hardware = hardware.map_err(|error| vanished(error, name))?;
    Ok(LinkType::of_hardware(hardware).unwrap_or(LinkType::UNKNOWN))
}

pub(super) fn vanished(error: Error, name: &str) -> Error {
    match error.raw_os_error() {
        Some(libc::ENODEV) => Error::NoSuchInterface { name: name.to_owned() },
        _ => error,
    }
}

fn set_version(socket: BorrowedFd<'_>, layout: RingLayout) -> Result<()> {
    let version = match layout {
        RingLayout::Blocks => libc::tpacket_versions::TPACKET_V3,
        RingLayout::Frames => libc::tpacket_versions::TPACKET_V2,
    };
    sockopt::set(socket, sockopt::VERSION, &(version as i32))
}

fn set_options(socket: BorrowedFd<'_>, options: &CaptureBuilder) -> Result<()> {
    let stamps = match options.timestamp_source {
        TimestampSource::Software => None,
        TimestampSource::RawHardware => Some(libc::SOF_TIMESTAMPING_RAW_HARDWARE),
    };
    if let Some(stamps) = stamps {
        sockopt::set(socket, sockopt::TIMESTAMP, &(stamps as i32))?;
    }
    if options.ignore_outgoing && options.membership.is_none() {
        sockopt::set(socket, sockopt::IGNORE_OUTGOING, &1_i32)?;
    }
    if options.offloads {
        sockopt::set(socket, sockopt::VNET_HDR, &1_i32)?;
    }
    sockopt::set_busy_poll(socket, &options.busy_poll)?;
    if let Some(bytes) = options.rcvbuf {
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        if sockopt::try_set(socket, sockopt::RCVBUF_FORCE, &bytes).is_err() {
            sockopt::set(socket, sockopt::RCVBUF, &bytes)?;
        }
    }
    Ok(())
}

fn create_ring(
    socket: BorrowedFd<'_>,
    geometry: &RxGeometry,
    fill_rxhash: bool,
) -> Result<Mapping> {
    let option = sockopt::RX_RING;
    let created = match geometry.layout() {
        RingLayout::Blocks => {
            sockopt::try_set(socket, option, &geometry.block_request(fill_rxhash))
        }
        RingLayout::Frames => sockopt::try_set(socket, option, &geometry.frame_request()),
    };
    map_ring(socket, created, geometry.ring_bytes())
}

/// Maps a ring of `bytes` bytes; `created` is the result of creating it.
pub(super) fn map_ring(
    socket: BorrowedFd<'_>,
    created: io::Result<()>,
    bytes: usize,
) -> Result<Mapping> {
    created.map_err(|source| match source.raw_os_error() {
        Some(libc::ENOMEM) => Error::RingTooLarge { bytes, source },
        _ => Error::os(Step::CreateRing, source),
    })?;
    Mapping::of_ring(socket, bytes).map_err(|source| match source.raw_os_error() {
        Some(libc::ENOMEM | libc::EAGAIN) => Error::RingTooLarge { bytes, source },
        _ => Error::os(Step::MapRing, source),
    })
}
