//! Streams of flow events from streams of batches.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use flowscope::{FlowExtractor, L4Proto};
use futures_core::Stream;

use super::broadcast::Broadcast;
use super::bytes::Lend;
use super::config::{FlowConfig, FlowTableStats};
use super::connections::Connections;
use super::consumer::Consumer;
use super::event::FlowEvent;
use super::pump::{BatchConsumer, FlowSource, Pump};
use super::reassembly::{ReassemblyConfig, ReassemblyStats};
use super::table::FlowTable;
use crate::dedup::{Dedup, DedupStats};
use crate::error::Result;
use crate::packet::Packet;

/// Extension of streams of batches that tracks flows.
pub trait FlowExt: Stream + Sized {
    /// Turns the stream into one of flow events, with flows identified by `extractor`; see [`FlowStream`].
    fn flow_stream<E: FlowExtractor>(self, extractor: E) -> FlowStream<Self, E>
    where
        Self: FlowSource,
    {
        Flows { pump: Pump::new(self, FlowTable::new(extractor)) }
    }

    /// Broadcasts each item of the stream to all subscribers, on any thread. The buffer holds `buffer` items; a
    /// subscriber that falls further behind gets the number of items lost ([`Lagged`](super::Lagged)) and does
    /// not delay the others.
    fn broadcast<T>(self, buffer: usize) -> Broadcast<Self, T>
    where
        Self: Stream<Item = Result<T>>,
    {
        Broadcast::new(self, buffer)
    }
}

impl<St: Stream> FlowExt for St {}

/// A stream of flow events; from [`FlowExt::flow_stream`].
///
/// ```no_run
/// use futures_util::StreamExt;
/// use ringtap::flow::{FlowEvent, FlowExt, extract::FiveTuple};
/// use ringtap::{AsyncCapture, executor};
///
/// # fn main() -> ringtap::Result<()> {
/// executor::block_on(async {
///     let mut flows = AsyncCapture::open("eth0")?.flow_stream(FiveTuple::bidirectional());
///     while let Some(event) = flows.next().await {
///         if let FlowEvent::Ended { key, stats, reason, .. } = event? {
///             println!("{key} {} bytes, {reason}", stats.total_bytes());
///         }
///     }
///     Ok(())
/// })
/// # }
/// ```
///
/// The number of pending events is bounded: a packet is only processed after the events of the previous one
/// were taken. If the consumer is slow, its batch stays in the ring, the ring fills up, and the packets that
/// the kernel then drops are in the capture's statistics ([`get_ref`](Self::get_ref)). Idle times are measured
/// by the packets' clock, or, while no packets arrive, by this machine's clock, which needs a reactor. At the
/// end of the stream, the remaining flows end as idle.
pub type FlowStream<St, E, S = ()> = Flows<St, FlowTable<E, S>>;

/// A stream of batches whose flows are tracked. What it delivers depends on `I`, which users name by one of the
/// aliases: [`FlowStream`], [`SessionStream`](super::SessionStream), [`Conversations`](super::Conversations),
/// [`ReassembledStream`](super::ReassembledStream) and [`FlowRecords`](super::FlowRecords).
pub struct Flows<St: FlowSource, I: BatchConsumer> {
    pub(super) pump: Pump<St, St::Batch, I>,
}

impl<St: FlowSource, I: BatchConsumer> Flows<St, I> {
    /// Sets the options of the table; see [`FlowTable::set_config`].
    #[must_use]
    pub fn with_config(mut self, config: FlowConfig) -> Self {
        self.table_mut().set_config(config);
        self
    }

    /// Sets a function that returns how long a flow may be idle; `None` uses the configured timeout.
    #[must_use]
    pub fn with_idle_timeout_fn(
        mut self,
        timeout: impl Fn(&<I::Extractor as FlowExtractor>::Key, Option<L4Proto>) -> Option<Duration>
        + 'static,
    ) -> Self {
        self.table_mut().set_idle_timeout_fn(timeout);
        self
    }

    /// Ignores duplicate packets, as detected by `dedup`.
    #[must_use]
    pub fn with_dedup(mut self, dedup: Dedup) -> Self {
        self.pump.dedup = Some(dedup);
        self
    }

    /// Returns the table of flows.
    pub fn table(&self) -> &FlowTable<I::Extractor, I::State> {
        self.pump.intake.table()
    }

    /// Returns the table of flows, to change its options.
    pub fn table_mut(&mut self) -> &mut FlowTable<I::Extractor, I::State> {
        self.pump.intake.table_mut()
    }

    /// Returns how many flows began, ended and were evicted, and how many packets belong to no flow.
    pub fn stats(&self) -> FlowTableStats {
        self.table().stats()
    }

    /// Returns how many duplicates were left out, with [`with_dedup`](Self::with_dedup).
    pub fn dedup_stats(&self) -> Option<DedupStats> {
        self.pump.dedup.as_ref().map(Dedup::stats)
    }

    /// Returns the stream of batches. The statistics of a capture tell what it lost.
    pub fn get_ref(&self) -> &St {
        &self.pump.stream
    }

    /// Returns the stream of batches, to stop it.
    pub fn get_mut(&mut self) -> &mut St {
        &mut self.pump.stream
    }

    /// Returns a stream that gives the packets to another consumer.
    pub(super) fn into_flows<J: BatchConsumer>(self, change: impl FnOnce(I) -> J) -> Flows<St, J> {
        Flows { pump: self.pump.into(change) }
    }
}

impl<St: FlowSource, E: FlowExtractor, S: Send + 'static> FlowStream<St, E, S> {
    /// Gives each flow a state, created by `init` when the flow begins. Current flows are discarded; everything
    /// else is kept.
    #[must_use]
    pub fn with_state<T: Send + 'static>(
        self,
        init: impl FnMut(&E::Key) -> T + Send + Sync + 'static,
    ) -> FlowStream<St, E, T> {
        self.into_flows(|table| table.with_state(init))
    }
}

/// For streams that reassemble TCP.
impl<St, E, S, C> Flows<St, Connections<E, S, C>>
where
    St: FlowSource,
    E: FlowExtractor,
    S: Send + 'static,
    C: Consumer<E::Key>,
{
    /// Sets how TCP streams are reassembled.
    #[must_use]
    pub fn with_reassembly(mut self, config: ReassemblyConfig) -> Self {
        self.pump.intake.config = config;
        self
    }

    /// Returns the statistics of TCP reassembly.
    pub fn reassembly_stats(&self) -> ReassemblyStats {
        self.pump.intake.reassembly()
    }
}

/// Nothing but the stream of batches may need to stay where it is.
impl<St: FlowSource + Unpin, I: BatchConsumer> Unpin for Flows<St, I> {}

impl<St: FlowSource + Unpin, I: BatchConsumer> Stream for Flows<St, I> {
    type Item = Result<I::Event>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().pump.poll_event(cx)
    }
}

impl<St: FlowSource + fmt::Debug, I: BatchConsumer> fmt::Debug for Flows<St, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flows").field("stream", &self.pump.stream).finish_non_exhaustive()
    }
}

impl<E: FlowExtractor, S: Send + 'static> BatchConsumer for FlowTable<E, S> {
    type Extractor = E;
    type State = S;
    type Event = FlowEvent<E::Key>;

    fn table(&self) -> &Self {
        self
    }

    fn table_mut(&mut self) -> &mut Self {
        self
    }

    fn packet(&mut self, packet: &Packet<'_>, _: Lend<'_>, events: &mut VecDeque<Self::Event>) {
        self.take_next(packet, &mut |_, event| events.push_back(event));
    }

    fn advance(&mut self, now: u64, most: usize, events: &mut VecDeque<Self::Event>) -> bool {
        FlowTable::advance(self, now, most, events)
    }

    fn finish(&mut self, most: usize, events: &mut VecDeque<Self::Event>) -> bool {
        FlowTable::finish(self, most, events)
    }
}
