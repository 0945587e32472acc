//! A capture: the blocking reader, and the base of the async one.

use std::fmt;
use std::iter::FusedIterator;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use ringtap_filter::BpfFilter;

use super::fanout::{JoinError, Membership};
use super::gate::SocketFilter;
use super::geometry::{RingLayout, RxGeometry};
use super::socket::{FilterHandle, Link, Socket, StatsHandle};
use crate::error::{Error, Result, Step};
use crate::packet::LinkType;
use crate::port::{Batches, Receive, RxPort};
use crate::ring::batch::PacketBatch;
use crate::ring::block::BlockRing;
use crate::ring::captured::{CapturedPacket, IntoPackets};
use crate::ring::rx_features::Extras;
use crate::ring::slot::FrameRing;
use crate::stats::CaptureStats;
use crate::sys::event::{self, Interest};
use crate::sys::{Mapping, cbpf};
use crate::trace;
use crate::wait::{Deadline, Empty, StopHandle};

/// How often a waiting reader checks an interface that is down: its removal is not reported.
const LINK_CHECK: Duration = Duration::from_millis(100);

/// Extra time for draining, beyond what the kernel's timer needs.
const DRAIN_SLACK: Duration = Duration::from_millis(250);

/// Captures the packets of one interface through a shared-memory ring.
///
/// The ring consists of TPACKET_V3 blocks or TPACKET_V2 frames ([`RingLayout`](crate::capture::RingLayout)).
///
/// ```no_run
/// # fn main() -> ringtap::Result<()> {
/// let mut capture = ringtap::Capture::open("eth0")?;
/// for batch in capture.batches() {
///     for packet in &batch? {
///         println!("{} {} bytes", packet.timestamp(), packet.len());
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// Reading a ready block costs no system call. Batches are owned: you can hold several, send them to other threads,
/// drop them in any order, and keep them after the capture is gone.
///
/// Dropping the capture closes its socket and leaves its fanout group at once.
///
/// After a `fork`, parent and child share the ring, and both would return its blocks: continue to use it in only
/// one of them.
pub struct Capture {
    // Dropped first: a mapped ring keeps its socket open.
    ring: RxRing,
    pub(super) socket: Arc<Socket>,
    block_timeout: Duration,
    group: Option<u16>,
    link: Link,
    /// Deadline for the last packets of an interface that is gone.
    gone: Option<Instant>,
    stop: Option<StopHandle>,
    phase: Phase,
}

/// Progress of a capture towards its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// The intake is closed; the ring has not been found empty yet.
    Draining,
    /// The ring is empty. Holds the deadline for the kernel to hand over the last block, and since when all packets
    /// seem to be delivered, if they do.
    Settling(Instant, Option<Instant>),
    Ended,
}

impl Capture {
    pub(super) fn new(ring: RxRing, socket: Arc<Socket>, block_timeout: Duration) -> Self {
        let link = if socket.is_up() { Link::Up } else { Link::Down };
        Self {
            ring,
            socket,
            block_timeout,
            group: None,
            link,
            gone: None,
            stop: None,
            phase: Phase::Running,
        }
    }

    /// Returns the next batch if one is ready; never waits. `None` does not mean the end: [`is_ended`](Self::is_ended)
    /// tells. Errors are only reported by the methods that wait.
    ///
    /// This makes no system call until a [`StopHandle`] was used.
    #[inline]
    pub fn next_batch(&mut self) -> Option<PacketBatch> {
        // An error here recurs, and is reported, in the methods that wait.
        let _ = self.heed_stop();
        let batch = self.take_ready();
        if batch.is_none() && self.phase != Phase::Running {
            let _ = self.when_empty(); // which notices the end
        }
        batch
    }

    #[inline]
    fn take_ready(&mut self) -> Option<PacketBatch> {
        let batch = self.ring.take()?;
        if self.socket.totals().count_batch(batch.len() as u64, batch.is_losing()) {
            let _ = self.socket.stats(); // a failure shows at the next reading
        }
        Some(batch)
    }

    /// Waits up to `timeout` for the next batch.
    ///
    /// Returns `None` if the time is up, or if a [`StopHandle`] has ended the capture and all packets are delivered
    /// ([`is_ended`](Self::is_ended)).
    ///
    /// Signals do not end the wait. While the newest batch is still held, the kernel keeps reporting it as ready,
    /// so this method checks every few milliseconds instead of sleeping.
    ///
    /// # Errors
    /// [`Error::InterfaceGone`] once the interface was removed and its last packets are delivered; [`Error::Os`] if
    /// waiting failed. An interface that is down is not an error.
    pub fn next_batch_timeout(&mut self, timeout: Duration) -> Result<Option<PacketBatch>> {
        // A timeout too large for the clock means no timeout.
        self.wait_for_batch(Deadline::after(timeout))
    }

    /// Returns an iterator over batches that waits for each.
    ///
    /// It ends after a [`StopHandle`] has stopped the capture and all packets are delivered, or after an error.
    pub fn batches(&mut self) -> Batches<'_, Self> {
        Batches::new(self, |capture| capture.wait_for_batch(Deadline::never()))
    }

    /// Returns an iterator over packets that waits for each. It ends as [`batches`](Self::batches) does.
    ///
    /// ```no_run
    /// # fn main() -> ringtap::Result<()> {
    /// let mut capture = ringtap::Capture::open("eth0")?;
    /// for packet in capture.packets().take(100) {
    ///     let packet = packet?;
    ///     println!("{} {} bytes", packet.timestamp(), packet.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Each packet owns a share of its batch; nothing is copied. Iterating over batches is cheaper, as it needs no
    /// reference counting.
    pub fn packets(&mut self) -> CapturedPackets<'_> {
        CapturedPackets { batches: self.batches(), current: None }
    }

    /// Returns a handle that ends this capture from another thread. All handles of a capture act as one.
    ///
    /// After [`stop`](StopHandle::stop), no further packet gets in. The packets in the ring are still delivered,
    /// including the last partial block, and then the batches end. Thus all packets already counted are either
    /// delivered or dropped: [`CaptureStats::pending`] is 0.
    ///
    /// # Errors
    /// [`Error::Os`] if there is no descriptor left for it.
    pub fn stop_handle(&mut self) -> Result<StopHandle> {
        if self.stop.is_none() {
            self.stop = Some(StopHandle::new()?);
        }
        Ok(self.stop.clone().expect("set just now"))
    }

    /// Returns whether a [`StopHandle`] has ended the capture and all its packets are delivered.
    pub fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Returns the running totals. Makes one system call and resets nothing.
    ///
    /// # Errors
    /// [`Error::Os`] if the kernel refuses `PACKET_STATISTICS`.
    pub fn stats(&self) -> Result<CaptureStats> {
        self.socket.stats()
    }

    /// Returns a handle to read the statistics from other threads.
    pub fn stats_handle(&self) -> StatsHandle {
        StatsHandle::new(&self.socket)
    }

    /// Returns the name of the interface, as it was when the capture was opened.
    pub fn interface(&self) -> &str {
        self.socket.name()
    }

    /// Returns the type of header that packets begin with. On an interface whose headers are of an unknown kind, and on
    /// `any`, it is [`LinkType::LINUX_SLL2`].
    ///
    /// Capture files need it: `CaptureWriter::builder().interface(FileInterface::new(link))`.
    pub fn link_type(&self) -> LinkType {
        self.socket.link_type()
    }

    /// Returns the id of the fanout group, if this capture is in one.
    pub fn fanout_group(&self) -> Option<u16> {
        self.group
    }

    /// Returns the size of the ring in bytes.
    pub fn ring_len(&self) -> usize {
        self.ring.ring_len()
    }

    /// Returns the interface's index, which stays the same if the interface is renamed.
    pub(crate) fn interface_index(&self) -> u32 {
        self.socket.index()
    }

    pub(crate) fn join(&mut self, membership: &Membership) -> Result<()> {
        let joined = membership.join(self.socket.as_fd()).map_err(|error| match error {
            JoinError::Refused(source) => {
                let interface_up = self.socket.is_up();
                Error::Fanout { group: membership.group, source, interface_up }
            }
            JoinError::Other(error) => error,
        });
        self.group = Some(joined?);
        Ok(())
    }

    pub(crate) fn open_intake(&self) -> Result<()> {
        self.socket.open_intake()
    }

    /// Returns the socket, which keeps its place in the fanout group while it is held.
    pub(crate) fn anchor(&self) -> Arc<Socket> {
        Arc::clone(&self.socket)
    }

    /// Uses an existing handle, which may stop several captures.
    pub(crate) fn share_stop(&mut self, stop: StopHandle) {
        self.stop = Some(stop);
    }

    fn heed_stop(&mut self) -> Result<()> {
        if self.phase == Phase::Running && self.stop.as_ref().is_some_and(StopHandle::is_stopped) {
            self.socket.close_intake()?;
            self.phase = Phase::Draining;
        }
        Ok(())
    }

    /// The time that the kernel's timer needs to retire a partial block: one to two timeouts.
    fn drain_time(&self) -> Duration {
        2 * self.block_timeout + DRAIN_SLACK
    }

    fn wait_for_batch(&mut self, mut deadline: Deadline) -> Result<Option<PacketBatch>> {
        let mut fruitless = 0;
        loop {
            if let Some(batch) = self.take()? {
                return Ok(Some(batch));
            }
            let step = match self.when_empty()? {
                Empty::End => return Ok(None),
                Empty::Wait => None,
                Empty::WaitAtMost(step) => Some(step),
            };
            let left = deadline.left();
            let limit = [left, step].into_iter().flatten().min();
            fruitless = if self.wait(limit, fruitless)? { fruitless + 1 } else { 0 };
            if left == Some(Duration::ZERO) {
                return self.take(); // even the shortest wait has checked the socket
            }
        }
    }

    /// Waits for the socket or the stop event.
    ///
    /// `fruitless` is the number of preceding waits that reported the socket readable although there was no batch.
    /// Returns whether this wait counts as another one.
    ///
    /// "Readable" means that the newest retired block has not been returned yet. While a lease holds that block,
    /// `poll(2)` always returns at once; so every other wait is a pause that watches for errors only.
    fn wait(&mut self, limit: Option<Duration>, fruitless: u32) -> Result<bool> {
        let is_pause = fruitless % 2 == 1;
        let (socket, limit) = if is_pause {
            let pause = RETRY * (1 << (fruitless / 2).min(3));
            (
                Interest::Error(self.socket.as_fd()),
                Some(limit.map_or(pause, |most| most.min(pause))),
            )
        } else {
            (Interest::Readable(self.socket.as_fd()), limit)
        };
        let stop = StopHandle::interest(self.stop.as_ref(), self.phase != Phase::Running);
        let [socket, _] = event::poll([socket, stop], limit)
            .map_err(|source| Error::os(Step::Wait, source).of(self.interface()))?;
        if socket.error || self.link == Link::Down {
            self.check_link()?;
        }
        Ok(socket.readable || is_pause)
    }
}

impl Capture {
    /// Replaces the filter, also while packets come in.
    ///
    /// Each packet is judged by either the new or the old filter, never by neither. Accepted packets are all
    /// counted, filtered ones are not. Packets already in the ring stay there. A packet that is being judged on
    /// another core while this method returns may still be judged by the old filter.
    ///
    /// # Errors
    /// [`Error::Filter`](crate::Error::Filter) if the interface is not Ethernet and its packets do not have what
    /// the filter tests. [`Error::Os`](crate::Error::Os) if the kernel refuses: with `EPERM` if the filter is
    /// locked; with `ENOMEM` if the new and the old filter together exceed what a socket may have
    /// (`net.core.optmem_max`: the default of 128 KiB allows about 1700 instructions each). The old filter stays in
    /// place.
    pub fn set_filter(&self, filter: &BpfFilter) -> Result<()> {
        self.socket.set_decider(SocketFilter::Classic(filter.clone()))
    }

    /// Removes the filter: all packets pass from now on.
    ///
    /// # Errors
    /// The errors of [`set_filter`](Self::set_filter).
    pub fn clear_filter(&self) -> Result<()> {
        self.socket.set_decider(SocketFilter::AcceptAll)
    }

    /// Replaces the filter with a loaded eBPF program, which returns how many bytes to keep of each packet.
    ///
    /// The program has the type `BPF_PROG_TYPE_SOCKET_FILTER` and is loaded with, for example, aya or libbpf.
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) if it is not such a program; also the errors of
    /// [`set_filter`](Self::set_filter).
    pub fn attach_ebpf_filter(&self, program: OwnedFd) -> Result<()> {
        self.socket.set_decider(SocketFilter::Extended(Arc::new(program)))
    }

    /// Lets a loaded eBPF program choose the member of the fanout group that gets a packet.
    ///
    /// The group must be in the mode [`FanoutMode::Ebpf`](crate::fanout::FanoutMode::Ebpf).
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) if it is not a socket-filter program, or the group is in another mode.
    pub fn attach_fanout_ebpf(&self, program: &OwnedFd) -> Result<()> {
        cbpf::fanout_extended(self.socket.as_fd(), program)
            .map_err(|error| error.of(self.interface()))
    }

    /// Locks the filter for as long as the socket lives: not even root can change it (`SO_LOCK_FILTER`, socket(7)).
    ///
    /// A capture with a locked filter cannot close its intake: when stopped, it delivers what is in its ring and
    /// what comes in within two block timeouts.
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) if the kernel refuses.
    pub fn lock_filter(&self) -> Result<()> {
        self.socket.lock_filter()
    }

    /// Returns a handle to change the filter from other threads, or while an [`AsyncCapture`](crate::AsyncCapture)
    /// owns the capture.
    pub fn filter_handle(&self) -> FilterHandle {
        FilterHandle::new(&self.socket)
    }
}

impl RxPort for Capture {
    fn stop_handle(&mut self) -> Result<StopHandle> {
        self.stop_handle()
    }

    fn known_stop(&self) -> Option<&StopHandle> {
        self.stop.as_ref()
    }
}

impl Receive for Capture {
    /// Takes the next batch. If a stop was requested, the intake is closed first, so a reader that always finds
    /// work ends too.
    fn take(&mut self) -> Result<Option<PacketBatch>> {
        self.heed_stop()?;
        Ok(self.take_ready())
    }

    fn is_ready(&self) -> bool {
        self.ring.is_ready()
    }

    /// Returns what a reader must do after it found the ring empty.
    fn when_empty(&mut self) -> Result<Empty> {
        if !self.stop.as_ref().is_some_and(StopHandle::is_stopped) {
            return Ok(match self.link {
                Link::Up => Empty::Wait,
                Link::Down => Empty::WaitAtMost(LINK_CHECK),
            });
        }
        self.heed_stop()?;
        let now = Instant::now();
        let (until, seemed_over) = match self.phase {
            Phase::Settling(until, since) => (until, since),
            Phase::Ended => return Ok(Empty::End),
            Phase::Running | Phase::Draining => (now + self.drain_time(), None),
        };
        // Check twice, a moment apart: a packet that had passed the old filter when the intake was closed may still
        // be counted.
        let seems_over = self.stats()?.pending() == 0;
        let since = seems_over.then(|| seemed_over.unwrap_or(now));
        let is_over = since.is_some_and(|since| now.duration_since(since) >= RETRY);
        if is_over || now >= until {
            self.phase = Phase::Ended;
            return Ok(Empty::End);
        }
        self.phase = Phase::Settling(until, since);
        let step = if seems_over { RETRY } else { self.block_timeout.clamp(RETRY, LINK_CHECK) };
        Ok(Empty::WaitAtMost(step))
    }

    /// Checks the link: after an error was reported, and from time to time while the link is down.
    ///
    /// A missing interface is an error only once its last packets are delivered; the kernel needs a little time for
    /// that.
    fn check_link(&mut self) -> Result<()> {
        match self.socket.check_link() {
            Ok(link) if link != self.link => {
                trace::link(self.interface(), link == Link::Up);
                self.link = link;
            }
            Ok(_) => {}
            Err(error @ Error::InterfaceGone { .. }) => {
                if self.gone.is_none() {
                    trace::gone(self.interface());
                }
                let until = *self.gone.get_or_insert(Instant::now() + self.drain_time());
                if self.stats()?.pending() == 0 || Instant::now() >= until {
                    return Err(error);
                }
                self.link = Link::Down;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn must_check_link(&self) -> bool {
        self.link == Link::Down
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if self.ring.has_leases() {
            // Their bytes are about to be copied: nothing may come in meanwhile. A failure needs a kernel out of
            // memory, and costs only bytes that nobody can read any more.
            let _ = self.socket.close_intake();
        }
    }
}

/// The pause between two checks if waiting would spin.
const RETRY: Duration = Duration::from_millis(1);

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Capture {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture")
            .field("interface", &self.interface())
            .field("fanout_group", &self.group)
            .field("ring_len", &self.ring_len())
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

/// An iterator that waits for each packet of a capture; from [`Capture::packets`].
#[derive(Debug)]
pub struct CapturedPackets<'a> {
    batches: Batches<'a, Capture>,
    current: Option<IntoPackets>,
}

impl Iterator for CapturedPackets<'_> {
    type Item = Result<CapturedPacket>;

    fn next(&mut self) -> Option<Result<CapturedPacket>> {
        loop {
            if let Some(packet) = self.current.as_mut().and_then(IntoPackets::next) {
                return Some(Ok(packet));
            }
            self.current = None; // before the wait, so that the kernel gets its block back
            match self.batches.next()? {
                Ok(batch) => self.current = Some(batch.into_packets()),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl FusedIterator for CapturedPackets<'_> {}

/// The most frames that one batch lends.
const BATCH_FRAMES: usize = 64;

/// The ring of a capture.
#[derive(Debug)]
pub(super) enum RxRing {
    Blocks(BlockRing),
    Frames(FrameRing),
}

impl RxRing {
    pub(super) fn new(
        mapping: Mapping,
        geometry: &RxGeometry,
        extras: Extras,
        malformed: Arc<AtomicU64>,
    ) -> Self {
        match geometry.layout() {
            RingLayout::Blocks => {
                Self::Blocks(BlockRing::new(mapping, geometry.block_size(), extras, malformed))
            }
            RingLayout::Frames => Self::Frames(FrameRing::new(
                mapping,
                geometry.slots(),
                extras,
                BATCH_FRAMES,
                malformed,
            )),
        }
    }

    /// Takes the next batch if there is one. Makes no system call.
    #[inline]
    pub(super) fn take(&mut self) -> Option<PacketBatch> {
        match self {
            Self::Blocks(ring) => ring.take().map(PacketBatch::from_block),
            Self::Frames(ring) => ring.take().map(PacketBatch::from_frames),
        }
    }

    /// Returns whether [`take`](Self::take) would find a batch.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Blocks(ring) => ring.is_ready(),
            Self::Frames(ring) => ring.is_ready(),
        }
    }

    pub(super) fn has_leases(&self) -> bool {
        match self {
            Self::Blocks(ring) => ring.has_leases(),
            Self::Frames(ring) => ring.has_leases(),
        }
    }

    /// Bytes of the ring.
    pub(super) fn ring_len(&self) -> usize {
        match self {
            Self::Blocks(ring) => ring.ring_len(),
            Self::Frames(ring) => ring.ring_len(),
        }
    }
}
