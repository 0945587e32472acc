//! Shards on an interface's queues: one AF_XDP socket each, and one XDP program for all.

use std::future::Future;
use std::ops::Range;

use super::handle::ReadStats;
use super::plan::{ShardPlan, ShardSpec};
use super::run::{self, Job};
use super::source::{Intake, Opened};
use super::startup::Lineup;
use super::{Runtime, Shard, Shards, ShardsBuilder};
use crate::afxdp::{XdpProgram, XdpSocketBuilder};
use crate::error::{Error, Result};
use crate::io::AsyncXdpSocket;
use crate::wait::StopHandle;

/// The receive queues of an interface that get a shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Queues {
    /// All queues that are in use when the shards start (`ethtool -l`).
    #[default]
    Auto,
    /// A single queue.
    One(u32),
    /// A range of queues.
    Range(Range<u32>),
}

/// Options of [`Shards`](crate::Shards) on the queues of an interface; returned by [`ShardsBuilder::xdp`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `spawn`"]
pub struct XdpShardsBuilder<R> {
    shards: ShardsBuilder<R>,
    queues: Queues,
    socket: XdpSocketBuilder,
}

impl<R> ShardsBuilder<R> {
    /// Refuses options that only captures have.
    fn check_for_queues(&self) -> Result<()> {
        let why = if !self.more.is_empty() {
            "shards on queues have no captures: leave out `and_capture`"
        } else if self.capture.is_some() {
            "shards on queues have no capture: leave out `capture`; filter with `XdpProgram::filtered` in the socket's options; \
             AF_XDP has no snap length"
        } else if self.source.is_some() {
            "shards on queues have no fanout group: leave out `source`"
        } else {
            return Ok(());
        };
        Err(Error::ShardPlan(why))
    }
}

impl<R: Runtime> ShardsBuilder<R> {
    /// Makes shards that receive and send through AF_XDP, one per queue, each with a socket of these options.
    /// The cores, failure policy, runtime and interface of this builder apply; options of captures are refused.
    ///
    /// ```no_run
    /// use ringtap::{Shards, XdpSocket};
    /// use ringtap::shard::Queues;
    ///
    /// # fn main() -> ringtap::Result<()> {
    /// let shards = Shards::builder()
    ///     .interface("eth0")
    ///     .xdp(Queues::Auto, XdpSocket::builder())
    ///     .spawn(|mut shard| async move {
    ///         while let Some(batch) = shard.capture.next_batch().await? {
    ///             shard.capture.send_batch(batch, |_frame| true).await?; // back out
    ///         }
    ///         Ok(())
    ///     })?;
    /// # shards.stop();
    /// # Ok(())
    /// # }
    /// ```
    pub fn xdp(self, queues: Queues, socket: XdpSocketBuilder) -> XdpShardsBuilder<R> {
        XdpShardsBuilder { shards: self, queues, socket }
    }
}

impl<R: Runtime> XdpShardsBuilder<R> {
    /// Starts the shards, and returns once all of them receive; see [`ShardsBuilder::spawn`].
    ///
    /// The XDP program is attached first, and detached when the last shard has ended. Packets of other queues
    /// go to the network stack, and once the shards are stopped, so do those of these queues.
    ///
    /// # Errors
    /// As for [`ShardsBuilder::spawn`]. [`Error::ShardPlan`] for options that only captures have, for a
    /// `queue_id`, or if the interface has no receive queue. [`Error::NotReceiving`]; [`Error::NoSuchQueue`];
    /// the errors of [`XdpProgram::redirect_all`]; and within [`Error::Shard`] those of
    /// [`XdpSocketBuilder::build`].
    pub fn spawn<F, Fut>(self, work: F) -> Result<Shards>
    where
        F: Fn(Shard<AsyncXdpSocket>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + 'static,
    {
        let Self { shards, queues, mut socket } = self;
        shards.check_for_queues()?;
        if let Some(interface) = shards.interface {
            socket = socket.interface(interface);
        }
        if !socket.receives() {
            return Err(Error::NotReceiving);
        }
        if socket.names_a_queue() {
            return Err(Error::ShardPlan("`Queues` says which queues: leave out `queue_id`"));
        }
        let count = socket.queue_count()?;
        if count == Some(0) {
            return Err(Error::ShardPlan(
                "the interface has no receive queue now: nobody has opened the tun or tap, or its driver is stopped",
            ));
        }
        let queues = match queues {
            Queues::Auto => 0..count.ok_or(Error::ShardPlan(
                "nobody says how many receive queues the interface has: name them with `Queues::Range`",
            ))?,
            Queues::One(queue) => queue..queue.saturating_add(1),
            Queues::Range(range) => range,
        };
        if queues.is_empty() {
            return Err(Error::ShardPlan("`Queues::Range` is empty: name at least one queue"));
        }
        if let Some(count) = count.filter(|&count| queues.end > count) {
            let queue = queues.end.saturating_sub(1);
            return Err(socket.no_such_queue(queue, count));
        }
        if shards.count.is_some_and(|asked| asked != queues.len()) {
            return Err(Error::ShardPlan("shards on queues are one a queue: leave out `shards`"));
        }
        let plan = ShardPlan::for_this_machine(&shards.cores, Some(queues.len()))?;
        let program = socket.attach_program()?;
        let intake = QueueSockets { socket: socket.closed(), queues, program };
        let (on_failure, runtime) = (shards.on_failure, shards.runtime);
        run::spawn(&plan, Job { intake, on_failure, runtime, work })
    }
}

/// Sockets on the queues of one interface.
#[derive(Debug)]
struct QueueSockets {
    socket: XdpSocketBuilder,
    queues: Range<u32>,
    program: XdpProgram,
}

impl Intake for QueueSockets {
    type Port = AsyncXdpSocket;

    fn open(
        &self,
        spec: ShardSpec,
        _lineup: &Lineup,
        stop: &StopHandle,
    ) -> Result<Option<Opened<AsyncXdpSocket>>> {
        let queue = self.queues.start + spec.index as u32;
        let options = self.socket.clone().queue_id(queue).program(self.program.clone());
        let mut socket = options.build()?; // in any order, because queues already have numbers
        socket.share_stop(stop.clone())?;
        let readers = vec![ReadStats::Xdp(socket.stats_handle())];
        let ports = vec![AsyncXdpSocket::new(socket)?];
        Ok(Some(Opened { ports, readers, anchors: Vec::new() }))
    }

    fn open_intake(port: &mut AsyncXdpSocket) -> Result<()> {
        port.receiver().map_or(Ok(()), |receiver| receiver.get_ref().open_intake())
    }
}
