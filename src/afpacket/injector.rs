//! Sends frames through a TPACKET_V2 transmit ring.
//!
//! Committing a frame only writes to shared memory; a **kick** tells the kernel to look at the ring. The fate of
//! frames is read from the ring, never from the result of a kick: a kick that reports an error may have sent half
//! of the frames first.

mod slot;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};
use std::{fmt, io};

pub use self::slot::TxSlot;
use super::head_patience::HeadPatience;
use crate::error::{Error, Result, Step};
use crate::packet::{Framing, Offload, TxTimestamp};
use crate::port::{Transmit, TryFlush, TxPort};
use crate::ring::slot::TxRing;
use crate::stats::{InjectorStats, InjectorStatsHandle};
use crate::sys::event::{self, Interest};
use crate::sys::netdev::Netdev;
use crate::sys::{packet_socket, tx_timestamp};
use crate::trace;
use crate::wait::{Backoff, KickOutcome, Stall};

/// Bytes of a frame that show whether it has a tag.
const HEAD: usize = 14;

/// Sends raw frames on one interface, from the link-layer header on.
///
/// ```no_run
/// # fn main() -> ringtap::Result<()> {
/// let mut injector = ringtap::Injector::open("eth0")?;
/// injector.send(&[0xff; 60])?; // committed
/// injector.flush()?; // handed to the kernel
/// # Ok(())
/// # }
/// ```
///
/// Frames are sent in the order in which they were committed. A frame that the kernel refuses is left out and
/// counted in [`rejected`](Self::rejected). This happens if the MTU was lowered after the frame was committed, if
/// the interface cannot do what the frame's offload asks for, or if the far end of a veth pair has a smaller MTU.
/// For some of these frames the kernel reports a full queue each time; such a frame blocks the frames behind it for
/// up to [`give_up_after`](crate::inject::InjectorBuilder::give_up_after).
///
/// Dropping the injector makes one kick to hand over committed frames, without waiting. Use [`close`](Self::close)
/// to wait, and to learn how many frames were left.
pub struct Injector {
    // Dropped first: a mapped ring keeps its socket open.
    pub(super) ring: TxRing,
    pub(super) socket: OwnedFd,
    pub(super) name: String,
    index: u32,
    mtu: usize,
    framing: Framing,
    /// Whether each frame is preceded by its offload header.
    pub(super) has_offloads: bool,
    /// Whether frames are discarded while the interface is down.
    pub(super) drops_when_down: bool,
    /// How long the kernel has not taken the frame at the head.
    pub(super) patience: HeadPatience,
    /// Counts of kicks and their results; the ring counts frames.
    pub(super) stats: InjectorStats,
    /// A copy of the statistics for other threads, once a handle exists.
    shared: Option<InjectorStatsHandle>,
}

/// A bound socket, with its interface.
pub(super) struct Bound {
    pub(super) socket: OwnedFd,
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) framing: Framing,
}

impl Injector {
    pub(super) fn new(
        ring: TxRing,
        bound: Bound,
        mtu: usize,
        has_offloads: bool,
        patience: HeadPatience,
    ) -> Self {
        let Bound { socket, name, index, framing } = bound;
        let (stats, shared) = (InjectorStats::default(), None);
        let drops_when_down = false;
        Self {
            ring,
            socket,
            name,
            index,
            mtu,
            framing,
            has_offloads,
            drops_when_down,
            patience,
            stats,
            shared,
        }
    }

    /// Returns a free slot for a frame of `len` bytes.
    ///
    /// Returns `None` if the ring is full (see [`flush`](Self::flush)) or `len` exceeds
    /// [`frame_capacity`](Self::frame_capacity). Makes no system call. The slot still contains the bytes of its
    /// last frame.
    #[inline]
    #[doc(alias = "reserve")]
    pub fn allocate(&mut self, len: usize) -> Option<TxSlot<'_>> {
        if len > self.frame_capacity() {
            return None;
        }
        self.has_vacant().then(|| TxSlot::of(self, len))
    }

    /// Returns whether there is a free slot.
    #[inline]
    pub(crate) fn has_vacant(&mut self) -> bool {
        if self.ring.available() == 0 {
            self.ring.look();
        }
        self.ring.available() > 0
    }

    /// Commits a copy of `frame`; kicks and waits if the ring is full.
    ///
    /// # Errors
    /// [`Error::FrameLength`]; if the ring is full, also the errors of [`flush`](Self::flush).
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.check(frame, frame.len())?;
        self.wait_for_slot()?;
        self.vacant_bytes(frame.len()).copy_from_slice(frame);
        self.commit(frame.len(), Offload::NONE)
    }

    /// Hands every committed frame to the kernel, with as many kicks and waits as needed.
    ///
    /// This waits without a limit for room in the send buffer and in the interface's queue. For a frame that the
    /// kernel never takes, it waits only as long as
    /// [`give_up_after`](crate::inject::InjectorBuilder::give_up_after). [`flush_timeout`](Self::flush_timeout) has
    /// a limit.
    ///
    /// # Errors
    /// [`Error::LinkDown`] while the interface is down: the frames stay, and are sent with the first flush after it
    /// is up. [`Error::InterfaceGone`] once the interface was removed; [`Error::Os`] otherwise.
    pub fn flush(&mut self) -> Result<()> {
        self.flush_until(None).map(drop)
    }

    /// Flushes for at most `timeout`. Returns whether the kernel has taken every frame; the others stay committed.
    ///
    /// # Errors
    /// The errors of [`flush`](Self::flush).
    pub fn flush_timeout(&mut self, timeout: Duration) -> Result<bool> {
        self.flush_until(Instant::now().checked_add(timeout))
    }

    /// Hands over committed frames without ever waiting; see [`TxPort::try_flush`].
    ///
    /// # Errors
    /// The errors of [`TxPort::try_flush`].
    pub fn try_flush(&mut self) -> Result<TryFlush> {
        TxPort::try_flush(self)
    }

    fn flush_until(&mut self, deadline: Option<Instant>) -> Result<bool> {
        let mut backoff = Backoff::new();
        loop {
            match self.kick_once(&mut backoff)? {
                Stall::Done => return Ok(true),
                Stall::Link => return Err(self.link_down()),
                _ if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                    return Ok(false);
                }
                stall => self.wait(stall, &mut backoff)?,
            }
        }
    }

    /// Hands over committed frames, waits up to `timeout` until they are sent, closes the socket and returns its
    /// final statistics.
    ///
    /// Returns early on an error, such as a link that is down. [`abandoned`](InjectorStats::abandoned) counts the
    /// frames that the kernel had not taken.
    pub fn close(mut self, timeout: Duration) -> InjectorStats {
        // An error shows in the count of abandoned frames.
        let _ = self.drain(timeout);
        self.end();
        self.stats()
    }

    /// Returns a handle to read the statistics from other threads, even after the injector is gone.
    pub fn stats_handle(&mut self) -> InjectorStatsHandle {
        let stats = self.stats();
        self.shared.get_or_insert_with(|| InjectorStatsHandle::new(stats)).clone()
    }

    /// Takes back and counts committed frames that will not be sent: no kick comes after this.
    fn end(&mut self) {
        self.ring.look();
        self.stats.abandoned += self.ring.abandon();
        self.share_stats();
    }

    pub(super) fn share_stats(&self) {
        if let Some(shared) = &self.shared {
            shared.set(self.stats());
        }
    }

    /// Hands every committed frame to the kernel and waits up to `timeout` until all of them are sent. Returns
    /// whether they were sent in time.
    ///
    /// # Errors
    /// The errors of [`flush`](Self::flush).
    pub fn drain(&mut self, timeout: Duration) -> Result<bool> {
        let deadline = Instant::now().checked_add(timeout);
        let mut backoff = Backoff::new();
        loop {
            let stall = self.kick_once(&mut backoff)?;
            if self.ring.in_use() == 0 {
                return Ok(true);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
            match stall {
                Stall::Link => return Err(self.link_down()),
                Stall::Done => backoff.sleep(), // nothing reports that a frame was sent
                stall => self.wait(stall, &mut backoff)?,
            }
        }
    }

    /// Returns the length of the longest frame that can be sent now, in bytes.
    ///
    /// This is the MTU plus the interface's link-layer header (14 bytes for Ethernet; none for a tun or an IP
    /// tunnel), limited by the size of a slot. An Ethernet frame with an 802.1Q tag may have 4 bytes more.
    #[inline]
    pub fn max_frame_len(&self) -> usize {
        self.frame_capacity().min(self.framing.longest(self.mtu))
    }

    /// Returns how many bytes of a slot a frame may use.
    #[inline]
    pub fn frame_capacity(&self) -> usize {
        self.ring.capacity() - self.prefix()
    }

    /// Returns the number of slots of the ring.
    pub fn frame_count(&self) -> usize {
        self.ring.frame_count()
    }

    /// Returns the number of free slots.
    pub fn available_slots(&mut self) -> usize {
        self.ring.look();
        self.ring.available()
    }

    /// Returns the number of committed frames that the kernel has not begun to send.
    pub fn pending(&mut self) -> usize {
        self.ring.look();
        self.ring.pending()
    }

    /// Returns the number of committed frames that the kernel refused.
    ///
    /// A frame is refused for its length, because of its offload, or after it blocked the ring for too long (see
    /// [`give_up_after`](crate::inject::InjectorBuilder::give_up_after)).
    pub fn rejected(&self) -> u64 {
        self.ring.refused()
    }

    /// Sets whether frames are discarded while the interface is down, instead of kept until it is up.
    pub(crate) fn drop_when_down(&mut self, on: bool) {
        self.drops_when_down = on;
    }

    /// Returns the number of frames discarded so far.
    pub(crate) fn stale(&self) -> u64 {
        self.ring.discarded()
    }

    /// Returns the running totals.
    pub fn stats(&self) -> InjectorStats {
        let (rejected, stale) = (self.ring.refused(), self.ring.discarded());
        let committed = self.ring.committed() + rejected + stale + self.stats.abandoned;
        InjectorStats { committed, rejected, stale, ..self.stats }
    }

    /// Returns the name of the interface, as it was when the injector was opened.
    pub fn interface(&self) -> &str {
        &self.name
    }

    /// Returns the next transmit timestamp, if one has arrived.
    ///
    /// This requires [`tx_timestamps`](crate::inject::InjectorBuilder::tx_timestamps).
    ///
    /// # Errors
    /// [`Error::Os`] if the kernel refuses to read the error queue.
    pub fn read_tx_timestamp(&mut self) -> Result<Option<TxTimestamp>> {
        let stamp = tx_timestamp::read(self.socket.as_fd())
            .map_err(|source| Error::os(Step::ReadTimestamp, source).of(&self.name))?;
        Ok(stamp.map(|(frame, timestamp)| TxTimestamp { frame, timestamp }))
    }

    fn kick_once(&mut self, backoff: &mut Backoff) -> Result<Stall> {
        let KickOutcome { stall, has_progressed } = self.kick()?;
        if has_progressed {
            *backoff = Backoff::new();
        }
        Ok(stall)
    }

    fn commit_offloaded(&mut self, len: usize, offload: Offload) -> Result<()> {
        let frame = self.vacant_bytes(len);
        let (header, wire_len) = (offload.for_sending(frame), offload.wire_len(frame));
        let head: [u8; HEAD] = std::array::from_fn(|at| frame.get(at).copied().unwrap_or(0));
        // A frame that will be split counts as long as its longest segment, but never as shorter than it is.
        self.check(&head, if len < self.framing.least { len } else { wire_len })?;
        let prefix = self.prefix();
        self.ring.vacant().expect("allocated")[..prefix].copy_from_slice(&header[..prefix]);
        self.ring.commit(prefix + len);
        Ok(())
    }

    /// Commits a frame on a socket without offloads; examines it only if its length is unusual for the interface.
    #[inline]
    fn commit_plain(&mut self, len: usize, offload: Offload) -> Result<()> {
        if offload != Offload::NONE {
            return Err(Error::OffloadsDisabled);
        }
        if !(self.framing.least..=self.max_frame_len()).contains(&len) {
            let frame = self.vacant_bytes(len);
            let head: [u8; HEAD] = std::array::from_fn(|at| frame.get(at).copied().unwrap_or(0));
            self.check(&head, len)?;
        }
        self.ring.commit(len);
        Ok(())
    }

    /// Returns the bytes of a slot before the frame.
    #[inline]
    fn prefix(&self) -> usize {
        if self.has_offloads { Offload::LEN } else { 0 }
    }

    /// Checks whether a frame of `len` bytes that begins with `head` can be sent.
    fn check(&mut self, head: &[u8], len: usize) -> Result<()> {
        let (framing, is_tagged) = (self.framing, self.is_tagged(head));
        let longest =
            |mtu| if is_tagged { framing.longest_tagged(mtu) } else { framing.longest(mtu) };
        if len > longest(self.mtu) {
            self.learn_mtu(); // it may have been raised
        }
        let (least, most) = (framing.least, self.frame_capacity().min(longest(self.mtu)));
        if (least..=most).contains(&len) {
            return Ok(());
        }
        Err(Error::FrameLength { len, least, most })
    }

    /// Returns whether the kernel accepts the extra length of a tag for a frame that begins with `head`. With
    /// offloads it does not check lengths, so outer tags count too.
    fn is_tagged(&self, head: &[u8]) -> bool {
        match head.get(12..14) {
            Some(&[0x81, 0x00]) => true,
            Some(&[0x88, 0xa8]) => self.has_offloads,
            _ => false,
        }
    }

    /// Reads the interface's MTU again. With offloads the kernel does not check lengths itself.
    pub(crate) fn learn_mtu(&mut self) {
        if let Ok(mtu) = Netdev(self.socket.as_fd()).mtu_of(self.index) {
            self.mtu = mtu as usize;
        }
    }

    fn wait_for_slot(&mut self) -> Result<()> {
        if self.ring.available() > 0 {
            return Ok(());
        }
        let mut backoff = Backoff::new();
        loop {
            let stall = self.kick_once(&mut backoff)?;
            if self.ring.available() > 0 {
                return Ok(());
            }
            match stall {
                Stall::Link => return Err(self.link_down()),
                Stall::Done => backoff.sleep(),
                stall => self.wait(stall, &mut backoff)?,
            }
        }
    }

    fn wait(&self, stall: Stall, backoff: &mut Backoff) -> Result<()> {
        match stall {
            Stall::Done | Stall::Again => {}
            Stall::Queue | Stall::Link => backoff.sleep(),
            Stall::Buffer => {
                let limit = Some(Backoff::LONGEST);
                let [socket, _] =
                    event::poll([Interest::Writable(self.socket.as_fd()), Interest::Not], limit)
                        .map_err(|source| Error::os(Step::Wait, source).of(&self.name))?;
                if socket.error || !(socket.writable || socket.interrupted) {
                    backoff.sleep(); // unread timestamps raise an error: do not spin on it
                }
            }
        }
        Ok(())
    }

    fn link_down(&self) -> Error {
        Error::LinkDown { name: self.name.clone() }
    }

    /// Returns whether the frame at the head was just given up, because the kernel would not take it for too long,
    /// or never will.
    ///
    /// The kernel reports a full queue, each time anew, for a frame that the interface cannot split, that does not
    /// match its offload (`__dev_direct_xmit` and `__dev_queue_xmit`, net/core/dev.c), or that the driver drops
    /// (veth, if the far end's MTU is smaller); such a frame stays at the head (`tpacket_snd`,
    /// net/packet/af_packet.c). Some kernels (6.12.117) report EINVAL for a frame that does not match its offload,
    /// and also leave it there.
    fn give_up_head(&mut self, answer: &io::Result<()>, before: usize) -> bool {
        let errno = answer.as_ref().map_err(io::Error::raw_os_error).err().flatten();
        if self.patience.look(self.ring.progress()) || self.ring.pending() < before {
            return false;
        }
        let head = self.ring.head(Offload::LEN).and_then(|head| head.first_chunk());
        let has_offload = self.has_offloads && head.is_some_and(|&head| !is_plain(head));
        if has_offload && errno == Some(libc::EINVAL) {
            self.ring.refuse_head();
            self.patience.forget();
            return true;
        }
        let is_full = matches!(errno, Some(libc::ENOBUFS | libc::ENOMEM));
        let Some(len) = self.ring.head_len().filter(|_| is_full) else {
            self.patience.forget();
            return false;
        };
        let under_way = self.ring.in_use() - self.ring.pending();
        let is_over = self.patience.note_refusal(len, has_offload, under_way);
        if is_over {
            self.ring.refuse_head();
            let is_telling = !has_offload && self.ring.pending() > 0;
            self.patience.gave_up(is_telling.then_some(len));
        }
        is_over
    }

    /// Returns why frames are left.
    fn stall_of(&mut self, answer: io::Result<()>, has_progressed: bool) -> Result<Stall> {
        let Err(error) = answer else {
            return Ok(if has_progressed { Stall::Again } else { Stall::Buffer });
        };
        match error.raw_os_error() {
            Some(libc::EAGAIN) => {
                self.stats.buffer_full += 1;
                Ok(Stall::Buffer)
            }
            Some(libc::ENOBUFS | libc::ENOMEM) => {
                self.stats.queue_full += 1;
                Ok(Stall::Queue)
            }
            Some(libc::ENETDOWN) => Ok(Stall::Link),
            Some(libc::ENXIO | libc::ENODEV) => {
                Err(Error::InterfaceGone { name: self.name.clone() })
            }
            // Frames were refused, and removed from the line.
            _ if has_progressed => Ok(Stall::Again),
            _ => Err(Error::os(Step::Kick, error).of(&self.name)),
        }
    }
}

/// Returns whether an offload's header asks for nothing.
fn is_plain(header: [u8; Offload::LEN]) -> bool {
    Offload::read(&header) == Offload::NONE
}

impl TxPort for Injector {
    fn most(&self) -> usize {
        self.frame_capacity()
    }

    fn has_room(&mut self, _len: usize) -> bool {
        self.has_vacant()
    }

    fn pending(&mut self) -> usize {
        self.pending()
    }

    fn is_drained(&mut self) -> bool {
        self.available_slots() == self.frame_count()
    }
}

impl Transmit for Injector {
    type Extra = Offload;

    /// Kicks once, if there is anything to hand over, and returns the outcome.
    fn kick(&mut self) -> Result<KickOutcome> {
        self.ring.look();
        if self.ring.pending() == 0 {
            return Ok(KickOutcome { stall: Stall::Done, has_progressed: false });
        }
        let answer = packet_socket::kick(self.socket.as_fd());
        self.judge(answer)
    }

    /// Returns the outcome of a kick: the ring shows how far the kernel got, `answer` only why it got no further.
    fn judge(&mut self, answer: io::Result<()>) -> Result<KickOutcome> {
        self.stats.kicks += 1;
        let (before, refused) = (self.ring.pending(), self.ring.refused());
        self.ring.look();
        if self.ring.refused() > refused {
            self.learn_mtu();
            self.patience.forget();
        }
        let has_given_up = self.give_up_head(&answer, before);
        let mut has_progressed = has_given_up || self.ring.pending() < before;
        let mut stall = match self.ring.pending() {
            0 => Stall::Done,
            _ => self.stall_of(answer, has_progressed)?,
        };
        if stall == Stall::Link && self.drops_when_down {
            self.ring.discard();
            self.patience.forget();
            (stall, has_progressed) = (Stall::Done, true);
        }
        self.share_stats();
        Ok(KickOutcome { stall, has_progressed })
    }

    fn capacity(&self) -> usize {
        self.frame_capacity()
    }

    fn check_frame(&mut self, frame: &[u8]) -> Result<()> {
        self.check(frame, frame.len())
    }

    fn copy(&mut self, frame: &[u8]) -> Result<()> {
        self.send(frame)
    }

    /// Returns the first `len` bytes of the next free slot for reading.
    #[inline]
    fn vacant_ref(&self, len: usize) -> &[u8] {
        &self.ring.vacant_ref().expect("allocated")[self.prefix()..][..len]
    }

    /// Returns the first `len` bytes of the next free slot, which must exist.
    #[inline]
    fn vacant_bytes(&mut self, len: usize) -> &mut [u8] {
        let prefix = self.prefix();
        &mut self.ring.vacant().expect("allocated")[prefix..][..len]
    }

    /// Commits the next free slot, which holds a frame of `len` bytes.
    #[inline]
    fn commit(&mut self, len: usize, offload: Offload) -> Result<()> {
        if !self.has_offloads {
            return self.commit_plain(len, offload);
        }
        self.commit_offloaded(len, offload)
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        let _ = self.kick();
        self.end();
        trace::abandoned(&self.name, self.stats.abandoned);
    }
}

impl AsFd for Injector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Injector {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Injector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injector")
            .field("interface", &self.name)
            .field("frame_count", &self.frame_count())
            .field("frame_capacity", &self.frame_capacity())
            .finish_non_exhaustive()
    }
}
