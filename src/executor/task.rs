//! Spawned tasks and their handles.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::queue::{RunQueue, Runnable};
use crate::error::{Error, Result};

/// The spawned tasks of one executor.
#[derive(Debug)]
pub(super) struct Tasks {
    tasks: RefCell<Slab<Task>>,
    queue: Arc<RunQueue>,
}

type BoxedFuture = Pin<Box<dyn Future<Output = ()>>>;

struct Task {
    /// `None` while it is being polled.
    future: Option<BoxedFuture>,
    runnable: Arc<Runnable>,
    waker: Waker,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("key", &self.runnable.key()).finish_non_exhaustive()
    }
}

impl Tasks {
    pub(super) fn new(queue: Arc<RunQueue>) -> Self {
        Self { tasks: RefCell::default(), queue }
    }

    pub(super) fn queue(&self) -> &Arc<RunQueue> {
        &self.queue
    }

    pub(super) fn spawn<F>(self: &Rc<Self>, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let outcome = Rc::new(Outcome::default());
        let report = Report(Rc::clone(&outcome));
        let future = Box::pin(async move {
            let value = future.await;
            report.0.value.set(Some(value));
        });
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        let runnable = Runnable::new(entry.key(), Arc::clone(&self.queue));
        let waker = Waker::from(Arc::clone(&runnable));
        entry.insert(Task { future: Some(future), runnable: Arc::clone(&runnable), waker });
        drop(tasks);
        runnable.schedule();
        JoinHandle { outcome, runnable, tasks: Rc::downgrade(self), is_detached: false }
    }

    /// Polls the task of `runnable` once, unless it has ended.
    pub(super) fn run(&self, runnable: &Arc<Runnable>) {
        let Some((mut future, waker)) = self.take(runnable) else { return };
        let unwinding = CancelOnUnwind { tasks: self, runnable };
        let is_ready = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        std::mem::forget(unwinding);
        let mut tasks = self.tasks.borrow_mut();
        match own_task(&mut tasks, runnable) {
            Some(task) if !is_ready => task.future = Some(future),
            task => {
                // It has completed, or was cancelled from within.
                let over = task.is_some().then(|| tasks.remove(runnable.key()));
                drop(tasks); // destructors may spawn or cancel
                drop((over, future));
            }
        }
    }

    /// Drops the task of `runnable`, unless it has ended.
    fn cancel(&self, runnable: &Arc<Runnable>) {
        let mut tasks = self.tasks.borrow_mut();
        let removed =
            own_task(&mut tasks, runnable).is_some().then(|| tasks.remove(runnable.key()));
        drop(tasks);
        drop(removed);
    }

    /// Drops all tasks, including any that their destructors spawn, and accepts no more.
    pub(super) fn clear(&self) {
        loop {
            let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
            if tasks.is_empty() {
                break;
            }
            drop(tasks);
        }
        self.queue.close();
    }

    fn take(&self, runnable: &Arc<Runnable>) -> Option<(BoxedFuture, Waker)> {
        let mut tasks = self.tasks.borrow_mut();
        let task = own_task(&mut tasks, runnable)?;
        Some((task.future.take()?, task.waker.clone()))
    }
}

/// Removes a task if it panics, so that it is not polled again.
struct CancelOnUnwind<'a> {
    tasks: &'a Tasks,
    runnable: &'a Arc<Runnable>,
}

impl Drop for CancelOnUnwind<'_> {
    fn drop(&mut self) {
        self.tasks.cancel(self.runnable);
    }
}

/// Returns the task of `runnable`, unless another task has since taken its key.
fn own_task<'a>(tasks: &'a mut Slab<Task>, runnable: &Arc<Runnable>) -> Option<&'a mut Task> {
    tasks.get_mut(runnable.key()).filter(|task| Arc::ptr_eq(&task.runnable, runnable))
}

/// The result that a task leaves behind.
struct Outcome<T> {
    value: Cell<Option<T>>,
    is_over: Cell<bool>,
    waiter: Cell<Option<Waker>>,
}

impl<T> Default for Outcome<T> {
    fn default() -> Self {
        Self { value: Cell::new(None), is_over: Cell::new(false), waiter: Cell::new(None) }
    }
}

/// Marks the task as ended when dropped, whether it completed or not.
struct Report<T>(Rc<Outcome<T>>);

impl<T> Drop for Report<T> {
    fn drop(&mut self) {
        self.0.is_over.set(true);
        if let Some(waiter) = self.0.waiter.take() {
            waiter.wake();
        }
    }
}

/// A handle to a spawned task. Awaiting it returns the task's value, or [`Error::TaskCancelled`] if the task ended without
/// one: it panicked, or its executor is gone. A task that itself returns a `Result` is awaited with `task.await??`.
///
/// Dropping the handle **cancels** the task: its future is dropped at once (or, if the task is dropping its
/// own handle, once it next yields). [`detach`](Self::detach) lets the task run on.
#[must_use = "dropping the handle cancels the task; `detach` it to let it run"]
pub struct JoinHandle<T> {
    outcome: Rc<Outcome<T>>,
    runnable: Arc<Runnable>,
    tasks: Weak<Tasks>,
    is_detached: bool,
}

impl<T> JoinHandle<T> {
    /// Lets the task run until it completes or the executor ends, without waiting for its result.
    pub fn detach(mut self) {
        self.is_detached = true;
    }

    /// Returns whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.outcome.is_over.get()
    }
}

impl<T> Future for JoinHandle<T> {
    /// [`Error::TaskCancelled`] if the executor ended before the task did.
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        if self.outcome.is_over.get() {
            return Poll::Ready(self.outcome.value.take().ok_or(Error::TaskCancelled));
        }
        self.outcome.waiter.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if !self.is_detached
            && let Some(tasks) = self.tasks.upgrade()
        {
            tasks.cancel(&self.runnable);
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("is_finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}
