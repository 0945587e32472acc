//! Waking a parked reactor from any thread.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use crate::Result;
use crate::sys::event::{self, EventFd};

const RUNNING: u8 = 0;
const PARKED: u8 = 1;
const NOTIFIED: u8 = 2;

/// Ends a reactor's park, or keeps its next one from sleeping.
#[derive(Debug, Clone)]
pub(crate) struct Unparker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: AtomicU8,
    event: EventFd,
}

impl Unparker {
    pub(super) fn new() -> Result<Self> {
        let shared = Shared { state: AtomicU8::new(RUNNING), event: EventFd::new()? };
        Ok(Self(Arc::new(shared)))
    }

    /// Wakes the reactor; a system call only if it is parked.
    pub(crate) fn unpark(&self) {
        // AcqRel: what was done before is seen by the reactor once it runs, through `begin` or
        // `end`, whichever comes first.
        if self.0.state.swap(NOTIFIED, Ordering::AcqRel) == PARKED {
            self.0.event.signal();
        }
    }

    /// The reactor is about to sleep: false if it was notified since it last ran.
    pub(super) fn begin(&self) -> bool {
        let parked =
            self.0.state.compare_exchange(RUNNING, PARKED, Ordering::AcqRel, Ordering::Acquire);
        if parked.is_err() {
            self.0.state.store(RUNNING, Ordering::Release);
        }
        parked.is_ok()
    }

    /// The reactor runs again.
    pub(super) fn end(&self) {
        // Acquire: pairs with `unpark`.
        self.0.state.swap(RUNNING, Ordering::AcqRel);
    }

    /// Sleeps without a ring, until notified or `deadline`.
    pub(super) fn sleep(&self, deadline: Option<Instant>) -> Result<()> {
        event::poll([Some(self.event()), None], deadline)
            .map_err(|source| crate::Error::os(crate::Step::Wait, source))?;
        self.0.event.clear();
        Ok(())
    }

    /// Becomes readable when a parked reactor is notified.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_before_the_park_is_not_lost() {
        let unparker = Unparker::new().unwrap();
        unparker.unpark();
        assert!(!unparker.begin(), "notified: do not sleep");
        assert!(unparker.begin(), "taken");
        unparker.end();
        assert!(unparker.begin());
    }
}
