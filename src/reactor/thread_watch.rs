//! A watch for executors that know no descriptors: a thread waits for the eventfd, and wakes the driver.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use super::hosted::{Hosted, Watch};
use crate::error::{Error, Result, Step};
use crate::options::ReactorOptions;
use crate::sys::event::{self, Beacon, Interest};

/// Watches a reactor's eventfd from a thread of its own, so that any executor can be a host, even one without I/O:
/// `LocalPool`, `async-executor`, pollster.
///
/// Each wake-up goes through that thread, which costs a change of threads. An executor that can watch a descriptor itself
/// is better served by a [`Watch`] of its own.
///
/// ```no_run
/// use ringtap::reactor::{Hosted, ReactorOptions, ThreadWatch};
///
/// # fn spawn_local<F: Future>(_: F) {}
/// # fn main() -> ringtap::Result<()> {
/// let (hosted, driver) = Hosted::attach(ReactorOptions::default())?;
/// spawn_local(driver.drive(ThreadWatch::new(&hosted)?)); // of the executor
/// // Async sockets work on this thread while `hosted` lives and the executor runs.
/// # Ok(())
/// # }
/// ```
///
/// [`run_anywhere`](super::run_anywhere) does all that for one future.
pub struct ThreadWatch {
    shared: Arc<Shared>,
    quit: Arc<Beacon>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the thread has to report: the eventfd was signalled, or cannot be watched.
    news: Option<io::Result<()>>,
    waker: Option<Waker>,
}

impl Shared {
    fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        // Nothing panics while it is locked: wakers are cloned, woken and dropped outside.
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn report(&self, news: io::Result<()>) {
        let waker = self.with(|state| {
            state.news = Some(news);
            state.waker.take()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl ThreadWatch {
    /// Starts the thread, which ends when this is dropped.
    ///
    /// # Errors
    /// [`Error::Os`] if no descriptor or no thread is left.
    pub fn new(hosted: &Hosted) -> Result<Self> {
        let event = hosted.event().try_clone_to_owned();
        let event = event.map_err(|source| Error::os(Step::WatchEvent, source))?;
        let (shared, quit) = (Arc::<Shared>::default(), Arc::new(Beacon::new()?));
        let (of_thread, until) = (Arc::clone(&shared), Arc::clone(&quit));
        let thread = std::thread::Builder::new()
            .name("ringtap-watch".to_owned())
            .spawn(move || watch(&event, &until, &of_thread))
            .map_err(|source| Error::os(Step::SpawnThread, source))?;
        Ok(Self { shared, quit, thread: Some(thread) })
    }
}

fn watch(event: &OwnedFd, quit: &Beacon, shared: &Shared) {
    loop {
        let both = [Interest::Readable(event.as_fd()), Interest::Readable(quit.as_fd())];
        match event::poll(both, None) {
            Ok([_, quit]) if quit.readable => return,
            Ok([event_is, _]) if event_is.readable => {
                // Somebody else may have cleared it since: the news is for all.
                event::clear_at_once(event.as_fd());
                shared.report(Ok(()));
            }
            Ok(_) => {}
            Err(error) => return shared.report(Err(error)),
        }
    }
}

impl Watch for ThreadWatch {
    fn poll_edge(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waker = cx.waker().clone();
        let (news, replaced) = self.shared.with(|state| match state.news.take() {
            Some(news) => (Some(news), Some(waker)),
            None => (None, state.waker.replace(waker)),
        });
        drop(replaced);
        news.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for ThreadWatch {
    fn drop(&mut self) {
        self.quit.light();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it does not panic, except in a waker of the host
        }
    }
}

impl fmt::Debug for ThreadWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadWatch").finish_non_exhaustive()
    }
}

/// Runs a future with a reactor on whatever executor polls it, without an adapter: pollster, `LocalPool`, a loop that polls. The
/// reactor ends with the future.
///
/// ```
/// # mod pollster {
/// #     use std::task::{Context, Poll, Wake, Waker};
/// #     struct Unpark(std::thread::Thread);
/// #     impl Wake for Unpark {
/// #         fn wake(self: std::sync::Arc<Self>) {
/// #             self.0.unpark();
/// #         }
/// #     }
/// #     pub fn block_on<F: Future>(future: F) -> F::Output {
/// #         let mut future = std::pin::pin!(future);
/// #         let waker = Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
/// #         loop {
/// #             match future.as_mut().poll(&mut Context::from_waker(&waker)) {
/// #                 Poll::Ready(output) => return output,
/// #                 Poll::Pending => std::thread::park(),
/// #             }
/// #         }
/// #     }
/// # }
/// # fn main() -> ringtap::Result<()> {
/// pollster::block_on(ringtap::reactor::run_anywhere(async {
///     ringtap::time::sleep(std::time::Duration::from_millis(1)).await;
/// }))?;
/// # Ok(())
/// # }
/// ```
///
/// A thread of its own watches the reactor ([`ThreadWatch`]). The executor must poll this on the thread
/// that polled it first.
///
/// # Errors
/// The errors of [`Hosted::attach`] and [`ThreadWatch::new`]; after the future has ended, the error
/// that had ended the reactor, if one did.
pub async fn run_anywhere<F: Future>(future: F) -> Result<F::Output> {
    let (hosted, driver) = Hosted::attach(ReactorOptions::default())?;
    let watch = ThreadWatch::new(&hosted)?;
    driver.drive_beside(watch, future).await
}
