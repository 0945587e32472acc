//! Streams of flow events from streams of batches.

use std::collections::VecDeque;
use std::time::Duration;

use flowscope::{FlowExtractor, L4Proto};
use futures_core::Stream;

use super::broadcast::Broadcast;
use super::bytes::Lend;
use super::config::FlowConfig;
use super::event::FlowEvent;
use super::pump::{BatchConsumer, FlowSource, Pump};
use super::table::FlowTable;
use crate::dedup::Dedup;
use crate::error::Result;
use crate::packet::Packet;

/// Extension of streams of batches that tracks flows.
pub trait FlowExt: Stream + Sized {
    /// Turns the stream into one of flow events, with flows identified by `extractor`; see [`FlowStream`].
    fn flow_stream<E: FlowExtractor, B: FlowSource>(self, extractor: E) -> FlowStream<Self, B, E>
    where
        Self: Stream<Item = Result<B>>,
    {
        FlowStream { pump: Pump::new(self, FlowTable::new(extractor)) }
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
pub struct FlowStream<St, B, E: FlowExtractor, S: Send + 'static = ()> {
    pub(super) pump: Pump<St, B, FlowTable<E, S>>,
}

impl<St, B: FlowSource, E: FlowExtractor, S: Send + 'static> FlowStream<St, B, E, S> {
    /// Sets the options of the table; see [`FlowTable::set_config`].
    #[must_use]
    pub fn with_config(mut self, config: FlowConfig) -> Self {
        self.pump.intake.set_config(config);
        self
    }

    /// Gives each flow a state, created by `init` when the flow begins. Current flows are discarded; everything
    /// else is kept.
    #[must_use]
    pub fn with_state<T: Send + 'static>(
        self,
        init: impl FnMut(&E::Key) -> T + Send + Sync + 'static,
    ) -> FlowStream<St, B, E, T> {
        FlowStream { pump: self.pump.into(|table| table.with_state(init)) }
    }

    /// Sets a function that returns how long a flow may be idle; `None` uses the configured timeout.
    #[must_use]
    pub fn with_idle_timeout_fn(
        mut self,
        timeout: impl Fn(&E::Key, Option<L4Proto>) -> Option<Duration> + 'static,
    ) -> Self {
        self.pump.intake.set_idle_timeout_fn(timeout);
        self
    }

    /// Ignores duplicate packets, as detected by `dedup`.
    #[must_use]
    pub fn with_dedup(mut self, dedup: Dedup) -> Self {
        self.pump.dedup = Some(dedup);
        self
    }
}

super::accessors!(FlowStream<St, B, E, S>, pump.intake);

impl<E: FlowExtractor, S: Send + 'static> BatchConsumer for FlowTable<E, S> {
    type Event = FlowEvent<E::Key>;

    fn is_prepared(&self) -> bool {
        FlowTable::is_prepared(self)
    }

    fn prepare(&mut self, packet: &Packet<'_>) {
        self.prepare_one(packet);
    }

    fn prepare_done(&mut self) {
        FlowTable::prepare_done(self);
    }

    fn skip(&mut self) {
        FlowTable::skip(self);
    }

    fn packet(&mut self, packet: &Packet<'_>, _: Lend<'_>, events: &mut VecDeque<Self::Event>) {
        self.take_next(packet, &mut |_, event| events.push_back(event));
    }

    fn advance(&mut self, now: u64, most: usize, events: &mut VecDeque<Self::Event>) -> bool {
        FlowTable::advance(self, now, most, events)
    }

    fn next_due(&self) -> Option<u64> {
        FlowTable::next_due(self)
    }

    fn wants_time(&self) -> bool {
        self.may_be_asked()
    }

    fn finish(&mut self, most: usize, events: &mut VecDeque<Self::Event>) -> bool {
        FlowTable::finish(self, most, events)
    }
}

super::yields!(FlowStream<St, B, E, S>, FlowEvent<E::Key>);
