//! A stream of batches as a stream of what becomes of flows.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use flowscope::{
    FlowEvent, FlowExtractor, FlowTracker, FlowTrackerConfig, FlowTrackerStats, L4Proto,
};
use futures_core::Stream;

use super::table::FlowTable;
use crate::ring::batch::Place;
use crate::time::{self, Sleep};
use crate::{Dedup, DedupStats, PacketBatch, Reactor, Result};

/// Packets that a poll takes in before others have their turn.
const BUDGET: usize = 4096;
/// Flows that a poll ends, where no packet comes.
const ENDED_A_POLL: usize = 256;
/// Flows are not looked at more often than this, where no packet comes.
const TICK: Duration = Duration::from_millis(100);

/// What a stream delivers that flows can be told from: a batch, or one with the number of its capture.
pub trait FlowSource: sealed::Sealed {
    /// Its packets.
    fn batch(&self) -> &PacketBatch;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::PacketBatch {}
    impl Sealed for (usize, crate::PacketBatch) {}
}

impl FlowSource for PacketBatch {
    fn batch(&self) -> &PacketBatch {
        self
    }
}

impl FlowSource for (usize, PacketBatch) {
    fn batch(&self) -> &PacketBatch {
        &self.1
    }
}

/// Streams of packets whose flows can be told.
pub trait FlowExt: Stream + Sized {
    /// Tells what becomes of flows, as `extractor` tells them apart; see [`FlowStream`].
    fn flow_stream<E: FlowExtractor, B: FlowSource>(self, extractor: E) -> FlowStream<Self, B, E>
    where
        Self: Stream<Item = Result<B>>,
    {
        FlowStream {
            stream: self,
            table: FlowTable::new(extractor),
            events: VecDeque::new(),
            current: None,
            dedup: None,
            tick: None,
            seen: None,
            has_ended: false,
        }
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
pub struct FlowStream<St, B, E: FlowExtractor, S = ()> {
    stream: St,
    table: FlowTable<E, S>,
    events: VecDeque<FlowEvent<E::Key>>,
    /// A batch whose packets were looked at up to there.
    current: Option<(B, Option<Place>)>,
    dedup: Option<Dedup>,
    tick: Option<Sleep>,
    /// When the last batch was looked at, here, and its time.
    seen: Option<(Instant, u64)>,
    has_ended: bool,
}

impl<St, B, E: FlowExtractor, S: Send + 'static> FlowStream<St, B, E, S> {
    /// Changes the options of the tracker; see [`FlowTable::set_config`].
    #[must_use]
    pub fn with_config(mut self, config: FlowTrackerConfig) -> Self {
        self.table.set_config(config);
        self
    }

    /// Gives each flow a state, made by `init` when it begins; flows that have begun are gone. All else stays.
    #[must_use]
    pub fn with_state<T: Send + 'static>(
        self,
        init: impl FnMut(&E::Key) -> T + Send + Sync + 'static,
    ) -> FlowStream<St, B, E, T> {
        let Self { stream, table, events, current, dedup, tick, seen, has_ended } = self;
        let table = table.with_state(init);
        FlowStream { stream, table, events, current, dedup, tick, seen, has_ended }
    }

    /// Says for each flow how long it may be idle; `None` leaves it to the options.
    #[must_use]
    pub fn with_idle_timeout_fn(
        mut self,
        timeout: impl Fn(&E::Key, Option<L4Proto>) -> Option<Duration> + 'static,
    ) -> Self {
        self.table.set_idle_timeout_fn(timeout);
        self
    }

    /// Leaves duplicates out.
    #[must_use]
    pub fn with_dedup(mut self, dedup: Dedup) -> Self {
        self.dedup = Some(dedup);
        self
    }

    /// flowscope's tracker, with the flows that there are.
    pub fn tracker(&self) -> &FlowTracker<E, S> {
        self.table.tracker()
    }

    /// flowscope's tracker, to change flows' states.
    pub fn tracker_mut(&mut self) -> &mut FlowTracker<E, S> {
        self.table.tracker_mut()
    }

    /// How many flows began, ended and were evicted, and packets that are of none.
    pub fn stats(&self) -> FlowTrackerStats {
        self.table.tracker().stats().clone()
    }

    /// How many duplicates were left out, with [`with_dedup`](Self::with_dedup).
    pub fn dedup_stats(&self) -> Option<DedupStats> {
        self.dedup.as_ref().map(Dedup::stats)
    }

    /// The stream: a capture's statistics say what it lost.
    pub fn get_ref(&self) -> &St {
        &self.stream
    }

    /// The stream, to stop it.
    pub fn get_mut(&mut self) -> &mut St {
        &mut self.stream
    }
}

impl<St, B: FlowSource, E: FlowExtractor, S: Send + 'static> FlowStream<St, B, E, S> {
    /// Looks at packets of the current batch until one brings an event about: false where there are none left.
    fn look(&mut self, budget: &mut usize) -> bool {
        let Some((source, place)) = &mut self.current else { return false };
        let batch = source.batch();
        let mut packets = match place.take() {
            Some(place) => batch.iter_from(place),
            None => batch.iter(),
        };
        while *budget > 0 && self.events.is_empty() {
            let Some(packet) = packets.next() else {
                self.current = None;
                return false;
            };
            *budget -= 1;
            if self.dedup.as_mut().is_none_or(|dedup| dedup.keep(&packet)) {
                self.table.packet(&packet, &mut self.events);
            }
        }
        *place = Some(packets.place());
        true
    }

    /// Where no packet comes, time goes on all the same.
    fn poll_tick(&mut self, cx: &mut Context<'_>) {
        let Some((seen, at)) = self.seen else { return };
        let elapsed = u64::try_from(seen.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let now = at.saturating_add(elapsed);
        if self.tick.as_mut().is_some_and(|tick| Pin::new(tick).poll(cx).is_ready()) {
            self.tick = None;
        }
        if self.tick.is_some() {
            return;
        }
        if self.table.advance(now, ENDED_A_POLL, &mut self.events) {
            cx.waker().wake_by_ref(); // there are more
            return;
        }
        // Without a reactor nobody would wake us.
        if let Some(due) = self.table.next_due()
            && Reactor::current().is_ok()
        {
            let left = Duration::from_nanos(due.saturating_sub(now)).max(TICK);
            let tick = self.tick.insert(time::sleep(left));
            let _ = Pin::new(tick).poll(cx);
        }
    }
}

impl<St, B, E, S> Stream for FlowStream<St, B, E, S>
where
    St: Stream<Item = Result<B>> + Unpin,
    B: FlowSource + Unpin,
    E: FlowExtractor + Unpin,
    E::Key: Unpin,
    S: Send + Unpin + 'static,
{
    type Item = Result<FlowEvent<E::Key>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut budget = BUDGET;
        loop {
            if let Some(event) = this.events.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if budget == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if this.has_ended {
                if this.table.finish(ENDED_A_POLL, &mut this.events) || !this.events.is_empty() {
                    continue;
                }
                return Poll::Ready(None);
            }
            if this.look(&mut budget) {
                continue;
            }
            match Pin::new(&mut this.stream).poll_next(cx) {
                Poll::Ready(Some(Ok(batch))) => {
                    let at = batch.batch().ts_last().as_nanos();
                    this.seen = Some((Instant::now(), at));
                    this.tick = None;
                    this.current = Some((batch, None));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => this.has_ended = true,
                Poll::Pending => {
                    this.poll_tick(cx);
                    if this.events.is_empty() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl<St: fmt::Debug, B, E: FlowExtractor, S> fmt::Debug for FlowStream<St, B, E, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}
