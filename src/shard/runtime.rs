//! What a shard needs of a runtime: one method.

use std::future::Future;

use crate::error::Result;
use crate::executor::Executor;
use crate::options::ReactorOptions;

/// Runs a shard's future on the thread it is called on.
///
/// Adapters to other runtimes implement it in crates of their own.
pub trait Runtime: Clone + Send + Sync + 'static {
    /// Runs `future` to its end on this thread, with a reactor attached; by the time this returns,
    /// the reactor is detached and its sockets are closed.
    ///
    /// The thread is pinned to `core` already, where that is not `None`.
    ///
    /// # Errors
    /// Where the runtime cannot be started.
    fn run<F: Future>(&self, core: Option<usize>, future: F) -> Result<F::Output>;
}

/// The built-in executor, as a [`Runtime`].
#[derive(Debug, Clone, Copy, Default)]
pub struct BuiltIn {
    options: ReactorOptions,
}

impl BuiltIn {
    /// The built-in executor with a reactor of these sizes.
    pub fn new(options: ReactorOptions) -> Self {
        Self { options }
    }
}

impl Runtime for BuiltIn {
    fn run<F: Future>(&self, _core: Option<usize>, future: F) -> Result<F::Output> {
        Ok(Executor::new(self.options)?.block_on(future))
    }
}
