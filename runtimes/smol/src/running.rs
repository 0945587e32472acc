//! Which executor runs on this thread.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use async_executor::{LocalExecutor, Task};

thread_local! {
    static RUNNING: RefCell<Option<Rc<LocalExecutor<'static>>>> = const { RefCell::new(None) };
}

/// Spawns a future onto the executor of the shard, or of the [`Smol`](crate::Smol), that runs the calling code. Dropping the
/// task cancels it.
///
/// # Panics
/// Outside of those, where nothing would ever run it.
pub fn spawn_local<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    let running = RUNNING.with_borrow(Clone::clone);
    running.expect("`spawn_local` is called inside of `Smol::run`").spawn(future)
}

/// That an executor runs; dropped, also where a future panics, the one before does again.
pub(crate) struct Running(Option<Rc<LocalExecutor<'static>>>);

impl Running {
    pub(crate) fn new(executor: &Rc<LocalExecutor<'static>>) -> Self {
        Self(RUNNING.replace(Some(Rc::clone(executor))))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let ended = RUNNING.replace(self.0.take());
        drop(ended);
    }
}
