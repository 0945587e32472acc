//! An adapter that runs ringtap on glommio: call [`attach`] once in an executor, and every async socket works in it.
//!
//! ```no_run
//! # async fn f() -> ringtap::Result<()> {
//! let attached = ringtap_glommio::attach()?;
//! let batch = ringtap::AsyncCapture::open("eth0")?.next_batch().await?;
//! attached.shutdown().await
//! # }
//! ```
//!
//! Use glommio's default task queue and preempt timer: with a `Latency::Matters` queue or a timer of one millisecond, its
//! executor may sleep forever although tasks are runnable, with or without ringtap.

mod error;

use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use glommio::io::{BufferedFile, ReadResult};
use glommio::{LocalExecutorBuilder, Placement, Task};
use ringtap::reactor::{Hosted, ReactorOptions, Watch};
use ringtap::shard::Runtime;
use ringtap::{Error, Result};

pub use self::error::error;

/// Attaches a reactor with default options to this executor; see [`attach_with`].
///
/// # Errors
/// As for [`attach_with`].
pub fn attach() -> Result<Attached> {
    attach_with(ReactorOptions::default())
}

/// Attaches a reactor to this executor for as long as the guard lives.
///
/// # Errors
/// [`Error::AlreadyAttached`]; [`Error::IoUringRefused`]. Like all of glommio, this panics outside of an executor.
pub fn attach_with(options: ReactorOptions) -> Result<Attached> {
    let (hosted, driver) = Hosted::attach(options)?;
    let event = hosted.event().try_clone_to_owned().map_err(Error::other)?;
    // SAFETY: the descriptor is open, and the file is its only owner.
    let file = unsafe { BufferedFile::from_raw_fd(event.into_raw_fd()) };
    let event = Event { file: Rc::new(file), read: None };
    Ok(Attached { hosted, driver: glommio::spawn_local(driver.drive(event)) })
}

/// A guard that keeps the reactor attached. Dropping it cancels operations in flight, and waits a bounded time for the
/// kernel. Prefer [`shutdown`](Self::shutdown): an executor that ends leaks its unfinished tasks.
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

type Read = Pin<Box<dyn Future<Output = Result<ReadResult, glommio::GlommioError<()>>>>>;

/// The reactor's eventfd, which is read repeatedly because glommio cannot watch a descriptor.
struct Event {
    file: Rc<BufferedFile>,
    read: Option<Read>,
}

impl Watch for Event {
    fn poll_edge(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let file = &self.file;
        let read = self.read.get_or_insert_with(|| {
            let file = Rc::clone(file);
            Box::pin(async move { file.read_at(0, 8).await })
        });
        let done = ready!(read.as_mut().poll(cx)).map(drop).map_err(io::Error::from);
        self.read = None;
        Poll::Ready(done)
    }
}

/// A runtime that runs each shard's thread with its own glommio executor, pinned to the shard's core.
#[derive(Debug, Clone, Copy, Default)]
pub struct Glommio {
    options: ReactorOptions,
}

impl Glommio {
    /// Creates the runtime with these reactor options.
    pub fn new(options: ReactorOptions) -> Self {
        Self { options }
    }
}

impl Runtime for Glommio {
    fn run<F: Future>(&self, core: Option<usize>, future: F) -> Result<F::Output> {
        let placement = core.map_or(Placement::Unbound, Placement::Fixed);
        let executor = LocalExecutorBuilder::new(placement).make().map_err(Error::other)?;
        executor.run(async {
            // The first sleep of an executor takes about 12 ms, so do it before sockets are open.
            glommio::timer::sleep(Duration::from_millis(2)).await;
            let attached = attach_with(self.options)?;
            let output = future.await;
            attached.shutdown().await?;
            Ok(output)
        })
    }
}
