//! ringtap on tokio-uring.
//!
//! [`attach`] once on a thread, inside of `tokio_uring::start`, and every async socket of ringtap works on
//! it. The reactor has a ring of its own: nothing is submitted on tokio-uring's.
//!
//! ```no_run
//! # fn main() -> ringtap::Result<()> {
//! tokio_uring::start(async {
//!     let _attached = ringtap_tokio_uring::attach()?;
//!     let mut tx = ringtap::AsyncInjector::open("eth0")?;
//!     tx.send(&[0xff; 60]).await?;
//!     tx.flush().await
//! })
//! # }
//! ```

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::{Context, Poll, ready};

use ringtap::{Error, Hosted, ReactorOptions, Result, Runtime, Watch};
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

/// Attaches a reactor with default options to this thread; see [`attach_with`].
///
/// # Errors
/// As [`attach_with`].
pub fn attach() -> Result<Attached> {
    attach_with(ReactorOptions::default())
}

/// Attaches a reactor to this thread, for as long as the guard lives.
///
/// # Errors
/// [`Error::AlreadyAttached`]; [`Error::IoUringRefused`]; and an error that says so where this is called
/// outside of tokio-uring.
pub fn attach_with(options: ReactorOptions) -> Result<Attached> {
    let outside = "no tokio-uring on this thread: attach inside of `tokio_uring::start`";
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(Error::other(outside));
    }
    let (hosted, driver) = Hosted::attach(options)?;
    let event = hosted.event().try_clone_to_owned().map_err(Error::other)?;
    let spawn = move || -> io::Result<JoinHandle<Result<()>>> {
        #[allow(
            deprecated,
            reason = "an OwnedFd keeps its descriptor open, as its successor demands"
        )]
        let event = AsyncFd::new(event)?;
        Ok(tokio_uring::spawn(driver.drive(Event(event))))
    };
    // It has no way to ask whether it runs.
    match catch_unwind(AssertUnwindSafe(spawn)) {
        Ok(spawned) => Ok(Attached { driver: spawned.map_err(Error::other)?, hosted }),
        Err(_) => Err(Error::other(outside)),
    }
}

/// Keeps the reactor attached. Dropping it cancels what is in flight, and waits a bounded time until the
/// kernel has let go.
#[derive(Debug)]
pub struct Attached {
    hosted: Hosted,
    driver: JoinHandle<Result<()>>,
}

impl Attached {
    /// Detaches, and waits until the driver task has ended.
    ///
    /// # Errors
    /// What had ended the driver before.
    pub async fn shutdown(self) -> Result<()> {
        let Self { hosted, driver } = self;
        drop(hosted);
        match driver.await {
            Ok(ended) => ended,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            Err(_) => Ok(()), // the runtime is ending, and the reactor has
        }
    }
}

/// The reactor's eventfd: its edges are watched, and it is never read.
struct Event(AsyncFd<OwnedFd>);

impl Watch for Event {
    fn poll_edge(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_read_ready(cx))?.clear_ready();
        Poll::Ready(Ok(()))
    }
}

/// Runs shards on tokio-uring, each thread with a runtime of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioUring {
    options: ReactorOptions,
}

impl TokioUring {
    /// With a reactor of these options.
    pub fn new(options: ReactorOptions) -> Self {
        Self { options }
    }
}

impl Runtime for TokioUring {
    fn run<F: Future>(&self, _core: Option<usize>, future: F) -> Result<F::Output> {
        let runtime = tokio_uring::Runtime::new(&tokio_uring::builder()).map_err(Error::other)?;
        runtime.block_on(async {
            let attached = attach_with(self.options)?;
            let output = future.await;
            attached.shutdown().await?;
            Ok(output)
        })
    }
}
