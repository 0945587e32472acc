//! Options of an AF_XDP socket.

use std::ops::RangeInclusive;

use super::bound::SharedUmem;
use super::metadata::Asks;
use super::nic::queue_count;
use super::program::{Attach, XdpProgram};
use super::socket::XdpSocket;
use crate::error::{Error, GeometryError, Result};
use crate::options::BusyPoll;

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum XdpMode {
    /// Receiving: all frames of the UMEM.
    Rx,
    /// Sending: all frames of the UMEM. Needs no right but `CAP_NET_RAW`, and no program, except where a driver sends without
    /// copies only beside one; a `program` that is given is kept attached.
    Tx,
    /// Both: half of the frames each.
    #[default]
    RxTx,
    /// Both, with so many frames each, instead of [`frame_count`](XdpSocketBuilder::frame_count).
    Custom {
        /// Frames to receive into.
        rx_frames: u32,
        /// Frames to send from.
        tx_frames: u32,
    },
}

impl XdpMode {
    /// Of `count` frames, how many to receive into, and to send from.
    fn share_out(self, count: u32) -> (u32, u32) {
        match self {
            Self::Rx => (count, 0),
            Self::Tx => (0, count),
            Self::RxTx => (count / 2, count / 2),
            Self::Custom { rx_frames, tx_frames } => (rx_frames, tx_frames),
        }
    }
}

/// Whether packets are copied between the driver and the UMEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CopyMode {
    /// Not where the driver can do without; [`XdpSocket::is_zerocopy`] says.
    #[default]
    Auto,
    /// Copied.
    Copy,
    /// Not copied, or an error.
    ZeroCopy,
}

/// Whether the UMEM is in huge pages (`MAP_HUGETLB`), which spares the card's driver and the copying kernel most
/// of the page tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum HugePages {
    /// In pages of the usual size.
    #[default]
    No,
    /// In huge pages if there are enough; [`XdpSocket::has_huge_pages`] says.
    Try,
    /// In huge pages, or an error.
    Require,
}

/// Whether frames may leave a checksum to be computed; see [`XdpTxSlot::set_checksum`](crate::xdp::XdpTxSlot).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TxChecksum {
    /// They may not, and have all of their bytes for themselves.
    #[default]
    Off,
    /// By the card, or by the kernel where the driver copies and cannot. On veth, by nobody: the far end is told
    /// that it is still to do.
    Card,
    /// By the kernel (`XDP_UMEM_TX_SW_CSUM`); for tests, and only where packets are copied.
    Software,
}

/// The most frames of a UMEM: the kernel takes more, and the memory for them.
const FRAMES: RangeInclusive<u32> = 64..=1 << 16;
/// What must be left of a frame: the kernel's own headroom, the end of an skb, and a least frame.
const NOT_HEADROOM: u32 = 1024;

impl XdpSocket {
    /// Opens queue 0 of an interface with the default options.
    ///
    /// # Errors
    /// As [`XdpSocketBuilder::build`].
    pub fn open(interface: &str) -> Result<Self> {
        Self::builder().interface(interface).build()
    }

    /// Options first.
    pub fn builder() -> XdpSocketBuilder {
        XdpSocketBuilder::new()
    }
}

/// Builds an [`XdpSocket`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct XdpSocketBuilder {
    pub(super) interface: Option<String>,
    pub(super) queue: u32,
    pub(super) frame_size: u32,
    frame_count: u32,
    pub(super) headroom: u32,
    mode: XdpMode,
    pub(super) copy_mode: CopyMode,
    pub(super) need_wakeup: bool,
    pub(super) attach: Attach,
    pub(super) program: Option<XdpProgram>,
    pub(super) busy_poll: BusyPoll,
    pub(super) promiscuous: bool,
    pub(super) huge_pages: HugePages,
    pub(super) numa_node: Option<u32>,
    pub(super) multi_buffer: bool,
    pub(super) tx_checksum: TxChecksum,
    tx_timestamps: bool,
    pub(super) shares: u32,
    pub(super) shared: Option<SharedUmem>,
    /// Whether no packets come in until its owner says so.
    pub(super) is_closed: bool,
}

impl XdpSocketBuilder {
    pub(super) fn new() -> Self {
        Self {
            interface: None,
            queue: 0,
            frame_size: 4096,
            frame_count: 4096,
            headroom: 0,
            mode: XdpMode::default(),
            copy_mode: CopyMode::default(),
            need_wakeup: true,
            attach: Attach::default(),
            program: None,
            busy_poll: BusyPoll::default(),
            promiscuous: false,
            huge_pages: HugePages::default(),
            numa_node: None,
            multi_buffer: false,
            tx_checksum: TxChecksum::default(),
            tx_timestamps: false,
            shares: 1,
            shared: None,
            is_closed: false,
        }
    }

    /// The interface. Required.
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.interface = Some(name.into());
        self
    }

    /// The queue, from 0. Default 0.
    pub fn queue_id(mut self, queue: u32) -> Self {
        self.queue = queue;
        self
    }

    /// Bytes of a frame: 2048 or 4096. Default 4096. The kernel keeps 256 of them free before a packet.
    pub fn frame_size(mut self, bytes: u32) -> Self {
        self.frame_size = bytes;
        self
    }

    /// Frames of the UMEM: a power of two from 64 to 65,536. Default 4096, which is 16 MiB. With
    /// [`shared_umem`](Self::shared_umem) it is what that UMEM's first socket was built with.
    pub fn frame_count(mut self, frames: u32) -> Self {
        self.frame_count = frames;
        self
    }

    /// What it is for. Default both.
    pub fn mode(mut self, mode: XdpMode) -> Self {
        self.mode = mode;
        self
    }

    /// Whether packets are copied. Default only where the driver cannot do without.
    pub fn copy_mode(mut self, mode: CopyMode) -> Self {
        self.copy_mode = mode;
        self
    }

    /// Whether the driver may sleep and be woken (`XDP_USE_NEED_WAKEUP`). Default true.
    pub fn need_wakeup(mut self, on: bool) -> Self {
        self.need_wakeup = on;
        self
    }

    /// How the program is attached that this socket brings. Default in the driver, if it can.
    pub fn attach(mut self, attach: Attach) -> Self {
        self.attach = attach;
        self
    }

    /// A program for sockets of several queues to share, or of one's own. Default one that redirects all.
    pub fn program(mut self, program: XdpProgram) -> Self {
        self.program = Some(program);
        self
    }

    /// Bytes that the kernel leaves free before each packet it writes, beyond its own 256; up to the frame's
    /// size less 1024. Default 0.
    pub fn headroom(mut self, bytes: u32) -> Self {
        self.headroom = bytes;
        self
    }

    /// Microseconds to busy-poll the device before sleeping (`SO_BUSY_POLL`, socket(7)): latency for CPU. Needs a driver with
    /// NAPI, and `CAP_NET_ADMIN` above the system's default. Default the system's.
    pub fn busy_poll_us(mut self, us: u32) -> Self {
        self.busy_poll.us = Some(us);
        self
    }

    /// Whether busy polling is preferred to interrupts (`SO_PREFER_BUSY_POLL`, Linux 5.11). Default the system's.
    pub fn prefer_busy_poll(mut self, on: bool) -> Self {
        self.busy_poll.prefer = Some(on);
        self
    }

    /// Packets that one busy poll may process (`SO_BUSY_POLL_BUDGET`, Linux 5.11). Default the system's.
    pub fn busy_poll_budget(mut self, packets: u16) -> Self {
        self.busy_poll.budget = Some(packets);
        self
    }

    /// Whether the interface takes in packets for others too, as long as the socket lives. Default false.
    pub fn promiscuous(mut self, on: bool) -> Self {
        self.promiscuous = on;
        self
    }

    /// Whether the UMEM is in huge pages. Default no.
    pub fn huge_pages(mut self, choice: HugePages) -> Self {
        self.huge_pages = choice;
        self
    }

    /// The NUMA node that the UMEM's memory comes from, best the card's
    /// (`/sys/class/net/<interface>/device/numa_node`). Default the one of the thread that first touches it.
    pub fn numa_node(mut self, node: u32) -> Self {
        self.numa_node = Some(node);
        self
    }

    /// Whether a packet may take several frames (`XDP_USE_SG`, Linux 6.6): for MTUs beyond a frame, both ways.
    /// Such a packet is copied together when it is received. Default false: one that is too long is dropped,
    /// and counted in [`XdpStats::rx_dropped`](crate::stats::XdpStats::rx_dropped).
    ///
    /// With [`program`](Self::program), that must have been attached for it too.
    pub fn multi_buffer(mut self, on: bool) -> Self {
        self.multi_buffer = on;
        self
    }

    /// Whether frames may leave a checksum to be computed (Linux 6.8). Default off. It takes 24 bytes of each
    /// frame.
    pub fn tx_checksum(mut self, choice: TxChecksum) -> Self {
        self.tx_checksum = choice;
        self
    }

    /// Whether frames are asked about when they were sent; see
    /// [`XdpSender::read_tx_timestamp`](crate::xdp::XdpSender::read_tx_timestamp) (Linux 6.8). Default false. It takes
    /// 24 bytes of each frame, no more than with [`tx_checksum`](Self::tx_checksum) alone.
    pub fn tx_timestamps(mut self, on: bool) -> Self {
        self.tx_timestamps = on;
        self
    }

    /// How many sockets the UMEM is for, this one counted: it gets so many times the frames asked for. The
    /// others are built with [`shared_umem`](Self::shared_umem). Default 1.
    pub fn umem_shares(mut self, sockets: u32) -> Self {
        self.shares = sockets;
        self
    }

    /// Uses the UMEM of another socket, which was built for several
    /// ([`umem_shares`](Self::umem_shares)), and is still open: on another queue or interface. How many frames
    /// there are, their size, headroom, checksums, timestamps and memory, whether packets take several of them, and whether
    /// drivers copy and are woken, is as it was said there. What one of them receives another can send without
    /// copying it ([`XdpSocket::send_batch`]).
    ///
    /// A share is spent by the socket that takes it, also when that is closed.
    pub fn shared_umem(mut self, other: &XdpSocket) -> Self {
        self.shared = Some(other.lend_umem());
        self
    }

    /// As this, but no packets come in until [`XdpReceiver::open_intake`](super::XdpReceiver::open_intake).
    pub(crate) fn closed(mut self) -> Self {
        self.is_closed = true;
        self
    }

    /// The program to use, if one was given, and else one that is attached now.
    pub(crate) fn attach_program(&self) -> Result<XdpProgram> {
        let name = self.interface.as_deref().ok_or(Error::InterfaceMissing)?;
        match &self.program {
            Some(program) => Ok(program.clone()),
            None if self.multi_buffer => XdpProgram::redirect_multi_buffer(name, self.attach),
            None => XdpProgram::redirect_all(name, self.attach),
        }
    }

    /// Whether a program was given.
    pub(super) fn has_program(&self) -> bool {
        self.program.is_some()
    }

    /// Whether there are frames to receive into.
    pub(crate) fn receives(&self) -> bool {
        self.frames().0 > 0
    }

    /// The receive queues of its interface; `None` where nobody says.
    pub(crate) fn queue_count(&self) -> Result<Option<u32>> {
        queue_count(self.interface.as_deref().ok_or(Error::InterfaceMissing)?)
    }

    /// Whether it is for another queue than the first.
    pub(crate) fn names_a_queue(&self) -> bool {
        self.queue != 0
    }

    pub(crate) fn no_such_queue(&self, queue: u32, count: u32) -> Error {
        Error::NoSuchQueue { name: self.interface.clone().unwrap_or_default(), queue, count }
    }

    /// Frames to receive into, and to send from.
    pub(super) fn frames(&self) -> (u32, u32) {
        let count = self.shared.as_ref().map_or(self.frame_count, |shared| shared.umem.share_len());
        self.mode.share_out(count)
    }

    /// What frames may ask for, in bytes that precede them.
    pub(super) fn asks(&self) -> Asks {
        let checksums = self.tx_checksum != TxChecksum::Off;
        Asks { checksums, timestamps: self.tx_timestamps }
    }

    pub(super) fn check(&self) -> Result<(), GeometryError> {
        let (frame_size, headroom) = (self.frame_size as usize, self.headroom as usize);
        if !matches!(self.frame_size, 2048 | 4096) {
            return Err(GeometryError::ChunkSize { frame_size });
        }
        let (rx, tx) = self.frames();
        let frame_count = rx as usize + tx as usize;
        if self.shared.as_ref().is_some_and(|shared| shared.bound.strong_count() == 0) {
            return Err(GeometryError::NoSharedSocket);
        }
        let is_custom = matches!(self.mode, XdpMode::Custom { .. });
        let is_even = is_custom || frame_count.is_power_of_two();
        let all = frame_count.saturating_mul(self.shares as usize);
        let is_in_bounds = |count: usize| u32::try_from(count).is_ok_and(|n| FRAMES.contains(&n));
        if !is_even || !is_in_bounds(frame_count) || !is_in_bounds(all) {
            return Err(GeometryError::ChunkCount { frame_count, shares: self.shares as usize });
        }
        if self.headroom > self.frame_size - NOT_HEADROOM {
            return Err(GeometryError::Headroom { headroom, frame_size });
        }
        match &self.shared {
            Some(shared) if shared.umem.share_len() != rx + tx => {
                let share = shared.umem.share_len() as usize;
                Err(GeometryError::ShareMismatch { frame_count, share })
            }
            _ => Ok(()),
        }
    }
}
