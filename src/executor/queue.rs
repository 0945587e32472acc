//! What is to be polled next: filled by wakers from any thread, emptied a round at a time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

use crate::reactor::Unparker;

/// The key of the future given to `block_on`.
pub(super) const MAIN: usize = usize::MAX;

/// Tasks that were woken, in that order, each at most once.
#[derive(Debug)]
pub(super) struct RunQueue {
    runnables: Mutex<VecDeque<Arc<Runnable>>>,
    unparker: Unparker,
}

/// A task's waker: which task, and whether it is queued.
#[derive(Debug)]
pub(super) struct Runnable {
    key: usize,
    is_queued: AtomicBool,
    queue: Arc<RunQueue>,
}

impl RunQueue {
    pub(super) fn new(unparker: Unparker) -> Self {
        Self { runnables: Mutex::default(), unparker }
    }

    /// Moves all that is queued now to `round`.
    pub(super) fn take_round(&self, round: &mut Vec<Arc<Runnable>>) {
        round.extend(self.lock().drain(..));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Runnable>>> {
        // Nothing panics while it is held.
        self.runnables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runnable {
    pub(super) fn new(key: usize, queue: Arc<RunQueue>) -> Arc<Self> {
        Arc::new(Self { key, is_queued: AtomicBool::new(false), queue })
    }

    pub(super) fn key(&self) -> usize {
        self.key
    }

    /// About to be polled: a wake-up from here on queues it again.
    pub(super) fn begin(&self) {
        // AcqRel: what the waker did before waking is seen by the poll.
        self.is_queued.swap(false, Ordering::AcqRel);
    }

    pub(super) fn schedule(self: &Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            self.queue.lock().push_back(Arc::clone(self));
            self.queue.unparker.unpark();
        }
    }
}

impl Wake for Runnable {
    fn wake(self: Arc<Self>) {
        self.schedule();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.schedule();
    }
}
