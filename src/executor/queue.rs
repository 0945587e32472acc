//! The queue of tasks to poll next: filled by wakers from any thread, emptied one round at a time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

use crate::reactor::Unparker;

/// The key of the future passed to `block_on`.
pub(super) const MAIN: usize = usize::MAX;

/// Woken tasks in the order of their wake-ups, each at most once.
#[derive(Debug)]
pub(super) struct RunQueue {
    /// `None` once the executor has ended: wakers refer to the queue, so tasks left in it would stay alive.
    runnables: Mutex<Option<VecDeque<Arc<Runnable>>>>,
    /// Whether the queue holds tasks; readable without the lock, changed under it.
    has_runnables: AtomicBool,
    unparker: Unparker,
}

/// A task's waker: identifies the task and records whether it is queued.
#[derive(Debug)]
pub(super) struct Runnable {
    key: usize,
    is_queued: AtomicBool,
    queue: Arc<RunQueue>,
}

impl RunQueue {
    pub(super) fn new(unparker: Unparker) -> Self {
        let runnables = Mutex::new(Some(VecDeque::new()));
        Self { runnables, has_runnables: AtomicBool::new(false), unparker }
    }

    /// Returns whether the queue is empty, as far as this thread knows. A thread that queues a task unparks
    /// the reactor afterwards, and a check made after a park has been announced sees that.
    pub(super) fn is_empty(&self) -> bool {
        // Relaxed: the unpark provides the ordering.
        !self.has_runnables.load(Ordering::Relaxed)
    }

    /// Closes the queue and drops the tasks in it.
    pub(super) fn close(&self) {
        let mut runnables = self.lock();
        let forgotten = runnables.take();
        self.has_runnables.store(false, Ordering::Relaxed);
        drop(runnables);
        drop(forgotten); // outside the lock
    }

    fn push(&self, runnable: &Arc<Runnable>) {
        if let Some(runnables) = &mut *self.lock() {
            runnables.push_back(Arc::clone(runnable));
            self.has_runnables.store(true, Ordering::Relaxed);
        }
        self.unparker.unpark();
    }

    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<Arc<Runnable>>>> {
        // No code panics while holding the lock.
        self.runnables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tasks of one round; tasks that were not polled return to the front of the queue.
#[derive(Debug)]
pub(super) struct Round<'a> {
    queue: &'a RunQueue,
    runnables: VecDeque<Arc<Runnable>>,
}

impl<'a> Round<'a> {
    pub(super) fn new(queue: &'a RunQueue) -> Self {
        Self { queue, runnables: VecDeque::new() }
    }

    /// Takes all tasks that are queued now.
    pub(super) fn begin(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        if let Some(queued) = &mut *self.queue.lock() {
            self.runnables.append(queued);
            self.queue.has_runnables.store(false, Ordering::Relaxed);
        }
    }

    /// Returns the next task to poll; from now on a wake-up queues it again.
    pub(super) fn next(&mut self) -> Option<Arc<Runnable>> {
        let runnable = self.runnables.pop_front()?;
        // AcqRel: the poll sees everything the waker did before waking.
        runnable.is_queued.swap(false, Ordering::AcqRel);
        Some(runnable)
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        if let Some(queued) = &mut *self.queue.lock() {
            self.runnables.append(queued);
            std::mem::swap(&mut self.runnables, queued);
            self.queue.has_runnables.store(!queued.is_empty(), Ordering::Relaxed);
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
