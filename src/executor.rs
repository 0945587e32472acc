//! The built-in executor: it runs on one thread, has no other dependency, and parks inside `io_uring_enter`.
//!
//! ```
//! use std::time::Duration;
//! use ringtap::executor::{block_on, spawn_local};
//!
//! let sum = block_on(async {
//!     let task = spawn_local(async {
//!         ringtap::time::sleep(Duration::from_millis(1)).await;
//!         40
//!     });
//!     task.await.unwrap() + 2
//! });
//! assert_eq!(sum, 42);
//! ```
//!
//! Each round polls every runnable task once, then turns the reactor, so a task that is always ready does not
//! starve the others. Futures need not be `Send`. Wakers are `Send` and may be used from any thread.

mod queue;
mod task;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use self::queue::{MAIN, Round, RunQueue, Runnable};
pub use self::task::JoinHandle;
use self::task::Tasks;
use crate::error::Result;
use crate::options::ReactorOptions;
use crate::reactor::Attached;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Tasks>>> = const { RefCell::new(None) };
}

/// Runs a future to completion on this thread, with its own reactor and default options.
///
/// Tasks spawned by [`spawn_local`] run alongside it; tasks that are unfinished when the future completes are
/// dropped. A nested `block_on` shares the reactor and runs only its own tasks.
///
/// If io_uring is refused, the executor uses `poll(2)` instead; see
/// [`Reactor::backend`](crate::reactor::Reactor).
///
/// # Panics
/// Panics if a task panics, or if the process has no descriptor left for the reactor's eventfd
/// ([`Executor::new`] returns that as an error).
pub fn block_on<F: Future>(future: F) -> F::Output {
    match Executor::new(ReactorOptions::default()) {
        Ok(executor) => executor.block_on(future),
        Err(error) => panic!("{error}"),
    }
}

/// Spawns a future onto the executor that runs the calling code.
///
/// # Panics
/// Panics outside of an executor, since nothing would ever run the future.
pub fn spawn_local<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let tasks = CURRENT.with_borrow(Clone::clone);
    tasks.expect("`spawn_local` is called inside `ringtap::executor::block_on`").spawn(future)
}

/// Yields once to the thread's other runnable tasks and its reactor.
pub async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A single-threaded executor with configurable options.
#[derive(Debug)]
pub struct Executor {
    tasks: Rc<Tasks>,
    is_running: Cell<bool>,
    // Dropped last: tasks own sockets, which the reactor then releases.
    attached: Rc<Attached>,
}

impl Executor {
    /// Creates a reactor and attaches it to this thread. If a reactor is already attached, it is shared and
    /// the options are ignored; it ends with the last executor that uses it.
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) if the process has no descriptor left. A refused io_uring is not an
    /// error here, even if it is required: the first socket that needs it reports it.
    pub fn new(options: ReactorOptions) -> Result<Self> {
        let attached = Attached::current_or_new(&options)?;
        let queue = Arc::new(RunQueue::new(attached.reactor().unparker().clone()));
        Ok(Self { tasks: Rc::new(Tasks::new(queue)), is_running: Cell::new(false), attached })
    }

    /// Runs a future to completion; see [`block_on`](fn@block_on). Tasks that are unfinished by then wait for
    /// the next call.
    ///
    /// # Panics
    /// Panics if a task panics, or if called inside a future that this executor is running.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let _running = Running::new(&self.is_running);
        let _current = Entered::new(Rc::clone(&self.tasks));
        let mut future = pin!(future);
        let queue = self.tasks.queue();
        let main = Runnable::new(MAIN, Arc::clone(queue));
        let waker = Waker::from(Arc::clone(&main));
        main.schedule();
        let mut round = Round::new(queue);
        loop {
            round.begin();
            while let Some(runnable) = round.next() {
                if !Arc::ptr_eq(&runnable, &main) {
                    self.tasks.run(&runnable);
                } else if let Poll::Ready(output) =
                    future.as_mut().poll(&mut Context::from_waker(&waker))
                {
                    return output;
                }
            }
            let reactor = self.attached.reactor();
            if !queue.is_empty() {
                reactor.turn();
            } else if reactor.park(|| !queue.is_empty()).is_err() {
                // Sleeping until something happens is impossible: look again periodically.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // A task's destructor may use the reactor, and may spawn tasks.
        let _current = Entered::new(Rc::clone(&self.tasks));
        self.tasks.clear();
    }
}

/// Marks the executor as running until dropped.
struct Running<'a>(&'a Cell<bool>);

impl<'a> Running<'a> {
    fn new(is_running: &'a Cell<bool>) -> Self {
        assert!(!is_running.replace(true), "an executor does not run inside itself");
        Self(is_running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Makes a set of tasks the thread's current one until dropped.
struct Entered {
    outer: Option<Rc<Tasks>>,
}

impl Entered {
    fn new(tasks: Rc<Tasks>) -> Self {
        // A thread that is terminating has no current tasks.
        let outer = CURRENT.try_with(|current| current.replace(Some(tasks))).ok().flatten();
        Self { outer }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let outer = self.outer.take();
        let inner = CURRENT.try_with(|current| current.replace(outer));
        drop(inner);
    }
}
