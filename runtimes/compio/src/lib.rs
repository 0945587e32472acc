//! An adapter that runs ringtap on compio: call [`attach`] once in a runtime, and every async socket works on its thread.
//!
//! ```no_run
//! # fn main() -> ringtap::Result<()> {
//! let runtime = compio::runtime::Runtime::new().map_err(ringtap::Error::other)?;
//! runtime.block_on(async {
//!     let attached = ringtap_compio::attach()?;
//!     let mut capture = ringtap::AsyncCapture::open("eth0")?;
//!     while let Some(batch) = capture.next_batch().await? {
//!         println!("{} packets", batch.len());
//!     }
//!     attached.shutdown().await
//! })
//! # }
//! ```

use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::task::{Context, Poll, ready};

use compio::runtime::fd::PollFd;
use compio::runtime::{JoinHandle, ResumeUnwind, RuntimeBuilder, spawn};
use ringtap::reactor::{Hosted, ReactorOptions, Watch};
use ringtap::shard::Runtime;
use ringtap::{Error, Result};

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
/// [`Error::AlreadyAttached`]; [`Error::IoUringRefused`]; [`Error::Other`] outside of compio's runtime.
pub fn attach_with(options: ReactorOptions) -> Result<Attached> {
    if compio::runtime::Runtime::try_current().is_none() {
        return Err(Error::other("no compio here: attach inside of `Runtime::block_on`"));
    }
    let (hosted, driver) = Hosted::attach(options)?;
    let event = hosted.event().try_clone_to_owned().map_err(Error::other)?;
    let event = PollFd::new(File::from(event)).map_err(Error::other)?;
    Ok(Attached { driver: spawn(driver.drive(Event(event))), hosted })
}

/// A guard that keeps the reactor attached. Dropping it cancels operations in flight, and waits a bounded time for the
/// kernel to finish with them.
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
        driver.await.resume_unwind().unwrap_or(Ok(())) // cancelled: the runtime is ending
    }
}

/// The reactor's eventfd. Each poll is for one event; reading takes the event off, so that the next poll waits.
struct Event(PollFd<File>);

impl Watch for Event {
    fn poll_edge(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_read_ready(cx))?;
        let mut file: &File = &self.0;
        Poll::Ready(file.read_exact(&mut [0; 8]))
    }
}

/// A runtime that runs each shard's thread with its own compio runtime.
#[derive(Debug, Clone, Copy, Default)]
pub struct Compio {
    options: ReactorOptions,
}

impl Compio {
    /// Creates the runtime with these reactor options.
    pub fn new(options: ReactorOptions) -> Self {
        Self { options }
    }
}

impl Runtime for Compio {
    fn run<F: Future>(&self, _core: Option<usize>, future: F) -> Result<F::Output> {
        let runtime = RuntimeBuilder::new().build().map_err(Error::other)?;
        runtime.block_on(async {
            let attached = attach_with(self.options)?;
            let output = future.await;
            attached.shutdown().await?;
            Ok(output)
        })
    }
}
