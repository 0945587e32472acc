//! An adapter that runs ringtap on tokio: call [`attach`] once on a thread, inside a `LocalSet`, and every async socket
//! works on that thread. Batches are `Send`, so tasks on other threads of a multi-thread runtime can take them.
//!
//! ```no_run
//! # async fn f() -> ringtap::Result<()> {
//! let _attached = ringtap_tokio::attach()?;
//! let mut capture = ringtap::AsyncCapture::open("eth0")?;
//! while let Some(batch) = capture.next_batch().await? {
//!     tokio::spawn(async move { println!("{} packets", batch.len()) });
//! }
//! # Ok(())
//! # }
//! ```

#[cfg(doctest)]
mod documents;

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::{Context, Poll, ready};

use ringtap::reactor::{Hosted, ReactorOptions, Watch};
use ringtap::shard::Runtime;
use ringtap::{Error, Result};
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Handle};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

/// Attaches a reactor with default options to this thread; see [`attach_with`].
///
/// # Errors
/// As for [`attach_with`].
pub fn attach() -> Result<Attached> {
    attach_with(ReactorOptions::default())
}

/// Attaches a reactor to this thread for as long as the guard lives.
///
/// # Errors
/// [`Error::AlreadyAttached`]; [`Error::IoUringRefused`]; [`Error::Other`] outside of a `LocalSet`, or without tokio's I/O.
pub fn attach_with(options: ReactorOptions) -> Result<Attached> {
    if Handle::try_current().is_err() {
        return Err(Error::other("no tokio here: attach inside of it, or of `tokio_uring::start`"));
    }
    let (hosted, driver) = Hosted::attach(options)?;
    let event = hosted.event().try_clone_to_owned().map_err(Error::other)?;
    let spawn = move || -> io::Result<JoinHandle<Result<()>>> {
        #[allow(deprecated, reason = "an OwnedFd stays open, as the successor demands")]
        let event = AsyncFd::new(event)?;
        Ok(spawn_local(driver.drive(Event(event))))
    };
    // tokio has no way to check for a LocalSet or an I/O driver.
    match catch_unwind(AssertUnwindSafe(spawn)) {
        Ok(spawned) => Ok(Attached { driver: spawned.map_err(Error::other)?, hosted }),
        Err(_) => Err(Error::other(
            "tokio cannot watch here: attach inside of a LocalSet, on a runtime with `enable_all`",
        )),
    }
}

/// A guard that keeps the reactor attached. Dropping it cancels operations, and waits a bounded time for the kernel.
#[derive(Debug)]
pub struct Attached {
    hosted: Hosted,
    driver: JoinHandle<Result<()>>,
}

impl Attached {
    /// Detaches the reactor, and waits until the driver task has ended.
    ///
    /// # Errors
    /// The error that had ended the driver earlier, if any.
    pub async fn shutdown(self) -> Result<()> {
        let Self { hosted, driver } = self;
        drop(hosted);
        match driver.await {
            Ok(ended) => ended,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            Err(_) => Ok(()), // the runtime is ending, and the reactor has ended too
        }
    }
}

/// The reactor's eventfd. It is watched edge-triggered and never read.
struct Event(AsyncFd<OwnedFd>);

impl Watch for Event {
    fn poll_edge(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_read_ready(cx))?.clear_ready();
        Poll::Ready(Ok(()))
    }
}

/// A runtime that runs each shard's thread with its own current-thread runtime and `LocalSet`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tokio {
    options: ReactorOptions,
}

impl Tokio {
    /// Creates the runtime with these reactor options.
    pub fn new(options: ReactorOptions) -> Self {
        Self { options }
    }
}

impl Runtime for Tokio {
    fn run<F: Future>(&self, _core: Option<usize>, future: F) -> Result<F::Output> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(Error::other)?;
        LocalSet::new().block_on(&runtime, async {
            let attached = attach_with(self.options)?;
            let output = future.await;
            attached.shutdown().await?;
            Ok(output)
        })
    }
}
