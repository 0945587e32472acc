//! An adapter that runs ringtap on smol: its I/O (`async-io`) and its single-threaded executor
//! (`async-executor`).
//!
//! Call [`attach`] once on a thread, with the [`LocalExecutor`] that runs there, and every async socket of
//! ringtap works on that thread.
//!
//! ```no_run
//! # fn main() -> ringtap::Result<()> {
//! let executor = async_executor::LocalExecutor::new();
//! async_io::block_on(executor.run(async {
//!     let attached = ringtap_smol::attach(&executor)?;
//!     let mut capture = ringtap::AsyncCapture::open("eth0")?;
//!     while let Some(batch) = capture.next_batch().await? {
//!         println!("{} packets", batch.len());
//!     }
//!     attached.shutdown().await
//! }))
//! # }
//! ```

mod running;

use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use async_executor::{LocalExecutor, Task};
use async_io::Async;
use ringtap::reactor::{Hosted, ReactorOptions, Watch};
use ringtap::shard::Runtime;
use ringtap::{Error, Result};

use self::running::Running;
pub use self::running::spawn_local;

/// Attaches a reactor with default options to this thread; see [`attach_with`].
///
/// # Errors
/// As for [`attach_with`].
pub fn attach(executor: &LocalExecutor<'_>) -> Result<Attached> {
    attach_with(executor, ReactorOptions::default())
}

/// Attaches a reactor to this thread for as long as the guard lives. Its driver is a task of `executor`.
///
/// # Errors
/// [`Error::AlreadyAttached`]; [`Error::IoUringRefused`]; or the error of `async-io` if it cannot watch the
/// eventfd.
pub fn attach_with(executor: &LocalExecutor<'_>, options: ReactorOptions) -> Result<Attached> {
    let (hosted, driver) = Hosted::attach(options)?;
    let event = hosted.event().try_clone_to_owned().map_err(Error::other)?;
    // The descriptor may be blocking: it is read only after it was reported readable, and only here.
    let event = Async::new_nonblocking(File::from(event)).map_err(Error::other)?;
    Ok(Attached { driver: executor.spawn(driver.drive(Event(event))), hosted })
}

/// A guard that keeps the reactor attached. Dropping it cancels operations in flight, and waits a bounded time
/// for the kernel to finish with them.
#[derive(Debug)]
pub struct Attached {
    hosted: Hosted,
    driver: Task<Result<()>>,
}

impl Attached {
    /// Detaches the reactor, and waits until the driver task has ended.
    ///
    /// # Errors
    /// The error that had ended the driver earlier, if any.
    pub async fn shutdown(self) -> Result<()> {
        let Self { hosted, driver } = self;
        drop(hosted);
        driver.await
    }
}

/// The reactor's eventfd. It must be read, because `async-io` is level-triggered.
struct Event(Async<File>);

impl Watch for Event {
    fn poll_edge(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_readable(cx))?;
        Poll::Ready(self.0.get_ref().read_exact(&mut [0; 8]))
    }
}

/// A runtime that runs each shard's thread with its own smol executor.
#[derive(Debug, Clone, Copy, Default)]
pub struct Smol {
    options: ReactorOptions,
}

impl Smol {
    /// Creates the runtime with these reactor options.
    pub fn new(options: ReactorOptions) -> Self {
        Self { options }
    }
}

impl Runtime for Smol {
    fn run<F: Future>(&self, _core: Option<usize>, future: F) -> Result<F::Output> {
        let executor = Rc::new(LocalExecutor::new());
        let _running = Running::new(&executor);
        async_io::block_on(executor.run(async {
            let attached = attach_with(&executor, self.options)?;
            let output = future.await;
            attached.shutdown().await?;
            Ok(output)
        }))
    }
}
