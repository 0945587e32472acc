//! Flow tracking on several cores: each shard has its own table.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use flowscope::FlowExtractor;

use super::config::FlowConfig;
use super::pump::FlowSource;
use super::shard_query::{Board, FlowSnapshots, ShardResponder};
use super::stream::{FlowExt, FlowStream};
use crate::afpacket::FanoutFlags;
use crate::error::Result;
use crate::io::AsyncCapture;
#[cfg(feature = "af-xdp")]
use crate::io::AsyncXdpReceiver;
#[cfg(feature = "af-xdp")]
use crate::shard::XdpShardsBuilder;
use crate::shard::{Runtime, Shard, Shards, ShardsBuilder};
use crate::wait::StopHandle;

impl<R: Runtime> ShardsBuilder<R> {
    /// Tracks flows in each shard, identified by `extractor`. The kernel reassembles fragments before it
    /// assigns packets to a shard ([`FanoutFlags::DEFRAG`]), so the fragments of a flow reach the same shard as
    /// its other packets.
    ///
    /// ```no_run
    /// use futures_util::StreamExt;
    /// use ringtap::Shards;
    /// use ringtap::flow::extract::FiveTuple;
    ///
    /// # fn main() -> ringtap::Result<()> {
    /// let shards = Shards::builder().interface("eth0").flow(FiveTuple::bidirectional()).spawn(
    ///     |mut shard| async move {
    ///         while let Some(event) = shard.flows.next().await {
    ///             event?;
    ///         }
    ///         Ok(())
    ///     },
    /// )?;
    /// std::thread::sleep(std::time::Duration::from_secs(10));
    /// for (key, stats) in shards.flows(5).top(5) {
    ///     println!("{key}: {} bytes", stats.total_bytes());
    /// }
    /// shards.stop();
    /// shards.join()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn flow<E: FlowExtractor + Clone>(self, extractor: E) -> FlowShardsBuilder<Self, E> {
        let shards = self.add_fanout_flags(FanoutFlags::DEFRAG);
        FlowShardsBuilder { shards, extractor, config: None }
    }
}

#[cfg(feature = "af-xdp")]
impl<R: Runtime> XdpShardsBuilder<R> {
    /// Tracks flows in each shard, identified by `extractor`. Each shard only receives, with all frames of its UMEM.
    ///
    /// The card decides which queue a packet goes to. Both directions of a flow are in one shard only if its hash is
    /// symmetric (`ethtool -X eth0 hfunc toeplitz xfrm symmetric-xor`, where the driver has it), and the fragments of
    /// a datagram only if it hashes addresses alone; otherwise a flow is in two shards, whose counts add up.
    pub fn flow<E: FlowExtractor + Clone>(self, extractor: E) -> FlowShardsBuilder<Self, E> {
        FlowShardsBuilder { shards: self, extractor, config: None }
    }
}

/// Configures shards that track flows; from [`ShardsBuilder::flow`] and, for AF_XDP, from `XdpShardsBuilder::flow`.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `spawn`"]
pub struct FlowShardsBuilder<B, E> {
    shards: B,
    extractor: E,
    config: Option<FlowConfig>,
}

impl<B, E: FlowExtractor + Clone> FlowShardsBuilder<B, E> {
    /// Sets the options of the flow tables. Limits such as the number of flows apply to each shard.
    pub fn config(mut self, config: FlowConfig) -> Self {
        self.config = Some(config);
        self
    }

    /// Starts the shards with `spawn`, which is given what each shard runs.
    fn spawn_with<C, F, Fut>(
        self,
        work: F,
        spawn: impl FnOnce(B, Box<dyn Fn(Shard<C>) -> Fut + Send + Sync>) -> Result<Shards>,
    ) -> Result<FlowShards<E::Key>>
    where
        C: FlowSource + 'static,
        F: Fn(FlowShard<E, C>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + 'static,
    {
        let Self { shards, extractor, config } = self;
        // How many shards there are is known when the first of them runs.
        let board = Arc::new(OnceLock::new());
        let of_shards = Arc::clone(&board);
        let run = move |shard: Shard<C>| {
            let (index, count, core) = (shard.index(), shard.count(), shard.core());
            let stop = shard.stop_handle();
            let mut flows = shard.capture.flow_stream(extractor.clone());
            if let Some(config) = &config {
                flows = flows.with_config(config.clone());
            }
            let board = of_shards.get_or_init(|| Arc::new(Board::new(count)));
            flows.table_mut().set_responder(ShardResponder::new(Arc::clone(board), index));
            work(FlowShard { flows, others: shard.others, index, count, core, stop })
        };
        let shards = spawn(shards, Box::new(run))?;
        let board = Arc::clone(board.get_or_init(|| Arc::new(Board::new(shards.len()))));
        Ok(FlowShards { shards, board })
    }
}

impl<R: Runtime, E: FlowExtractor + Clone> FlowShardsBuilder<ShardsBuilder<R>, E> {
    /// Starts the shards; see [`ShardsBuilder::spawn`].
    ///
    /// # Errors
    /// The errors of [`ShardsBuilder::spawn`].
    pub fn spawn<F, Fut>(self, work: F) -> Result<FlowShards<E::Key>>
    where
        F: Fn(FlowShard<E>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + 'static,
    {
        self.spawn_with(work, |shards, run| shards.spawn(run))
    }
}

#[cfg(feature = "af-xdp")]
impl<R: Runtime, E: FlowExtractor + Clone> FlowShardsBuilder<XdpShardsBuilder<R>, E> {
    /// Starts the shards; see [`XdpShardsBuilder::spawn_receivers`].
    ///
    /// # Errors
    /// The errors of [`XdpShardsBuilder::spawn_receivers`].
    pub fn spawn<F, Fut>(self, work: F) -> Result<FlowShards<E::Key>>
    where
        F: Fn(FlowShard<E, AsyncXdpReceiver>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + 'static,
    {
        self.spawn_with(work, |shards, run| shards.spawn_receivers(run))
    }
}

/// One shard, in its own thread, with its flows.
pub struct FlowShard<E: FlowExtractor, C: FlowSource = AsyncCapture> {
    /// Stream of flow events of this shard. It still answers [`FlowShards::flows`] after it was turned into
    /// sessions or conversations.
    pub flows: FlowStream<C, E>,
    /// Captures of this shard that were added with [`ShardsBuilder::and_capture`], in that order.
    pub others: Vec<C>,
    index: usize,
    count: usize,
    core: Option<usize>,
    stop: StopHandle,
}

impl<E: FlowExtractor, C: FlowSource> FlowShard<E, C> {
    /// Returns the index of this shard, counted from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the number of shards.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the core to which the shard is pinned, if any.
    pub fn core(&self) -> Option<usize> {
        self.core
    }

    /// Returns a handle that stops all shards.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }
}

impl<E: FlowExtractor, C: FlowSource> fmt::Debug for FlowShard<E, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowShard").field("index", &self.index).finish_non_exhaustive()
    }
}

/// Running shards that track flows. It dereferences to [`Shards`], and can also be queried for flows.
#[derive(Debug)]
pub struct FlowShards<K> {
    shards: Shards,
    board: Arc<Board<K>>,
}

impl<K: Clone> FlowShards<K> {
    /// Returns the number of flows of each shard, and its `most` flows with the most bytes. The shards keep
    /// running; each scans its flows once, which takes some 20 ns per flow. Blocks until all shards have
    /// answered, which takes some 100 ms if no packets arrive.
    pub fn flows(&self, most: usize) -> FlowSnapshots<K> {
        self.board.ask(most)
    }

    /// Returns the inner [`Shards`], to join them.
    pub fn into_inner(self) -> Shards {
        self.shards
    }

    /// Waits until every shard has ended; see [`Shards::join`].
    ///
    /// # Errors
    /// The errors of [`Shards::join`].
    pub fn join(self) -> Result<crate::shard::AllShardStats> {
        self.shards.join()
    }
}

impl<K> Deref for FlowShards<K> {
    type Target = Shards;

    fn deref(&self) -> &Shards {
        &self.shards
    }
}
