//! A table of flows, by flowscope's tracker, that forgets the idle ones a few at a time.

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

/// The most flows that are looked at because they are due, with each packet: each begins one flow at most, so that is
/// enough, and no packet waits for a sweep over all.
const DUE_A_PACKET: usize = 4;
/// The same, where time has gone on by more than a second since the packet before.
const DUE_A_JUMP: usize = 1 << 16;
/// The most that are looked at because so many are of flows that are gone.
const TIDIED: usize = 256;
/// A step back of the clock by more is one; by less, packets are out of order.
const STEP: u64 = 1_000_000_000;

type IdleTimeout<K> = Box<dyn Fn(&K, Option<L4Proto>) -> Option<Duration>>;

/// Flows, told by an extractor, with a state of the user's each.
///
/// flowscope's sweep looks at every flow; this one keeps them by when they are due, and looks at those that are. A table
/// of a million flows costs a packet no more than one of a hundred.
pub struct FlowTable<E: FlowExtractor, S = ()> {
    tracker: FlowTracker<E, S>,
    expiry: Expiry<E::Key>,
    closed: Closed<E::Key>,
    idle_timeout: Option<IdleTimeout<E::Key>>,
    /// Events that were asked not to be told.
    suppressed: EventMask,
    /// The latest packet's time, in nanoseconds.
    clock: u64,
    frames: Frames,
    /// Packets since the clock has stepped back.
    calm: usize,
    /// Whether beginnings and ends are told, whatever is asked.
    tells_ends: bool,
    /// What the tracker has counted of flows that late packets would have begun.
    phantoms: FlowTrackerStats,
    /// Packets of a loopback that were left out.
    loopback_copies: u64,
    /// Where it is asked for its flows.
    responder: Option<ShardResponder<E::Key>>,
}

impl<E: FlowExtractor> FlowTable<E> {
    /// An empty table, that tells no event of each packet ([`EventMask::PACKET`]), and takes who is answered by the first
    /// segment for the initiator, where that segment is an answer (`infer_tcp_initiator`).
    pub fn new(extractor: E) -> Self {
        let mut config = FlowTrackerConfig::default().with_event_filter(EventMask::PACKET);
        config.infer_tcp_initiator = true;
        Self::with_config_and_state(extractor, config, |_| ())
    }
}

impl<E: FlowExtractor, S: Send + 'static> FlowTable<E, S> {
    /// An empty table with options and a state for each flow. Intervals to sweep in do not count: that is done all the
    /// time.
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

    /// Changes the options; flows beyond a smaller bound are gone without an event.
    pub fn set_config(&mut self, mut config: FlowTrackerConfig) {
        if self.tells_ends {
            config.suppress_events.remove(EventMask::STARTED | EventMask::ENDED);
        }
        self.suppressed = config.suppress_events;
        self.closed.set_most(config.max_flows);
        self.tracker.set_config(heard(config));
        self.look_again();
    }

    /// Has the table tell of beginnings and ends from here on, whatever is asked.
    pub(super) fn tell_ends(&mut self) {
        self.tells_ends = true;
        self.set_config(self.config());
    }

    /// The options.
    pub fn config(&self) -> FlowTrackerConfig {
        self.tracker.config().clone().with_event_filter(self.suppressed)
    }

    /// Says for each flow how long it may be idle; `None` leaves it to the options.
    pub fn set_idle_timeout_fn(
        &mut self,
        timeout: impl Fn(&E::Key, Option<L4Proto>) -> Option<Duration> + 'static,
    ) {
        self.idle_timeout = Some(Box::new(timeout));
        self.look_again();
    }

    /// flowscope's tracker.
    pub fn tracker(&self) -> &FlowTracker<E, S> {
        &self.tracker
    }

    /// flowscope's tracker, to change flows' states, or end flows.
    pub fn tracker_mut(&mut self) -> &mut FlowTracker<E, S> {
        &mut self.tracker
    }

    /// Another state for each flow; the flows that there are, are gone.
    pub fn with_state<T: Send + 'static>(
        self,
        init: impl FnMut(&E::Key) -> T + Send + Sync + 'static,
    ) -> FlowTable<E, T> {
        let config = self.config();
        let Self { tracker, idle_timeout, responder, closed, frames, clock, .. } = self;
        let table = FlowTable::with_config_and_state(tracker.into_extractor(), config, init);
        FlowTable { idle_timeout, responder, closed, frames, clock, ..table }
    }

    /// Takes a packet in: what it has brought about is added to `events`.
    pub fn packet(&mut self, packet: &Packet<'_>, events: &mut VecDeque<FlowEvent<E::Key>>) {
        self.catch_up(packet, events);
        self.take(packet, events, None::<fn(&E, Frame<'_>, FlowTime, Option<Noted<E::Key>>)>);
    }

    /// Ends flows that are due before a packet: what has been idle too long does not go on with it.
    pub(super) fn catch_up(
        &mut self,
        packet: &Packet<'_>,
        events: &mut VecDeque<FlowEvent<E::Key>>,
    ) {
        self.answer();
        let now = packet.timestamp().as_nanos();
        self.calm = self.calm.saturating_add(1);
        if now.saturating_add(STEP) < self.clock && self.calm > self.tracker.flow_count() / 16 {
            // To note it of all flows takes time, so packets whose clocks disagree do not have it done each time.
            self.calm = 0;
            self.clock = now;
            self.look_again();
        }
        let has_jumped = now > self.clock.saturating_add(STEP);
        self.clock = self.clock.max(now);
        self.expire(if has_jumped { DUE_A_JUMP } else { DUE_A_PACKET }, events);
    }

    /// Takes a packet in; `look` sees its frame, and what the tracker noted of it.
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
        // In place: most packets tell nothing, and to move that takes as long as to look a flow up.
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

    /// The flow that a packet has begun though it is late: it belongs to a connection that was closed. The tracker
    /// forgets it.
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
        // The tracker has counted it among its flows.
        self.phantoms.flows_created += 1;
        self.phantoms.flows_ended += u64::from(!self.tracker.forget(key));
        Some(key.clone())
    }

    /// How many flows began, ended and were evicted, and packets that are of none. Late packets are counted apart.
    pub fn stats(&self) -> FlowTrackerStats {
        let mut stats = self.tracker.stats().clone();
        stats.flows_created -= self.phantoms.flows_created;
        stats.flows_ended -= self.phantoms.flows_ended;
        stats
    }

    /// Outgoing copies that were skipped on a loopback interface, which shows each packet twice. Captures deliver both.
    pub fn loopback_copies(&self) -> u64 {
        self.loopback_copies
    }

    /// Packets that came late for a connection that was closed, and are of no flow.
    pub fn late_packets(&self) -> u64 {
        self.closed.late()
    }

    /// What became of fragments of IP. A datagram is a packet of its flow when the last of its fragments has come.
    pub fn fragment_stats(&self) -> FragmentStats {
        self.frames.fragment_stats()
    }

    /// The frame that was made of the last packet, where it was not one as it came.
    pub(super) fn made_frame(&self) -> Frame<'_> {
        self.frames.made()
    }

    /// Says that it is so late, where no packet does: in nanoseconds since the epoch, of the packets' clock. At most
    /// `most` flows are looked at; whether there are more that are due.
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

    /// When a flow is due next, if none has packets until then; 0 while what is noted of flows that are gone is looked
    /// through.
    pub fn next_due(&self) -> Option<u64> {
        self.expiry.next()
    }

    /// The latest packet's time, in nanoseconds since the epoch.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Ends at most `most` flows, since nothing more will come: whether there are more.
    pub fn finish(&mut self, most: usize, events: &mut VecDeque<FlowEvent<E::Key>>) -> bool {
        for _ in 0..most {
            let Some(key) = self.expiry.pop(u64::MAX) else { break };
            self.end(&key, events);
        }
        if self.expiry.next().is_none() {
            // What was put into the tracker behind our back.
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
            // Nothing has come since the clock stepped back behind it.
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
            // Not of a flow of the same key that was before it.
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
            _ => EventMask::empty(), // not told by the tracker where it was asked not to be
        };
        let is_heard = mask.is_empty() || !self.suppressed.contains(mask);
        if is_heard && !self.tracker.events_paused() {
            events.push_back(event);
        }
    }

    fn timeout(&self, key: &E::Key, l4: Option<L4Proto>) -> u64 {
        timeout(self.tracker.config(), self.idle_timeout.as_ref(), key, l4)
    }

    /// Notes anew when each flow is due.
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
}

/// How long a flow may be idle, in nanoseconds.
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

/// The flow that an event is of.
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

/// With the events that the table itself must hear, and no sweep over all.
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

impl<E: FlowExtractor, S: Send + 'static> FlowTable<E, S> {
    /// Gives it a place where it is asked for its flows.
    pub(super) fn set_responder(&mut self, responder: ShardResponder<E::Key>) {
        self.responder = Some(responder);
    }

    /// Whether somebody may ask while no packet comes.
    pub(super) fn may_be_asked(&self) -> bool {
        self.responder.is_some()
    }

    /// Says how many flows there were, for good.
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
