//! Flows on every core: each shard has its own table.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;

use flowscope::{FlowExtractor, FlowTrackerConfig};

use super::shard_query::{Board, FlowSnapshots, ShardResponder};
use super::stream::{FlowExt, FlowStream};
use crate::afpacket::FanoutFlags;
use crate::error::Result;
use crate::io::AsyncCapture;
use crate::ring::batch::PacketBatch;
use crate::shard::{Runtime, Shards, ShardsBuilder};
use crate::wait::StopHandle;

impl<R: Runtime> ShardsBuilder<R> {
    /// Has each shard tell its flows, as `extractor` tells them apart. Fragments are put together by the kernel before
    /// they are given to a shard ([`FanoutFlags::DEFRAG`]), so a flow's are with the rest of it.
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
    ///     println!("{} - {}: {} bytes", key.a, key.b, stats.bytes_initiator + stats.bytes_responder);
    /// }
    /// shards.stop();
    /// shards.join()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn flow<E: FlowExtractor + Clone>(self, extractor: E) -> FlowShardsBuilder<R, E> {
        let shards = self.add_fanout_flags(FanoutFlags::DEFRAG);
        FlowShardsBuilder { shards, extractor, config: None }
    }
}

/// Options of shards that tell flows; from [`ShardsBuilder::flow`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `spawn`"]
pub struct FlowShardsBuilder<R, E> {
    shards: ShardsBuilder<R>,
    extractor: E,
    config: Option<FlowTrackerConfig>,
}

impl<R: Runtime, E: FlowExtractor + Clone> FlowShardsBuilder<R, E> {
    /// The options of each shard's table; so many flows are each shard's.
    pub fn config(mut self, config: FlowTrackerConfig) -> Self {
        self.config = Some(config);
        self
    }

    /// Starts the shards; see [`ShardsBuilder::spawn`].
    ///
    /// # Errors
    /// As there.
    pub fn spawn<F, Fut>(self, work: F) -> Result<FlowShards<E::Key>>
    where
        F: Fn(FlowShard<E>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + 'static,
    {
        let Self { shards, extractor, config } = self;
        let count = shards.plan()?.specs().len();
        let board = Arc::new(Board::new(count));
        let of_shards = Arc::clone(&board);
        let shards = shards.spawn(move |shard| {
            let (index, count, core) = (shard.index(), shard.count(), shard.core());
            let stop = shard.stop_handle();
            let mut flows = shard.capture.flow_stream(extractor.clone());
            if let Some(config) = &config {
                flows = flows.with_config(config.clone());
            }
            flows.table_mut().set_responder(ShardResponder::new(Arc::clone(&of_shards), index));
            work(FlowShard { flows, others: shard.others, index, count, core, stop })
        })?;
        Ok(FlowShards { shards, board })
    }
}

/// One shard, in its own thread: its flows, and who it is.
pub struct FlowShard<E: FlowExtractor> {
    /// What becomes of this shard's flows. It may become sessions or conversations, and still answers
    /// [`FlowShards::flows`].
    pub flows: FlowStream<AsyncCapture, PacketBatch, E>,
    /// Its share of what [`ShardsBuilder::and_capture`] added, in that order.
    pub others: Vec<AsyncCapture>,
    index: usize,
    count: usize,
    core: Option<usize>,
    stop: StopHandle,
}

impl<E: FlowExtractor> FlowShard<E> {
    /// Which shard this is, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many shards there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The core it is pinned to, if it is.
    pub fn core(&self) -> Option<usize> {
        self.core
    }

    /// A handle that stops all shards.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }
}

impl<E: FlowExtractor> fmt::Debug for FlowShard<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowShard").field("index", &self.index).finish_non_exhaustive()
    }
}

/// Running shards that tell flows: all that a [`Shards`] can do, and to ask for flows.
#[derive(Debug)]
pub struct FlowShards<K> {
    shards: Shards,
    board: Arc<Board<K>>,
}

impl<K: Clone> FlowShards<K> {
    /// How many flows each shard has, and the `most` that have the most bytes. Shards go on; each looks at its flows
    /// once, which takes some 20 ns a flow. Blocks until all have answered, some 100 ms where no packets come.
    pub fn flows(&self, most: usize) -> FlowSnapshots<K> {
        self.board.ask(most)
    }

    /// The handle of the shards, to join them.
    pub fn into_inner(self) -> Shards {
        self.shards
    }

    /// Waits until every shard has ended; see [`Shards::join`].
    ///
    /// # Errors
    /// As there.
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
