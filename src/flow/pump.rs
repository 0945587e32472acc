//! What all streams of flows have in common: batches in, packet by packet into a table, events out.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;

use super::bytes::{self, Held, Lend};
use crate::dedup::Dedup;
use crate::error::Result;
use crate::packet::Packet;
use crate::reactor::Reactor;
use crate::ring::batch::{PacketBatch, Place};
use crate::time::{self, Sleep};

/// Packets that a poll takes in before others have their turn.
const BUDGET: usize = 1024;
/// Flows that a poll ends, where no packet comes.
const ENDED_A_POLL: usize = 256;
/// Flows are not looked at more often than this, where no packet comes.
const TICK: Duration = Duration::from_millis(100);

/// What a stream delivers that flows can be told from: a batch, or one with the number of its capture.
pub trait FlowSource: sealed::Sealed + Send + Sync + 'static {
    /// Its packets.
    fn batch(&self) -> &PacketBatch;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::ring::batch::PacketBatch {}
    impl Sealed for (usize, crate::ring::batch::PacketBatch) {}
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

impl<B: FlowSource> Held for Option<B> {
    fn batch(&self) -> &PacketBatch {
        self.as_ref().expect("it holds a batch as long as it is lent").batch()
    }
}

/// What packets are taken into.
pub(super) trait Intake {
    type Event;

    /// Takes a packet in; `lend` lends its bytes for longer.
    fn packet(&mut self, packet: &Packet<'_>, lend: Lend<'_>, events: &mut VecDeque<Self::Event>);

    /// Says that it is so late. At most `most` flows are looked at; whether there are more that are due.
    fn advance(&mut self, now: u64, most: usize, events: &mut VecDeque<Self::Event>) -> bool;

    /// When a flow is due next.
    fn next_due(&self) -> Option<u64>;

    /// Ends at most `most` flows, since nothing more will come: whether there are more.
    fn finish(&mut self, most: usize, events: &mut VecDeque<Self::Event>) -> bool;

    /// Whether it wants to know the time now and then, also where no flow is due.
    fn wants_time(&self) -> bool {
        false
    }

    /// Whether [`poll_ready`](Self::poll_ready) is to be called before the next packet.
    fn wants_turn(&self) -> bool {
        false
    }

    /// Goes on with what it does besides, and says whether it may take packets in.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Goes on with what it does besides, to its end.
    fn poll_done(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// All packets of a batch were taken in: it goes back to its ring, but for what was lent of it.
    fn batch_done(&mut self) {}
}

/// A stream of batches, taken into something.
pub(super) struct Pump<St, B, I: Intake> {
    pub(super) stream: St,
    pub(super) intake: I,
    pub(super) dedup: Option<Dedup>,
    events: VecDeque<I::Event>,
    /// A batch whose packets were looked at up to there.
    current: Option<(Arc<Option<B>>, Option<Place>)>,
    /// What held the batch before, for the next.
    spare: Option<Arc<Option<B>>>,
    tick: Option<Sleep>,
    /// When the last batch was looked at, here, and its time.
    seen: Option<(Instant, u64)>,
    has_ended: bool,
}

impl<St, B: FlowSource, I: Intake> Pump<St, B, I> {
    pub(super) fn new(stream: St, intake: I) -> Self {
        Self {
            stream,
            intake,
            dedup: None,
            events: VecDeque::new(),
            current: None,
            spare: None,
            tick: None,
            seen: None,
            has_ended: false,
        }
    }

    /// The same stream, into something else. Events that were not taken are gone.
    pub(super) fn into<J: Intake>(self, change: impl FnOnce(I) -> J) -> Pump<St, B, J> {
        let Self { stream, intake, dedup, current, spare, tick, seen, has_ended, .. } = self;
        let (intake, events) = (change(intake), VecDeque::new());
        Pump { stream, intake, dedup, events, current, spare, tick, seen, has_ended }
    }

    /// Looks at packets of the current batch until one brings an event about: false where there are none left.
    fn look(&mut self, budget: &mut usize) -> bool {
        let Some((holder, place)) = &mut self.current else { return false };
        let batch = holder.batch();
        let mut packets = match place.take() {
            Some(place) => batch.iter_from(place),
            None => batch.iter(),
        };
        while *budget > 0 && self.events.is_empty() && !self.intake.wants_turn() {
            let at = packets.place();
            let Some(packet) = packets.next() else {
                self.intake.batch_done();
                self.give_back();
                return false;
            };
            *budget -= 1;
            if self.dedup.as_mut().is_none_or(|dedup| dedup.keep(&packet)) {
                let lend = |part| bytes::lent(Arc::<Option<B>>::clone(holder), at, part);
                self.intake.packet(&packet, &lend, &mut self.events);
            }
        }
        *place = Some(packets.place());
        true
    }

    /// Lets go of the batch. What held it serves the next, so a batch of one packet costs no allocation.
    fn give_back(&mut self) {
        let Some((mut holder, _)) = self.current.take() else { return };
        if let Some(batch) = Arc::get_mut(&mut holder) {
            *batch = None;
            self.spare = Some(holder);
        }
    }

    fn hold(&mut self, batch: B) {
        let mut holder = self.spare.take().unwrap_or_default();
        match Arc::get_mut(&mut holder) {
            Some(place) => *place = Some(batch),
            None => holder = Arc::new(Some(batch)),
        }
        self.current = Some((holder, None));
    }

    /// Where no packet comes, time goes on all the same.
    fn poll_tick(&mut self, cx: &mut Context<'_>) {
        if self.intake.wants_time() {
            self.seen.get_or_insert_with(|| (Instant::now(), 0));
        }
        let Some((seen, at)) = self.seen else { return };
        let elapsed = u64::try_from(seen.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let now = at.saturating_add(elapsed);
        if self.tick.as_mut().is_some_and(|tick| Pin::new(tick).poll(cx).is_ready()) {
            self.tick = None;
        }
        if self.tick.is_some() {
            return;
        }
        if self.intake.advance(now, ENDED_A_POLL, &mut self.events) {
            cx.waker().wake_by_ref(); // there are more
            return;
        }
        // Without a reactor nobody would wake us.
        let due = match self.intake.wants_time() {
            true => Some(now),
            false => self.intake.next_due(),
        };
        if let Some(due) = due
            && Reactor::current().is_ok()
        {
            let left = Duration::from_nanos(due.saturating_sub(now)).max(TICK);
            let tick = self.tick.insert(time::sleep(left));
            let _ = Pin::new(tick).poll(cx);
        }
    }
}

impl<St, B, I> Pump<St, B, I>
where
    St: Stream<Item = Result<B>> + Unpin,
    B: FlowSource,
    I: Intake,
{
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<I::Event>>> {
        let mut budget = BUDGET;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if budget == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.has_ended {
                let has_more = self.intake.finish(ENDED_A_POLL, &mut self.events);
                if has_more || !self.events.is_empty() {
                    budget = budget.saturating_sub(ENDED_A_POLL);
                    continue;
                }
                return self.intake.poll_done(cx).map(|()| None);
            }
            if self.intake.poll_ready(cx).is_pending() {
                return Poll::Pending;
            }
            if self.look(&mut budget) {
                continue;
            }
            match Pin::new(&mut self.stream).poll_next(cx) {
                Poll::Ready(Some(Ok(batch))) => {
                    self.seen = Some((Instant::now(), batch.batch().ts_last().as_nanos()));
                    self.tick = None;
                    self.hold(batch);
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => self.has_ended = true,
                Poll::Pending => {
                    self.poll_tick(cx);
                    if self.events.is_empty() {
                        // What the last packets have begun has its first turn, and who wakes it is known.
                        let _ = self.intake.poll_ready(cx);
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}
