//! An adapter that runs ringtap on monoio, driven by io_uring: call [`attach`] once in a runtime, and every async socket works
//! on its thread.
//!
//! ```no_run
//! # fn main() -> ringtap::Result<()> {
//! let runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().build();
//! runtime.map_err(ringtap::Error::other)?.block_on(async {
//!     let attached = ringtap_monoio::attach()?;
//!     let mut capture = ringtap::AsyncCapture::open("eth0")?;
//!     let batch = capture.next_batch().await?;
//!     println!("{} packets", batch.map_or(0, |batch| batch.len()));
//!     attached.shutdown().await
//! })
//! # }
//! ```

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::{fmt, io};

use monoio::fs::File;
use monoio::task::JoinHandle;
use monoio::{BufResult, IoUringDriver, RuntimeBuilder};
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
/// [`Error::AlreadyAttached`]; [`Error::IoUringRefused`]. Like all of monoio, this panics outside of a runtime.
pub fn attach_with(options: ReactorOptions) -> Result<Attached> {
    let (hosted, driver) = Hosted::attach(options)?;
    let event = hosted.event().try_clone_to_owned().map_err(Error::other)?;
    let file = File::from_std(event.into()).map_err(Error::other)?;
    let event = Event { file: Rc::new(file), buffer: Vec::with_capacity(8), read: None };
    Ok(Attached { driver: monoio::spawn(driver.drive(event)), hosted })
}

/// A guard that keeps the reactor attached. Dropping it cancels operations in flight, and waits a bounded time for the
/// kernel to finish with them.
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
        driver.await
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").field("hosted", &self.hosted).finish_non_exhaustive()
    }
}

type Read = Pin<Box<dyn Future<Output = BufResult<usize, Vec<u8>>>>>;

/// The reactor's eventfd, which is read repeatedly because monoio cannot watch a descriptor; the buffer goes along.
struct Event {
    file: Rc<File>,
    buffer: Vec<u8>,
    read: Option<Read>,
}

impl Watch for Event {
    fn poll_edge(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { file, buffer, read } = self;
        let reading = read.get_or_insert_with(|| {
            let (file, buffer) = (Rc::clone(file), std::mem::take(buffer));
            Box::pin(async move { file.read_at(buffer, 0).await })
        });
        let (done, filled) = ready!(reading.as_mut().poll(cx));
        (*buffer, *read) = (filled, None);
        Poll::Ready(done.map(drop))
    }
}

/// A runtime that runs each shard's thread with its own monoio runtime.
#[derive(Debug, Clone, Copy, Default)]
pub struct Monoio {
    options: ReactorOptions,
}

impl Monoio {
    /// Creates the runtime with these reactor options.
    pub fn new(options: ReactorOptions) -> Self {
        Self { options }
    }
}

impl Runtime for Monoio {
    fn run<F: Future>(&self, _core: Option<usize>, future: F) -> Result<F::Output> {
        let builder = RuntimeBuilder::<IoUringDriver>::new().enable_timer();
        builder.build().map_err(Error::other)?.block_on(async {
            let attached = attach_with(self.options)?;
            let output = future.await;
            attached.shutdown().await?;
            Ok(output)
        })
    }
}
