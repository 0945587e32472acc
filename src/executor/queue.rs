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
    /// `None` once the executor has ended: wakers refer to the queue, so what it held would keep it
    /// alive.
    runnables: Mutex<Option<VecDeque<Arc<Runnable>>>>,
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
        Self { runnables: Mutex::new(Some(VecDeque::new())), unparker }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().as_ref().is_none_or(VecDeque::is_empty)
    }

    /// Takes no more tasks, and forgets those it has.
    pub(super) fn close(&self) {
        let forgotten = self.lock().take();
        drop(forgotten); // outside the lock
    }

    fn push(&self, runnable: &Arc<Runnable>) {
        if let Some(runnables) = &mut *self.lock() {
            runnables.push_back(Arc::clone(runnable));
        }
        self.unparker.unpark();
    }

    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<Arc<Runnable>>>> {
        // Nothing panics while it is held.
        self.runnables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tasks of one round; those that it does not come to go back to the front of the queue.
#[derive(Debug)]
pub(super) struct Round<'a> {
    queue: &'a RunQueue,
    runnables: VecDeque<Arc<Runnable>>,
}

impl<'a> Round<'a> {
    pub(super) fn new(queue: &'a RunQueue) -> Self {
        Self { queue, runnables: VecDeque::new() }
    }

    /// Takes all that is queued now.
    pub(super) fn begin(&mut self) {
        if let Some(queued) = &mut *self.queue.lock() {
            self.runnables.append(queued);
        }
    }

    /// The next task, about to be polled: a wake-up from here on queues it again.
    pub(super) fn next(&mut self) -> Option<Arc<Runnable>> {
        let runnable = self.runnables.pop_front()?;
        // AcqRel: what the waker did before waking is seen by the poll.
        runnable.is_queued.swap(false, Ordering::AcqRel);
        Some(runnable)
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        if let Some(queued) = &mut *self.queue.lock() {
            self.runnables.append(queued);
            std::mem::swap(&mut self.runnables, queued);
        }
    }
}

impl Runnable {
    pub(super) fn new(key: usize, queue: Arc<RunQueue>) -> Arc<Self> {
        Arc::new(Self { key, is_queued: AtomicBool::new(false), queue })
    }

    pub(super) fn key(&self) -> usize {
        self.key
    }

    pub(super) fn schedule(self: &Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            self.queue.push(self);
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
