//! Sends frames through a TPACKET_V2 transmit ring.
//!
//! Committing a frame only writes shared memory; a **kick** tells the kernel to look. What became of
//! frames is read from the ring, never from a kick's result: a kick that reports an error may have
//! sent half of them first.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io};

use super::head_patience::HeadPatience;
use crate::error::{Error, Result, Step};
use crate::packet::{Framing, Offload, TxTimestamp};
use crate::ring::slot::TxRing;
use crate::stats::InjectorStats;
use crate::sys::event::{self, Interest};
use crate::sys::netdev::Netdev;
use crate::sys::{packet_socket, tx_timestamp};
use crate::trace;
use crate::wait::{Backoff, KickOutcome, Stall};

/// As much of a frame as says whether it has a tag.
const HEAD: usize = 14;

/// Sends frames on one interface, as they are, from the link-layer header on.
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
/// Frames go out in the order in which they were committed. One that the kernel refuses (because the
/// MTU was lowered after it was committed, the interface cannot do what its offload asks for, or the far end
/// of a veth pair is set to a smaller MTU) is left out and counted in [`rejected`](Self::rejected). For some of these the kernel reports a
/// full queue each time; such a frame blocks those behind it for up to
/// [`give_up_after`](crate::inject::InjectorBuilder::give_up_after).
///
/// Dropping the injector hands over what was committed, as far as one kick goes, without waiting. Use
/// [`close`](Self::close) to wait, and to learn how many frames were left.
pub struct Injector {
    // Dropped first: a mapped ring keeps its socket open.
    pub(super) ring: TxRing,
    pub(super) socket: OwnedFd,
    pub(super) name: String,
    index: u32,
    mtu: usize,
    framing: Framing,
    /// Whether each frame is sent with its offload before it.
    pub(super) has_offloads: bool,
    /// Whether frames are not kept while the interface is down.
    pub(super) drops_when_down: bool,
    /// For how long the kernel has not taken the frame at the head.
    pub(super) patience: HeadPatience,
    /// Kicks and what ended them; the ring counts frames.
    pub(super) stats: InjectorStats,
    /// A copy of the statistics for other threads, once a handle was asked for.
    shared: Option<Arc<Mutex<InjectorStats>>>,
}

/// Reads an injector's statistics from any thread, also when the injector is gone.
#[derive(Debug, Clone)]
pub struct InjectorStatsHandle(Arc<Mutex<InjectorStats>>);

impl InjectorStatsHandle {
    /// Running totals, as of the injector's last kick, or of its end.
    pub fn stats(&self) -> InjectorStats {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bound socket, and what it is bound to.
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

    /// A free slot for a frame of `len` bytes; `None` where the ring is full (see
    /// [`flush`](Self::flush)) or `len` is above [`frame_capacity`](Self::frame_capacity).
    ///
    /// No system call. The slot holds whatever its last frame left there.
    #[inline]
    pub fn allocate(&mut self, len: usize) -> Option<TxSlot<'_>> {
        if len > self.frame_capacity() {
            return None;
        }
        self.has_vacant().then(|| TxSlot::of(self, len))
    }

    /// Whether there is a free slot.
    #[inline]
    pub(crate) fn has_vacant(&mut self) -> bool {
        if self.ring.available() == 0 {
            self.ring.look();
        }
        self.ring.available() > 0
    }

    /// Commits a copy of `frame`, kicking and waiting where the ring is full.
    ///
    /// # Errors
    /// [`Error::FrameLength`]; where the ring is full, as [`flush`](Self::flush).
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.check(frame, frame.len())?;
        self.wait_for_slot()?;
        self.vacant_bytes(frame.len()).copy_from_slice(frame);
        self.commit(frame.len(), Offload::NONE)
    }

    /// Hands every committed frame to the kernel, however many kicks and waits that takes.
    ///
    /// Waits without a limit for room in the send buffer and in the interface's queue, but for a frame that the kernel
    /// never takes only as long as [`give_up_after`](crate::inject::InjectorBuilder::give_up_after). For a limit, see
    /// [`flush_timeout`](Self::flush_timeout).
    ///
    /// # Errors
    /// [`Error::LinkDown`] while the interface is down: the frames stay, and go with the first flush
    /// after it is up. [`Error::InterfaceGone`] once it was removed; [`Error::Os`] otherwise.
    pub fn flush(&mut self) -> Result<()> {
        self.flush_until(None).map(drop)
    }

    /// Flushes for at most `timeout`. Returns whether the kernel has taken every frame; the others stay committed.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn flush_timeout(&mut self, timeout: Duration) -> Result<bool> {
        self.flush_until(Instant::now().checked_add(timeout))
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

    /// Hands over what was committed, waits up to `timeout` until it is sent, closes the socket and returns its final
    /// statistics. Returns early on an error, such as a link that is down.
    /// [`abandoned`](InjectorStats::abandoned) counts the frames that the kernel had not taken.
    pub fn close(mut self, timeout: Duration) -> InjectorStats {
        // An error shows in the count of abandoned frames.
        let _ = self.drain(timeout);
        self.end();
        self.stats()
    }

    /// A handle to read the statistics from other threads, and after the injector's end.
    pub fn stats_handle(&mut self) -> InjectorStatsHandle {
        let stats = self.stats();
        let shared = self.shared.get_or_insert_with(|| Arc::new(Mutex::new(stats)));
        InjectorStatsHandle(Arc::clone(shared))
    }

    /// Counts what was committed and will not be sent, and takes it back: no kick comes after this.
    fn end(&mut self) {
        self.ring.look();
        self.stats.abandoned += self.ring.abandon();
        self.share_stats();
    }

    pub(super) fn share_stats(&self) {
        if let Some(shared) = &self.shared {
            *shared.lock().unwrap_or_else(PoisonError::into_inner) = self.stats();
        }
    }

    /// Hands every committed frame to the kernel and waits until all of them are sent: whether they
    /// were, in time.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
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

    /// The longest frame that can be sent now, in bytes: the MTU and the interface's link-layer header (Ethernet's
    /// 14 bytes; none on a tun or a tunnel of IP), as far as they fit a slot. An Ethernet frame with an 802.1Q tag may
    /// have 4 bytes more.
    #[inline]
    pub fn max_frame_len(&self) -> usize {
        self.frame_capacity().min(self.framing.longest(self.mtu))
    }

    /// Bytes of a slot that a frame may take.
    #[inline]
    pub fn frame_capacity(&self) -> usize {
        self.ring.capacity() - self.prefix()
    }

    /// Slots of the ring.
    pub fn frame_count(&self) -> usize {
        self.ring.frame_count()
    }

    /// Slots that are free.
    pub fn available_slots(&mut self) -> usize {
        self.ring.look();
        self.ring.available()
    }

    /// Frames committed that the kernel has not begun to send.
    pub fn pending(&mut self) -> usize {
        self.ring.look();
        self.ring.pending()
    }

    /// Frames committed that the kernel refused: for their length, because of their offload, or without end (see
    /// [`give_up_after`](crate::inject::InjectorBuilder::give_up_after)).
    pub fn rejected(&self) -> u64 {
        self.ring.refused()
    }

    /// Says whether frames are taken back while the interface is down, instead of kept until it is up.
    pub(crate) fn drop_when_down(&mut self, on: bool) {
        self.drops_when_down = on;
    }

    /// Frames taken back so far.
    pub(crate) fn stale(&self) -> u64 {
        self.ring.discarded()
    }

    /// What happened so far.
    pub fn stats(&self) -> InjectorStats {
        let (rejected, stale) = (self.ring.refused(), self.ring.discarded());
        let committed = self.ring.committed() + rejected + stale + self.stats.abandoned;
        InjectorStats { committed, rejected, stale, ..self.stats }
    }

    /// The name of the interface, as it was when the injector was opened.
    pub fn interface(&self) -> &str {
        &self.name
    }

    /// The next transmit timestamp, if one has arrived; needs
    /// [`tx_timestamps`](crate::inject::InjectorBuilder::tx_timestamps).
    ///
    /// # Errors
    /// [`Error::Os`] where the kernel refuses to read the error queue.
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

    pub(crate) fn check_frame(&mut self, frame: &[u8]) -> Result<()> {
        self.check(frame, frame.len())
    }

    /// The first `len` bytes of the next free slot, which there is.
    #[inline]
    pub(crate) fn vacant_bytes(&mut self, len: usize) -> &mut [u8] {
        let prefix = self.prefix();
        &mut self.ring.vacant().expect("allocated")[prefix..][..len]
    }

    /// The same, to look at.
    #[inline]
    pub(crate) fn vacant_ref(&self, len: usize) -> &[u8] {
        &self.ring.vacant_ref().expect("allocated")[self.prefix()..][..len]
    }

    /// Commits the next free slot, which holds a frame of `len` bytes.
    #[inline]
    pub(crate) fn commit(&mut self, len: usize, offload: Offload) -> Result<()> {
        if !self.has_offloads {
            return self.commit_plain(len, offload);
        }
        self.commit_offloaded(len, offload)
    }

    fn commit_offloaded(&mut self, len: usize, offload: Offload) -> Result<()> {
        let frame = self.vacant_bytes(len);
        let (header, wire_len) = (offload.for_sending(frame), offload.wire_len(frame));
        let head: [u8; HEAD] = std::array::from_fn(|at| frame.get(at).copied().unwrap_or(0));
        // A frame that is split counts as long as its longest segment, but not as shorter than it is.
        self.check(&head, if len < self.framing.least { len } else { wire_len })?;
        let prefix = self.prefix();
        self.ring.vacant().expect("allocated")[..prefix].copy_from_slice(&header[..prefix]);
        self.ring.commit(prefix + len);
        Ok(())
    }

    /// The same, without offloads: only a frame that is long for the interface is looked at.
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

    /// Bytes of a slot before the frame.
    #[inline]
    fn prefix(&self) -> usize {
        if self.has_offloads { Offload::LEN } else { 0 }
    }

    /// Whether a frame of `len` bytes that begins with `head` can be sent.
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

    /// Whether the kernel takes so much more of a frame that begins like this. With offloads it does not
    /// check lengths, so outer tags count too.
    fn is_tagged(&self, head: &[u8]) -> bool {
        match head.get(12..14) {
            Some(&[0x81, 0x00]) => true,
            Some(&[0x88, 0xa8]) => self.has_offloads,
            _ => false,
        }
    }

    /// Learns the interface's MTU anew. With offloads the kernel does not check lengths itself.
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
}

impl Injector {
    /// One kick, if there is anything to hand over, and what it came to.
    pub(crate) fn kick(&mut self) -> Result<KickOutcome> {
        self.ring.look();
        if self.ring.pending() == 0 {
            return Ok(KickOutcome { stall: Stall::Done, has_progressed: false });
        }
        let answer = packet_socket::kick(self.socket.as_fd());
        self.judge(answer)
    }

    /// What a kick came to: the ring says how far the kernel got, `answer` only why not further.
    pub(crate) fn judge(&mut self, answer: io::Result<()>) -> Result<KickOutcome> {
        self.stats.kicks += 1;
        let (before, refused) = (self.ring.pending(), self.ring.refused());
        self.ring.look();
        if self.ring.refused() > refused {
            self.learn_mtu();
            self.patience.forget();
        }
        let has_given_up = self.gave_up(&answer, before);
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

    /// Whether the frame at the head was just refused, because the kernel would not take it for too long, or ever.
    ///
    /// One that the interface cannot split, that is not what its offload says (`__dev_direct_xmit` and
    /// `__dev_queue_xmit`, net/core/dev.c), or that the driver drops (veth, where the far end's MTU is smaller) is
    /// answered like a full queue, each time anew, and stays at the head (`tpacket_snd`, net/packet/af_packet.c). Some kernels
    /// (6.12.117) say EINVAL of one that is not what its offload says, and leave it there too.
    fn gave_up(&mut self, answer: &io::Result<()>, before: usize) -> bool {
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

    /// Why frames are left.
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
            // Frames were refused, and taken out of the line.
            _ if has_progressed => Ok(Stall::Again),
            _ => Err(Error::os(Step::Kick, error).of(&self.name)),
        }
    }
}

/// Whether an offload's header asks for nothing.
fn is_plain(header: [u8; Offload::LEN]) -> bool {
    Offload::read(&header) == Offload::NONE
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

impl fmt::Debug for Injector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injector")
            .field("interface", &self.name)
            .field("frame_count", &self.frame_count())
            .field("frame_capacity", &self.frame_capacity())
            .finish_non_exhaustive()
    }
}

/// A free slot of an [`Injector`]: write a frame into it and [`send`](Self::send) it. Dropped unsent,
/// it stays free.
#[derive(Debug)]
pub struct TxSlot<'a> {
    injector: &'a mut Injector,
    len: usize,
    offload: Offload,
}

impl<'a> TxSlot<'a> {
    /// The next free slot, which there is.
    #[inline]
    pub(crate) fn of(injector: &'a mut Injector, len: usize) -> Self {
        Self { injector, len, offload: Offload::NONE }
    }

    /// The bytes of the frame, as many as were asked for.
    #[inline]
    pub fn data(&self) -> &[u8] {
        self.injector.vacant_ref(self.len)
    }

    /// The same, to be written.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        self.injector.vacant_bytes(len)
    }

    /// Changes the length of the frame, up to [`Injector::frame_capacity`]; longer is cut to that.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.injector.frame_capacity());
    }

    /// Says what is left to be done to the frame, by the kernel or the card; see
    /// [`offloads`](crate::inject::InjectorBuilder::offloads). Default nothing.
    pub fn set_offload(&mut self, offload: Offload) {
        self.offload = offload;
    }

    /// Commits the frame.
    ///
    /// # Errors
    /// [`Error::FrameLength`](crate::Error::FrameLength),
    /// [`Error::OffloadsDisabled`](crate::Error::OffloadsDisabled); the slot stays free then.
    #[inline]
    pub fn send(self) -> Result<()> {
        self.injector.commit(self.len, self.offload)
    }
}
