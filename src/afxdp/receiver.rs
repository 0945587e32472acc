//! The receiving half: lends frames of the RX ring, and keeps the fill ring full.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bound::{Bound, of_its_queue};
use super::chunks::XdpChunks;
use crate::error::{Result, Step};
use crate::port::{Batches, Receive, RxPort};
use crate::ring::batch::PacketBatch;
use crate::ring::umem::{Chunk, FillHolder, Lending, Share, Umem};
use crate::ring::xsk_ring::{Consumer, Descriptor, Producer};
use crate::sys::event::{self, Interest};
use crate::sys::xdp;
use crate::wait::{Deadline, Empty, StopHandle};

/// The most frames that one batch lends.
const BATCH: u32 = 64;
/// How often a waiting reader checks that its interface still exists: nothing reports its removal.
const LIVENESS: Duration = Duration::from_millis(250);
/// How soon to look again for chunks to receive into, which are returned without notice.
const SHORT: Duration = Duration::from_micros(500);
const LONGEST: Duration = Duration::from_millis(16);
/// How long to wait for packets that were under way when the intake was closed.
const LATE: Duration = Duration::from_millis(2);

/// Receives the packets of one queue; half of an [`XdpSocket`](crate::XdpSocket), from
/// [`into_split`](crate::XdpSocket::into_split).
pub struct XdpReceiver {
    // Dropped before the socket: a mapped ring keeps the socket and its queue in use.
    rx: Consumer<Descriptor>,
    fill: Producer<u64>,
    entries: RxEntries,
    umem: Arc<Umem>,
    pub(super) bound: Arc<Bound>,
    share: u32,
    /// Number of all chunks; `leased` counts the chunks held by leases that have not come back.
    total: u32,
    leased: u32,
    stop: Option<StopHandle>,
    /// Time at which the intake was closed.
    closed: Option<Instant>,
    /// Whether it was stopped, and all packets have been delivered since.
    is_over: bool,
    /// How soon to look again while chunks are scarce.
    short: Duration,
    checked: Instant,
    sequence: u64,
}

/// Handles the entries of the RX ring.
#[derive(Debug)]
struct RxEntries {
    free: Vec<Chunk>,
    holder: FillHolder,
    /// A packet whose chunks have not all arrived yet.
    partial: Option<Partial>,
    /// Entries that name no chunk of this socket, or no bytes of one.
    malformed: u64,
}

#[derive(Debug)]
struct Partial {
    /// The chunk that stands for the packet; its other chunks are free again.
    first: Chunk,
    bytes: Vec<u8>,
    is_sound: bool,
}

/// A fill ring that gets its chunks before its socket is bound.
///
/// The driver of igb, and by reports those of i40e and ice, take the chunks that they find while setting up the
/// queue, and never look again if they find none.
pub(super) struct Filled {
    fill: Producer<u64>,
    share: Share,
    total: u32,
}

impl Filled {
    /// Gives a share's chunks to a ring.
    pub(super) fn new(mut fill: Producer<u64>, mut share: Share, umem: &Umem) -> Self {
        let total = share.chunks.len() as u32;
        let mut places = fill.places(total);
        while let Some(chunk) = share.chunks.pop() {
            match places.another() {
                Some(place) => place.fill(umem.give(chunk, share.holder.holder())),
                None => {
                    share.chunks.push(chunk);
                    break;
                }
            }
        }
        fill.publish();
        Self { fill, share, total }
    }

    /// Takes the chunks back if the socket could not be bound: a driver that refuses a queue keeps none of them.
    pub(super) fn take_back(self, umem: &Umem) -> Share {
        let Self { fill, mut share, .. } = self;
        drop(fill);
        umem.take_unseen(share.number, &mut share.holder, &mut share.chunks);
        share
    }

    /// Returns the number of its share.
    pub(super) fn share(&self) -> u32 {
        self.share.number
    }
}

impl XdpReceiver {
    pub(super) fn new(
        rx: Consumer<Descriptor>,
        filled: Filled,
        umem: Arc<Umem>,
        bound: Arc<Bound>,
    ) -> Self {
        let Filled { fill, share, total } = filled;
        let Share { number: share, chunks: free, holder } = share;
        let (leased, sequence) = Default::default();
        let (stop, closed) = (None, None);
        let entries = RxEntries { free, holder, partial: None, malformed: 0 };
        let mut receiver = Self {
            rx,
            fill,
            entries,
            umem,
            bound,
            share,
            total,
            leased,
            stop,
            closed,
            is_over: false,
            short: SHORT,
            checked: Instant::now(),
            sequence,
        };
        receiver.refill();
        receiver.wake_driver();
        receiver
    }

    /// Returns the next batch if one is ready; never waits. Makes no system call unless the driver must be woken.
    pub fn next_batch(&mut self) -> Option<PacketBatch> {
        if self.closed.is_none() && self.stop.as_ref().is_some_and(StopHandle::is_stopped) {
            self.bound.close_intake();
            self.closed = Some(Instant::now());
        }
        self.refill();
        let mut lending = Lending::new(&self.umem);
        let Self { rx, entries, .. } = self;
        // Repeat if only pieces of an incomplete packet came: no later wait would report the rest.
        while lending.len() == 0 && rx.is_ready() {
            rx.pop_each(BATCH, |descriptor| entries.lend(&mut lending, descriptor));
            rx.release();
        }
        if self.entries.malformed > 0 {
            self.bound.figures.rx_malformed.add(std::mem::take(&mut self.entries.malformed));
        }
        let count = lending.len();
        self.short = if count > 0 { SHORT } else { self.short };
        if count == 0 {
            self.is_over |= self.closed.is_some_and(|closed| closed.elapsed() >= LATE);
        }
        let lease = lending.lend(self.sequence + 1)?;
        self.sequence += 1;
        self.leased += count;
        self.bound.figures.delivered.add(count.into());
        self.bound.figures.batches.add(1);
        Some(PacketBatch::from_chunks(lease, self.bound.seen_now()))
    }

    /// Waits up to `timeout` for the next batch.
    ///
    /// Returns `None` if the time is up, or if a [`StopHandle`] has ended the socket and all packets are delivered.
    ///
    /// # Errors
    /// [`InterfaceGone`](crate::Error::InterfaceGone) within a quarter of a second after the interface was removed;
    /// [`Os`](crate::Error::Os) if waiting failed.
    pub fn next_batch_timeout(&mut self, timeout: Duration) -> Result<Option<PacketBatch>> {
        self.wait_for_batch(Deadline::after(timeout))
    }

    /// Returns an iterator over batches that waits for each.
    ///
    /// It ends after a [`StopHandle`] has stopped this half and all packets are delivered, or after an error.
    pub fn batches(&mut self) -> Batches<'_, Self> {
        Batches::new(self, |receiver| receiver.wait_for_batch(Deadline::never()))
    }

    /// Returns whether a [`StopHandle`] has ended this half and all packets are delivered. Until then, `None` from
    /// [`next_batch_timeout`](Self::next_batch_timeout) means that the time is up.
    pub fn is_ended(&self) -> bool {
        self.is_over
    }

    fn wait_for_batch(&mut self, mut deadline: Deadline) -> Result<Option<PacketBatch>> {
        loop {
            if let Some(batch) = self.next_batch() {
                return Ok(Some(batch));
            }
            let step = match self.when_empty()? {
                Empty::End => return Ok(None),
                Empty::Wait => None,
                Empty::WaitAtMost(step) => Some(step),
            };
            let left = deadline.left();
            let limit = [left, step].into_iter().flatten().min();
            let stop = StopHandle::interest(self.stop.as_ref(), self.closed.is_some());
            let [socket, _] = event::poll([Interest::Readable(self.bound.fd()), stop], limit)
                .map_err(|source| self.bound.failed(Step::Wait, source))?;
            if !socket.readable {
                self.check_link()?;
            }
            if left == Some(Duration::ZERO) {
                return Ok(self.next_batch()); // even the shortest wait has checked the socket
            }
        }
    }

    /// Returns a handle that ends this half from any thread.
    ///
    /// After a stop, the queue's packets go to the stack, and packets in the ring are still delivered.
    ///
    /// # Errors
    /// [`Os`](crate::Error::Os) if no descriptor is left.
    pub fn stop_handle(&mut self) -> Result<StopHandle> {
        if self.stop.is_none() {
            self.stop = Some(StopHandle::new()?);
        }
        Ok(self.stop.clone().expect("set just now"))
    }

    /// Gives all free chunks to the kernel.
    pub(super) fn refill(&mut self) {
        if self.is_short() {
            self.umem.gather_completions(); // chunks that were forwarded may have come back
        }
        self.bound.bring_home();
        let Self { entries: RxEntries { free, holder, .. }, leased, umem, fill, .. } = self;
        let before = fill.pushed();
        let mut places = fill.places(free.len() as u32 + *leased);
        while let Some(chunk) = free.pop() {
            match places.another() {
                Some(place) => place.fill(umem.give(chunk, holder.holder())),
                None => {
                    free.push(chunk);
                    break;
                }
            }
        }
        umem.take_returned(self.share, |returned| {
            *leased -= 1;
            match places.another() {
                Some(place) => place.fill(returned.give(holder.holder())),
                None => free.push(returned.keep()),
            }
        });
        if fill.pushed() == before {
            return;
        }
        self.fill.publish();
        self.wake_driver();
    }

    /// Makes the driver look at the fill ring if it sleeps.
    fn wake_driver(&self) {
        if self.fill.ring().needs_wakeup() {
            xdp::wake_fill(self.bound.fd());
        }
    }

    /// Returns whether most chunks are leased, or forwarded from leases.
    fn is_short(&self) -> bool {
        2 * self.leased >= self.total
    }

    /// Returns how many of its frames are in each place.
    pub fn chunks(&mut self) -> XdpChunks {
        let mut chunks = XdpChunks::default();
        self.count(&mut chunks);
        chunks
    }

    /// Adds the receiving half's counts of chunks.
    pub(super) fn count(&mut self, chunks: &mut XdpChunks) {
        self.refill();
        chunks.rx_free = self.entries.free.len() as u32;
        chunks.rx_leased = self.leased;
        chunks.rx_kernel = self.total - chunks.rx_free - self.leased;
        chunks.rx_rings = self.fill.outstanding() + self.rx.filled();
    }

    /// Lets packets in, for a socket that was opened closed.
    pub(crate) fn open_intake(&self) -> Result<()> {
        self.bound.open_intake()
    }

    pub(crate) fn share_stop(&mut self, stop: StopHandle) {
        self.stop = Some(stop);
    }
}

impl RxEntries {
    /// Adds the packet that a descriptor reports. If there is none, its chunk is free again at once.
    #[inline]
    fn lend(&mut self, lending: &mut Lending, descriptor: Descriptor) {
        let is_continued = descriptor.options & libc::XDP_PKT_CONTD != 0;
        if is_continued || self.partial.is_some() {
            self.gather(lending, descriptor, is_continued);
        } else if let Err(chunk) =
            lending.receive(descriptor.address, descriptor.len, &mut self.holder)
        {
            self.malformed += 1;
            self.free.extend(chunk);
        }
    }

    /// Adds one piece of a packet that spans several chunks.
    #[cold]
    fn gather(&mut self, lending: &mut Lending, descriptor: Descriptor, is_continued: bool) {
        let umem = lending.umem();
        let Some(chunk) = umem.take_received(descriptor.address, &mut self.holder) else {
            self.malformed += 1;
            return;
        };
        let offset = umem.offset_of(descriptor.address);
        let bytes = umem.bytes(&chunk, offset, descriptor.len).map(<[u8]>::to_vec);
        let (is_sound, bytes) = (bytes.is_some(), bytes.unwrap_or_default());
        match &mut self.partial {
            None => self.partial = Some(Partial { first: chunk, bytes, is_sound }),
            Some(partial) => {
                partial.bytes.extend_from_slice(&bytes);
                partial.is_sound &= is_sound;
                self.free.push(chunk);
            }
        }
        if !is_continued && let Some(Partial { first, bytes, is_sound }) = self.partial.take() {
            if is_sound {
                lending.push_gathered(first, &bytes);
            } else {
                self.malformed += 1;
                self.free.push(first);
            }
        }
    }
}

of_its_queue!(XdpReceiver, bound);

impl RxPort for XdpReceiver {
    fn stop_handle(&mut self) -> Result<StopHandle> {
        self.stop_handle()
    }

    fn known_stop(&self) -> Option<&StopHandle> {
        self.stop.as_ref()
    }
}

impl Receive for XdpReceiver {
    fn take(&mut self) -> Result<Option<PacketBatch>> {
        Ok(self.next_batch())
    }

    fn is_ready(&self) -> bool {
        self.rx.is_ready()
    }

    /// Returns what a reader must do after it found the ring empty.
    fn when_empty(&mut self) -> Result<Empty> {
        if let Some(closed) = self.closed {
            let left = LATE.saturating_sub(closed.elapsed());
            self.is_over |= left.is_zero();
            return Ok(if self.is_over { Empty::End } else { Empty::WaitAtMost(left) });
        }
        if self.stop.as_ref().is_some_and(StopHandle::is_stopped) {
            return Ok(Empty::WaitAtMost(Duration::ZERO)); // requested since the last check
        }
        if self.fill.ring().needs_wakeup() {
            // Also set after a driver found no memory, or a wake-up was lost.
            xdp::wake_fill(self.bound.fd());
        }
        if !self.is_short() {
            return Ok(Empty::WaitAtMost(LIVENESS));
        }
        self.short = (2 * self.short).min(LONGEST);
        Ok(Empty::WaitAtMost(self.short))
    }

    /// Checks from time to time whether the interface still exists.
    fn check_link(&mut self) -> Result<()> {
        if self.checked.elapsed() < LIVENESS {
            return Ok(());
        }
        self.checked = Instant::now();
        self.bound.check_link()
    }

    /// Always true: nothing reports that an interface is gone, so it is checked with every wait.
    fn must_check_link(&self) -> bool {
        true
    }
}

impl Drop for XdpReceiver {
    fn drop(&mut self) {
        self.bound.close_intake(); // the sender may keep the socket open
    }
}

impl AsFd for XdpReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bound.fd()
    }
}

impl AsRawFd for XdpReceiver {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for XdpReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XdpReceiver")
            .field("interface", &self.bound.name)
            .field("queue_id", &self.bound.queue)
            .finish_non_exhaustive()
    }
}
