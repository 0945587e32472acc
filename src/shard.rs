//! Shards: one thread a core, each with its own socket of a fanout group and its own reactor.
//!
//! Nothing is shared on the data path. What shards share is their beginning and their end:
//!
//! ```text
//!   plan ──► threads: pin → runtime → open socket → join the group, in shard order
//!                 └─ all joined ──► intakes open together ──► the user's future
//!   stop ──► each closes its intake and drains; the last to end closes sockets, last member first
//! ```
//!
//! A group's members are numbered in joining order, and a member that leaves is replaced by the
//! last: so joining in order gives shard N member N, and leaving from the last moves no flow.

mod handle;
mod plan;
#[cfg(feature = "af-xdp")]
mod queues;
mod run;
mod runtime;
mod source;
mod startup;

use std::future::Future;

pub use self::handle::{AllShardStats, ShardStats, Shards, ShardsReport};
use self::plan::ShardPlan;
pub use self::plan::ShardSpec;
#[cfg(feature = "af-xdp")]
pub use self::queues::{Queues, XdpShardsBuilder};
pub use self::runtime::{BuiltIn, Runtime};
use self::source::Fanouts;
#[cfg(feature = "flow")]
use crate::afpacket::FanoutFlags;
use crate::afpacket::{Capture, CaptureBuilder, FanoutMode};
use crate::error::Result;
use crate::io::AsyncCapture;
pub use crate::options::Cores;
use crate::reactor::Reactor;
use crate::stats::ReactorStats;
use crate::wait::StopHandle;

/// Where shards get their packets from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Source {
    /// Each shard has a socket of one AF_PACKET fanout group.
    Fanout(FanoutMode),
}

/// What the failure of one shard means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailurePolicy {
    /// All stop: they drain, and end.
    #[default]
    Stop,
    /// The others go on. The failed shard leaves the fanout group at once, so its share of the
    /// packets goes to them (and flows may change shard).
    Continue,
}

impl Shards {
    /// Options first.
    pub fn builder() -> ShardsBuilder<BuiltIn> {
        ShardsBuilder {
            capture: None,
            more: Vec::new(),
            interface: None,
            source: None,
            cores: Cores::All,
            count: None,
            on_failure: FailurePolicy::default(),
            runtime: BuiltIn::default(),
        }
    }
}

/// Options of [`Shards`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `spawn`"]
pub struct ShardsBuilder<R> {
    capture: Option<CaptureBuilder>,
    more: Vec<CaptureBuilder>,
    interface: Option<String>,
    source: Option<Source>,
    cores: Cores,
    count: Option<usize>,
    on_failure: FailurePolicy,
    runtime: R,
}

impl<R: Runtime> ShardsBuilder<R> {
    /// The interface to capture on. Required, here or in [`capture`](Self::capture).
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.interface = Some(name.into());
        self
    }

    /// Where packets come from. Default: the fanout mode of [`capture`](Self::capture), if it has
    /// one, else fanout by flow hash.
    pub fn source(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }

    /// Options of each shard's capture: ring sizes, snap length, fanout flags … A fanout group in
    /// it is joined; without one, the kernel chooses a new id.
    pub fn capture(mut self, options: CaptureBuilder) -> Self {
        self.capture = Some(options);
        self
    }

    /// Another capture in each shard, in a fanout group of its own: the other direction of a tap, or the
    /// other side of a bridge. In mode, statistics and end it is as the first; see [`Shard::others`].
    pub fn and_capture(mut self, options: CaptureBuilder) -> Self {
        self.more.push(options);
        self
    }

    /// The cores to pin to, one shard each. Default all.
    pub fn cores(mut self, cores: Cores) -> Self {
        self.cores = cores;
        self
    }

    /// So many shards, going round the cores where there are fewer. Default one a core.
    pub fn shards(mut self, count: usize) -> Self {
        self.count = Some(count);
        self
    }

    /// What the failure of one shard means for the others. Default: all stop.
    pub fn on_failure(mut self, choice: FailurePolicy) -> Self {
        self.on_failure = choice;
        self
    }

    #[cfg(feature = "flow")]
    pub(crate) fn add_fanout_flags(mut self, flags: FanoutFlags) -> Self {
        let capture = self.capture.unwrap_or_else(Capture::builder);
        self.capture = Some(capture.add_fanout_flags(flags));
        self
    }

    /// What the plan will be made of.
    #[cfg(feature = "flow")]
    pub(crate) fn plan(&self) -> Result<ShardPlan> {
        ShardPlan::for_this_machine(&self.cores, self.count)
    }

    /// The runtime that runs each shard's future. Default: the built-in executor.
    pub fn runtime<T: Runtime>(self, runtime: T) -> ShardsBuilder<T> {
        let Self { capture, more, interface, source, cores, count, on_failure, runtime: _ } = self;
        ShardsBuilder { capture, more, interface, source, cores, count, on_failure, runtime }
    }

    /// Starts the shards, and returns when all of them capture.
    ///
    /// `work` is called once in each shard's thread; its future runs there, so neither it nor what
    /// it holds need be `Send`. A shard ends when its future does: usually when its capture's
    /// stream ends, after [`Shards::stop`].
    ///
    /// # Errors
    /// [`Error::ShardPlan`](crate::Error::ShardPlan); [`Error::Shard`](crate::Error::Shard) with
    /// the number of the first shard that could not start and why, after the others were ended; or
    /// [`Error::Os`](crate::Error::Os) where a thread cannot be started.
    pub fn spawn<F, Fut>(mut self, work: F) -> Result<Shards>
    where
        F: Fn(Shard) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + 'static,
    {
        let plan = ShardPlan::for_this_machine(&self.cores, self.count)?;
        let mut capture = self.capture.unwrap_or_else(Capture::builder);
        if let Some(interface) = self.interface.take() {
            capture = capture.interface(interface);
        }
        let mode = self.source.map(|Source::Fanout(mode)| mode);
        let captures = std::iter::once(capture).chain(self.more);
        let captures = captures.map(|capture| capture.with_fanout_mode(mode.clone()));
        let intake = Fanouts(captures.collect());
        let (on_failure, runtime) = (self.on_failure, self.runtime);
        run::spawn(&plan, run::Job { intake, on_failure, runtime, work })
    }
}

/// One shard, in its own thread: its socket, and who it is.
#[derive(Debug)]
pub struct Shard<C = AsyncCapture> {
    /// This shard's share of the packets. Its stream ends when the shards are stopped and all is
    /// delivered.
    pub capture: C,
    /// Its share of what [`ShardsBuilder::and_capture`] added, in that order.
    pub others: Vec<C>,
    spec: ShardSpec,
    count: usize,
    stop: StopHandle,
}

impl<C> Shard<C> {
    /// Which shard this is, from 0; also its number in the fanout group, if that has no other
    /// members.
    pub fn index(&self) -> usize {
        self.spec.index
    }

    /// How many shards there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The core it is pinned to, if it is.
    pub fn core(&self) -> Option<usize> {
        self.spec.core
    }

    /// A handle that stops all shards.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// What this shard's reactor did so far.
    ///
    /// # Errors
    /// [`Error::NoReactor`](crate::Error::NoReactor) on another thread than the shard's.
    pub fn reactor_stats(&self) -> Result<ReactorStats> {
        Ok(Reactor::current()?.stats())
    }
}
