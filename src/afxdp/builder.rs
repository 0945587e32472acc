//! Options of an AF_XDP socket.

use std::ops::RangeInclusive;

use super::bound::XdpUmem;
use super::metadata::Asks;
use super::nic::queue_count;
use super::program::{Attach, XdpProgram};
use super::socket::XdpSocket;
use crate::error::{Error, GeometryError, Result};
use crate::options::BusyPoll;

/// The halves that a socket has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Halves {
    Rx,
    Tx,
    Both,
}

/// Whether packets are copied between the driver and the UMEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CopyMode {
    /// Zero-copy if the driver supports it, otherwise copy; [`XdpSocket::is_zerocopy`] tells which.
    #[default]
    Auto,
    /// Packets are copied.
    Copy,
    /// Zero-copy, or an error.
    ZeroCopy,
}

/// Whether the UMEM is in huge pages (`MAP_HUGETLB`).
///
/// Huge pages save the card's driver and the copying kernel most of the page tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum HugePages {
    /// Pages of the usual size.
    #[default]
    No,
    /// Huge pages if there are enough; [`XdpSocket::has_huge_pages`] tells.
    Try,
    /// Huge pages, or an error.
    Require,
}

/// Whether frames may leave a checksum to be computed; see [`XdpTxSlot::set_checksum`](crate::xdp::XdpTxSlot).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TxChecksum {
    /// No checksum offload; frames keep their full capacity.
    #[default]
    Off,
    /// Checksums computed by the card, or by the kernel in copy mode if the card cannot.
    ///
    /// On veth nothing computes them: the far end is told that they are still missing.
    Card,
    /// Checksums computed by the kernel (`XDP_UMEM_TX_SW_CSUM`); for tests, and only if packets are copied.
    Software,
}

/// The number of frames that a UMEM may have. The kernel would accept more, and the memory they need.
const FRAMES: RangeInclusive<u32> = 64..=1 << 16;
/// Bytes that must be left of a frame: the kernel's own headroom, the end of an skb, and a minimal frame.
const NOT_HEADROOM: u32 = 1024;

impl XdpSocket {
    /// Opens queue 0 of an interface with the default options.
    ///
    /// # Errors
    /// The errors of [`XdpSocketBuilder::build`].
    pub fn open(interface: &str) -> Result<Self> {
        Self::builder().interface(interface).build()
    }

    /// Returns a builder for a socket with custom options.
    pub fn builder() -> XdpSocketBuilder {
        XdpSocketBuilder::new()
    }
}

/// Builds an [`XdpSocket`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct XdpSocketBuilder {
    pub(super) interface: Option<String>,
    queue: Option<u32>,
    pub(super) frame_size: u32,
    frame_count: u32,
    pub(super) headroom: u32,
    pub(super) halves: Halves,
    /// Frames of each half, if they are not shared out evenly.
    custom: Option<(u32, u32)>,
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
    pub(super) shared: Option<XdpUmem>,
    /// Whether no packets come in until the owner opens the intake.
    pub(super) is_closed: bool,
}

impl XdpSocketBuilder {
    pub(super) fn new() -> Self {
        Self {
            interface: None,
            queue: None,
            frame_size: 4096,
            frame_count: 4096,
            headroom: 0,
            halves: Halves::Both,
            custom: None,
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

    /// Sets the interface. Required.
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.interface = Some(name.into());
        self
    }

    /// Sets the queue, counted from 0. Default: 0.
    pub fn queue_id(mut self, queue: u32) -> Self {
        self.queue = Some(queue);
        self
    }

    /// Sets the bytes of a frame: 2048 or 4096. Default: 4096. The kernel keeps 256 of them free before a packet.
    pub fn frame_size(mut self, bytes: u32) -> Self {
        self.frame_size = bytes;
        self
    }

    /// Sets the number of frames of the UMEM: a power of two from 64 to 65,536. Default: 4096, which is 16 MiB.
    ///
    /// A socket with both halves uses half of them for each; a socket with a single half uses all of them.
    ///
    /// With [`shared_umem`](Self::shared_umem) this value is ignored: the number with which that UMEM's first
    /// socket was built applies.
    pub fn frame_count(mut self, frames: u32) -> Self {
        self.frame_count = frames;
        self
    }

    /// Sets the numbers of frames to receive into and to send from, for a socket with both halves. Default: half of
    /// [`frame_count`](Self::frame_count) each.
    pub fn rx_tx_frames(mut self, rx_frames: u32, tx_frames: u32) -> Self {
        self.custom = Some((rx_frames, tx_frames));
        self
    }

    /// Sets whether packets are copied. Default: only if the driver does not support zero-copy.
    pub fn copy_mode(mut self, mode: CopyMode) -> Self {
        self.copy_mode = mode;
        self
    }

    /// Sets whether the driver may sleep until it is woken (`XDP_USE_NEED_WAKEUP`). Default: true.
    pub fn need_wakeup(mut self, on: bool) -> Self {
        self.need_wakeup = on;
        self
    }

    /// Sets how the program that this socket loads is attached. Default: in the driver if possible, otherwise in
    /// the stack.
    pub fn attach(mut self, attach: Attach) -> Self {
        self.attach = attach;
        self
    }

    /// Sets the program: one shared by the sockets of several queues, or a custom one. Default: a program that
    /// redirects all packets.
    pub fn program(mut self, program: XdpProgram) -> Self {
        self.program = Some(program);
        self
    }

    /// Sets the bytes that the kernel leaves free before each packet it writes, in addition to its own 256; at most
    /// the frame size minus 1024. Default: 0.
    pub fn headroom(mut self, bytes: u32) -> Self {
        self.headroom = bytes;
        self
    }

    /// Sets the microseconds to busy-poll the device before sleeping (`SO_BUSY_POLL`, socket(7)). Default: the
    /// system's value.
    ///
    /// Busy polling lowers latency at the cost of CPU time. It needs a driver with NAPI; a value above the system's
    /// default needs `CAP_NET_ADMIN`.
    pub fn busy_poll_us(mut self, us: u32) -> Self {
        self.busy_poll.us = Some(us);
        self
    }

    /// Sets whether busy polling is preferred to interrupts (`SO_PREFER_BUSY_POLL`, Linux 5.11). Default: the
    /// system's value.
    pub fn prefer_busy_poll(mut self, on: bool) -> Self {
        self.busy_poll.prefer = Some(on);
        self
    }

    /// Sets the packets that one busy poll may process (`SO_BUSY_POLL_BUDGET`, Linux 5.11). Default: the system's
    /// value.
    pub fn busy_poll_budget(mut self, packets: u16) -> Self {
        self.busy_poll.budget = Some(packets);
        self
    }

    /// Sets whether the interface accepts packets for other hosts while the socket is open. Default: false.
    pub fn promiscuous(mut self, on: bool) -> Self {
        self.promiscuous = on;
        self
    }

    /// Sets whether the UMEM is in huge pages. Default: no.
    pub fn huge_pages(mut self, choice: HugePages) -> Self {
        self.huge_pages = choice;
        self
    }

    /// Sets the NUMA node of the UMEM's memory, preferably that of the card
    /// (`/sys/class/net/<interface>/device/numa_node`). Default: the node of the thread that first touches the
    /// memory.
    pub fn numa_node(mut self, node: u32) -> Self {
        self.numa_node = Some(node);
        self
    }

    /// Sets whether a packet may span several frames (`XDP_USE_SG`, Linux 6.6), for MTUs beyond a frame, in both
    /// directions. Default: false.
    ///
    /// Such a packet is copied into one piece when it is received. Without this option, a packet that is too long
    /// is dropped, and counted in [`XdpStats::rx_dropped`](crate::stats::XdpStats::rx_dropped). A program set with
    /// [`program`](Self::program) must have been attached for multi-buffer packets too.
    pub fn multi_buffer(mut self, on: bool) -> Self {
        self.multi_buffer = on;
        self
    }

    /// Sets whether frames may leave a checksum to be computed (Linux 6.8). Default: off. This uses 24 bytes of
    /// each frame.
    pub fn tx_checksum(mut self, choice: TxChecksum) -> Self {
        self.tx_checksum = choice;
        self
    }

    /// Sets whether transmit timestamps are requested for frames; see
    /// [`XdpSender::read_tx_timestamp`](crate::xdp::XdpSender::read_tx_timestamp) (Linux 6.8). Default: false.
    ///
    /// This uses 24 bytes of each frame, no more than [`tx_checksum`](Self::tx_checksum) alone.
    pub fn tx_timestamps(mut self, on: bool) -> Self {
        self.tx_timestamps = on;
        self
    }

    /// Sets the number of sockets that the UMEM is for, including this one. Default: 1.
    ///
    /// The UMEM gets the requested frames once per socket. The other sockets are built with
    /// [`shared_umem`](Self::shared_umem).
    pub fn umem_shares(mut self, sockets: u32) -> Self {
        self.shares = sockets;
        self
    }

    /// Uses the UMEM of another socket, on another queue or interface: [`XdpSocket::umem`].
    ///
    /// That socket must have been built for several sockets ([`umem_shares`](Self::umem_shares)), and must still be
    /// open. Its options determine the number of frames, their size, headroom, checksums, timestamps and memory,
    /// whether packets span several frames, and whether drivers copy and are woken. A packet received by one of the
    /// sockets can be sent by another without a copy ([`XdpSocket::send_batch`]).
    ///
    /// A share is used up by the socket that takes it, even after that socket is closed.
    pub fn shared_umem(mut self, umem: &XdpUmem) -> Self {
        self.shared = Some(umem.clone());
        self
    }

    /// Builds a socket that gets no packets until [`XdpReceiver::open_intake`](super::XdpReceiver::open_intake).
    pub(crate) fn closed(mut self) -> Self {
        self.is_closed = true;
        self
    }

    /// Returns the program to use: the one that was set, or one that is attached now.
    pub(crate) fn attach_program(&self) -> Result<XdpProgram> {
        let name = self.interface.as_deref().ok_or(Error::InterfaceMissing)?;
        match &self.program {
            Some(program) => Ok(program.clone()),
            None if self
                .shared
                .as_ref()
                .map_or(self.multi_buffer, |shared| shared.multi_buffer) =>
            {
                XdpProgram::redirect_multi_buffer(name, self.attach)
            }
            None => XdpProgram::redirect_all(name, self.attach),
        }
    }

    /// Returns whether a program was set.
    pub(super) fn has_program(&self) -> bool {
        self.program.is_some()
    }

    /// Returns the number of receive queues of its interface; `None` if it is not known.
    pub(crate) fn queue_count(&self) -> Result<Option<u32>> {
        queue_count(self.interface.as_deref().ok_or(Error::InterfaceMissing)?)
    }

    /// Returns whether a queue was set.
    pub(crate) fn names_a_queue(&self) -> bool {
        self.queue.is_some()
    }

    /// Returns the queue.
    pub(super) fn queue(&self) -> u32 {
        self.queue.unwrap_or(0)
    }

    pub(crate) fn no_such_queue(&self, queue: u32, count: u32) -> Error {
        Error::NoSuchQueue { name: self.interface.clone().unwrap_or_default(), queue, count }
    }

    /// Returns the numbers of frames to receive into, and to send from.
    pub(super) fn frames(&self) -> (u32, u32) {
        let count = self.shared.as_ref().map_or(self.frame_count, |shared| shared.umem.share_len());
        match (self.halves, self.custom) {
            (Halves::Rx, _) => (count, 0),
            (Halves::Tx, _) => (0, count),
            (Halves::Both, Some(custom)) => custom,
            (Halves::Both, None) => (count / 2, count / 2),
        }
    }

    /// Returns the requests that frames may make, in bytes that precede them.
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
        let is_custom = self.custom.is_some() && self.halves == Halves::Both;
        let is_even = is_custom || frame_count.is_power_of_two();
        let all = frame_count.saturating_mul(self.shares as usize);
        let is_in_bounds = |count: usize| u32::try_from(count).is_ok_and(|n| FRAMES.contains(&n));
        if !is_even || !is_in_bounds(frame_count) || !is_in_bounds(all) {
            return Err(GeometryError::ChunkCount { frame_count, shares: self.shares as usize });
        }
        if self.halves == Halves::Both && (rx == 0 || tx == 0) {
            return Err(GeometryError::EmptyHalf);
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
