//! The one method that shards need from a runtime.

use std::future::Future;

use crate::error::Result;
use crate::executor::Executor;
use crate::options::ReactorOptions;

/// Runs a shard's future on the calling thread.
///
/// Adapters for other runtimes implement this trait in separate crates.
pub trait Runtime: Clone + Send + Sync + 'static {
    /// Runs `future` to completion on this thread with a reactor attached. By the time this returns, the
    /// reactor is detached and its sockets are closed.
    ///
    /// If `core` is not `None`, the thread is already pinned to it.
    ///
    /// # Errors
    /// Fails if the runtime cannot be started.
    fn run<F: Future>(&self, core: Option<usize>, future: F) -> Result<F::Output>;
}

/// The built-in executor as a [`Runtime`].
#[derive(Debug, Clone, Copy, Default)]
pub struct BuiltIn {
    options: ReactorOptions,
}

impl BuiltIn {
    /// Creates the built-in executor with these reactor options.
    pub fn new(options: ReactorOptions) -> Self {
        Self { options }
    }
}

impl Runtime for BuiltIn {
    fn run<F: Future>(&self, _core: Option<usize>, future: F) -> Result<F::Output> {
        Ok(Executor::new(self.options)?.block_on(future))
    }
}
