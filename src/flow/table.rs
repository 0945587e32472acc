//! A table of flows, based on flowscope's tracker, that expires idle flows a few at a time.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use flowscope::{
    EndReason, EventMask, FlowEvent, FlowExtractor, FlowStats, FlowTracker, FlowTrackerConfig,
    FlowTrackerStats, L4Proto, PacketView, Timestamp as FlowTime,
};

use super::dissect::Noted;
use super::expiry::Expiry;
use super::fragments::FragmentStats;
use super::frames::{Frame, Frames};
use super::recently_closed::Closed;
use super::shard_query::{self, FlowSnapshot, ShardResponder};
use crate::packet::Packet;

/// Maximum number of due flows checked per packet. As each packet begins at most one flow, this is enough, and
/// no packet waits for a sweep over all flows.
const DUE_A_PACKET: usize = 4;
/// Maximum number of due flows checked if time has advanced by more than a second since the previous packet.
const DUE_A_JUMP: usize = 1 << 16;
/// Maximum number of entries checked at a time to remove those of ended flows.
const TIDIED: usize = 256;
/// A larger step back, in nanoseconds, means that the clock was set; a smaller one that packets are out of
/// order.
const STEP: u64 = 1_000_000_000;

type IdleTimeout<K> = Box<dyn Fn(&K, Option<L4Proto>) -> Option<Duration>>;

/// A table of flows, identified by an extractor, each with a user-defined state.
///
/// While flowscope's sweep checks every flow, this table orders flows by the time at which they are due, and
/// checks only those. A packet costs no more in a table of a million flows than in a table of a hundred.
pub struct FlowTable<E: FlowExtractor, S = ()> {
    tracker: FlowTracker<E, S>,
    expiry: Expiry<E::Key>,
    closed: Closed<E::Key>,
    idle_timeout: Option<IdleTimeout<E::Key>>,
    /// Events that the user does not want.
    suppressed: EventMask,
    /// Time of the latest packet, in nanoseconds.
    clock: u64,
    frames: Frames,
    /// Packets since the clock last stepped back.
    calm: usize,
    /// Whether the beginnings and ends of flows are always reported.
    tells_ends: bool,
    /// The tracker's counts of flows begun by late packets, to be subtracted.
    phantoms: FlowTrackerStats,
    /// Loopback copies that were skipped.
    loopback_copies: u64,
    /// Answers queries for the flows of a shard.
    responder: Option<ShardResponder<E::Key>>,
}

impl<E: FlowExtractor> FlowTable<E> {
    /// Creates an empty table that reports no event per packet ([`EventMask::PACKET`]). If the first segment of
    /// a connection is a SYN-ACK, its receiver is taken as the initiator (`infer_tcp_initiator`).
    pub fn new(extractor: E) -> Self {
        let mut config = FlowTrackerConfig::default().with_event_filter(EventMask::PACKET);
        config.infer_tcp_initiator = true;
        Self::with_config_and_state(extractor, config, |_| ())
    }
}

impl<E: FlowExtractor, S: Send + 'static> FlowTable<E, S> {
    /// Creates an empty table with the given options, and a state for each flow. The sweep interval is ignored,
    /// as flows are expired continuously.
    pub fn with_config_and_state(
        extractor: E,
        config: FlowTrackerConfig,
        init: impl FnMut(&E::Key) -> S + Send + Sync + 'static,
    ) -> Self {
        let (suppressed, config) = (config.suppress_events, heard(config));
        let flows = config.max_flows;
        let closed = Closed::new(flows);
        Self {
            tracker: FlowTracker::with_config_and_state(extractor, config, init),
            expiry: Expiry::new(flows),
            closed,
            idle_timeout: None,
            suppressed,
            clock: 0,
            frames: Frames::new(),
            calm: usize::MAX,
            tells_ends: false,
            phantoms: FlowTrackerStats::default(),
            loopback_copies: 0,
            responder: None,
        }
    }

    /// Changes the options. If the new limit of flows is smaller, flows beyond it are discarded without an
    /// event.
    pub fn set_config(&mut self, mut config: FlowTrackerConfig) {
        if self.tells_ends {
            config.suppress_events.remove(EventMask::STARTED | EventMask::ENDED);
        }
        self.suppressed = config.suppress_events;
        self.closed.set_most(config.max_flows);
        self.tracker.set_config(heard(config));
        self.look_again();
    }

    /// Makes the table report beginnings and ends from now on, regardless of the options.
    pub(super) fn tell_ends(&mut self) {
        self.tells_ends = true;
        self.set_config(self.config());
    }

    /// Returns the options.
    pub fn config(&self) -> FlowTrackerConfig {
        self.tracker.config().clone().with_event_filter(self.suppressed)
    }

    /// Sets a function that returns how long a flow may be idle; `None` uses the configured timeout.
    pub fn set_idle_timeout_fn(
        &mut self,
        timeout: impl Fn(&E::Key, Option<L4Proto>) -> Option<Duration> + 'static,
    ) {
        self.idle_timeout = Some(Box::new(timeout));
        self.look_again();
    }

    /// Returns flowscope's tracker.
    pub fn tracker(&self) -> &FlowTracker<E, S> {
        &self.tracker
    }

    /// Returns flowscope's tracker, to change the states of flows or to end flows.
    pub fn tracker_mut(&mut self) -> &mut FlowTracker<E, S> {
        &mut self.tracker
    }

    /// Replaces the state of the flows. Current flows are discarded.
    pub fn with_state<T: Send + 'static>(
        self,
        init: impl FnMut(&E::Key) -> T + Send + Sync + 'static,
    ) -> FlowTable<E, T> {
        let config = self.config();
        let Self { tracker, idle_timeout, responder, closed, frames, clock, .. } = self;
        let table = FlowTable::with_config_and_state(tracker.into_extractor(), config, init);
        FlowTable { idle_timeout, responder, closed, frames, clock, ..table }
    }

    /// Processes a packet, and appends its events to `events`.
    pub fn packet(&mut self, packet: &Packet<'_>, events: &mut VecDeque<FlowEvent<E::Key>>) {
        self.catch_up(packet, events);
        self.take(packet, events, None::<fn(&E, Frame<'_>, FlowTime, Option<Noted<E::Key>>)>);
    }

    /// Ends flows that are due before a packet, so that a flow that was idle too long does not continue with
    /// it.
    pub(super) fn catch_up(
        &mut self,
        packet: &Packet<'_>,
        events: &mut VecDeque<FlowEvent<E::Key>>,
    ) {
        self.answer();
        let now = packet.timestamp().as_nanos();
        self.calm = self.calm.saturating_add(1);
        if now.saturating_add(STEP) < self.clock && self.calm > self.tracker.flow_count() / 16 {
            // Updating all flows takes time, so packets with disagreeing clocks must not cause it each time.
            self.calm = 0;
            self.clock = now;
            self.look_again();
        }
        let has_jumped = now > self.clock.saturating_add(STEP);
        self.clock = self.clock.max(now);
        self.expire(if has_jumped { DUE_A_JUMP } else { DUE_A_PACKET }, events);
    }

    /// Processes a packet; `look` sees its frame and what the tracker noted about it.
    pub(super) fn take(
        &mut self,
        packet: &Packet<'_>,
        events: &mut VecDeque<FlowEvent<E::Key>>,
        look: Option<impl FnOnce(&E, Frame<'_>, FlowTime, Option<Noted<E::Key>>)>,
    ) {
        if packet.is_loopback_copy() {
            self.loopback_copies += 1;
            return;
        }
        let time = packet.timestamp();
        let Some(frame) = self.frames.of(packet, time.as_nanos()) else { return };
        let time = FlowTime::new(time.secs, time.nanos);
        let (view, mut noted) = (PacketView::new(frame.bytes, time), None);
        let mut told = self.tracker.track_with_payload(view, |key, side, seq, payload| {
            if look.is_some() {
                let start = payload.as_ptr().addr().wrapping_sub(frame.bytes.as_ptr().addr());
                let payload = start..start.saturating_add(payload.len());
                noted = Some(Noted { key: key.clone(), side, seq, payload });
            }
        });
        if let Some(look) = look {
            look(self.tracker.extractor(), frame, time, noted);
        }
        let late = self.forget_late(&told);
        // Drain in place: most packets cause no event, and moving the buffer takes as long as looking up a
        // flow.
        for event in told.drain(..) {
            match &event {
                _ if late.is_some() && late.as_ref() == key_of(&event) => continue,
                FlowEvent::Started { key, l4, .. } => {
                    let due = self.clock.saturating_add(self.timeout(key, *l4));
                    self.expiry.push(due, key.clone());
                }
                FlowEvent::Ended { key, reason: EndReason::Fin | EndReason::Rst, .. } => {
                    self.closed.insert(key.clone(), self.clock);
                }
                _ => {}
            }
            self.tell(event, events);
        }
    }

    /// Returns the flow that a late packet has begun by mistake, as its connection is already closed. The
    /// tracker forgets that flow.
    fn forget_late(&mut self, told: &[FlowEvent<E::Key>]) -> Option<E::Key> {
        let key = told.iter().find_map(|event| match event {
            FlowEvent::Started { key, l4: Some(L4Proto::Tcp), .. } => Some(key),
            _ => None,
        })?;
        let ended = told.iter().find_map(|event| match event {
            FlowEvent::Ended { key: of, history, .. } if of == key => Some(*history),
            _ => None,
        });
        let history = ended.or_else(|| Some(self.tracker.get(key)?.history))?;
        let opens = history.contains(['S', 's', 'H', 'h']);
        if !self.closed.is_late(key, opens, self.clock) {
            return None;
        }
        // The tracker has counted it as a flow.
        self.phantoms.flows_created += 1;
        self.phantoms.flows_ended += u64::from(!self.tracker.forget(key));
        Some(key.clone())
    }

    /// Returns how many flows began, ended and were evicted, and how many packets belong to no flow. Late
    /// packets are counted separately.
    pub fn stats(&self) -> FlowTrackerStats {
        let mut stats = self.tracker.stats().clone();
        stats.flows_created -= self.phantoms.flows_created;
        stats.flows_ended -= self.phantoms.flows_ended;
        stats
    }

    /// Returns the number of outgoing copies skipped on a loopback interface, which shows each packet twice.
    /// Captures deliver both.
    pub fn loopback_copies(&self) -> u64 {
        self.loopback_copies
    }

    /// Returns the number of packets that arrived late for a closed connection; they belong to no flow.
    pub fn late_packets(&self) -> u64 {
        self.closed.late()
    }

    /// Returns the counters of IP fragments. A datagram counts as a packet of its flow when the last of its
    /// fragments arrives.
    pub fn fragment_stats(&self) -> FragmentStats {
        self.frames.fragment_stats()
    }

    /// Returns the frame built from the last packet, if the packet was not a complete frame itself.
    pub(super) fn made_frame(&self) -> Frame<'_> {
        self.frames.made()
    }

    /// Advances the clock to `now` while no packets arrive, in nanoseconds since the epoch, by the packets'
    /// clock. At most `most` flows are checked. Returns whether more are due.
    pub fn advance(
        &mut self,
        now: u64,
        most: usize,
        events: &mut VecDeque<FlowEvent<E::Key>>,
    ) -> bool {
        self.answer();
        self.clock = self.clock.max(now);
        self.expire(most, events);
        self.next_due().is_some_and(|due| due <= self.clock)
    }

    /// Returns when the next flow is due if it receives no packets until then. Returns 0 while entries of ended
    /// flows are being cleaned up.
    pub fn next_due(&self) -> Option<u64> {
        self.expiry.next()
    }

    /// Returns the time of the latest packet, in nanoseconds since the epoch.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Ends at most `most` flows, as no more packets will come. Returns whether there are more.
    pub fn finish(&mut self, most: usize, events: &mut VecDeque<FlowEvent<E::Key>>) -> bool {
        for _ in 0..most {
            let Some(key) = self.expiry.pop(u64::MAX) else { break };
            self.end(&key, events);
        }
        if self.expiry.next().is_none() {
            // Flows that were added to the tracker directly.
            for event in self.tracker.finish() {
                self.tell(event, events);
            }
            self.stand_up();
        }
        self.tracker.flow_count() > 0
    }

    fn expire(&mut self, most: usize, events: &mut VecDeque<FlowEvent<E::Key>>) {
        for _ in 0..most {
            let Some(key) = self.expiry.pop(self.clock) else { break };
            let Some(entry) = self.tracker.get(&key) else { continue };
            let seen = nanos(entry.stats.last_seen);
            // No packet has arrived since the clock stepped back to before it.
            let is_of_the_future = seen > self.clock.saturating_add(STEP);
            let l4 = self.tracker.snapshot_l4(&key);
            let due = seen.saturating_add(self.timeout(&key, l4));
            match due <= self.clock || is_of_the_future {
                true => self.end(&key, events),
                false => self.expiry.push(due, key),
            }
        }
        let Self { expiry, tracker, idle_timeout, .. } = self;
        expiry.tidy(tracker.flow_count(), most.min(TIDIED), |key, at| {
            // Drop entries of an earlier flow with the same key.
            let Some(entry) = tracker.get(key) else { return false };
            let l4 = tracker.snapshot_l4(key);
            let timeout = timeout(tracker.config(), idle_timeout.as_ref(), key, l4);
            at >= nanos(entry.stats.started).saturating_add(timeout)
        });
    }

    /// Ends a flow as idle.
    fn end(&mut self, key: &E::Key, events: &mut VecDeque<FlowEvent<E::Key>>) {
        let Some(mut event) = self.tracker.force_close(key, FlowTime::default()) else { return };
        if let FlowEvent::Ended { reason, .. } = &mut event {
            *reason = EndReason::IdleTimeout;
        }
        self.tell(event, events);
    }

    fn tell(&self, event: FlowEvent<E::Key>, events: &mut VecDeque<FlowEvent<E::Key>>) {
        let mask = match &event {
            FlowEvent::Started { .. } => EventMask::STARTED,
            FlowEvent::Ended { .. } => EventMask::ENDED,
            _ => EventMask::empty(), // the tracker itself suppresses these
        };
        let is_heard = mask.is_empty() || !self.suppressed.contains(mask);
        if is_heard && !self.tracker.events_paused() {
            events.push_back(event);
        }
    }

    fn timeout(&self, key: &E::Key, l4: Option<L4Proto>) -> u64 {
        timeout(self.tracker.config(), self.idle_timeout.as_ref(), key, l4)
    }

    /// Recomputes when each flow is due.
    fn look_again(&mut self) {
        let mut expiry = std::mem::replace(&mut self.expiry, Expiry::new(0));
        let due = |(key, entry): (&E::Key, &flowscope::FlowEntry<S>)| {
            let seen = nanos(entry.stats.last_seen).min(self.clock);
            let l4 = self.tracker.snapshot_l4(key);
            (seen.saturating_add(self.timeout(key, l4)), key.clone())
        };
        expiry.rebuild(self.tracker.flows().map(due));
        self.expiry = expiry;
    }

    /// Connects the table to the queries of its shard.
    pub(super) fn set_responder(&mut self, responder: ShardResponder<E::Key>) {
        self.responder = Some(responder);
    }

    /// Returns whether the table may be queried while no packets arrive.
    pub(super) fn may_be_asked(&self) -> bool {
        self.responder.is_some()
    }

    /// Leaves a final answer for later queries.
    fn stand_up(&mut self) {
        if let Some(responder) = self.responder.take() {
            responder.answer(self.count(Vec::new()), true);
        }
    }

    fn count(&self, top: Vec<(E::Key, FlowStats)>) -> FlowSnapshot<E::Key> {
        let (active, tracker) = (self.tracker.flow_count(), self.stats());
        FlowSnapshot { active, tracker, late_packets: self.closed.late(), top }
    }

    #[inline]
    fn answer(&mut self) {
        if let Some(responder) = &mut self.responder
            && let Some(most) = responder.question()
        {
            let flows = self.tracker.flows().map(|(key, entry)| (key, &entry.stats));
            let top = shard_query::top(flows, most);
            if let Some(responder) = &self.responder {
                responder.answer(self.count(top), false);
            }
        }
    }
}

/// Returns how long a flow may be idle, in nanoseconds.
fn timeout<K>(
    config: &FlowTrackerConfig,
    own: Option<&IdleTimeout<K>>,
    key: &K,
    l4: Option<L4Proto>,
) -> u64 {
    let own = own.and_then(|timeout| timeout(key, l4));
    let timeout = own.unwrap_or(match l4 {
        Some(L4Proto::Tcp) => config.idle_timeout_tcp,
        Some(L4Proto::Udp) => config.idle_timeout_udp,
        _ => config.idle_timeout_other,
    });
    u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the key of the flow of an event.
fn key_of<K>(event: &FlowEvent<K>) -> Option<&K> {
    match event {
        FlowEvent::Started { key, .. }
        | FlowEvent::Packet { key, .. }
        | FlowEvent::Established { key, .. }
        | FlowEvent::StateChange { key, .. }
        | FlowEvent::Ended { key, .. }
        | FlowEvent::FlowAnomaly { key, .. }
        | FlowEvent::Tick { key, .. } => Some(key),
        _ => None,
    }
}

/// Enables the events that the table itself needs, and disables the tracker's sweep.
fn heard(mut config: FlowTrackerConfig) -> FlowTrackerConfig {
    config.suppress_events.remove(EventMask::STARTED);
    config.auto_sweep_interval = None;
    config
}

fn nanos(time: FlowTime) -> u64 {
    u64::from(time.sec) * 1_000_000_000 + u64::from(time.nsec)
}

impl<E: FlowExtractor, S> fmt::Debug for FlowTable<E, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowTable").field("clock", &self.clock).finish_non_exhaustive()
    }
}
