//! Shards on an interface's queues: one AF_XDP socket each, and one XDP program for all.

use std::future::Future;
use std::marker::PhantomData;
use std::ops::Range;

use super::handle::ReadStats;
use super::plan::{ShardPlan, ShardSpec};
use super::run::{self, Job};
use super::source::{Opened, ShardSockets};
use super::startup::Lineup;
use super::{BuiltIn, FailurePolicy, Runtime, Shard, Shards};
use crate::afxdp::{XdpProgram, XdpReceiver, XdpSocketBuilder, XdpStatsHandle};
use crate::error::{Error, Result};
use crate::io::{AsyncXdpReceiver, AsyncXdpSocket};
use crate::options::Cores;
use crate::wait::StopHandle;

/// The receive queues of an interface that get a shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Queues {
    /// All queues that are in use when the shards start (`ethtool -l`), with the program attached.
    #[default]
    Auto,
    /// A single queue.
    One(u32),
    /// A range of queues.
    Range(Range<u32>),
}

/// Options of [`Shards`] on the queues of an interface; from [`Shards::xdp`].
///
/// Each shard has one queue, with an AF_XDP socket that receives and sends ([`spawn`](Self::spawn)) or only receives
/// ([`spawn_receivers`](Self::spawn_receivers)).
///
/// ```no_run
/// use ringtap::{Shards, XdpSocket};
///
/// # fn main() -> ringtap::Result<()> {
/// let shards = Shards::xdp(XdpSocket::builder().interface("eth0")).spawn(|mut shard| async move {
///     while let Some(batch) = shard.capture.next_batch().await? {
///         shard.capture.send_batch(batch, |_frame| true).await?; // back out
///     }
///     Ok(())
/// })?;
/// # shards.stop();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `spawn`"]
pub struct XdpShardsBuilder<R> {
    socket: XdpSocketBuilder,
    queues: Queues,
    cores: Cores,
    on_failure: FailurePolicy,
    runtime: R,
}

impl XdpShardsBuilder<BuiltIn> {
    pub(super) fn new(socket: XdpSocketBuilder) -> Self {
        let (queues, cores) = (Queues::default(), Cores::All);
        let (on_failure, runtime) = (FailurePolicy::default(), BuiltIn::default());
        Self { socket, queues, cores, on_failure, runtime }
    }
}

impl<R: Runtime> XdpShardsBuilder<R> {
    /// Sets the interface. Required, here or in the socket's options.
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.socket = self.socket.interface(name);
        self
    }

    /// Sets the queues. Default: all.
    pub fn queues(mut self, queues: Queues) -> Self {
        self.queues = queues;
        self
    }

    /// Sets the cores that shards are pinned to; cores are reused round-robin. Default: all.
    pub fn cores(mut self, cores: Cores) -> Self {
        self.cores = cores;
        self
    }

    /// Sets the effect of one shard's failure on the others. Default: all stop.
    pub fn on_failure(mut self, choice: FailurePolicy) -> Self {
        self.on_failure = choice;
        self
    }

    /// Sets the runtime that runs each shard's future. Default: the built-in executor.
    pub fn runtime<T: Runtime>(self, runtime: T) -> XdpShardsBuilder<T> {
        let Self { socket, queues, cores, on_failure, runtime: _ } = self;
        XdpShardsBuilder { socket, queues, cores, on_failure, runtime }
    }

    /// Starts the shards, and returns once all of them receive; see
    /// [`ShardsBuilder::spawn`](super::ShardsBuilder::spawn).
    ///
    /// The XDP program is attached first, and detached when the last shard has ended. Packets of other queues
    /// go to the network stack, and once the shards are stopped, so do those of these queues.
    ///
    /// # Errors
    /// As for [`ShardsBuilder::spawn`](super::ShardsBuilder::spawn). [`Error::ShardPlan`] for a `queue_id`, or if the
    /// interface has no receive queue; [`Error::NoSuchQueue`]; the errors of [`XdpProgram::redirect_all`]; and within
    /// [`Error::Shard`] those of [`XdpSocketBuilder::build`].
    pub fn spawn<F, Fut>(self, work: F) -> Result<Shards>
    where
        F: Fn(Shard<AsyncXdpSocket>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + 'static,
    {
        self.spawn_on_queues(work)
    }

    /// Starts shards that only receive, each with all frames of its UMEM; see [`spawn`](Self::spawn).
    ///
    /// # Errors
    /// The errors of [`spawn`](Self::spawn).
    pub fn spawn_receivers<F, Fut>(self, work: F) -> Result<Shards>
    where
        F: Fn(Shard<AsyncXdpReceiver>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + 'static,
    {
        self.spawn_on_queues(work)
    }

    fn spawn_on_queues<P, F, Fut>(self, work: F) -> Result<Shards>
    where
        P: QueuePort,
        F: Fn(Shard<P>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + 'static,
    {
        let Self { socket, queues, cores, on_failure, runtime } = self;
        if socket.names_a_queue() {
            return Err(Error::ShardPlan("`queues` says which queues: leave out `queue_id`"));
        }
        // First: virtio_net has more receive queues while a program is attached, and spreads packets over all of them.
        let program = socket.attach_program()?;
        let numbers = queues.of(&socket)?;
        let plan = ShardPlan::for_this_machine(&cores, Some(numbers.len()))?;
        let sockets = QueueSockets {
            socket: socket.closed(),
            queues: numbers,
            program,
            port: PhantomData::<fn(P)>,
        };
        run::spawn(&plan, Job { sockets, on_failure, runtime, work })
    }
}

impl Queues {
    /// Returns the numbers of the queues, which the socket's interface has.
    fn of(&self, socket: &XdpSocketBuilder) -> Result<Range<u32>> {
        let count = socket.queue_count()?;
        if count == Some(0) {
            return Err(Error::ShardPlan(
                "the interface has no receive queue now: nobody has opened the tun or tap, or its driver is stopped",
            ));
        }
        let queues = match self {
            Self::Auto => 0..count.ok_or(Error::ShardPlan(
                "nobody says how many receive queues the interface has: name them with `Queues::Range`",
            ))?,
            Self::One(queue) => *queue..queue.saturating_add(1),
            Self::Range(range) => range.clone(),
        };
        if queues.is_empty() {
            return Err(Error::ShardPlan("`Queues::Range` is empty: name at least one queue"));
        }
        match count.filter(|&count| queues.end > count) {
            Some(count) => Err(socket.no_such_queue(queues.end.saturating_sub(1), count)),
            None => Ok(queues),
        }
    }
}

/// A socket of a shard on a queue.
trait QueuePort: Sized + 'static {
    /// Opens it, with a closed intake, to be ended by `stop`.
    fn open(options: XdpSocketBuilder, stop: &StopHandle) -> Result<(Self, XdpStatsHandle)>;

    fn receiver(&self) -> &XdpReceiver;
}

impl QueuePort for AsyncXdpSocket {
    fn open(options: XdpSocketBuilder, stop: &StopHandle) -> Result<(Self, XdpStatsHandle)> {
        let mut socket = options.build()?;
        socket.receiver().share_stop(stop.clone());
        let stats = socket.stats_handle();
        Ok((Self::new(socket)?, stats))
    }

    fn receiver(&self) -> &XdpReceiver {
        self.rx()
    }
}

impl QueuePort for AsyncXdpReceiver {
    fn open(options: XdpSocketBuilder, stop: &StopHandle) -> Result<(Self, XdpStatsHandle)> {
        let mut receiver = options.build_receiver()?;
        receiver.share_stop(stop.clone());
        let stats = receiver.stats_handle();
        Ok((Self::new(receiver)?, stats))
    }

    fn receiver(&self) -> &XdpReceiver {
        self.get_ref()
    }
}

/// Sockets on the queues of one interface.
#[derive(Debug)]
struct QueueSockets<P> {
    socket: XdpSocketBuilder,
    queues: Range<u32>,
    program: XdpProgram,
    port: PhantomData<fn(P)>,
}

impl<P: QueuePort> ShardSockets for QueueSockets<P> {
    type Port = P;

    fn open(
        &self,
        spec: ShardSpec,
        _lineup: &Lineup,
        stop: &StopHandle,
    ) -> Result<Option<Opened<P>>> {
        let queue = self.queues.start + spec.index as u32;
        let options = self.socket.clone().queue_id(queue).program(self.program.clone());
        let (port, stats) = P::open(options, stop)?; // in any order, because queues already have numbers
        let readers = vec![ReadStats::Xdp(stats)];
        Ok(Some(Opened { ports: vec![port], readers, anchors: Vec::new() }))
    }

    fn open_intake(port: &mut P) -> Result<()> {
        port.receiver().open_intake()
    }
}
