//! The socket behind a capture: its totals, its link, and its intake.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ringtap_filter::BpfFilter;

use super::gate::{Intake, SocketFilter};
use crate::error::{Error, Result, Step};
use crate::packet::LinkType;
use crate::stats::CaptureStats;
use crate::sys::netdev::Netdev;
use crate::sys::{packet_socket, sockopt};

/// A bound packet socket.
///
/// It is shared by its capture, by readers of its statistics while they read, and by code that must keep it in its
/// fanout group a little longer.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    name: String,
    index: u32,
    totals: Arc<Totals>,
    intake: Intake,
}

/// Running totals: those of the kernel, which clears them on each read, and those of this crate.
#[derive(Debug, Default)]
pub(super) struct Totals {
    kernel: Mutex<KernelTotals>,
    delivered: AtomicU64,
    batches: AtomicU64,
    pub(super) malformed: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct KernelTotals {
    packets: u64,
    drops: u64,
    freezes: u64,
}

/// Number of batches between two reads of the kernel's counters while packets are being dropped.
const LOSING_BATCHES: u64 = 256;

/// Whether the interface passes packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Up,
    Down,
}

impl Socket {
    pub(super) fn new(fd: OwnedFd, name: String, index: u32, intake: Intake) -> Self {
        Self { fd, name, index, totals: Arc::default(), intake }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn totals(&self) -> &Arc<Totals> {
        &self.totals
    }

    pub(super) fn stats(&self) -> Result<CaptureStats> {
        self.totals.refresh(self.fd.as_fd()).map_err(|error| error.of(&self.name))
    }

    /// Lets packets in, through the capture's filter.
    pub(super) fn open_intake(&self) -> Result<()> {
        self.intake.open(self.fd.as_fd()).map_err(|error| error.of(&self.name))
    }

    /// Closes the intake: further packets are not counted; packets in the ring stay.
    pub(crate) fn close_intake(&self) -> Result<()> {
        self.intake.close(self.fd.as_fd()).map_err(|error| error.of(&self.name))
    }

    /// Replaces the filter that decides about packets.
    pub(super) fn set_decider(&self, decider: SocketFilter) -> Result<()> {
        self.intake.set(self.fd.as_fd(), decider).map_err(|error| error.of(&self.name))
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    pub(super) fn link_type(&self) -> LinkType {
        self.intake.link()
    }

    pub(super) fn lock_filter(&self) -> Result<()> {
        self.intake.lock_filter(self.fd.as_fd()).map_err(|error| error.of(&self.name))
    }

    /// Checks whether the interface is up, down or gone, and takes the socket's pending error.
    ///
    /// `packet_notifier` reports a link going down once, and a later removal of the interface not at all: it only
    /// sets the socket's index to -1. So the link must be checked repeatedly while it is down.
    pub(crate) fn check_link(&self) -> Result<Link> {
        let error = packet_socket::take_error(self.fd.as_fd())?;
        if packet_socket::is_orphaned(self.fd.as_fd()) {
            return Err(Error::InterfaceGone { name: self.name.clone() });
        }
        match error {
            Some(error) if error.raw_os_error() != Some(libc::ENETDOWN) => {
                return Err(Error::os(Step::Wait, error));
            }
            _ => {}
        }
        // Asked last: a socket whose interface has IFF_UP is hooked up again, or will be before the next
        // notification, so that the next time it goes down is reported.
        Ok(if self.is_up() { Link::Up } else { Link::Down })
    }

    pub(super) fn is_up(&self) -> bool {
        // All interfaces together are always up.
        self.index == packet_socket::ANY || Netdev(self.fd.as_fd()).is_up(self.index)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Handles that still exist must not miss what happened since the last read.
        let _ = self.stats();
    }
}

impl Totals {
    /// Counts a delivered batch. Returns true from time to time, when the kernel's 32-bit counters should be read
    /// before they can wrap.
    #[inline]
    pub(super) fn count_batch(&self, packets: u64, is_losing: bool) -> bool {
        // Relaxed, and no read-modify-write: the owner of the capture is the only writer, and these are statistics.
        let before = self.delivered.load(Ordering::Relaxed);
        let batches = self.batches.load(Ordering::Relaxed) + 1;
        self.delivered.store(before + packets, Ordering::Relaxed);
        self.batches.store(batches, Ordering::Relaxed);
        let many_delivered = (before ^ (before + packets)) >> 30 != 0;
        many_delivered || (is_losing && batches.is_multiple_of(LOSING_BATCHES))
    }

    /// Adds what the kernel has counted since the last read, and returns all totals.
    fn refresh(&self, socket: BorrowedFd<'_>) -> Result<CaptureStats> {
        let mut kernel = self.lock();
        let fresh: libc::tpacket_stats_v3 = sockopt::get(socket, sockopt::STATISTICS)?;
        kernel.packets += u64::from(fresh.tp_packets);
        kernel.drops += u64::from(fresh.tp_drops);
        kernel.freezes += u64::from(fresh.tp_freeze_q_cnt);
        Ok(self.snapshot(&kernel))
    }

    fn last(&self) -> CaptureStats {
        self.snapshot(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, KernelTotals> {
        // No code panics while it is held; even if some did, the figures would be sound.
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self, kernel: &KernelTotals) -> CaptureStats {
        CaptureStats {
            packets: kernel.packets,
            delivered: self.delivered.load(Ordering::Relaxed),
            drops: kernel.drops,
            freezes: kernel.freezes,
            batches: self.batches.load(Ordering::Relaxed),
            malformed: self.malformed.load(Ordering::Relaxed),
        }
    }
}

/// Reads a capture's statistics from any thread, without disturbing the data path.
///
/// The handle does not keep the socket open; once that is closed, the last totals stay readable.
#[derive(Debug, Clone)]
pub struct StatsHandle {
    totals: Arc<Totals>,
    socket: Weak<Socket>,
}

impl StatsHandle {
    pub(super) fn new(socket: &Arc<Socket>) -> Self {
        Self { totals: Arc::clone(&socket.totals), socket: Arc::downgrade(socket) }
    }

    /// Returns the current totals: one system call while the socket is open, none afterwards.
    ///
    /// # Errors
    /// [`Error::Os`] if the kernel refuses `PACKET_STATISTICS`.
    pub fn stats(&self) -> Result<CaptureStats> {
        match self.socket.upgrade() {
            Some(socket) => socket.stats(),
            None => Ok(self.totals.last()),
        }
    }
}

/// Changes a capture's filter from any thread, while packets come in. Created by
/// [`Capture::filter_handle`](crate::Capture::filter_handle).
///
/// The handle does not keep the socket open; once that is closed, it does nothing.
#[derive(Debug, Clone)]
pub struct FilterHandle(Weak<Socket>);

impl FilterHandle {
    pub(super) fn new(socket: &Arc<Socket>) -> Self {
        Self(Arc::downgrade(socket))
    }

    /// Replaces the filter; see [`Capture::set_filter`](crate::Capture::set_filter).
    ///
    /// # Errors
    /// The errors of [`Capture::set_filter`](crate::Capture::set_filter).
    pub fn set(&self, filter: &BpfFilter) -> Result<()> {
        self.change(SocketFilter::Classic(filter.clone()))
    }

    /// Removes the filter; see [`Capture::clear_filter`](crate::Capture::clear_filter).
    ///
    /// # Errors
    /// The errors of [`Capture::clear_filter`](crate::Capture::clear_filter).
    pub fn clear(&self) -> Result<()> {
        self.change(SocketFilter::AcceptAll)
    }

    fn change(&self, decider: SocketFilter) -> Result<()> {
        self.0.upgrade().map_or(Ok(()), |socket| socket.set_decider(decider))
    }
}
