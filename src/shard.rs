//! Shards: one thread per core, each with its own reactor and its own socket in a fanout group.
//!
//! Nothing is shared on the data path. Shards only start and end together:
//!
//! ```text
//!   plan ──► threads: pin → runtime → open socket → join the group, in shard order
//!                 └─ all joined ──► intakes open together ──► the user's future
//!   stop ──► each closes its intake and drains; the last to end closes sockets, last member first
//! ```
//!
//! Members of a group are numbered in the order of joining, and a member that leaves is replaced by the last
//! one. So joining in order makes shard N member N, and leaving from the last moves no flow.

mod handle;
mod plan;
#[cfg(feature = "af-xdp")]
mod queues;
mod run;
mod runtime;
mod source;
mod startup;

use std::future::Future;
use std::os::fd::OwnedFd;

pub use self::handle::{AllShardStats, ShardStats, Shards, ShardsReport};
use self::plan::ShardPlan;
pub use self::plan::ShardSpec;
#[cfg(feature = "af-xdp")]
pub use self::queues::{Queues, XdpShardsBuilder};
pub use self::runtime::{BuiltIn, Runtime};
use self::source::{Fanouts, PassedSockets};
#[cfg(feature = "flow")]
use crate::afpacket::FanoutFlags;
use crate::afpacket::{Capture, CaptureBuilder, FanoutMode};
#[cfg(feature = "af-xdp")]
use crate::afxdp::XdpSocketBuilder;
use crate::error::{Error, Result};
use crate::io::AsyncCapture;
pub use crate::options::Cores;
use crate::reactor::Reactor;
use crate::stats::ReactorStats;
use crate::wait::StopHandle;

/// The most sockets in a fanout group (`PACKET_FANOUT_MAX` of kernels before 5.9, and the default of later ones).
const MAX_MEMBERS: usize = 256;

/// The source of the shards' packets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Source {
    /// Each shard has a socket in one AF_PACKET fanout group.
    Fanout(FanoutMode),
}

/// The effect of one shard's failure on the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailurePolicy {
    /// All shards stop: they drain and end.
    #[default]
    Stop,
    /// The other shards go on. The failed shard leaves the fanout group at once, so they get its share of the
    /// packets, and flows may change shard.
    Continue,
}

impl Shards {
    /// Returns a builder for shards with captures, with the default options.
    pub fn builder() -> ShardsBuilder<BuiltIn> {
        ShardsBuilder {
            capture: None,
            more: Vec::new(),
            interface: None,
            source: None,
            cores: Cores::All,
            count: None,
            passed: None,
            on_failure: FailurePolicy::default(),
            runtime: BuiltIn::default(),
        }
    }

    /// Returns a builder for shards on an interface's queues, each with an AF_XDP socket of these options.
    #[cfg(feature = "af-xdp")]
    pub fn xdp(socket: XdpSocketBuilder) -> XdpShardsBuilder<BuiltIn> {
        XdpShardsBuilder::new(socket)
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
    passed: Option<PassedSockets>,
    on_failure: FailurePolicy,
    runtime: R,
}

impl<R: Runtime> ShardsBuilder<R> {
    /// Sets the interface to capture on. Required, here or in [`capture`](Self::capture).
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.interface = Some(name.into());
        self
    }

    /// Sets the source of packets. Default: the fanout mode of [`capture`](Self::capture) if it has one,
    /// otherwise fanout by flow hash.
    pub fn source(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }

    /// Sets the options of each shard's capture, such as ring sizes, snap length and fanout flags. If they name
    /// a fanout group, the shards join it; otherwise the kernel chooses a new id.
    pub fn capture(mut self, options: CaptureBuilder) -> Self {
        self.capture = Some(options);
        self
    }

    /// Adds another capture to each shard, in a fanout group of its own, for example for the other direction of
    /// a tap or the other side of a bridge. It uses the fanout mode of the first capture, is included in the
    /// shard's statistics, and ends together with the first; see [`Shard::others`].
    pub fn and_capture(mut self, options: CaptureBuilder) -> Self {
        self.more.push(options);
        self
    }

    /// Sets the cores that shards are pinned to, one shard each. Default: all.
    pub fn cores(mut self, cores: Cores) -> Self {
        self.cores = cores;
        self
    }

    /// Sets the number of shards; cores are reused round-robin. Default: one per core.
    pub fn shards(mut self, count: usize) -> Self {
        self.count = Some(count);
        self
    }

    /// Sets the sockets of the shards: they were opened before, by
    /// [`CaptureBuilder::open_socket`] in this process or in one with more rights, so that this one needs none.
    ///
    /// Pass one socket for each shard. With [`and_capture`](Self::and_capture), pass one for each capture of each
    /// shard: first those of shard 0, in the order of its captures. If [`shards`](Self::shards) is not set, the number
    /// of sockets decides how many shards there are.
    ///
    /// Keep the order in which they were opened: the kernel numbers a group's members anew in that order when the
    /// interface goes down and up. Clones of the builder share the sockets, and only one of them can
    /// [`spawn`](Self::spawn).
    pub fn sockets(mut self, sockets: impl IntoIterator<Item = OwnedFd>) -> Self {
        self.passed = Some(PassedSockets::new(sockets));
        self
    }

    /// Sets the effect of one shard's failure on the others. Default: all stop.
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

    /// The plan that these options describe.
    pub(crate) fn plan(&self) -> Result<ShardPlan> {
        let of_each = 1 + self.more.len();
        let passed = self.passed.as_ref().map(PassedSockets::len);
        let count = self.count.or(passed.map(|all| all / of_each));
        if count.is_some_and(|count| count > MAX_MEMBERS) {
            return Err(Error::ShardPlan(
                "a fanout group has 1 to 256 members: ask for fewer shards",
            ));
        }
        if passed.is_some_and(|all| count.is_some_and(|count| count * of_each != all)) {
            return Err(Error::ShardPlan("there must be a socket for each capture of each shard"));
        }
        Ok(ShardPlan::for_this_machine(&self.cores, count)?.at_most(MAX_MEMBERS))
    }

    /// Sets the runtime that runs each shard's future. Default: the built-in executor.
    pub fn runtime<T: Runtime>(self, runtime: T) -> ShardsBuilder<T> {
        let Self { capture, more, interface, source, cores, count, passed, on_failure, .. } = self;
        ShardsBuilder {
            capture,
            more,
            interface,
            source,
            cores,
            count,
            passed,
            on_failure,
            runtime,
        }
    }

    /// Starts the shards, and returns once all of them capture.
    ///
    /// `work` is called once in each shard's thread. Its future runs there, so neither the future nor the
    /// values it holds need be `Send`. A shard ends when its future does, which is usually when the stream of
    /// its capture ends after [`Shards::stop`].
    ///
    /// # Errors
    /// [`Error::ShardPlan`] if the options cannot be planned, or [`sockets`](Self::sockets) are too few or too many;
    /// [`Error::Unusable`] if one of those is no packet socket or is bound already;
    /// [`Error::Shard`] with the number of a shard that could not start and the cause, after the
    /// others were ended; an error about the options, which all shards share, as it is
    /// ([`Error::NoSuchInterface`], [`Error::Filter`], …); [`Error::Os`] if a thread cannot be started.
    pub fn spawn<F, Fut>(mut self, work: F) -> Result<Shards>
    where
        F: Fn(Shard) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + 'static,
    {
        let plan = self.plan()?;
        let mut capture = self.capture.unwrap_or_else(Capture::builder);
        if let Some(interface) = self.interface.take() {
            capture = capture.interface(interface);
        }
        let mode = self.source.map(|Source::Fanout(mode)| mode);
        let mode = mode.or_else(|| capture.effective_membership().map(|first| first.mode));
        let captures = std::iter::once(capture).chain(self.more);
        let captures = captures.map(|capture| capture.with_fanout_mode(mode.clone()));
        let sockets = Fanouts { options: captures.collect(), passed: self.passed };
        let (on_failure, runtime) = (self.on_failure, self.runtime);
        run::spawn(&plan, run::Job { sockets, on_failure, runtime, work })
    }
}

/// One shard in its own thread: its sockets, its number and its core.
#[derive(Debug)]
pub struct Shard<C = AsyncCapture> {
    /// The shard's capture. Its stream ends when the shards are stopped and all packets are delivered.
    pub capture: C,
    /// The captures added by [`ShardsBuilder::and_capture`], in that order.
    pub others: Vec<C>,
    spec: ShardSpec,
    count: usize,
    stop: StopHandle,
}

impl<C> Shard<C> {
    /// Returns the shard's number, counted from 0. It is also the number in the fanout group, if that has no
    /// other members.
    pub fn index(&self) -> usize {
        self.spec.index
    }

    /// Returns the number of shards.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the core that the shard is pinned to, if any.
    pub fn core(&self) -> Option<usize> {
        self.spec.core
    }

    /// Returns a handle that stops all shards.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Returns the statistics of this shard's reactor.
    ///
    /// # Errors
    /// [`Error::NoReactor`] on any thread but the shard's.
    pub fn reactor_stats(&self) -> Result<ReactorStats> {
        Ok(Reactor::current()?.stats())
    }
}
