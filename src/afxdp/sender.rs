//! The sending half: frames are written into chunks, and chunks come back when they are sent.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bound::{Bound, mtu_of};
use super::figures::XdpStatsHandle;
use super::slot::{Checksum, XdpTxSlot};
use crate::ring::index::{Consumer, Descriptor, Producer};
use crate::ring::umem::{Chunk, CompletionCounts, Completions, Taken, Umem};
use crate::sys::packet_socket;
use crate::wait::{Judged, Patience, Stall};
use crate::{Error, Result, Step, XdpStats};

/// An Ethernet header.
const HEADER: usize = 14;
/// An 802.1Q tag, which an interface takes beyond its MTU.
const TAG: usize = 4;
/// The most chunks that one packet may take (`MAX_SKB_FRAGS` and the head, net/xdp/xsk.c).
const MOST_PIECES: usize = 18;

/// Sends frames through one queue; half of an [`XdpSocket`](crate::XdpSocket), from
/// [`into_split`](crate::XdpSocket::into_split).
pub struct XdpSender {
    // Dropped before the socket: a mapped ring keeps it, and its queue, in use.
    tx: Producer<Descriptor>,
    completions: Arc<Completions>,
    free: Vec<Chunk>,
    pub(super) umem: Arc<Umem>,
    bound: Arc<Bound>,
    /// Entries that were committed and have not come back.
    under_way: u32,
    mtu: u32,
    options: TxOptions,
}

/// What a sender was opened with.
#[derive(Debug, Clone, Copy)]
pub(super) struct TxOptions {
    /// Whether a frame may take several chunks.
    pub(super) multi_buffer: bool,
    /// Whether checksums may be left to the kernel.
    pub(super) checksums: bool,
    /// Whether the driver says when it has to be kicked.
    pub(super) is_told_to_kick: bool,
}

impl XdpSender {
    pub(super) fn new(
        tx: Producer<Descriptor>,
        completion: Consumer<u64>,
        free: Vec<Chunk>,
        (umem, bound): (Arc<Umem>, Arc<Bound>),
        options: TxOptions,
    ) -> Result<Self> {
        let first = free.first().map_or(0, Chunk::number);
        let own = first..first + free.len() as u32;
        let completions = Arc::new(Completions::new(completion, own));
        umem.register(&completions);
        let mtu = mtu_of(&bound.name)?;
        Ok(Self { tx, completions, free, umem, bound, under_way: 0, mtu, options })
    }

    /// A free frame to write `len` bytes into; `None` where there is none (see [`flush`](Self::flush)), or
    /// `len` is above [`frame_capacity`](Self::frame_capacity). No system call. It holds whatever was there.
    pub fn reserve(&mut self, len: usize) -> Option<XdpTxSlot<'_>> {
        (len <= self.frame_capacity() && self.has_room(len)).then(|| XdpTxSlot::new(self, len))
    }

    /// Commits a copy of `frame`, kicking and waiting where there is no room.
    ///
    /// # Errors
    /// [`Error::FrameLength`]; where there is no room, as [`flush`](Self::flush).
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.check_len(frame.len())?;
        self.wait_for_room(frame.len())?;
        self.copy(frame)
    }

    /// Hands every committed frame to the kernel.
    ///
    /// # Errors
    /// [`Error::LinkDown`] while the interface is down: the frames go with the first flush after it is up.
    /// [`Error::InterfaceGone`]; [`Error::Os`] otherwise.
    pub fn flush(&mut self) -> Result<()> {
        self.press(|sender| sender.tx.outstanding() == 0, None).map(drop)
    }

    /// Hands every committed frame to the kernel and waits until all have come back: whether they did, in
    /// time.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn drained(&mut self, timeout: Duration) -> Result<bool> {
        self.press(Self::is_drained, Instant::now().checked_add(timeout))
    }

    /// The most bytes of a frame that is written in place.
    pub fn frame_capacity(&self) -> usize {
        (self.umem.chunk_size() - self.umem.prefix()) as usize
    }

    /// The longest frame that can be sent now, in bytes, a tag not counted.
    pub fn max_frame_len(&self) -> usize {
        self.most_in_chunks().min(self.mtu as usize + HEADER)
    }

    fn most_in_chunks(&self) -> usize {
        let pieces = if self.options.multi_buffer { MOST_PIECES } else { 1 };
        pieces * self.frame_capacity()
    }

    /// The most bytes of a frame with a tag.
    fn most(&self) -> usize {
        self.most_in_chunks().min(self.mtu as usize + HEADER + TAG)
    }

    /// Running totals of both halves. One system call; resets nothing.
    ///
    /// # Errors
    /// [`Error::Os`] where the kernel refuses `XDP_STATISTICS`.
    pub fn stats(&self) -> Result<XdpStats> {
        self.bound.stats()
    }

    /// A handle to read the statistics from other threads.
    pub fn stats_handle(&self) -> XdpStatsHandle {
        XdpStatsHandle::new(&self.bound)
    }

    /// The name of the interface, as it was when the socket was opened.
    pub fn interface(&self) -> &str {
        &self.bound.name
    }

    /// The queue.
    pub fn queue_id(&self) -> u32 {
        self.bound.queue
    }

    /// Frames committed that the kernel has not begun to send.
    pub fn pending(&mut self) -> usize {
        self.tx.outstanding() as usize
    }

    /// Whether everything that was committed has come back.
    pub(crate) fn is_drained(&mut self) -> bool {
        self.reclaim();
        self.under_way == 0
    }

    /// Whether a frame of `len` bytes has room now.
    pub(crate) fn has_room(&mut self, len: usize) -> bool {
        let pieces = len.div_ceil(self.frame_capacity()).max(1);
        if self.free.len() < pieces {
            self.reclaim();
        }
        self.free.len() >= pieces && self.has_entries(pieces)
    }

    /// Whether the TX ring has so many entries left.
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
        let most = self.most();
        Err(Error::FrameLength { len, least: HEADER, most })
    }

    /// Counts a frame that was not, or will not be, sent.
    pub(super) fn count_refused(&self) {
        self.bound.figures.refused.add(1);
    }

    pub(super) fn fits(&self, len: usize) -> bool {
        (HEADER..=self.most()).contains(&len)
    }

    pub(super) fn learn_mtu(&mut self) {
        if let Ok(mtu) = mtu_of(&self.bound.name) {
            self.mtu = mtu;
        }
    }

    /// Commits a copy of a frame for which there is room, in as many chunks as it takes.
    pub(crate) fn copy(&mut self, frame: &[u8]) -> Result<()> {
        let (prefix, capacity) = (self.umem.prefix() as usize, self.frame_capacity());
        let mut pieces = frame.chunks(capacity).peekable();
        while let Some(piece) = pieces.next() {
            let mut chunk = self.free.pop().expect("there is room");
            self.umem.bytes_mut(&mut chunk)[prefix..][..piece.len()].copy_from_slice(piece);
            let options = if pieces.peek().is_some() { libc::XDP_PKT_CONTD } else { 0 };
            let address = self.umem.give(chunk) + prefix as u64;
            self.push(Descriptor { address, len: piece.len() as u32, options });
        }
        self.publish();
        Ok(())
    }

    pub(crate) fn vacant_ref(&self, len: usize) -> &[u8] {
        let chunk = self.free.last().expect("reserved");
        self.umem.bytes(chunk, self.umem.prefix(), len as u32).expect("within the capacity")
    }

    pub(crate) fn vacant_bytes(&mut self, len: usize) -> &mut [u8] {
        let chunk = self.free.last_mut().expect("reserved");
        &mut self.umem.bytes_mut(chunk)[self.umem.prefix() as usize..][..len]
    }

    /// Commits the frame that was reserved.
    pub(crate) fn commit(&mut self, len: usize, checksum: Option<Checksum>) -> Result<()> {
        self.check_len(len)?;
        if checksum.is_some() && !self.options.checksums {
            return Err(Error::OffloadsOff);
        }
        let mut chunk = self.free.pop().expect("reserved");
        let mut options = 0;
        if let Some(Checksum { start, offset }) = checksum {
            // struct xsk_tx_metadata, linux/if_xdp.h: flags, and what is asked for.
            let flags = u64::from(libc::XDP_TXMD_FLAGS_CHECKSUM);
            let metadata = self.umem.bytes_mut(&mut chunk);
            metadata[..8].copy_from_slice(&flags.to_ne_bytes());
            metadata[8..10].copy_from_slice(&start.to_ne_bytes());
            metadata[10..12].copy_from_slice(&offset.to_ne_bytes());
            options = libc::XDP_TX_METADATA;
        }
        let address = self.umem.give(chunk) + u64::from(self.umem.prefix());
        self.push(Descriptor { address, len: len as u32, options });
        self.publish();
        Ok(())
    }

    /// Commits a frame that was received into this UMEM, where it lies.
    pub(super) fn push_in_place(&mut self, frame: Taken) {
        let address = self.umem.give(frame.chunk) + u64::from(frame.offset);
        self.push(Descriptor { address, len: frame.len, options: 0 });
        self.publish();
    }

    fn push(&mut self, descriptor: Descriptor) {
        self.tx.push(descriptor);
        self.under_way += 1;
    }

    /// Has the kernel see what was pushed: a frame.
    fn publish(&mut self) {
        self.tx.publish();
        self.bound.figures.committed.add(1);
    }

    /// Takes back what was sent: how many entries.
    pub(super) fn reclaim(&mut self) -> u32 {
        let back = self.completions.take(&self.umem, &mut self.free);
        let CompletionCounts { entries, malformed } = back;
        self.under_way = self.under_way.saturating_sub(entries);
        self.bound.figures.tx_malformed.add(malformed);
        entries
    }

    /// Chunks that are free, and with the kernel.
    pub(super) fn chunks(&mut self) -> (u32, u32) {
        self.reclaim();
        let free = self.free.len() as u32;
        (free, self.completions.own().len() as u32 - free)
    }

    /// One kick, if there is anything to hand over, and what it came to.
    pub(crate) fn kick(&mut self) -> Result<Judged> {
        if self.tx.outstanding() == 0 {
            let has_progressed = self.reclaim() > 0;
            return Ok(Judged { stall: Stall::Done, has_progressed });
        }
        let is_awake = self.options.is_told_to_kick && !self.tx.ring().needs_wakeup();
        let answer = if is_awake { Ok(()) } else { packet_socket::kick(self.bound.fd()) };
        self.judge(answer)
    }

    /// What a kick came to: the rings say how far the kernel got, `answer` only why not further.
    pub(crate) fn judge(&mut self, answer: io::Result<()>) -> Result<Judged> {
        self.bound.figures.kicks.add(1);
        let before = self.tx.known_outstanding();
        let left = self.tx.outstanding();
        let mut has_progressed = (self.reclaim() > 0) | (left < before);
        let errno = answer.as_ref().map_err(io::Error::raw_os_error).err().flatten();
        if errno == Some(libc::EBUSY) {
            // Completed, and not sent: too long for the far end, or no carrier (`xsk_generic_xmit`).
            self.count_refused();
            has_progressed = true;
        }
        let stall = match (left, errno) {
            (0, _) => Stall::Done,
            (_, Some(libc::ENETDOWN)) => Stall::Link,
            (_, Some(libc::ENXIO | libc::ENODEV)) => return Err(self.bound.gone()),
            _ if has_progressed => Stall::Again,
            (_, None | Some(libc::EAGAIN | libc::EINTR)) => Stall::Buffer,
            (_, Some(libc::ENOBUFS | libc::ENOMEM)) => Stall::Queue,
            _ => return Err(answer.map_err(|error| Error::os(Step::Kick, error)).expect_err("so")),
        };
        Ok(Judged { stall, has_progressed })
    }

    pub(super) fn wait_for_room(&mut self, len: usize) -> Result<()> {
        self.press(|sender| sender.has_room(len), None).map(drop)
    }

    /// Kicks and waits until `is_so`: whether it is, in time.
    pub(super) fn press(
        &mut self,
        is_so: impl Fn(&mut Self) -> bool,
        deadline: Option<Instant>,
    ) -> Result<bool> {
        let mut patience = Patience::new();
        while !is_so(self) {
            let Judged { stall, has_progressed } = self.kick()?;
            if has_progressed {
                patience = Patience::new();
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
                Stall::Done | Stall::Buffer | Stall::Queue => patience.sleep(),
            }
        }
        Ok(true)
    }
}

impl Drop for XdpSender {
    fn drop(&mut self) {
        let _ = self.kick();
    }
}

impl AsFd for XdpSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bound.fd()
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
