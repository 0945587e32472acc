//! ringtap on tokio-uring.
//!
//! [`attach`] once on a thread, inside of `tokio_uring::start`, and every async socket of ringtap works on
//! it. The reactor has a ring of its own: nothing is submitted on tokio-uring's, which underneath is tokio,
//! so that this is [`ringtap_tokio`]'s guard.
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
