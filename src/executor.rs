//! The built-in executor: one thread, no other dependency, parked inside `io_uring_enter`.
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
//! A round polls each runnable task once, then the reactor has its turn; so no task is kept waiting
//! by another that is always ready. Futures need not be `Send`; wakers are, and wake from any
//! thread.

mod queue;
mod task;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use self::queue::{MAIN, RunQueue, Runnable};
pub use self::task::JoinHandle;
use self::task::Tasks;
use crate::reactor::Attached;
use crate::{Reactor, ReactorOptions, Result};

thread_local! {
    static CURRENT: RefCell<Option<Rc<Tasks>>> = const { RefCell::new(None) };
}

/// Runs a future to its end on this thread, with a reactor of its own and default options.
///
/// Tasks spawned by [`spawn_local`] run alongside; those that are unfinished when the future ends
/// are dropped. Inside another `block_on` the reactor is shared, and only the inner tasks run.
///
/// Where io_uring is refused, this works all the same, and the first socket that needs it says so
/// ([`Error::IoUringRefused`](crate::Error::IoUringRefused)).
///
/// # Panics
/// Where a task panics, and where the process has no descriptor left for the reactor's eventfd
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
/// Outside of an executor, where nothing would ever run it.
pub fn spawn_local<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let tasks = CURRENT.with_borrow(Clone::clone);
    tasks.expect("`spawn_local` is called inside `ringtap::executor::block_on`").spawn(future)
}

/// Lets the thread's other runnable tasks and its reactor have their turn, then goes on.
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

/// An executor with options, for one thread.
#[derive(Debug)]
pub struct Executor {
    // Dropped first: tasks own sockets that the reactor then lets go of.
    tasks: Rc<Tasks>,
    reactor: Reactor,
    /// `None` where an outer executor's reactor is shared.
    _attached: Option<Attached>,
}

impl Executor {
    /// Makes a reactor and attaches it to this thread, unless one is attached already.
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) where the process has no descriptor left. A refused io_uring
    /// is not an error here: see [`block_on`].
    pub fn new(options: ReactorOptions) -> Result<Self> {
        let (reactor, attached) = match Reactor::current() {
            Ok(reactor) => (reactor, None),
            Err(_) => {
                let attached = Attached::new(&options)?;
                (attached.reactor().clone(), Some(attached))
            }
        };
        let queue = Arc::new(RunQueue::new(reactor.unparker().clone()));
        Ok(Self { tasks: Rc::new(Tasks::new(queue)), reactor, _attached: attached })
    }

    /// Runs a future to its end; see [`block_on`].
    ///
    /// # Panics
    /// Where a task panics.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let _current = Entered::new(Rc::clone(&self.tasks));
        let mut future = pin!(future);
        let main = Runnable::new(MAIN, Arc::clone(self.tasks.queue()));
        let waker = Waker::from(Arc::clone(&main));
        main.schedule();
        let mut round = Vec::new();
        let mut output = None;
        loop {
            self.tasks.queue().take_round(&mut round);
            for runnable in round.drain(..) {
                runnable.begin();
                if !Arc::ptr_eq(&runnable, &main) {
                    self.tasks.run(&runnable);
                } else if let Poll::Ready(value) =
                    future.as_mut().poll(&mut Context::from_waker(&waker))
                {
                    output = Some(value);
                }
            }
            if let Some(output) = output {
                return output; // after the round: whoever was in it must not be forgotten
            }
            if self.tasks.queue().is_empty() {
                // Without a way to sleep there is still a way to look again.
                if self.reactor.park(None).is_err() {
                    std::thread::yield_now();
                }
            } else {
                self.reactor.turn();
            }
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // A task's destructor may use the reactor, and may spawn.
        let _current = Entered::new(Rc::clone(&self.tasks));
        self.tasks.clear();
    }
}

/// Makes tasks the thread's current ones, until dropped.
struct Entered {
    outer: Option<Rc<Tasks>>,
}

impl Entered {
    fn new(tasks: Rc<Tasks>) -> Self {
        Self { outer: CURRENT.replace(Some(tasks)) }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.outer.take());
    }
}
