//! Waking a parked reactor from any thread.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{Error, Result, Step};
use crate::sys::event::{self, EventFd, Interest};

/// Ends a reactor's park.
///
/// An unpark carries no message. The unparking thread publishes its news first and unparks second; the
/// reactor's thread announces its park first and looks for news second. So either the reactor sees the news,
/// or the other thread sees the park: both change `is_parked` in one step (swap), so one of them comes second
/// and sees everything the other did before.
#[derive(Debug, Clone)]
pub(crate) struct Unparker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    is_parked: AtomicBool,
    event: EventFd,
}

impl Unparker {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(Arc::new(Inner { is_parked: AtomicBool::new(false), event: EventFd::new()? })))
    }

    /// Wakes the reactor if it is parked or about to be; only then makes a system call.
    pub(crate) fn unpark(&self) {
        // AcqRel: pairs with `begin`. A swap even if the reactor is not parked, so that the next `begin`
        // reads it.
        if self.0.is_parked.swap(false, Ordering::AcqRel) {
            self.0.event.signal();
        }
    }

    /// Announces a park. Look for news after this, and call `end` if there is any.
    pub(super) fn begin(&self) {
        self.0.is_parked.swap(true, Ordering::AcqRel);
    }

    /// Records that the reactor runs again and need not be signalled.
    pub(super) fn end(&self) {
        // Not a plain store, which would hide from the next `begin` what was unparked before it.
        self.0.is_parked.swap(false, Ordering::AcqRel);
    }

    /// Sleeps without a ring, until unparked or for at most `limit`.
    pub(super) fn sleep(&self, limit: Option<Duration>) -> Result<()> {
        event::poll([Interest::Readable(self.event()), Interest::Not], limit)
            .map_err(|source| Error::os(Step::Wait, source))?;
        self.0.event.clear();
        Ok(())
    }

    /// Returns the descriptor that becomes readable when a parked reactor is unparked.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_signalled(unparker: &Unparker) -> bool {
        let fds = [Interest::Readable(unparker.event()), Interest::Not];
        let [event, _] = event::poll(fds, Some(Duration::ZERO)).unwrap();
        event.readable
    }

    #[test]
    fn only_a_parked_reactor_is_signalled_and_only_once() {
        let unparker = Unparker::new().unwrap();
        unparker.unpark();
        assert!(!is_signalled(&unparker));
        unparker.begin();
        unparker.end();
        unparker.unpark();
        assert!(!is_signalled(&unparker));
        unparker.begin();
        unparker.unpark();
        assert!(is_signalled(&unparker));
        unparker.0.event.clear();
        unparker.unpark();
        assert!(!is_signalled(&unparker), "the first has woken it");
    }
}
