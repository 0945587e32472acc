//! The sending half: frames are written into chunks, which come back once they are sent.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

use super::bound::{Bound, Figures, of_its_queue};
use super::chunks::XdpChunks;
use super::metadata::{self, Asks, Checksum, Stamps};
use crate::error::{Error, Result, Step};
use crate::packet::{Framing, TxTimestamp};
use crate::port::{Transmit, TryFlush, TxPort};
use crate::ring::umem::{Chunk, CompletionCounts, Completions, Holder, Taken, Umem};
use crate::ring::xsk_ring::{Consumer, Descriptor, Producer};
use crate::stats::XdpStats;
use crate::sys::packet_socket;
use crate::trace;
use crate::wait::{Backoff, KickOutcome, Stall};

/// The most chunks that one packet may span (`MAX_SKB_FRAGS` and the head, net/xdp/xsk.c).
const MOST_PIECES: usize = 18;

/// Sends frames through one queue; half of an [`XdpSocket`](crate::XdpSocket), from
/// [`into_split`](crate::XdpSocket::into_split).
pub struct XdpSender {
    // Dropped before the socket: a mapped ring keeps the socket and its queue in use.
    pub(super) tx: Producer<Descriptor>,
    completions: Arc<Completions>,
    free: Vec<Chunk>,
    pub(super) umem: Arc<Umem>,
    pub(super) bound: Arc<Bound>,
    /// Entries that were committed and have not come back.
    under_way: u32,
    framing: Framing,
    mtu: u32,
    /// The result of [`most`](Self::most) for this MTU.
    most: usize,
    pub(super) options: TxOptions,
    holder: Holder,
    stamps: Option<Stamps>,
    /// Frames added to the ring that the kernel does not see yet.
    unpublished: u64,
}

/// The options with which a sender was opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct TxOptions {
    /// Whether a frame may span several chunks.
    pub(super) multi_buffer: bool,
    /// The requests that frames may make.
    pub(super) asks: Asks,
    /// Whether the driver tells when it must be kicked.
    pub(super) is_told_to_kick: bool,
}

impl XdpSender {
    pub(super) fn new(
        tx: Producer<Descriptor>,
        completion: Consumer<u64>,
        (share, free): (u32, Vec<Chunk>),
        (umem, bound): (Arc<Umem>, Arc<Bound>),
        options: TxOptions,
    ) -> Result<Self> {
        let first = free.first().map_or(0, Chunk::number);
        let own = first..first + free.len() as u32;
        let stamps = options.asks.timestamps.then(|| Stamps::new(&own));
        let completions = Arc::new(Completions::new(completion, own, share));
        umem.register(&completions);
        bound.keep(&completions);
        let (framing, mtu) = (bound.framing, bound.mtu()?);
        let mut sender = Self {
            tx,
            completions,
            free,
            umem,
            bound,
            under_way: 0,
            framing,
            mtu,
            most: 0,
            options,
            holder: Holder::tx(share),
            stamps,
            unpublished: 0,
        };
        sender.most = sender.most();
        Ok(sender)
    }

    /// Returns a free frame to write `len` bytes into.
    ///
    /// Returns `None` if no frame is free (see [`flush`](Self::flush)), or if `len` exceeds
    /// [`frame_capacity`](Self::frame_capacity). Makes no system call. The frame still contains its previous bytes.
    #[inline]
    #[doc(alias = "allocate")]
    pub fn reserve(&mut self, len: usize) -> Option<XdpTxSlot<'_>> {
        (len <= self.frame_capacity() && self.has_room(len)).then(|| XdpTxSlot::new(self, len))
    }

    /// Commits a copy of `frame`; kicks and waits if there is no room.
    ///
    /// # Errors
    /// [`Error::FrameLength`]; if there is no room, also the errors of [`flush`](Self::flush).
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.check_len(frame.len())?;
        self.press(|sender| sender.has_room(frame.len()), None)?;
        self.copy(frame);
        self.publish();
        Ok(())
    }

    /// Hands every committed frame to the kernel, waiting for room in the interface's queue as long as it takes.
    ///
    /// [`flush_timeout`](Self::flush_timeout) has a limit.
    ///
    /// # Errors
    /// [`Error::LinkDown`] while the interface is down: the frames are sent with the first flush after it is up.
    /// [`Error::InterfaceGone`]; [`Error::Os`] otherwise.
    pub fn flush(&mut self) -> Result<()> {
        self.press(|sender| sender.tx.outstanding() == 0, None).map(drop)
    }

    /// Flushes for at most `timeout`. Returns whether the kernel has taken every frame; the others stay committed.
    ///
    /// # Errors
    /// The errors of [`flush`](Self::flush).
    pub fn flush_timeout(&mut self, timeout: Duration) -> Result<bool> {
        let deadline = Instant::now().checked_add(timeout);
        self.press(|sender| sender.tx.outstanding() == 0, deadline)
    }

    /// Hands over committed frames without ever waiting; see [`TxPort::try_flush`].
    ///
    /// # Errors
    /// The errors of [`TxPort::try_flush`].
    pub fn try_flush(&mut self) -> Result<TryFlush> {
        TxPort::try_flush(self)
    }

    /// Hands every committed frame to the kernel and waits up to `timeout` until all have come back. Returns
    /// whether they came back in time.
    ///
    /// # Errors
    /// The errors of [`flush`](Self::flush).
    pub fn drain(&mut self, timeout: Duration) -> Result<bool> {
        self.press(Self::is_drained, Instant::now().checked_add(timeout))
    }

    /// Returns the next transmit timestamp, if one has arrived. Makes no system call.
    ///
    /// This requires [`tx_timestamps`](crate::xdp::XdpSocketBuilder::tx_timestamps). A card's timestamp uses the
    /// card's own clock, and some drivers have none. In copy mode, the kernel takes the timestamp when the frame
    /// leaves its hands, from `CLOCK_TAI` (`xsk_destruct_skb`, net/xdp/xsk.c): ahead of UTC by the leap seconds, if
    /// the system knows them.
    ///
    /// Timestamps arrive with the frames' completions. As many are kept as there are frames; beyond that, the
    /// oldest are dropped. A frame that is forwarded in place has no timestamp, but counts in the numbering. A
    /// frame that the kernel took and dropped ([`XdpStats::send_failed`]) has both a number and a timestamp.
    pub fn read_tx_timestamp(&mut self) -> Option<TxTimestamp> {
        self.stamps.as_ref()?;
        self.reclaim();
        self.stamps.as_mut()?.read()
    }

    /// Returns the most bytes of a frame that is written in place.
    #[inline]
    pub fn frame_capacity(&self) -> usize {
        (self.umem.chunk_size() - self.umem.prefix()) as usize
    }

    /// Returns the length of the longest frame that can be sent now, in bytes, not counting a tag.
    pub fn max_frame_len(&self) -> usize {
        self.most_in_chunks().min(self.framing.longest(self.mtu as usize))
    }

    fn most_in_chunks(&self) -> usize {
        let most = if self.options.multi_buffer { MOST_PIECES } else { 1 };
        most.min(self.completions.own().len()) * self.frame_capacity()
    }

    /// Returns the number of committed frames that the kernel has not begun to send.
    pub fn pending(&mut self) -> usize {
        self.reclaim();
        // Linux 5.10 updates its position in the ring only once it has taken everything, but the frames it has sent
        // are back.
        self.tx.outstanding_frames().min(self.under_way) as usize
    }

    /// Returns whether the TX ring has `count` free entries.
    #[inline]
    pub(super) fn has_entries(&mut self, count: usize) -> bool {
        self.tx.vacant(count as u32) as usize >= count
    }

    pub(crate) fn check_len(&mut self, len: usize) -> Result<()> {
        if !self.fits(len) {
            self.learn_mtu(); // it may have been raised
        }
        if self.fits(len) {
            return Ok(());
        }
        let (least, most) = (self.framing.least, self.most());
        Err(Error::FrameLength { len, least, most })
    }

    /// Counts frames that will not be committed.
    pub(super) fn count_refused(&self, count: u64) {
        self.bound.figures.not_forwarded.add(count);
    }

    pub(super) fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.bound.figures)
    }

    #[inline]
    pub(super) fn fits(&self, len: usize) -> bool {
        (self.framing.least..=self.most).contains(&len)
    }

    pub(super) fn learn_mtu(&mut self) {
        if let Ok(mtu) = self.bound.mtu() {
            self.mtu = mtu;
            self.most = self.most();
        }
    }

    /// Writes a copy of a frame, for which there must be room, into as many chunks as needed.
    pub(crate) fn copy(&mut self, frame: &[u8]) {
        let (prefix, capacity) = (self.umem.prefix() as usize, self.frame_capacity());
        let mut asked = self.ask(None);
        let mut pieces = frame.chunks(capacity).peekable();
        while let Some(piece) = pieces.next() {
            let mut chunk = self.free.pop().expect("there is room");
            self.umem.bytes_mut(&mut chunk)[prefix..][..piece.len()].copy_from_slice(piece);
            let continued = if pieces.peek().is_some() { libc::XDP_PKT_CONTD } else { 0 };
            let options = std::mem::take(&mut asked) | continued;
            let address = self.umem.give(chunk, self.holder) + prefix as u64;
            self.push(Descriptor { address, len: piece.len() as u32, options });
        }
        self.unpublished += 1;
    }

    /// Copies a frame like [`copy`](Self::copy) if `keep`, which may change it, returns true. Returns whether it
    /// did.
    pub(super) fn copy_if(
        &mut self,
        frame: &[u8],
        keep: &mut impl FnMut(&mut [u8]) -> bool,
    ) -> bool {
        if frame.len() > self.frame_capacity() {
            let mut whole = frame.to_vec();
            let is_kept = keep(&mut whole);
            if is_kept {
                self.copy(&whole);
            }
            return is_kept;
        }
        let vacant = self.vacant_bytes(frame.len());
        vacant.copy_from_slice(frame);
        let is_kept = keep(vacant);
        if is_kept {
            let options = self.ask(None);
            self.push_vacant(frame.len(), options);
        }
        is_kept
    }

    /// Writes requests like [`ask`](Self::ask), for a frame of `len` bytes whose request may be invalid.
    fn ask_for(&mut self, len: usize, checksum: Option<Checksum>) -> Result<u32> {
        if let Some(Checksum { start, offset }) = checksum {
            if !self.options.asks.checksums {
                return Err(Error::OffloadsDisabled);
            }
            // The kernel would stop at such a frame for good.
            if usize::from(start) + usize::from(offset) + 2 > len {
                return Err(Error::ChecksumOutside { start, offset, len });
            }
        }
        Ok(self.ask(checksum))
    }

    /// Writes the requests of the next frame before it, and returns the options of its descriptor.
    fn ask(&mut self, checksum: Option<Checksum>) -> u32 {
        if checksum.is_none() && self.stamps.is_none() {
            return 0;
        }
        let chunk = self.free.last_mut().expect("there is room");
        let number = chunk.number();
        let before = &mut self.umem.bytes_mut(chunk)[..metadata::LEN];
        metadata::write(before, checksum, self.stamps.as_mut().map(|stamps| (stamps, number)))
    }

    #[inline]
    fn push_vacant(&mut self, len: usize, options: u32) {
        let chunk = self.free.pop().expect("reserved");
        let address = self.umem.give(chunk, self.holder) + u64::from(self.umem.prefix());
        self.push(Descriptor { address, len: len as u32, options });
        self.unpublished += 1;
    }

    /// Adds a frame that was received into this UMEM, without moving it.
    pub(super) fn push_in_place(&mut self, frame: Taken) {
        let address = self.umem.give(frame.chunk, self.holder) + u64::from(frame.offset);
        self.push(Descriptor { address, len: frame.len, options: 0 });
        if let Some(stamps) = &mut self.stamps {
            stamps.pass();
        }
        self.unpublished += 1;
    }

    #[inline]
    fn push(&mut self, descriptor: Descriptor) {
        self.tx.push(descriptor);
        self.under_way += 1;
    }

    /// Commits the added frames: the kernel sees them now.
    #[inline]
    pub(crate) fn publish(&mut self) {
        if self.unpublished > 0 {
            self.tx.publish();
            self.bound.figures.committed.add(std::mem::take(&mut self.unpublished));
        }
    }

    /// Takes back frames that were sent, and returns the number of entries.
    pub(super) fn reclaim(&mut self) -> u32 {
        let before = self.free.len();
        let back = self.completions.take(&self.umem, &mut self.free);
        if let Some(stamps) = &mut self.stamps {
            for chunk in &self.free[before..] {
                let metadata = self.umem.bytes(chunk, 0, metadata::LEN as u32);
                stamps.collect(chunk.number(), metadata.expect("within the prefix"));
            }
        }
        let CompletionCounts { entries, malformed } = back;
        self.under_way = self.under_way.saturating_sub(entries);
        self.bound.figures.tx_malformed.add(malformed);
        entries
    }

    /// Returns how many of its frames are in each place.
    pub fn chunks(&mut self) -> XdpChunks {
        let mut chunks = XdpChunks::default();
        self.count(&mut chunks);
        chunks
    }

    /// Hands over committed frames, waits up to `timeout` until they have come back, closes this half and returns the
    /// final statistics.
    ///
    /// Returns early on an error, such as a link that is down. [`abandoned`](XdpStats::abandoned) counts the frames
    /// that the kernel had not taken. In contrast, dropping this half hands over only what the kernel takes at
    /// once, and does not wait.
    ///
    /// # Errors
    /// [`Error::Os`] if the kernel refuses `XDP_STATISTICS`.
    pub fn close(mut self, timeout: Duration) -> Result<XdpStats> {
        // An error shows in the count of abandoned frames.
        let _ = self.drain(timeout);
        let stats = self.stats_handle();
        drop(self);
        stats.stats()
    }

    /// Adds the sending half's counts of chunks.
    pub(super) fn count(&mut self, chunks: &mut XdpChunks) {
        self.reclaim();
        chunks.tx_free = self.free.len() as u32;
        chunks.tx_kernel = self.completions.own().len() as u32 - chunks.tx_free;
        chunks.tx_under_way = self.under_way;
    }

    pub(crate) fn count_kick(&self) {
        self.bound.figures.kicks.add(1);
    }

    /// Kicks and waits until `is_so` holds. Returns whether it holds in time.
    pub(super) fn press(
        &mut self,
        is_so: impl Fn(&mut Self) -> bool,
        deadline: Option<Instant>,
    ) -> Result<bool> {
        let mut backoff = Backoff::new();
        while !is_so(self) {
            let KickOutcome { stall, has_progressed } = self.kick()?;
            if has_progressed {
                backoff = Backoff::new();
            }
            if is_so(self) {
                break;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
            match stall {
                Stall::Link => return Err(Error::LinkDown { name: self.bound.name.clone() }),
                Stall::Again => {}
                // Nothing reports a completion.
                Stall::Done | Stall::Buffer | Stall::Queue => backoff.sleep(),
            }
        }
        Ok(true)
    }
}

of_its_queue!(XdpSender, bound);

impl TxPort for XdpSender {
    /// Returns the most bytes of a frame with a tag.
    fn most(&self) -> usize {
        self.most_in_chunks().min(self.framing.longest_tagged(self.mtu as usize))
    }

    /// Returns whether there is room now for a frame of `len` bytes.
    #[inline]
    fn has_room(&mut self, len: usize) -> bool {
        let capacity = self.frame_capacity();
        let pieces = if len <= capacity { 1 } else { len.div_ceil(capacity) };
        if self.free.len() < pieces {
            self.reclaim();
        }
        self.free.len() >= pieces && self.has_entries(pieces)
    }

    fn pending(&mut self) -> usize {
        self.pending()
    }

    /// Returns whether everything that was committed has come back.
    fn is_drained(&mut self) -> bool {
        self.reclaim();
        self.under_way == 0
    }
}

impl Transmit for XdpSender {
    type Extra = Option<Checksum>;

    /// Kicks once, if there is anything to hand over, and returns the outcome.
    fn kick(&mut self) -> Result<KickOutcome> {
        if self.tx.outstanding() == 0 {
            let has_progressed = self.reclaim() > 0;
            return Ok(KickOutcome { stall: Stall::Done, has_progressed });
        }
        let is_awake = self.options.is_told_to_kick && !self.tx.ring().needs_wakeup();
        if is_awake {
            return self.judge(Ok(()));
        }
        let answer = packet_socket::kick(self.bound.fd());
        self.count_kick();
        self.judge(answer)
    }

    /// Returns the outcome of a kick: the rings show how far the kernel got, `answer` only why it got no further.
    fn judge(&mut self, answer: io::Result<()>) -> Result<KickOutcome> {
        let before = self.tx.known_outstanding();
        let left = self.tx.outstanding();
        let has_moved = left < before;
        let mut has_progressed = (self.reclaim() > 0) | has_moved;
        let errno = answer.as_ref().map_err(io::Error::raw_os_error).err().flatten();
        if errno == Some(libc::EBUSY) {
            // Completed but not sent: too long for the far end, or no carrier (`xsk_generic_xmit`).
            self.bound.figures.send_failed.add(1);
            has_progressed = true;
        }
        let stall = match (left, errno) {
            (0, _) => Stall::Done,
            (_, Some(libc::ENETDOWN)) => Stall::Link,
            (_, None | Some(libc::EAGAIN | libc::EINTR | libc::EBUSY)) if has_progressed => {
                Stall::Again
            }
            (_, None | Some(libc::EAGAIN | libc::EINTR | libc::EBUSY)) => Stall::Buffer,
            (_, Some(libc::ENOBUFS | libc::ENOMEM)) => Stall::Queue,
            _ if has_moved => Stall::Again,
            (_, Some(errno)) => {
                self.bound.check_link()?; // ENXIO means that the interface is gone, but some drivers also return it
                let wants_program = matches!(errno, libc::EINVAL | libc::ENXIO)
                    && self.bound.is_zerocopy
                    && self.bound.program.is_none();
                let step = if wants_program { Step::KickWithoutProgram } else { Step::Kick };
                return Err(self.bound.failed(step, io::Error::from_raw_os_error(errno)));
            }
        };
        Ok(KickOutcome { stall, has_progressed })
    }

    fn capacity(&self) -> usize {
        self.frame_capacity()
    }

    fn check_frame(&mut self, frame: &[u8]) -> Result<()> {
        self.check_len(frame.len())
    }

    fn copy(&mut self, frame: &[u8]) -> Result<()> {
        self.copy(frame);
        self.publish();
        Ok(())
    }

    #[inline]
    fn vacant_ref(&self, len: usize) -> &[u8] {
        let chunk = self.free.last().expect("reserved");
        self.umem.bytes(chunk, self.umem.prefix(), len as u32).expect("within the capacity")
    }

    #[inline]
    fn vacant_bytes(&mut self, len: usize) -> &mut [u8] {
        let chunk = self.free.last_mut().expect("reserved");
        &mut self.umem.bytes_mut(chunk)[self.umem.prefix() as usize..][..len]
    }

    /// Commits the frame that was reserved.
    #[inline]
    fn commit(&mut self, len: usize, checksum: Option<Checksum>) -> Result<()> {
        if !self.fits(len) {
            self.check_len(len)?;
        }
        let options = match checksum {
            None if self.stamps.is_none() => 0,
            _ => self.ask_for(len, checksum)?,
        };
        self.push_vacant(len, options);
        self.publish();
        Ok(())
    }
}

impl Drop for XdpSender {
    fn drop(&mut self) {
        // Before 6.17 one kick copies 32 frames, or 16 (`xsk_generic_xmit`). An error shows in the count of
        // abandoned frames.
        for _ in 0..=self.tx.outstanding() {
            match self.kick() {
                Ok(KickOutcome { stall: Stall::Again, .. }) => {}
                _ => break,
            }
        }
        let left = self.pending() as u64;
        self.bound.figures.abandoned.add(left);
        trace::abandoned(&self.bound.name, left);
    }
}

impl AsFd for XdpSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bound.fd()
    }
}

impl AsRawFd for XdpSender {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for XdpSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XdpSender")
            .field("interface", &self.bound.name)
            .field("queue_id", &self.bound.queue)
            .finish_non_exhaustive()
    }
}

/// A free frame of an [`XdpSender`]: write into it and [`send`](Self::send) it.
///
/// If dropped without sending, it stays free.
#[derive(Debug)]
pub struct XdpTxSlot<'a> {
    sender: &'a mut XdpSender,
    len: usize,
    checksum: Option<Checksum>,
}

impl<'a> XdpTxSlot<'a> {
    #[inline]
    pub(super) fn new(sender: &'a mut XdpSender, len: usize) -> Self {
        Self { sender, len, checksum: None }
    }

    /// Returns the bytes of the frame, with the length requested.
    #[inline]
    pub fn data(&self) -> &[u8] {
        self.sender.vacant_ref(self.len)
    }

    /// Returns the bytes of the frame for writing.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.sender.vacant_bytes(self.len)
    }

    /// Changes the length of the frame, limited to [`XdpSender::frame_capacity`].
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.sender.frame_capacity());
    }

    /// Leaves a checksum to the card or the kernel.
    ///
    /// It covers all bytes from `start` on, and is written `offset` bytes after `start`, where the sum of the
    /// pseudo-header must already be. This requires [`tx_checksum`](crate::xdp::XdpSocketBuilder::tx_checksum).
    pub fn set_checksum(&mut self, start: u16, offset: u16) {
        self.checksum = Some(Checksum { start, offset });
    }

    /// Commits the frame.
    ///
    /// # Errors
    /// [`Error::FrameLength`](crate::Error::FrameLength),
    /// [`Error::OffloadsDisabled`](crate::Error::OffloadsDisabled), or
    /// [`Error::ChecksumOutside`](crate::Error::ChecksumOutside); the frame then stays free.
    #[inline]
    pub fn send(self) -> Result<()> {
        self.sender.commit(self.len, self.checksum)
    }
}
