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

use super::builder::{CaptureBuilder, TimestampSource};
use super::capture::{Capture, RxRing};
use super::gate::{Intake, SocketFilter};
use super::geometry::{RingLayout, RxGeometry};
use super::outgoing;
use super::socket::Socket;
use crate::error::{Error, GeometryError, Result, Step};
use crate::packet::LinkType;
use crate::ring::rx_features::Extras;
use crate::sys::netdev::Netdev;
use crate::sys::{Mapping, packet_socket, sockopt};
use crate::trace;

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
        let opening = trace::opening("capture", self.interface.as_deref());
        Plan::new(&self)?; // invalid options are reported before any request to the kernel
        let mut capture = self.open_closed(self.open_socket()?)?;
        if let Some(membership) = self.effective_membership() {
            capture.join(&membership).map_err(|error| self.named(error))?;
        }
        capture.open_intake().map_err(|error| self.named(error))?;
        opening.done();
        Ok(capture)
    }

    /// Opens the socket for [`open_closed`](Self::open_closed).
    ///
    /// This is a separate step: when the interface goes down and up, the kernel renumbers a group's members in the
    /// order in which their sockets were created.
    pub(crate) fn open_socket(&self) -> Result<OwnedFd> {
        // A socket belongs to the namespace in which it is created, and all other requests go through the socket.
        let opened = match &self.netns {
            Some(netns) => netns.within(packet_socket::open),
            None => packet_socket::open(),
        };
        opened.map_err(|error| self.named(error))
    }

    /// Adds the interface's name to the error.
    fn named(&self, error: Error) -> Error {
        match &self.interface {
            Some(name) => error.of(name),
            None => error,
        }
    }

    /// Opens like [`build`](Self::build), but joins no group, and no packet gets in until
    /// [`open_intake`](Capture::open_intake).
    pub(crate) fn open_closed(&self, socket: OwnedFd) -> Result<Capture> {
        Plan::new(self)?.open(socket).map_err(|error| self.named(error))
    }
}

/// A checked plan of what to open; no request has been made to the kernel yet.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    options: &'a CaptureBuilder,
    name: &'a str,
    geometry: RxGeometry,
}

impl<'a> Plan<'a> {
    pub(super) fn new(options: &'a CaptureBuilder) -> Result<Self> {
        let name = options.interface.as_deref().ok_or(Error::InterfaceMissing)?;
        let geometry = RxGeometry::new(options.sizes)?;
        if options.snap_len == Some(0) {
            return Err(GeometryError::NoSnapLen.into());
        }
        if options.offloads && geometry.layout() == RingLayout::Frames {
            return Err(GeometryError::OffloadsNeedBlocks.into());
        }
        Ok(Self { options, name, geometry })
    }

    /// Returns the geometry, with frames sized for the packets of the interface.
    fn geometry(&self, asker: Netdev<'_>) -> Result<RxGeometry> {
        let sizes = self.options.sizes;
        if sizes.layout == RingLayout::Blocks || sizes.frame_size.is_some() {
            return Ok(self.geometry);
        }
        let longest = asker.longest_packet(self.name);
        let longest = longest.map_err(|source| Error::os(Step::QueryInterface("MTU"), source));
        let longest = longest.map_err(|error| vanished(error, self.name))?;
        let most = self.options.snap_len.map_or(longest, |snap_len| longest.min(snap_len as usize));
        Ok(RxGeometry::new(sizes.for_packets_of(most))?)
    }

    /// Opens a capture on a fresh socket. Its intake is still closed, and it is in no group yet.
    pub(super) fn open(self, fd: OwnedFd) -> Result<Capture> {
        let Self { options, name, .. } = self;
        let index = index_of(fd.as_fd(), name)?;
        let geometry = self.geometry(Netdev(fd.as_fd()))?;
        if options.timestamp_source == TimestampSource::RawHardware {
            check_clock(Netdev(fd.as_fd()), name)?;
        }
        set_version(fd.as_fd(), geometry.layout())?;
        set_options(fd.as_fd(), options)?;
        let mapping = create_ring(fd.as_fd(), &geometry, options.fill_rxhash)?;
        let decider = options.filter.clone().map_or(SocketFilter::AcceptAll, SocketFilter::Classic);
        let asks = options.effective_membership().is_some_and(|group| group.ignores_outgoing());
        let skips_outgoing = asks && !outgoing::are_left_out_by_groups();
        let link = link_of(fd.as_fd(), name)?;
        let intake = Intake::new(decider, options.snap_len, skips_outgoing, link)?;
        let socket = Socket::new(fd, name.to_owned(), index, intake);
        socket.close_intake()?;
        packet_socket::bind(socket.as_fd(), index, packet_socket::ALL)
            .map_err(|error| vanished(error, name))?;
        // A down interface leaves ENETDOWN on the socket, which no later wait should report.
        packet_socket::take_error(socket.as_fd())?;
        if options.promiscuous {
            packet_socket::promiscuous(socket.as_fd(), index)?;
        }
        let malformed = Arc::clone(&socket.totals().malformed);
        let extras = Extras {
            rxhash: options.fill_rxhash && geometry.layout() == RingLayout::Blocks,
            offload: options.offloads,
            retag: options.vlan_reinsert,
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

/// Returns the link-layer header of the interface's packets.
fn link_of(socket: BorrowedFd<'_>, name: &str) -> Result<Option<LinkType>> {
    let hardware = Netdev(socket).hardware(name);
    let hardware = hardware.map_err(|source| Error::os(Step::QueryInterface("kind"), source));
    Ok(LinkType::of_hardware(hardware.map_err(|error| vanished(error, name))?))
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
