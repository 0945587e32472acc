//! A reactor on a thread that tokio runs.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::{Context, Poll, ready};

use ringtap::reactor::{Driver, Hosted, ReactorOptions, Watch};
use ringtap::shard::Runtime;
use ringtap::{Error, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

/// Runs a future with a reactor on this thread, and ends the reactor with it. It needs no `LocalSet`.
///
/// # Errors
/// As for [`run_with`].
pub async fn run<F: Future>(future: F) -> Result<F::Output> {
    run_with(ReactorOptions::default(), future).await
}

/// Runs a future like [`run`], with these options of the reactor.
///
/// # Errors
/// [`Error::AlreadyAttached`]; [`Error::IoUringRefused`]; [`Error::Other`] outside of tokio; after the future has ended, the
/// error that had ended the reactor, if one did.
///
/// # Panics
/// On a runtime without tokio's I/O: build it with `enable_all`.
pub async fn run_with<F: Future>(options: ReactorOptions, future: F) -> Result<F::Output> {
    let (_hosted, driver, event) = host(options)?;
    driver.drive_beside(event, future).await
}

/// Attaches a reactor with default options to this thread; see [`attach_with`].
///
/// # Errors
/// As for [`attach_with`].
pub fn attach() -> Result<Attached> {
    attach_with(ReactorOptions::default())
}

/// Attaches a reactor to this thread for as long as the guard lives. This must be called in a `LocalSet` or `LocalRuntime`.
///
/// # Errors
/// [`Error::AlreadyAttached`]; [`Error::IoUringRefused`]; [`Error::Other`] elsewhere, or without tokio's I/O. tokio cannot be
/// asked whether a `LocalSet` is running, so this finds out by a panic of tokio's that it catches: with `panic = "abort"` use
/// [`attach_in`] or [`run`], for which nothing has to be found out.
pub fn attach_with(options: ReactorOptions) -> Result<Attached> {
    let attach = || {
        let (hosted, driver, event) = host(options)?;
        Ok(Attached { driver: spawn_local(driver.drive(event)), hosted })
    };
    catch_unwind(AssertUnwindSafe(attach)).unwrap_or_else(|_| {
        Err(Error::other(
            "tokio cannot watch here: attach inside of a LocalSet, on a runtime with `enable_all`",
        ))
    })
}

/// Attaches a reactor to this thread, driven by a task of `local`, for as long as the guard lives. Sockets make progress
/// while `local` runs.
///
/// ```no_run
/// # #[tokio::main]
/// # async fn main() -> ringtap::Result<()> {
/// let local = tokio::task::LocalSet::new();
/// let _attached = ringtap_tokio::attach_in(&local, ringtap::reactor::ReactorOptions::default())?;
/// let capture = local.run_until(async { ringtap::AsyncCapture::open("eth0")?.next_batch().await }).await;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::AlreadyAttached`]; [`Error::IoUringRefused`]; [`Error::Other`] outside of tokio.
///
/// # Panics
/// On a runtime without tokio's I/O: build it with `enable_all`.
pub fn attach_in(local: &LocalSet, options: ReactorOptions) -> Result<Attached> {
    let (hosted, driver, event) = host(options)?;
    Ok(Attached { driver: local.spawn_local(driver.drive(event)), hosted })
}

fn host(options: ReactorOptions) -> Result<(Hosted, Driver, Event)> {
    let (hosted, driver) = Hosted::attach(options)?;
    let event = crate::watch(hosted.event(), Interest::READABLE)?;
    Ok((hosted, driver, Event(event)))
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

/// A runtime that runs each shard's thread with its own current-thread runtime.
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
        let local = LocalSet::new();
        local.block_on(&runtime, async {
            let attached = attach_in(&local, self.options)?;
            let output = future.await;
            attached.shutdown().await?;
            Ok(output)
        })
    }
}
