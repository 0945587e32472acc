//! The ends of flows: those that are due, those that make room, reports of those that go on.

use std::collections::VecDeque;
use std::time::Duration;

use flowscope::{EndReason, EventMask, FlowExtractor};

use super::entry::{LONGEST_INTERVAL, flag, nanos, time};
use super::{FlowTable, STEP, Tell};
use crate::flow::event::FlowEvent;

/// Maximum number of flows looked at for one that may make room.
const EVICTION_TRIES: usize = 16;

/// Returns how often a flow is reported.
fn interval(active_timeout: Duration) -> u64 {
    nanos(active_timeout).min(LONGEST_INTERVAL)
}

impl<E: FlowExtractor, S: Send + 'static> FlowTable<E, S> {
    /// Returns when a flow must be looked at: when it is due, or when a report of it is.
    pub(super) fn look_at(&self, slot: u32, now: u64) -> u64 {
        let due = self.slots.entries[slot as usize].due(&self.config);
        match self.config.active_timeout {
            Some(timeout) => due.min(now.saturating_add(interval(timeout))),
            None => due,
        }
    }

    /// Ends a flow. The entry of a TCP connection remains for packets that come late.
    pub(super) fn end(&mut self, slot: u32, reason: EndReason, tell: Tell<'_, E::Key>) {
        let entry = &mut self.slots.entries[slot as usize];
        let Some(key) = &entry.key else { return };
        let (l4, history) = (entry.l4(), entry.history);
        let stats = entry.stats(&self.slots.cold[slot as usize]);
        let key = key.clone();
        entry.flags |= flag::CLOSED;
        let lingers = entry.is_tcp() && matches!(reason, EndReason::Fin | EndReason::Rst);
        let due = entry.due(&self.config);
        match lingers {
            true => self.slots.schedule(slot, due),
            false => drop(self.slots.remove(slot)),
        }
        self.states[slot as usize] = None;
        self.live -= 1;
        self.stats.flows_ended += 1;
        if self.wants(EventMask::ENDED) {
            tell(slot, FlowEvent::Ended { key, reason, stats, history, l4 });
        }
    }

    /// Makes room for a flow: that of the one that was not used for longest, of a few, the next ones in the order of
    /// their slots. A connection that nobody has answered goes before others, so that a flood of SYNs ends only its own.
    #[cold]
    pub(super) fn evict(&mut self, tell: Tell<'_, E::Key>) {
        let mut oldest: Option<((bool, u64), u32)> = None;
        let (mut tries, count) = (0, self.slots.entries.len());
        for _ in 0..count.min(4 * EVICTION_TRIES) {
            self.hand = if self.hand + 1 < count { self.hand + 1 } else { 0 };
            let (slot, entry) = (self.hand as u32, &self.slots.entries[self.hand]);
            if entry.key.is_none() {
                continue;
            }
            if entry.has(flag::CLOSED) {
                self.slots.remove(slot);
                return;
            }
            let rank = (!entry.is_unanswered(), entry.last);
            if oldest.is_none_or(|(least, _)| rank < least) {
                oldest = Some((rank, slot));
            }
            tries += 1;
            if tries == EVICTION_TRIES {
                break;
            }
        }
        let Some((_, slot)) = oldest else { return };
        if self.slots.entries[slot as usize].is_closing() {
            return self.end_when_due(slot, tell);
        }
        self.stats.flows_evicted += 1;
        self.end(slot, EndReason::Evicted, tell);
    }

    /// Looks at flows that may be due.
    #[inline]
    pub(super) fn expire(&mut self, most: usize, tell: Tell<'_, E::Key>) {
        for _ in 0..most {
            let Some(slot) = self.slots.wheel.due(self.clock) else { return };
            self.examine(slot, tell);
        }
    }

    #[cold]
    fn examine(&mut self, slot: u32, tell: Tell<'_, E::Key>) {
        let entry = &self.slots.entries[slot as usize];
        // No packet has arrived since the clock stepped back to before it.
        let is_of_the_future = entry.last > self.clock.saturating_add(STEP);
        let due = entry.due(&self.config);
        match (due <= self.clock || is_of_the_future, entry.has(flag::CLOSED)) {
            (true, true) => drop(self.slots.remove(slot)),
            (true, false) => self.end_when_due(slot, tell),
            (false, is_closed) => {
                let mut next = due;
                if let Some(timeout) = self.config.active_timeout.filter(|_| !is_closed) {
                    let interval = interval(timeout);
                    self.report(slot, interval, tell);
                    next = due.min(self.next_report(slot, interval));
                }
                self.slots.schedule(slot, next);
            }
        }
    }

    fn end_when_due(&mut self, slot: u32, tell: Tell<'_, E::Key>) {
        let reason = self.slots.entries[slot as usize].reason();
        self.end(slot, reason, tell);
        // Nothing was heard of it for as long as it would remain.
        self.slots.remove(slot);
    }

    /// Returns the time of the last report, or of the beginning, of the flow in a slot.
    fn reported(&self, slot: u32) -> u64 {
        let cold = &self.slots.cold[slot as usize];
        let begun = u64::from(cold.started[0]);
        let since = (self.clock / 1_000_000_000).saturating_sub(begun);
        (begun + cold.reported(since)) * 1_000_000_000 + u64::from(cold.started[1])
    }

    fn next_report(&self, slot: u32, timeout: u64) -> u64 {
        self.reported(slot).saturating_add(timeout).max(self.clock.saturating_add(timeout / 2))
    }

    /// Reports a flow that goes on, if it is time and something came since.
    fn report(&mut self, slot: u32, timeout: u64, tell: Tell<'_, E::Key>) {
        let reported = self.reported(slot);
        let entry = &self.slots.entries[slot as usize];
        if self.clock.saturating_sub(reported) < timeout || entry.last <= reported {
            return;
        }
        let (l4, history, key) = (entry.l4(), entry.history, entry.key.clone());
        let stats = entry.stats(&self.slots.cold[slot as usize]);
        let cold = &mut self.slots.cold[slot as usize];
        cold.set_reported((self.clock / 1_000_000_000).saturating_sub(cold.started[0].into()));
        if let Some(key) = key.filter(|_| self.wants(EventMask::TICK)) {
            tell(slot, FlowEvent::Report { key, stats, history, l4, ts: time(self.clock) });
        }
    }

    /// Recomputes when each flow is due.
    pub(super) fn look_again(&mut self) {
        let (clock, config) = (self.clock, &self.config);
        let report =
            config.active_timeout.map_or(u64::MAX, |time| clock.saturating_add(interval(time)));
        self.slots.schedule_all(clock, |entry| {
            let late = entry.last.saturating_sub(clock);
            entry.due(config).saturating_sub(late).min(report)
        });
    }

    /// Advances the clock to `now` while no packets arrive, in nanoseconds since the epoch, by the packets'
    /// clock. At most `most` flows are looked at. Returns whether more are due.
    pub fn advance(
        &mut self,
        now: u64,
        most: usize,
        events: &mut VecDeque<FlowEvent<E::Key>>,
    ) -> bool {
        self.go_to(now, most, &mut |_, event| events.push_back(event))
    }

    pub(in crate::flow) fn go_to(&mut self, now: u64, most: usize, tell: Tell<'_, E::Key>) -> bool {
        self.answer();
        self.tell_pending(tell);
        self.clock = self.clock.max(now);
        self.expire(most, tell);
        self.next_due().is_some_and(|due| due <= self.clock)
    }

    /// Returns the time by which the next flow must be looked at if no packets arrive until then.
    pub fn next_due(&self) -> Option<u64> {
        if self.pending.is_empty() { self.slots.wheel.next_due() } else { Some(0) }
    }

    /// Returns the time of the latest packet, in nanoseconds since the epoch.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Ends at most `most` flows, as no more packets will come. Returns whether there are more.
    pub fn finish(&mut self, most: usize, events: &mut VecDeque<FlowEvent<E::Key>>) -> bool {
        self.end_some(most, &mut |_, event| events.push_back(event))
    }

    pub(in crate::flow) fn end_some(&mut self, most: usize, tell: Tell<'_, E::Key>) -> bool {
        self.tell_pending(tell);
        for _ in 0..most {
            let Some(slot) = self.slots.wheel.first() else { break };
            match self.slots.entries[slot as usize].has(flag::CLOSED) {
                true => drop(self.slots.remove(slot)),
                false => self.end_when_due(slot, tell),
            }
        }
        if self.slots.used() == 0 {
            self.stand_up();
        }
        self.slots.used() > 0
    }
}
