//! A stream of batches as a stream of what becomes of flows.

use std::collections::VecDeque;
use std::time::Duration;

use flowscope::{FlowEvent, FlowExtractor, FlowTrackerConfig, L4Proto};
use futures_core::Stream;

use super::broadcast::Broadcast;
use super::bytes::Lend;
use super::pump::{FlowSource, Intake, Pump};
use super::table::FlowTable;
use crate::dedup::Dedup;
use crate::error::Result;
use crate::packet::Packet;

/// Streams of packets whose flows can be told.
pub trait FlowExt: Stream + Sized {
    /// Tells what becomes of flows, as `extractor` tells them apart; see [`FlowStream`].
    fn flow_stream<E: FlowExtractor, B: FlowSource>(self, extractor: E) -> FlowStream<Self, B, E>
    where
        Self: Stream<Item = Result<B>>,
    {
        FlowStream { pump: Pump::new(self, FlowTable::new(extractor)) }
    }

    /// Passes the items of a stream on to several who listen, on any thread: each to all. A buffer holds so many; who is
    /// slower than that is told how many he has missed ([`Lagged`](super::Lagged)), and holds up nobody.
    fn broadcast<T>(self, buffer: usize) -> Broadcast<Self, T>
    where
        Self: Stream<Item = Result<T>>,
    {
        Broadcast::new(self, buffer)
    }
}

impl<St: Stream> FlowExt for St {}

/// What becomes of flows; from [`FlowExt::flow_stream`].
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
///             println!("{:?} {} bytes, {reason}", key, stats.bytes_initiator + stats.bytes_responder);
///         }
///     }
///     Ok(())
/// })
/// # }
/// ```
///
/// Events are bounded: the next packet is looked at when those of the one before are taken. Where the consumer is slow,
/// its batch stays in the ring, which so backs up, and what the kernel drops then is in the capture's statistics
/// ([`get_ref`](Self::get_ref)). Flows are idle by the packets' clock, and where none come, by this machine's, which
/// takes a reactor. At the end of the stream, those that are left end as idle.
pub struct FlowStream<St, B, E: FlowExtractor, S: Send + 'static = ()> {
    pub(super) pump: Pump<St, B, FlowTable<E, S>>,
}

impl<St, B: FlowSource, E: FlowExtractor, S: Send + 'static> FlowStream<St, B, E, S> {
    /// Changes the options of the tracker; see [`FlowTable::set_config`].
    #[must_use]
    pub fn with_config(mut self, config: FlowTrackerConfig) -> Self {
        self.pump.intake.set_config(config);
        self
    }

    /// Gives each flow a state, made by `init` when it begins; flows that have begun are gone. All else stays.
    #[must_use]
    pub fn with_state<T: Send + 'static>(
        self,
        init: impl FnMut(&E::Key) -> T + Send + Sync + 'static,
    ) -> FlowStream<St, B, E, T> {
        FlowStream { pump: self.pump.into(|table| table.with_state(init)) }
    }

    /// Says for each flow how long it may be idle; `None` leaves it to the options.
    #[must_use]
    pub fn with_idle_timeout_fn(
        mut self,
        timeout: impl Fn(&E::Key, Option<L4Proto>) -> Option<Duration> + 'static,
    ) -> Self {
        self.pump.intake.set_idle_timeout_fn(timeout);
        self
    }

    /// Leaves duplicates out.
    #[must_use]
    pub fn with_dedup(mut self, dedup: Dedup) -> Self {
        self.pump.dedup = Some(dedup);
        self
    }
}

super::accessors!(FlowStream<St, B, E, S>, pump.intake);

impl<E: FlowExtractor, S: Send + 'static> Intake for FlowTable<E, S> {
    type Event = FlowEvent<E::Key>;

    fn packet(&mut self, packet: &Packet<'_>, _: Lend<'_>, events: &mut VecDeque<Self::Event>) {
        FlowTable::packet(self, packet, events);
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
