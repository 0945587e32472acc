//! The table of flows together with the reassembled streams of each flow and the consumer of their bytes.

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll};

use ahash::RandomState;
use flowscope::{
    EndReason, FlowEvent, FlowExtractor, FlowSide, FlowStats, HistoryString, KeyFields, L4Proto,
    Orientation, Timestamp as FlowTime,
};

use super::bytes::Lend;
use super::consumer::{Bytes, Consumer, Data, End, Of, Passing, Wanted};
use super::dissect::Look;
use super::frames::Frame;
use super::half::{HalfStream, Piece};
use super::pump::BatchConsumer;
use super::reassembly::{MemoryPolicy, ReassemblyConfig, ReassemblyStats, Waiting};
use super::table::FlowTable;
use crate::packet::Packet;

/// Interval at which the consumer is told the time for each flow, in nanoseconds.
const TICK: u64 = 1_000_000_000;
/// Maximum number of ticks per packet.
const TICKS_A_PACKET: usize = 4;
/// Number of flows kept here that the tracker has already forgotten, before they are cleaned up.
const SLACK: usize = 1024;

/// A flow that the consumer wants.
struct Connection<F> {
    serial: u64,
    initiator: Orientation,
    l4: Option<L4Proto>,
    /// `None` after the consumer ended it.
    flow: Option<F>,
    /// Whether the consumer wants only the end of the flow.
    is_silent: bool,
    /// For TCP, the streams of the initiator and the responder.
    halves: Option<Box<[HalfStream; 2]>>,
    /// Serial number since which segments wait; `None` if none wait.
    waits: Option<u64>,
    /// Whether pure acknowledgements matter to its streams.
    heeds_acks: bool,
}

/// Flows together with their streams.
pub(super) struct Connections<E: FlowExtractor, S, C: Consumer<E::Key>> {
    pub(super) table: FlowTable<E, S>,
    pub(super) consumer: C,
    pub(super) config: ReassemblyConfig,
    flows: HashMap<E::Key, Connection<C::Flow>, RandomState>,
    told: VecDeque<FlowEvent<E::Key>>,
    waiting: Waiting<E::Key>,
    /// Number of connections to which pure acknowledgements matter.
    heeding: usize,
    ticks: VecDeque<(u64, E::Key, u64)>,
    serial: u64,
    stats: ReassemblyStats,
}

impl<E, S, C> Connections<E, S, C>
where
    E: FlowExtractor,
    E::Key: KeyFields,
    S: Send + 'static,
    C: Consumer<E::Key>,
{
    pub(super) fn new(mut table: FlowTable<E, S>, consumer: C) -> Self {
        table.tell_ends();
        // Memory is only used when touched: reserving it here avoids moving it when the map grows.
        let room = table.config().max_flows.min(1 << 20);
        Self {
            table,
            consumer,
            config: ReassemblyConfig::new(),
            flows: HashMap::with_capacity_and_hasher(room, RandomState::new()),
            told: VecDeque::new(),
            waiting: Waiting::new(),
            heeding: 0,
            ticks: VecDeque::new(),
            serial: 0,
            stats: ReassemblyStats::default(),
        }
    }

    pub(super) fn reassembly(&self) -> ReassemblyStats {
        self.stats
    }

    /// Handles the tracker's events, and passes the packet's bytes on in between: after the beginning of their
    /// flow and before its end.
    fn go_on(
        &mut self,
        mut look: Option<&Look<E::Key>>,
        packet: Option<(&Packet<'_>, Lend<'_>)>,
        events: &mut VecDeque<C::Event>,
    ) {
        while let Some(event) = self.told.pop_front() {
            self.consumer.told(&event, events);
            match &event {
                FlowEvent::Started { key, side, orientation, ts, l4 } => {
                    if self.flows.contains_key(key) {
                        self.end_unknown(key, events);
                    }
                    let of = Of { key, side: FlowSide::Initiator, ts: *ts };
                    let Some(flow) = self.consumer.begin(of, *l4, events) else { continue };
                    let initiator = match side {
                        FlowSide::Initiator => *orientation,
                        FlowSide::Responder => orientation.flipped(),
                    };
                    self.insert(key.clone(), flow, initiator, *l4);
                }
                FlowEvent::Ended { key, reason, stats, history, l4 } => {
                    let end = End {
                        reason: *reason,
                        stats: stats.clone(),
                        history: *history,
                        l4: *l4,
                        ts: stats.last_seen,
                    };
                    if let Some(look) = look.take_if(|look| look.key == *key) {
                        self.feed(look, packet, Some(&end), events);
                    }
                    self.end(key, end, events);
                }
                _ => {}
            }
        }
        if let Some(look) = look {
            self.feed(look, packet, None, events);
        }
    }

    fn insert(&mut self, key: E::Key, flow: C::Flow, initiator: Orientation, l4: Option<L4Proto>) {
        self.serial += 1;
        let serial = self.serial;
        if C::TICKS {
            self.ticks.push_back((self.table.clock() + TICK, key.clone(), serial));
            if self.ticks.len() > 2 * self.flows.len() + 1024 {
                let flows = &self.flows;
                self.ticks.retain(|(_, of, begun)| {
                    *begun == serial || flows.get(of).is_some_and(|flow| flow.serial == *begun)
                });
            }
        }
        let connection = Connection {
            serial,
            initiator,
            l4,
            flow: Some(flow),
            is_silent: false,
            halves: None,
            waits: None,
            heeds_acks: false,
        };
        self.flows.insert(key, connection);
    }

    fn feed(
        &mut self,
        look: &Look<E::Key>,
        packet: Option<(&Packet<'_>, Lend<'_>)>,
        end: Option<&End>,
        events: &mut VecDeque<C::Event>,
    ) {
        let Some((packet, lend)) = packet else { return };
        let Some(connection) = self.flows.get_mut(&look.key) else { return };
        let Some(flow) = connection.flow.as_mut().filter(|_| !connection.is_silent) else {
            return;
        };
        let time = packet.timestamp();
        let side = look.side(connection.initiator);
        let of = Of { key: &look.key, side, ts: FlowTime::new(time.secs, time.nanos) };
        let memory = if look.is_own { packet.data() } else { self.table.made_frame().bytes };
        let payload = &memory[look.payload.clone()];
        let lend = look.is_own.then_some((lend, look.payload.start));
        let mut is_new = false;
        let wanted = match &look.tcp {
            Some(tcp) => {
                let halves = connection.halves.get_or_insert_with(|| new_halves(&self.config));
                let before = halves[0].held() + halves[1].held();
                let mut passing = Passing::new(&mut self.consumer, flow, events);
                passing.segment(of, halves, tcp, payload, look.cut, lend);
                let (wanted, bytes, gaps) = passing.done();
                let now = halves[0].held() + halves[1].held();
                self.stats.bytes += bytes;
                self.stats.gap_bytes += gaps;
                self.stats.held = self.stats.held + now as u64 - before as u64;
                self.stats.high_watermark = self.stats.high_watermark.max(self.stats.held);
                let heeds_acks = halves.iter().any(HalfStream::heeds_acks);
                if heeds_acks != std::mem::replace(&mut connection.heeds_acks, heeds_acks) {
                    self.heeding = if heeds_acks { self.heeding + 1 } else { self.heeding - 1 };
                }
                if now == 0 {
                    connection.waits = None;
                } else if connection.waits.is_none() {
                    self.serial += 1;
                    connection.waits = Some(self.serial);
                    self.waiting.push(look.key.clone(), self.serial);
                    is_new = true;
                }
                wanted
            }
            None if payload.is_empty() => Wanted::More,
            None => {
                self.stats.bytes += payload.len() as u64;
                let data = Data::Bytes(Bytes::Borrowed { bytes: payload, lend });
                self.consumer.data(of, flow, data, events)
            }
        };
        if is_new {
            self.tidy_waiting();
        }
        self.heed(&look.key, of.ts, wanted, end, events);
        if self.stats.held > self.config.memory_cap as u64 {
            self.relieve(&look.key, of.ts, end, events);
        }
    }

    /// Does what the consumer asked for. `end` is set if the tracker has already ended the flow.
    fn heed(
        &mut self,
        key: &E::Key,
        ts: FlowTime,
        wanted: Wanted,
        end: Option<&End>,
        events: &mut VecDeque<C::Event>,
    ) {
        if wanted == Wanted::More {
            return;
        }
        let Some(connection) = self.flows.get_mut(key) else { return };
        let held = connection.halves.take().map_or(0, |h| h[0].held() + h[1].held());
        self.stats.held -= held as u64;
        connection.waits = None;
        self.heeding -= usize::from(std::mem::take(&mut connection.heeds_acks));
        let Wanted::Over(reason) = wanted else {
            connection.is_silent = true;
            return;
        };
        let Some(flow) = connection.flow.take() else { return };
        let (stats, history) = match (self.table.tracker().get(key), end) {
            (Some(entry), _) => (entry.stats.clone(), entry.history),
            (None, Some(end)) => (end.stats.clone(), end.history),
            (None, None) => (FlowStats::default(), HistoryString::new()),
        };
        let end = End { reason, stats, history, l4: connection.l4, ts };
        self.consumer.end(key, flow, end, events);
    }

    /// Passes on everything that waits in a flow. At the end of the flow, bytes missing before a FIN are
    /// reported too.
    fn flush(
        &mut self,
        key: &E::Key,
        ts: FlowTime,
        end: Option<&End>,
        events: &mut VecDeque<C::Event>,
    ) {
        let Some(connection) = self.flows.get_mut(key) else { return };
        let (Some(flow), Some(halves)) = (&mut connection.flow, &mut connection.halves) else {
            return;
        };
        connection.waits = None;
        let before = halves[0].held() + halves[1].held();
        let mut passing = Passing::new(&mut self.consumer, flow, events);
        for (half, side) in halves.iter_mut().zip([FlowSide::Initiator, FlowSide::Responder]) {
            let mut out = |piece: Piece<'_>| passing.pass(Of { key, side, ts }, piece, None);
            match end {
                Some(_) => half.flush(&mut out),
                None => half.flush_waiting(&mut out),
            }
        }
        let (wanted, bytes, gaps) = passing.done();
        self.stats.bytes += bytes;
        self.stats.gap_bytes += gaps;
        self.stats.held -= before as u64;
        self.heed(key, ts, wanted, end, events);
    }

    fn end(&mut self, key: &E::Key, end: End, events: &mut VecDeque<C::Event>) {
        self.flush(key, end.ts, Some(&end), events);
        if let Some(connection) = self.flows.remove(key) {
            self.heeding -= usize::from(connection.heeds_acks);
            if let Some(flow) = connection.flow {
                self.consumer.end(key, flow, end, events);
            }
        }
        self.tidy_waiting();
    }

    fn tidy_waiting(&mut self) {
        let Self { waiting, flows, .. } = self;
        waiting.tidy(flows.len(), |key, since| {
            flows.get(key).is_some_and(|connection| connection.waits == Some(since))
        });
    }

    /// Makes room if too many bytes wait in all flows together.
    #[cold]
    fn relieve(
        &mut self,
        key: &E::Key,
        ts: FlowTime,
        end: Option<&End>,
        events: &mut VecDeque<C::Event>,
    ) {
        match self.config.policy {
            MemoryPolicy::EndFlow => {
                self.stats.short_of_memory += 1;
                let over = Wanted::Over(EndReason::BufferOverflow);
                self.heed(key, ts, over, end, events);
            }
            MemoryPolicy::PassThrough => {
                self.stats.short_of_memory += 1;
                self.flush(key, ts, None, events);
            }
            MemoryPolicy::GiveUpOldest => {
                while self.stats.held > self.config.memory_cap as u64 {
                    let Some((key, since)) = self.waiting.pop() else { return };
                    if self.waits(&key, since) {
                        self.stats.short_of_memory += 1;
                        self.flush(&key, ts, None, events);
                    }
                }
            }
        }
    }

    /// Returns whether the flow has been waiting since the given serial number.
    fn waits(&self, key: &E::Key, since: u64) -> bool {
        self.flows.get(key).is_some_and(|connection| connection.waits == Some(since))
    }

    /// Ends a flow that the tracker no longer knows.
    fn end_unknown(&mut self, key: &E::Key, events: &mut VecDeque<C::Event>) {
        let end = End {
            reason: EndReason::ForceClosed,
            stats: FlowStats::default(),
            history: HistoryString::new(),
            l4: self.flows.get(key).and_then(|connection| connection.l4),
            ts: FlowTime::default(),
        };
        self.end(key, end, events);
    }

    /// Tells at most `most` flows the time.
    fn tick(&mut self, most: usize, events: &mut VecDeque<C::Event>) {
        let now = self.table.clock();
        let ts = FlowTime::new((now / 1_000_000_000) as u32, (now % 1_000_000_000) as u32);
        for _ in 0..most {
            // After the clock steps back, ticks that are far in the future are rescheduled from the new time.
            if self.ticks.front().is_none_or(|(due, ..)| *due > now && *due <= now + 2 * TICK) {
                return;
            }
            let Some((_, key, serial)) = self.ticks.pop_front() else { return };
            let Some(connection) = self.flows.get_mut(&key) else { continue };
            let is_there = connection.serial == serial && !connection.is_silent;
            let Some(flow) = &mut connection.flow else { continue };
            if is_there {
                let of = Of { key: &key, side: FlowSide::Initiator, ts };
                let wanted = self.consumer.tick(of, flow, events);
                self.heed(&key, ts, wanted, None, events);
                self.ticks.push_back((now + TICK, key, serial));
            }
        }
    }

    /// Ends the flows that the tracker has silently forgotten, if there are more than `slack` of them.
    fn tidy(&mut self, slack: usize, events: &mut VecDeque<C::Event>) {
        if self.flows.len() <= self.table.tracker().flow_count() + slack {
            return;
        }
        let is_gone = |key: &&E::Key| self.table.tracker().get(key).is_none();
        let gone: Vec<E::Key> = self.flows.keys().filter(is_gone).cloned().collect();
        gone.iter().for_each(|key| self.end_unknown(key, events));
    }
}

impl<E, S, C> BatchConsumer for Connections<E, S, C>
where
    E: FlowExtractor,
    E::Key: KeyFields,
    S: Send + 'static,
    C: Consumer<E::Key>,
{
    type Event = C::Event;

    fn packet(&mut self, packet: &Packet<'_>, lend: Lend<'_>, events: &mut VecDeque<C::Event>) {
        self.table.catch_up(packet, &mut self.told);
        self.go_on(None, None, events);
        let (mut look, acks) = (None, self.heeding > 0);
        let find = |extractor: &E, frame: Frame<'_>, time, noted| {
            look = Look::at(extractor, frame, time, noted, acks);
        };
        self.table.take(packet, &mut self.told, Some(find));
        self.go_on(look.as_ref(), Some((packet, lend)), events);
        self.tick(TICKS_A_PACKET, events);
        self.tidy(SLACK, events);
    }

    fn advance(&mut self, now: u64, most: usize, events: &mut VecDeque<C::Event>) -> bool {
        let has_more = self.table.advance(now, most, &mut self.told);
        self.go_on(None, None, events);
        self.tick(most, events);
        has_more || self.ticks.front().is_some_and(|(due, ..)| *due <= now)
    }

    fn next_due(&self) -> Option<u64> {
        let tick = self.ticks.front().map(|(due, ..)| *due);
        self.table.next_due().into_iter().chain(tick).min()
    }

    fn finish(&mut self, most: usize, events: &mut VecDeque<C::Event>) -> bool {
        let has_more = self.table.finish(most, &mut self.told);
        self.go_on(None, None, events);
        if !has_more {
            self.tidy(0, events);
        }
        has_more
    }

    fn wants_time(&self) -> bool {
        self.table.may_be_asked()
    }

    fn wants_turn(&self) -> bool {
        self.consumer.wants_turn()
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.consumer.poll_ready(cx)
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.consumer.poll_done(cx)
    }

    fn batch_done(&mut self) {
        self.consumer.batch_done();
    }
}

fn new_halves(config: &ReassemblyConfig) -> Box<[HalfStream; 2]> {
    let half = || HalfStream::new().with_cap(config.side_cap).with_overlap(config.overlap);
    Box::new([half(), half()])
}
