//! How ports wait: how a reader handles an empty ring, how another thread ends its wait, and how a sender handles
//! frames that the kernel does not take.
//!
//! Both socket families use this, in their blocking and async forms.

mod stall;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(crate) use self::stall::{Backoff, KickOutcome, Stall};
use crate::error::Result;
use crate::sys::event::{Beacon, Interest};

/// Ends a receiving socket from any thread: packets in its ring are still delivered, then its batches end.
///
/// Created by [`Capture::stop_handle`](crate::Capture::stop_handle). Cheap to clone. Stopping twice, or after the
/// capture is gone, does nothing.
#[derive(Debug, Clone)]
pub struct StopHandle(Arc<Signal>);

#[derive(Debug)]
struct Signal {
    requested: AtomicBool,
    /// Never reset: once stopped, every wait ends at once.
    beacon: Beacon,
}

impl StopHandle {
    pub(crate) fn new() -> Result<Self> {
        let beacon = Beacon::new()?;
        Ok(Self(Arc::new(Signal { requested: AtomicBool::new(false), beacon })))
    }

    /// Asks the capture to drain and end.
    ///
    /// This is not guaranteed to be async-signal-safe. From a signal handler, use a crate that forwards the signal
    /// to a thread or a descriptor.
    pub fn stop(&self) {
        // Release: pairs with `is_stopped`, so that what was done before stopping is visible afterwards.
        if !self.0.requested.swap(true, Ordering::Release) {
            self.0.beacon.light();
        }
    }

    /// Returns whether a stop was requested.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.0.requested.load(Ordering::Acquire)
    }

    /// Returns what a wait watches besides its socket: a stop that was not acted on yet, even one already
    /// requested. (A stop requested after the reader's last check would otherwise be missed.)
    pub(crate) fn interest(stop: Option<&Self>, is_heeded: bool) -> Interest<'_> {
        match stop {
            Some(stop) if !is_heeded => Interest::Readable(stop.as_fd()),
            _ => Interest::Not,
        }
    }
}

/// Readable once a stop was requested, and from then on: for a waiter of your own. Do not read it.
impl AsFd for StopHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.beacon.as_fd()
    }
}

impl AsRawFd for StopHandle {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// The time limit of a reader's wait. It starts when it is first queried, so that a reader that finds a batch at
/// once reads no clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    timeout: Option<Duration>,
    at: Option<Instant>,
}

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Self {
        Self { timeout: Some(timeout), at: None }
    }

    pub(crate) fn never() -> Self {
        Self { timeout: None, at: None }
    }

    /// Returns the time left; `None` if the limit never ends, or is too far ahead for the clock.
    pub(crate) fn left(&mut self) -> Option<Duration> {
        let timeout = self.timeout?;
        let now = Instant::now();
        let Some(at) = self.at else {
            self.at = now.checked_add(timeout);
            self.timeout = self.at.map(|_| timeout);
            return self.timeout;
        };
        Some(at.saturating_duration_since(now))
    }
}

/// What a reader must do after it found its ring empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Empty {
    /// Wait for the socket.
    Wait,
    /// Wait for the socket, but look again after this long.
    WaitAtMost(Duration),
    /// Stop: no more packets will come.
    End,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::event::poll;

    #[test]
    fn a_deadline_counts_from_the_first_look() {
        let second = Duration::from_secs(1);
        let mut deadline = Deadline::after(second);
        assert_eq!(deadline.left(), Some(second));
        assert!(deadline.left().unwrap() <= second);
        deadline.at = deadline.at.map(|at| at - 2 * second);
        assert_eq!(deadline.left(), Some(Duration::ZERO));
        assert_eq!(Deadline::after(Duration::ZERO).left(), Some(Duration::ZERO));
        assert_eq!(Deadline::after(Duration::MAX).left(), None);
        assert_eq!(Deadline::never().left(), None);
    }

    #[test]
    fn a_stop_ends_a_wait_also_where_it_came_before_and_until_it_is_heeded() {
        let stop = StopHandle::new().unwrap();
        let is_woken = |is_heeded| {
            let soon = Some(Duration::from_millis(20));
            let interest = StopHandle::interest(Some(&stop), is_heeded);
            poll([Interest::Not, interest], soon).unwrap()[1].readable
        };
        assert!(!is_woken(false));
        stop.stop();
        assert!(is_woken(false), "what was asked for between the look and the wait");
        assert!(!is_woken(true), "and then no longer: the drain is waited for");
    }
}
