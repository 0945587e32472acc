//! The common part of all streams of flows: takes packets from batches into a table and returns events.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use flowscope::FlowExtractor;
use futures_core::Stream;

use super::bytes::{self, Held, Lend};
use super::table::FlowTable;
use super::table::ahead::AT_ONCE;
use crate::dedup::Dedup;
use crate::error::Result;
use crate::packet::Packet;
use crate::reactor::Reactor;
use crate::ring::batch::{PacketBatch, Place};
use crate::time::{self, Budget, Sleep};

/// Packets processed between two looks at the time that this has taken.
const AT_A_LOOK: u32 = 16;
/// Flows ended between two such looks while no packets arrive.
const ENDED_AT_A_LOOK: usize = 256;
/// Minimum interval between checks of flows while no packets arrive.
const TICK: Duration = Duration::from_millis(100);

/// A stream of batches from which flows can be tracked: of a capture, of several, or of a file.
///
/// Every stream whose items are batches, or batches with the number of their capture, is one.
pub trait FlowSource: Stream<Item = Result<Self::Batch>> {
    /// The batches of the stream.
    type Batch: FlowBatch;
}

impl<St: Stream<Item = Result<B>>, B: FlowBatch> FlowSource for St {
    type Batch = B;
}

/// A batch, or a batch with the number of its capture.
pub trait FlowBatch: sealed::Sealed + Send + Sync + 'static {
    /// Returns the batch.
    fn batch(&self) -> &PacketBatch;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::ring::batch::PacketBatch {}
    impl Sealed for (usize, crate::ring::batch::PacketBatch) {}
}

impl FlowBatch for PacketBatch {
    fn batch(&self) -> &PacketBatch {
        self
    }
}

impl FlowBatch for (usize, PacketBatch) {
    fn batch(&self) -> &PacketBatch {
        &self.1
    }
}

impl<B: FlowBatch> Held for Option<B> {
    fn batch(&self) -> &PacketBatch {
        self.as_ref().expect("it holds a batch as long as it is lent").batch()
    }
}

/// A destination for packets that tracks their flows and produces events.
pub trait BatchConsumer {
    /// What identifies flows.
    type Extractor: FlowExtractor;
    /// The state that users keep for each flow.
    type State: Send + 'static;
    type Event;

    fn table(&self) -> &FlowTable<Self::Extractor, Self::State>;

    fn table_mut(&mut self) -> &mut FlowTable<Self::Extractor, Self::State>;

    /// Processes a packet; `lend` lends its bytes for longer than the call.
    fn packet(&mut self, packet: &Packet<'_>, lend: Lend<'_>, events: &mut VecDeque<Self::Event>);

    /// Advances the clock to `now`, expiring at most `most` flows. Returns whether more are due.
    fn advance(&mut self, now: u64, most: usize, events: &mut VecDeque<Self::Event>) -> bool;

    /// Ends at most `most` flows, as no more packets will come. Returns whether there are more.
    fn finish(&mut self, most: usize, events: &mut VecDeque<Self::Event>) -> bool;

    /// Returns when the next flow is due.
    fn next_due(&self) -> Option<u64> {
        self.table().next_due()
    }

    /// Returns whether [`poll_ready`](Self::poll_ready) must be called before the next packet.
    fn wants_turn(&self) -> bool {
        false
    }

    /// Continues background work, and returns ready if packets can be accepted.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Continues background work until it is complete.
    fn poll_done(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Called when all packets of a batch were processed: the batch goes back to its ring, unless bytes of it
    /// are still lent.
    fn batch_done(&mut self) {}
}

/// A stream of batches whose packets go into an intake.
pub(super) struct Pump<St, B, I: BatchConsumer> {
    pub(super) stream: St,
    pub(super) intake: I,
    pub(super) dedup: Option<Dedup>,
    events: VecDeque<I::Event>,
    /// The current batch, and the place of its next packet.
    current: Option<(Arc<Option<B>>, Option<Place>)>,
    /// The allocation that held the previous batch, for reuse.
    spare: Option<Arc<Option<B>>>,
    tick: Option<Sleep>,
    /// When the last batch was received, and the packet time of its end.
    seen: Option<(Instant, u64)>,
    has_ended: bool,
    /// When the rest of the thread has a turn.
    budget: Budget,
}

impl<St, B: FlowBatch, I: BatchConsumer> Pump<St, B, I> {
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
            budget: Budget::new(),
        }
    }

    /// Replaces the intake, keeping the stream. Pending events are discarded.
    pub(super) fn into<J: BatchConsumer>(self, change: impl FnOnce(I) -> J) -> Pump<St, B, J> {
        let Self { stream, intake, dedup, current, spare, tick, seen, has_ended, .. } = self;
        let (intake, events, budget) = (change(intake), VecDeque::new(), Budget::new());
        Pump { stream, intake, dedup, events, current, spare, tick, seen, has_ended, budget }
    }

    /// Processes packets of the current batch until one causes an event, or [`AT_A_LOOK`] of them. Returns false if no
    /// packets are left.
    fn look(&mut self) -> bool {
        let Some((holder, place)) = &mut self.current else { return false };
        let batch = holder.batch();
        let mut packets = match place.take() {
            Some(place) => batch.iter_from(place),
            None => batch.iter(),
        };
        let mut left = AT_A_LOOK;
        while left > 0 && self.events.is_empty() && !self.intake.wants_turn() {
            let at = packets.place();
            if !self.intake.table().is_prepared() {
                let table = self.intake.table_mut();
                batch.iter_from(at).take(AT_ONCE).for_each(|packet| table.prepare_one(&packet));
                table.prepare_done();
            }
            let Some(packet) = packets.next() else {
                self.intake.batch_done();
                self.give_back();
                return false;
            };
            left -= 1;
            if self.dedup.as_mut().is_none_or(|dedup| dedup.keep(&packet)) {
                let lend = |part| bytes::lent(Arc::<Option<B>>::clone(holder), at, part);
                self.intake.packet(&packet, &lend, &mut self.events);
            } else {
                self.intake.table_mut().skip();
            }
        }
        *place = Some(packets.place());
        self.budget.count(AT_A_LOOK - left);
        true
    }

    /// Releases the batch. Its allocation is reused for the next one, so that a batch of one packet costs no
    /// allocation.
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

    /// Lets time advance while no packets arrive.
    fn poll_tick(&mut self, cx: &mut Context<'_>) {
        if self.intake.table().may_be_asked() {
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
        if self.intake.advance(now, ENDED_AT_A_LOOK, &mut self.events) {
            cx.waker().wake_by_ref(); // more flows are due
            return;
        }
        // Without a reactor no timer could wake us.
        let due = match self.intake.table().may_be_asked() {
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
    B: FlowBatch,
    I: BatchConsumer,
{
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<I::Event>>> {
        loop {
            if self.budget.is_spent() {
                ready!(self.budget.poll_turn(cx));
            }
            if let Some(event) = self.events.pop_front() {
                self.budget.count(1);
                return Poll::Ready(Some(Ok(event)));
            }
            if self.has_ended {
                let has_more = self.intake.finish(ENDED_AT_A_LOOK, &mut self.events);
                if has_more || !self.events.is_empty() {
                    self.budget.look();
                    continue;
                }
                return self.intake.poll_done(cx).map(|()| None);
            }
            if self.intake.poll_ready(cx).is_pending() {
                return Poll::Pending;
            }
            if self.look() {
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
                    self.budget.renew();
                    self.poll_tick(cx);
                    if self.events.is_empty() {
                        // Give tasks started by the last packets their first turn, so that their wakers are
                        // registered.
                        let _ = self.intake.poll_ready(cx);
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}
