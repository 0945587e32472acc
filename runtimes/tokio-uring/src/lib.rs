//! An adapter that runs ringtap on tokio-uring.
//!
//! Call [`attach`] once on a thread, inside `tokio_uring::start`, and every async socket of ringtap works on
//! that thread. The reactor has its own ring and submits nothing on tokio-uring's. Since tokio-uring is built
//! on tokio, the guard is that of [`ringtap_tokio`].
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

use ringtap::reactor::ReactorOptions;
use ringtap::shard::Runtime;
use ringtap::{Error, Result};
pub use ringtap_tokio::{Attached, attach, attach_with};

/// A runtime that runs each shard's thread with its own tokio-uring runtime.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioUring {
    options: ReactorOptions,
}

impl TokioUring {
    /// Creates the runtime with these reactor options.
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
