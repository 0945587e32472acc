//! A table of flows.

pub(super) mod ahead;
mod buckets;
mod ends;
mod entry;
mod first;
mod slots;
mod tcp;
#[cfg(test)]
mod tests;
mod wheel;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use flowscope::{EndReason, EventMask, FlowExtractor, FlowSide, FlowState, L4Proto, Orientation};

use self::entry::{Timeout, flag, nanos, side_of, time};
use self::slots::Slots;
use super::config::{FlowConfig, FlowTableStats};
use super::event::{FlowEvent, FlowHistory, FlowStats};
use super::finder::{Finder, Found};
use super::fragments::FragmentStats;
use super::shard_query::{self, FlowSnapshot, ShardResponder};
use crate::packet::{Packet, TcpHeader};

/// Maximum number of flows looked at per packet because they may be due. As each packet begins at most one flow,
/// this is enough, and no packet waits for many flows that end at once.
const DUE_A_PACKET: usize = 8;
/// A larger step back, in nanoseconds, means that the clock was set; a smaller one that packets are out of
/// order.
const STEP: u64 = 1_000_000_000;

type IdleTimeout<K> = Box<dyn Fn(&K, Option<L4Proto>) -> Option<Duration>>;
type Init<K, S> = Box<dyn FnMut(&K) -> S + Send + Sync>;
/// Takes events of flows, each with the slot of its flow.
pub(super) type Tell<'a, K> = &'a mut dyn FnMut(u32, FlowEvent<K>);

/// A table of flows, identified by an extractor, each with a user-defined state.
///
/// The memory for all flows is reserved when the table is made; from then on, no packet and no flow allocates.
/// A packet reads two cache lines of its flow and one of the index. Flows that may be due are looked at a few at a
/// time, so that a million flows that end at once hold up no packet.
///
/// ```
/// use std::collections::VecDeque;
///
/// use ringtap::Packet;
/// use ringtap::flow::{FlowEvent, FlowTable, extract::FiveTuple};
///
/// fn count(packets: &[Packet<'_>]) -> usize {
///     let mut table = FlowTable::new(FiveTuple::bidirectional());
///     let mut events = VecDeque::new();
///     packets.iter().for_each(|packet| table.packet(packet, &mut events));
///     while table.finish(1000, &mut events) {}
///     events.iter().filter(|event| matches!(event, FlowEvent::Ended { .. })).count()
/// }
/// ```
pub struct FlowTable<E: FlowExtractor, S = ()> {
    finder: Finder<E>,
    config: FlowConfig,
    slots: Slots<E::Key>,
    /// The states of the flows, by slot.
    states: Vec<Option<S>>,
    init: Init<E::Key, S>,
    idle_timeout: Option<IdleTimeout<E::Key>>,
    /// Flows whose end was not told.
    live: usize,
    stats: FlowTableStats,
    /// The shortest time after which a flow may be due, in nanoseconds.
    shortest: u64,
    /// Time of the latest packet, in nanoseconds.
    clock: u64,
    /// Whether the clock was set by a packet.
    has_time: bool,
    /// The entry that was last looked at to make room.
    hand: usize,
    /// Packets since the clock last stepped back.
    calm: usize,
    /// Whether the beginnings and ends of flows are always reported.
    tells_ends: bool,
    /// Events caused by calls that have nowhere to put them.
    pending: VecDeque<(u32, FlowEvent<E::Key>)>,
    /// Packets whose flows are looked up already, and the number of the next one.
    prepared: Vec<Option<Found<E::Key>>>,
    next_prepared: usize,
    /// Loopback copies that were skipped.
    loopback_copies: u64,
    /// Answers queries for the flows of a shard.
    responder: Option<ShardResponder<E::Key>>,
}

/// A packet of a flow.
pub(super) struct Seen {
    pub(super) slot: u32,
    pub(super) side: FlowSide,
    pub(super) tcp: Option<TcpHeader>,
    /// Place of the payload in [`FlowTable::memory`], as far as it was captured.
    pub(super) payload: std::ops::Range<usize>,
    /// Number of payload bytes that the headers announce but that were not captured.
    pub(super) cut: usize,
    /// Whether the payload lies in the packet's own memory.
    pub(super) is_own: bool,
    /// Whether the flow has ended with the packet; then that is the last event told.
    pub(super) has_ended: bool,
}

/// A flow that is in a table; from [`FlowTable::get`] and [`FlowTable::flows`].
#[derive(Debug)]
#[non_exhaustive]
pub struct FlowEntry<'a, S> {
    /// Counters of the flow so far.
    pub stats: FlowStats,
    /// State of the TCP connection; of other flows, `Active`.
    pub state: FlowState,
    /// History of the TCP connection so far.
    pub history: FlowHistory,
    /// Transport protocol of the flow.
    pub l4: Option<L4Proto>,
    /// The user's state of the flow.
    pub user: &'a S,
}

impl<E: FlowExtractor> FlowTable<E> {
    /// Creates an empty table with the default options.
    pub fn new(extractor: E) -> Self {
        Self::with_config_and_state(extractor, FlowConfig::default(), |_| ())
    }
}

impl<E: FlowExtractor, S: Send + 'static> FlowTable<E, S> {
    /// Creates an empty table with the given options, and a state for each flow.
    pub fn with_config_and_state(
        extractor: E,
        config: FlowConfig,
        init: impl FnMut(&E::Key) -> S + Send + Sync + 'static,
    ) -> Self {
        let config = bounded(config);
        Self {
            finder: Finder::new(extractor),
            slots: Slots::new(config.max_flows),
            shortest: shortest(&config, false),
            states: Vec::with_capacity(config.max_flows),
            config,
            init: Box::new(init),
            idle_timeout: None,
            live: 0,
            stats: FlowTableStats::default(),
            clock: 0,
            has_time: false,
            hand: 0,
            calm: usize::MAX,
            tells_ends: false,
            pending: VecDeque::new(),
            prepared: Vec::new(),
            next_prepared: 0,
            loopback_copies: 0,
            responder: None,
        }
    }

    /// Changes the options. If the new limit of flows is smaller, flows beyond it are evicted.
    pub fn set_config(&mut self, config: FlowConfig) {
        let config = bounded(config);
        let most = config.max_flows;
        if most != self.config.max_flows {
            let mut pending = std::mem::take(&mut self.pending);
            while self.slots.used() > most {
                self.evict(&mut |slot, event| pending.push_back((slot, event)));
            }
            self.pending = pending;
            self.slots.set_most(most);
            self.states.reserve(most.saturating_sub(self.states.len()));
        }
        self.shortest = shortest(&config, self.idle_timeout.is_some());
        self.config = config;
        self.look_again();
    }

    /// Makes the table report beginnings and ends from now on, regardless of the options.
    pub(super) fn tell_ends(&mut self) {
        self.tells_ends = true;
    }

    /// Returns the options.
    pub fn config(&self) -> &FlowConfig {
        &self.config
    }

    /// Sets a function that returns how long a flow may be idle; `None` uses the configured timeout. It is called
    /// when a flow begins. Of more than two seconds, it is kept to a thousandth, rounded up.
    pub fn set_idle_timeout_fn(
        &mut self,
        timeout: impl Fn(&E::Key, Option<L4Proto>) -> Option<Duration> + 'static,
    ) {
        self.idle_timeout = Some(Box::new(timeout));
        self.shortest = shortest(&self.config, true);
    }

    /// Returns the number of flows.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Returns whether there are no flows.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Returns a flow.
    pub fn get(&self, key: &E::Key) -> Option<FlowEntry<'_, S>> {
        self.at(self.find(key)?)
    }

    /// Returns the user's state of a flow.
    pub fn state_mut(&mut self, key: &E::Key) -> Option<&mut S> {
        let slot = self.find(key)?;
        self.states[slot as usize].as_mut()
    }

    /// Returns all flows, in no particular order.
    pub fn flows(&self) -> impl Iterator<Item = (&E::Key, FlowEntry<'_, S>)> {
        self.slots.all().filter_map(|(slot, key, _)| Some((key, self.at(slot)?)))
    }

    /// Ends a flow as [force-closed](EndReason::ForceClosed), and returns whether there was one. The event is
    /// reported with the next packet.
    pub fn close(&mut self, key: &E::Key) -> bool {
        let Some(slot) = self.find(key) else { return false };
        let mut pending = std::mem::take(&mut self.pending);
        let mut tell = |slot, event| pending.push_back((slot, event));
        self.end(slot, EndReason::ForceClosed, &mut tell);
        self.pending = pending;
        true
    }

    /// Returns the slot of a flow whose end was not told.
    fn find(&self, key: &E::Key) -> Option<u32> {
        let slot = self.slots.find(key, self.slots.hash(key))?;
        (!self.slots.entries[slot as usize].has(flag::CLOSED)).then_some(slot)
    }

    fn at(&self, slot: u32) -> Option<FlowEntry<'_, S>> {
        let entry = &self.slots.entries[slot as usize];
        let stats = entry.stats(&self.slots.cold[slot as usize]);
        let user = self.states.get(slot as usize)?.as_ref()?;
        Some(FlowEntry { stats, state: entry.state, history: entry.history, l4: entry.l4(), user })
    }

    /// The counters and the history of the flow in a slot.
    pub(super) fn counters(&self, slot: u32) -> (FlowStats, FlowHistory) {
        let entry = &self.slots.entries[slot as usize];
        (entry.stats(&self.slots.cold[slot as usize]), entry.history)
    }

    /// Replaces the state of the flows. Current flows are discarded.
    pub fn with_state<T: Send + 'static>(
        self,
        init: impl FnMut(&E::Key) -> T + Send + Sync + 'static,
    ) -> FlowTable<E, T> {
        let Self { finder, config, idle_timeout, responder, clock, tells_ends, shortest, .. } =
            self;
        let table = FlowTable::with_config_and_state(finder.extractor, config, init);
        FlowTable { idle_timeout, responder, clock, tells_ends, shortest, ..table }
    }

    /// Processes a packet, and appends its events to `events`.
    pub fn packet(&mut self, packet: &Packet<'_>, events: &mut VecDeque<FlowEvent<E::Key>>) {
        let found = self.look_up(packet);
        self.take(packet, found.as_ref(), &mut |_, event| events.push_back(event));
    }

    /// Processes a packet. Flows that are due end before it.
    #[inline]
    fn take(
        &mut self,
        packet: &Packet<'_>,
        prepared: Option<&Found<E::Key>>,
        tell: Tell<'_, E::Key>,
    ) -> Option<Seen> {
        self.answer();
        let now = packet.timestamp().as_nanos();
        self.catch_up(now, tell);
        if packet.is_loopback_copy() {
            self.loopback_copies += 1;
            return None;
        }
        let odd;
        let found = match prepared {
            Some(found) => found,
            None => {
                odd = self.look_closer(packet, now)?;
                &odd
            }
        };
        self.count(packet, found, now, tell)
    }

    /// Finds the flow of a packet that is not plain, or counts it as one of no flow.
    #[cold]
    fn look_closer(&mut self, packet: &Packet<'_>, now: u64) -> Option<Found<E::Key>> {
        match self.finder.find(packet, now) {
            Ok(mut found) => {
                found.hash = self.slots.hash(&found.key);
                Some(found)
            }
            Err(reason) => {
                self.stats.packets_unmatched += u64::from(reason.is_unmatched());
                None
            }
        }
    }

    /// Adjusts the clock to a packet, and ends flows that are due.
    #[inline]
    fn catch_up(&mut self, now: u64, tell: Tell<'_, E::Key>) {
        self.calm = self.calm.saturating_add(1);
        if now < self.clock {
            self.step_back(now);
        } else {
            if !self.has_time {
                self.has_time = true;
                self.slots.wheel.set_time(now);
            }
            self.clock = now;
        }
        // A packet far behind the clock says nothing about what is due.
        if now.saturating_add(STEP) >= self.clock {
            self.expire(DUE_A_PACKET, tell);
        }
        if !self.pending.is_empty() {
            self.tell_pending(tell);
        }
    }

    #[cold]
    fn step_back(&mut self, now: u64) {
        // Scheduling all flows takes time, so packets with disagreeing clocks must not cause it each time.
        if now.saturating_add(STEP) < self.clock && self.calm > self.slots.entries.len() / 16 {
            self.calm = 0;
            self.clock = now;
            self.look_again();
        }
    }

    #[cold]
    fn tell_pending(&mut self, tell: Tell<'_, E::Key>) {
        self.pending.drain(..).for_each(|(slot, event)| tell(slot, event));
    }

    /// Counts a packet for its flow, which may begin and end with it.
    #[inline]
    fn count(
        &mut self,
        packet: &Packet<'_>,
        found: &Found<E::Key>,
        now: u64,
        tell: Tell<'_, E::Key>,
    ) -> Option<Seen> {
        let slot = match self.slots.find(&found.key, found.hash) {
            Some(slot) => match self.goes_on(slot, found, now, tell) {
                Goes::On => slot,
                Goes::Late => return None,
                Goes::Anew => self.begin(found, now, tell),
            },
            None => self.begin(found, now, tell),
        };
        let entry = &mut self.slots.entries[slot as usize];
        let side = entry.side(found.orientation);
        // It is of the future where the clock has stepped back.
        entry.last = if entry.last > self.clock { now } else { entry.last.max(now) };
        entry.packets[side] += 1;
        let is_first = entry.packets[side] == 1;
        entry.bytes[side] += u64::from(found.wire);
        entry.octets[side] += u64::from(found.octets);
        if is_first {
            self.note_first(slot, side, packet, found);
        }
        let mut has_ended = false;
        if !self.config.suppress_events.contains(EventMask::PACKET) {
            self.tell_packet(slot, side, found, now, tell);
        }
        if let Some(header) = &found.tcp {
            let entry = &mut self.slots.entries[slot as usize];
            let before = entry.state;
            let effect = entry.segment(side, header, found.payload_end - found.payload);
            if effect != tcp::Effect::default() || before != entry.state {
                has_ended = self.changed(slot, before, effect, now, tell);
            }
        }
        let captured = |end: u32| end.min(found.captured) as usize;
        let payload = captured(found.payload)..captured(found.payload_end);
        let cut = (found.payload_end - found.payload) as usize - payload.len();
        let (side, tcp, is_own) = (side_of(side), found.tcp, found.is_own);
        Some(Seen { slot, side, tcp, payload, cut, is_own, has_ended })
    }

    /// Decides whether a packet continues the flow that has its key.
    #[inline]
    fn goes_on(
        &mut self,
        slot: u32,
        found: &Found<E::Key>,
        now: u64,
        tell: Tell<'_, E::Key>,
    ) -> Goes {
        let entry = &self.slots.entries[slot as usize];
        let is_closed = entry.has(flag::CLOSED);
        let may_be_due = now.saturating_sub(entry.last) > self.shortest;
        let is_another = found
            .tcp
            .as_ref()
            .is_some_and(|header| entry.is_another(entry.side(found.orientation), header));
        if !is_closed && !may_be_due && !is_another {
            return Goes::On;
        }
        let is_due = may_be_due && entry.due(&self.config) <= now;
        match (is_due || is_another, is_closed) {
            (false, false) => Goes::On,
            (false, true) => {
                self.stats.late_packets += 1;
                Goes::Late
            }
            (true, true) => {
                self.slots.remove(slot);
                Goes::Anew
            }
            (true, false) => {
                let reason = entry.reason();
                self.end(slot, reason, tell);
                self.slots.remove(slot);
                Goes::Anew
            }
        }
    }

    #[inline(never)]
    fn begin(&mut self, found: &Found<E::Key>, now: u64, tell: Tell<'_, E::Key>) -> u32 {
        while self.slots.is_full() {
            self.evict(tell);
        }
        let is_turned =
            self.config.infer_tcp_initiator && found.tcp.as_ref().is_some_and(tcp::is_answer);
        let is_reversed = (found.orientation == Orientation::Reverse) != is_turned;
        let (key, l4) = (found.key.clone(), found.l4);
        let timeout = self.idle_timeout.as_ref().and_then(|timeout| timeout(&key, l4));
        let state = (self.init)(&key);
        let slot = self.slots.insert(key, found.hash, l4, is_reversed, now);
        let entry = &mut self.slots.entries[slot as usize];
        if is_turned {
            entry.history.flip();
        }
        if let Some(timeout) = timeout {
            entry.timeout = Timeout::at_least(timeout);
        }
        let due = self.look_at(slot, now);
        self.slots.schedule(slot, due);
        match self.states.get_mut(slot as usize) {
            Some(place) => *place = Some(state),
            None => self.states.push(Some(state)),
        }
        self.live += 1;
        self.stats.flows_created += 1;
        if self.wants(EventMask::STARTED) {
            let side = side_of(usize::from(is_turned));
            let (key, orientation, ts) = (found.key.clone(), found.orientation, time(now));
            tell(slot, FlowEvent::Started { key, side, orientation, ts, l4 });
        }
        slot
    }

    #[cold]
    fn tell_packet(
        &mut self,
        slot: u32,
        side: usize,
        found: &Found<E::Key>,
        now: u64,
        tell: Tell<'_, E::Key>,
    ) {
        let (key, side, ts) = (found.key.clone(), side_of(side), time(now));
        let (orientation, len) = (found.orientation, found.wire as usize);
        tell(slot, FlowEvent::Packet { key, side, orientation, len, ts });
    }

    /// Tells what a segment has changed. Returns whether the flow has ended.
    #[cold]
    fn changed(
        &mut self,
        slot: u32,
        from: FlowState,
        effect: tcp::Effect,
        now: u64,
        tell: Tell<'_, E::Key>,
    ) -> bool {
        let entry = &self.slots.entries[slot as usize];
        let Some(key) = &entry.key else { return false };
        let (to, ts, l4) = (entry.state, time(now), entry.l4());
        if effect.is_established && self.wants(EventMask::ESTABLISHED) {
            tell(slot, FlowEvent::Established { key: key.clone(), ts, l4 });
        }
        if from != to && self.wants(EventMask::STATE_CHANGE) {
            tell(slot, FlowEvent::StateChange { key: key.clone(), from, to, ts });
        }
        if let Some(reason) = effect.end {
            self.end(slot, reason, tell);
            return true;
        }
        let is_over = self.config.close_delay.is_zero() && entry.is_closing();
        if is_over {
            let reason = entry.reason();
            self.end(slot, reason, tell);
            return true;
        }
        if effect.is_ending {
            let due = self.look_at(slot, now);
            self.slots.schedule(slot, due);
        }
        false
    }

    fn wants(&self, events: EventMask) -> bool {
        let always = EventMask::STARTED | EventMask::ENDED;
        !self.config.suppress_events.contains(events)
            || (self.tells_ends && always.contains(events))
    }

    /// Returns how many flows began, ended and were evicted, and how many packets belong to no flow.
    pub fn stats(&self) -> FlowTableStats {
        self.stats
    }

    /// Returns the number of outgoing copies skipped on a loopback interface, which shows each packet twice.
    /// Captures deliver both.
    pub fn loopback_copies(&self) -> u64 {
        self.loopback_copies
    }

    /// Returns the number of packets that arrived late for a closed connection; they belong to no flow.
    pub fn late_packets(&self) -> u64 {
        self.stats.late_packets
    }

    /// Returns the counters of IP fragments. A datagram counts as a packet of its flow when the last of its
    /// fragments arrives.
    pub fn fragment_stats(&self) -> FragmentStats {
        self.finder.fragment_stats()
    }

    /// Returns the memory that a packet's payload is in, if it is not the packet's own.
    pub(super) fn made(&self) -> &[u8] {
        self.finder.made()
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
            responder.answer(self.snapshot(Vec::new()), true);
        }
    }

    fn snapshot(&self, top: Vec<(E::Key, FlowStats)>) -> FlowSnapshot<E::Key> {
        FlowSnapshot { active: self.live, stats: self.stats, top }
    }

    #[inline]
    fn answer(&mut self) {
        if let Some(responder) = &mut self.responder
            && let Some(most) = responder.question()
        {
            let flows = self.flows().map(|(key, entry)| (key, entry.stats));
            let top = shard_query::top(flows, most);
            if let Some(responder) = &self.responder {
                responder.answer(self.snapshot(top), false);
            }
        }
    }
}

/// How a packet relates to the flow that has its key.
enum Goes {
    /// It is the flow's.
    On,
    /// The flow's end was told.
    Late,
    /// It begins another.
    Anew,
}

fn bounded(mut config: FlowConfig) -> FlowConfig {
    config.max_flows = config.max_flows.clamp(1, FlowConfig::MOST_FLOWS);
    config
}

/// Returns the shortest time, in nanoseconds, after which a flow may be due.
fn shortest(config: &FlowConfig, has_own: bool) -> u64 {
    let times = [
        config.idle_timeout_tcp,
        config.idle_timeout_established,
        config.idle_timeout_udp,
        config.idle_timeout_other,
        config.close_delay,
    ];
    let shortest = times.into_iter().min().map_or(0, nanos);
    if has_own { shortest.min(1_000_000) } else { shortest }.saturating_sub(1)
}

impl<E: FlowExtractor, S> fmt::Debug for FlowTable<E, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowTable")
            .field("flows", &self.live)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}
