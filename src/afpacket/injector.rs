//! Sends frames through a TPACKET_V2 transmit ring.
//!
//! Committing a frame only writes shared memory; a **kick** tells the kernel to look. What became of
//! frames is read from the ring, never from a kick's result: a kick that reports an error may have
//! sent half of them first.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::injector_builder::InjectorBuilder;
use super::tx_slot::TxSlot;
use crate::packet::{Offload, TxTimestamp};
use crate::ring::slot::TxRing;
use crate::sys::event::{self, Interest};
use crate::sys::netdev::Asker;
use crate::sys::tx_timestamp;
use crate::wait::{Judged, Patience, Stall};
use crate::{Error, InjectorStats, Result, Step};

/// An Ethernet header: the least a frame may be, and what it may exceed the MTU by.
const HEADER: usize = 14;
/// What an 802.1Q tag may add to that (`packet_extra_vlan_len_allowed`, net/packet/af_packet.c).
const TAG: usize = 4;

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
/// MTU was lowered after it was committed, or the interface cannot do what its offload asks for) is left
/// out and counted in [`rejected`](Self::rejected).
///
/// Dropping the injector hands over what was committed, as far as one kick goes, and waits for
/// nothing: [`flush`](Self::flush) or [`drained`](Self::drained) before that.
pub struct Injector {
    // Dropped first: a mapped ring keeps its socket open.
    pub(super) ring: TxRing,
    pub(super) socket: OwnedFd,
    pub(super) name: String,
    index: u32,
    mtu: usize,
    /// Whether each frame is sent with its offload before it.
    pub(super) has_offloads: bool,
    /// Since when the kernel has not taken a frame with an offload, with no reason that the frame is not.
    pub(super) stuck_since: Option<Instant>,
    /// Kicks and what ended them; the ring counts frames.
    pub(super) stats: InjectorStats,
}

/// A bound socket, and what it is bound to.
pub(super) struct Bound {
    pub(super) socket: OwnedFd,
    pub(super) name: String,
    pub(super) index: u32,
}

impl Injector {
    /// Opens an injector with the default options on an interface of this network namespace.
    ///
    /// # Errors
    /// As [`InjectorBuilder::build`].
    pub fn open(interface: &str) -> Result<Self> {
        Self::builder().interface(interface).build()
    }

    /// Options first.
    pub fn builder() -> InjectorBuilder {
        InjectorBuilder::new()
    }

    pub(super) fn new(ring: TxRing, bound: Bound, mtu: usize, has_offloads: bool) -> Self {
        let Bound { socket, name, index } = bound;
        let (stuck_since, stats) = (None, InjectorStats::default());
        Self { ring, socket, name, index, mtu, has_offloads, stuck_since, stats }
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
    /// # Errors
    /// [`Error::LinkDown`] while the interface is down: the frames stay, and go with the first flush
    /// after it is up. [`Error::InterfaceGone`] once it was removed; [`Error::Os`] otherwise.
    pub fn flush(&mut self) -> Result<()> {
        let mut patience = Patience::new();
        loop {
            match self.kick_patiently(&mut patience)? {
                Stall::Done => return Ok(()),
                Stall::Link => return Err(self.link_down()),
                stall => self.wait(stall, &mut patience)?,
            }
        }
    }

    /// Hands every committed frame to the kernel and waits until all of them are sent: whether they
    /// were, in time.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn drained(&mut self, timeout: Duration) -> Result<bool> {
        let deadline = Instant::now().checked_add(timeout);
        let mut patience = Patience::new();
        loop {
            let stall = self.kick_patiently(&mut patience)?;
            if self.ring.in_use() == 0 {
                return Ok(true);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
            match stall {
                Stall::Link => return Err(self.link_down()),
                Stall::Done => patience.sleep(), // nothing reports that a frame was sent
                stall => self.wait(stall, &mut patience)?,
            }
        }
    }

    /// The longest frame that can be sent now, in bytes: MTU and Ethernet header, as far as they fit
    /// a slot. A frame with an 802.1Q tag may have 4 bytes more.
    #[inline]
    pub fn max_frame_len(&self) -> usize {
        self.frame_capacity().min(self.mtu + HEADER)
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

    /// Frames committed that the kernel refused: for their length, or because of their offload.
    pub fn rejected(&self) -> u64 {
        self.ring.refused()
    }

    /// What happened so far.
    pub fn stats(&self) -> InjectorStats {
        let rejected = self.ring.refused();
        InjectorStats { committed: self.ring.committed() + rejected, rejected, ..self.stats }
    }

    /// The name of the interface, as it was when the injector was opened.
    pub fn interface(&self) -> &str {
        &self.name
    }

    /// The next transmit timestamp, if one has arrived; needs
    /// [`tx_timestamps`](InjectorBuilder::tx_timestamps).
    ///
    /// # Errors
    /// [`Error::Os`] where the kernel refuses to read the error queue.
    pub fn read_tx_timestamp(&mut self) -> Result<Option<TxTimestamp>> {
        let stamp = tx_timestamp::read(self.socket.as_fd())
            .map_err(|source| Error::os(Step::ReadTimestamp, source).of(&self.name))?;
        Ok(stamp.map(|(frame, timestamp)| TxTimestamp { frame, timestamp }))
    }

    fn kick_patiently(&mut self, patience: &mut Patience) -> Result<Stall> {
        let Judged { stall, has_progressed } = self.kick()?;
        if has_progressed {
            *patience = Patience::new();
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
        let head: [u8; HEADER] = std::array::from_fn(|at| frame.get(at).copied().unwrap_or(0));
        // A frame that is split counts as long as its longest segment, but not as shorter than it is.
        self.check(&head, if len < HEADER { len } else { wire_len })?;
        let prefix = self.prefix();
        self.ring.vacant().expect("allocated")[..prefix].copy_from_slice(&header[..prefix]);
        self.ring.commit(prefix + len);
        Ok(())
    }

    /// The same, without offloads: only a frame that is long for the interface is looked at.
    #[inline]
    fn commit_plain(&mut self, len: usize, offload: Offload) -> Result<()> {
        if offload != Offload::NONE {
            return Err(Error::OffloadsOff);
        }
        if !(HEADER..=self.max_frame_len()).contains(&len) {
            let frame = self.vacant_bytes(len);
            let head: [u8; HEADER] = std::array::from_fn(|at| frame.get(at).copied().unwrap_or(0));
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
        let tag = if self.is_tagged(head) { TAG } else { 0 };
        if len > self.mtu + HEADER + tag {
            self.learn_mtu(); // it may have been raised
        }
        let most = self.frame_capacity().min(self.mtu + HEADER + tag);
        if (HEADER..=most).contains(&len) {
            return Ok(());
        }
        Err(Error::FrameLength { len, least: HEADER, most })
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
        if let Ok(mtu) = Asker(self.socket.as_fd()).mtu_of(self.index) {
            self.mtu = mtu as usize;
        }
    }

    fn wait_for_slot(&mut self) -> Result<()> {
        if self.ring.available() > 0 {
            return Ok(());
        }
        let mut patience = Patience::new();
        loop {
            let stall = self.kick_patiently(&mut patience)?;
            if self.ring.available() > 0 {
                return Ok(());
            }
            match stall {
                Stall::Link => return Err(self.link_down()),
                Stall::Done => patience.sleep(),
                stall => self.wait(stall, &mut patience)?,
            }
        }
    }

    fn wait(&self, stall: Stall, patience: &mut Patience) -> Result<()> {
        match stall {
            Stall::Done | Stall::Again => {}
            Stall::Queue | Stall::Link => patience.sleep(),
            Stall::Buffer => {
                let limit = Some(Patience::LONGEST);
                let [socket, _] =
                    event::poll([Interest::Writable(self.socket.as_fd()), Interest::Not], limit)
                        .map_err(|source| Error::os(Step::Wait, source).of(&self.name))?;
                if socket.error || !(socket.writable || socket.interrupted) {
                    patience.sleep(); // unread timestamps raise an error: do not spin on it
                }
            }
        }
        Ok(())
    }

    fn link_down(&self) -> Error {
        Error::LinkDown { name: self.name.clone() }
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        let _ = self.kick();
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
