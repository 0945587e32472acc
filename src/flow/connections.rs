//! The table of flows together with the reassembled streams of each flow and the consumer of their bytes.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use flowscope::{EndReason, FlowExtractor, FlowSide, L4Proto, Timestamp as FlowTime};

use super::bytes::Lend;
use super::consumer::{Bytes, Consumer, Data, End, Of, Passing, Wanted};
use super::event::{FlowEvent, side_orientation};
use super::half::{HalfStream, Piece};
use super::pump::BatchConsumer;
use super::reassembly::{MemoryPolicy, ReassemblyConfig, ReassemblyStats, Waiting};
use super::table::{FlowTable, Seen};
use crate::packet::Packet;

/// Interval at which the consumer is told the time for each flow, in nanoseconds.
const TICK: u64 = 1_000_000_000;
/// Maximum number of ticks per packet.
const TICKS_A_PACKET: usize = 4;

/// A flow that the consumer wants.
struct Connection<K, F> {
    key: K,
    serial: u64,
    l4: Option<L4Proto>,
    /// `None` after the consumer ended it.
    flow: Option<F>,
    /// Whether the consumer wants only the end of the flow.
    is_silent: bool,
    /// For TCP, the streams of the initiator and the responder.
    halves: Option<Box<[HalfStream; 2]>>,
    /// Serial number since which segments wait; `None` if none wait.
    waits: Option<u64>,
    /// Memory that the consumer holds for the flow, and the serial number since which it holds any.
    kept: usize,
    keeps: Option<u64>,
}

/// Flows together with their streams.
#[expect(missing_debug_implementations, reason = "users name it only by aliases")]
pub struct Connections<E: FlowExtractor, S, C: Consumer<E::Key>> {
    pub(super) table: FlowTable<E, S>,
    pub(super) consumer: C,
    pub(super) config: ReassemblyConfig,
    /// The flows that the consumer wants, by their slot in the table.
    flows: Vec<Option<Connection<E::Key, C::Flow>>>,
    told: VecDeque<(u32, FlowEvent<E::Key>)>,
    waiting: Waiting,
    /// Flows for which the consumer holds memory.
    keeping: Waiting,
    ticks: VecDeque<(u64, u32, u64)>,
    serial: u64,
    stats: ReassemblyStats,
}

/// A packet of a flow, with what its bytes are in.
#[derive(Clone, Copy)]
struct Arrived<'a> {
    seen: &'a Seen,
    packet: &'a Packet<'a>,
    lend: Lend<'a>,
}

impl<E, S, C> Connections<E, S, C>
where
    E: FlowExtractor,
    S: Send + 'static,
    C: Consumer<E::Key>,
{
    pub(super) fn new(mut table: FlowTable<E, S>, consumer: C) -> Self {
        table.tell_ends();
        Self {
            table,
            consumer,
            config: ReassemblyConfig::new(),
            flows: Vec::new(),
            told: VecDeque::new(),
            waiting: Waiting::new(),
            keeping: Waiting::new(),
            ticks: VecDeque::new(),
            serial: 0,
            stats: ReassemblyStats::default(),
        }
    }

    pub(super) fn reassembly(&self) -> ReassemblyStats {
        self.stats
    }

    /// Handles the table's events, and passes the packet's bytes on in between: after the beginning of their flow
    /// and before its end.
    fn go_on(&mut self, arrived: Option<Arrived<'_>>, events: &mut VecDeque<C::Event>) {
        let last = usize::from(arrived.is_some_and(|arrived| arrived.seen.has_ended));
        while self.told.len() > last {
            self.tell(None, events);
        }
        match arrived {
            Some(arrived) if last == 1 => self.tell(Some(arrived), events),
            Some(arrived) => self.feed(arrived, None, events),
            None => {}
        }
    }

    /// Handles the next event of the table. If it is the end of a flow that the packet has ended, the packet's bytes
    /// go before it.
    fn tell(&mut self, arrived: Option<Arrived<'_>>, events: &mut VecDeque<C::Event>) {
        let Some((slot, event)) = self.told.pop_front() else { return };
        self.consumer.told(&event, events);
        match event {
            FlowEvent::Started { key, ts, l4, side, orientation } => {
                let initiator = side_orientation(orientation, side);
                let of = Of { key: &key, side: FlowSide::Initiator, ts };
                if let Some(flow) = self.consumer.begin(of, initiator, l4, events) {
                    self.insert(slot, key, flow, l4);
                }
            }
            FlowEvent::Ended { key, reason, stats, history, l4 } => {
                let end = End { reason, stats, history, l4, ts: stats.last_seen };
                if let Some(arrived) = arrived {
                    self.feed(arrived, Some(&end), events);
                }
                self.end(slot, end, events);
                let ended = FlowEvent::Ended { key, reason, stats, history, l4 };
                self.consumer.handled(ended, events);
            }
            other => self.consumer.handled(other, events),
        }
    }

    fn insert(&mut self, slot: u32, key: E::Key, flow: C::Flow, l4: Option<L4Proto>) {
        self.serial += 1;
        let serial = self.serial;
        if C::TICKS {
            self.ticks.push_back((self.table.clock() + TICK, slot, serial));
            if self.ticks.len() > 2 * self.table.len() + 1024 {
                let flows = &self.flows;
                let is_there = |slot: u32, begun: u64| {
                    let flow = flows.get(slot as usize).and_then(Option::as_ref);
                    begun == serial || flow.is_some_and(|flow| flow.serial == begun)
                };
                self.ticks.retain(|(_, slot, begun)| is_there(*slot, *begun));
            }
        }
        let (is_silent, halves, flow) = (false, None, Some(flow));
        let (waits, kept, keeps) = (None, 0, None);
        let connection =
            Connection { key, serial, l4, flow, is_silent, halves, waits, kept, keeps };
        if self.flows.len() <= slot as usize {
            self.flows.resize_with(slot as usize + 1, || None);
        }
        self.flows[slot as usize] = Some(connection);
    }

    fn feed(
        &mut self,
        Arrived { seen, packet, lend }: Arrived<'_>,
        end: Option<&End>,
        events: &mut VecDeque<C::Event>,
    ) {
        let Some(Some(connection)) = self.flows.get_mut(seen.slot as usize) else { return };
        let Some(flow) = connection.flow.as_mut().filter(|_| !connection.is_silent) else {
            return;
        };
        let time = packet.timestamp();
        let ts = FlowTime::new(time.secs, time.nanos);
        let of = Of { key: &connection.key, side: seen.side, ts };
        let memory = if seen.is_own { packet.data() } else { self.table.made() };
        let payload = memory.get(seen.payload.clone()).unwrap_or_default();
        let lend = seen.is_own.then_some((lend, seen.payload.start));
        let wanted = match &seen.tcp {
            Some(tcp) => {
                let halves = connection.halves.get_or_insert_with(|| new_halves(&self.config));
                let before = halves[0].held() + halves[1].held();
                let mut passing = Passing::new(&mut self.consumer, flow, events);
                passing.segment(of, halves, tcp, payload, seen.cut, lend);
                let (wanted, bytes, gaps) = passing.done();
                let now = halves[0].held() + halves[1].held();
                self.stats.bytes += bytes;
                self.stats.gap_bytes += gaps;
                self.stats.held = self.stats.held + now as u64 - before as u64;
                if now == 0 {
                    connection.waits = None;
                } else if connection.waits.is_none() {
                    self.serial += 1;
                    connection.waits = Some(self.serial);
                    self.waiting.push(seen.slot, self.serial);
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
        let is_longest = self.waiting.len() > 2 * self.table.len() + 1024;
        if is_longest {
            self.tidy_waiting();
        }
        self.weigh(seen.slot);
        self.stats.high_watermark = self.stats.high_watermark.max(self.stats.held);
        self.heed(seen.slot, ts, wanted, end, events);
        if self.stats.held > self.config.memory_cap as u64 {
            self.relieve(seen.slot, ts, end, events);
        }
    }

    /// Takes into account what the consumer holds for a flow now.
    #[inline]
    fn weigh(&mut self, slot: u32) {
        let Some(Some(connection)) = self.flows.get_mut(slot as usize) else { return };
        let now = connection.flow.as_ref().map_or(0, |flow| self.consumer.held(flow));
        let before = std::mem::replace(&mut connection.kept, now);
        if now == before {
            return;
        }
        self.stats.held = self.stats.held + now as u64 - before as u64;
        if now == 0 {
            connection.keeps = None;
        } else if connection.keeps.is_none() {
            self.serial += 1;
            connection.keeps = Some(self.serial);
            self.keeping.push(slot, self.serial);
            if self.keeping.len() > 2 * self.table.len() + 1024 {
                let flows = &self.flows;
                self.keeping.tidy(|slot, since| {
                    let flow = flows.get(slot as usize).and_then(Option::as_ref);
                    flow.is_some_and(|connection| connection.keeps == Some(since))
                });
            }
        }
    }

    /// Does what the consumer asked for. `end` is set if the table has already ended the flow.
    fn heed(
        &mut self,
        slot: u32,
        ts: FlowTime,
        wanted: Wanted,
        end: Option<&End>,
        events: &mut VecDeque<C::Event>,
    ) {
        if wanted == Wanted::More {
            return;
        }
        let Some(Some(connection)) = self.flows.get_mut(slot as usize) else { return };
        let held = connection.halves.take().map_or(0, |h| h[0].held() + h[1].held());
        self.stats.held -= held as u64;
        connection.waits = None;
        let Wanted::Over(reason) = wanted else {
            connection.is_silent = true;
            return;
        };
        let Some(flow) = connection.flow.take() else { return };
        let (stats, history) = match end {
            Some(end) => (end.stats, end.history),
            None => self.table.counters(slot),
        };
        let end = End { reason, stats, history, l4: connection.l4, ts };
        self.consumer.end(&connection.key, flow, end, events);
        self.weigh(slot);
    }

    /// Passes on everything that waits in a flow. At the end of the flow, bytes missing before a FIN are
    /// reported too.
    fn flush(
        &mut self,
        slot: u32,
        ts: FlowTime,
        end: Option<&End>,
        events: &mut VecDeque<C::Event>,
    ) {
        let Some(Some(connection)) = self.flows.get_mut(slot as usize) else { return };
        let (Some(flow), Some(halves)) = (&mut connection.flow, &mut connection.halves) else {
            return;
        };
        connection.waits = None;
        let key = &connection.key;
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
        self.weigh(slot);
        self.heed(slot, ts, wanted, end, events);
    }

    fn end(&mut self, slot: u32, end: End, events: &mut VecDeque<C::Event>) {
        self.flush(slot, end.ts, Some(&end), events);
        if let Some(connection) = self.flows.get_mut(slot as usize).and_then(Option::take) {
            self.stats.held -= connection.kept as u64;
            if let Some(flow) = connection.flow {
                self.consumer.end(&connection.key, flow, end, events);
            }
        }
    }

    fn tidy_waiting(&mut self) {
        let Self { waiting, flows, .. } = self;
        waiting.tidy(|slot, since| {
            let flow = flows.get(slot as usize).and_then(Option::as_ref);
            flow.is_some_and(|connection| connection.waits == Some(since))
        });
    }

    /// Makes room if too many bytes wait in all flows together.
    #[cold]
    fn relieve(
        &mut self,
        slot: u32,
        ts: FlowTime,
        end: Option<&End>,
        events: &mut VecDeque<C::Event>,
    ) {
        match self.config.policy {
            MemoryPolicy::EndFlow => {
                self.stats.short_of_memory += 1;
                self.heed(slot, ts, Wanted::Over(EndReason::BufferOverflow), end, events);
            }
            MemoryPolicy::PassThrough => {
                self.stats.short_of_memory += 1;
                self.flush(slot, ts, None, events);
            }
            MemoryPolicy::GiveUpOldest => {
                while self.stats.held > self.config.memory_cap as u64 {
                    let Some((slot, since)) = self.waiting.pop() else { break };
                    if self.waits(slot, since) {
                        self.stats.short_of_memory += 1;
                        self.flush(slot, ts, None, events);
                    }
                }
            }
        }
        // Then it is parsers that hold too much, not segments that wait: of those that have held for longest, the one that
        // holds most, so that an attack does not end the flows of others.
        while self.stats.held > self.config.memory_cap as u64 {
            let flows = &self.flows;
            let held = |slot: u32, since: u64| {
                let flow = flows.get(slot as usize).and_then(Option::as_ref);
                flow.filter(|flow| flow.keeps == Some(since)).map(|flow| flow.kept)
            };
            let Some(most) = self.keeping.pop_most(held) else { return };
            self.stats.short_of_memory += 1;
            let end = end.filter(|_| most == slot);
            self.heed(most, ts, Wanted::Over(EndReason::BufferOverflow), end, events);
        }
    }

    /// Returns whether the flow has been waiting since the given serial number.
    fn waits(&self, slot: u32, since: u64) -> bool {
        let flow = self.flows.get(slot as usize).and_then(Option::as_ref);
        flow.is_some_and(|connection| connection.waits == Some(since))
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
            let Some((_, slot, serial)) = self.ticks.pop_front() else { return };
            let Some(Some(connection)) = self.flows.get_mut(slot as usize) else { continue };
            let is_there = connection.serial == serial && !connection.is_silent;
            let Some(flow) = &mut connection.flow else { continue };
            if is_there {
                let of = Of { key: &connection.key, side: FlowSide::Initiator, ts };
                let wanted = self.consumer.tick(of, flow, events);
                self.weigh(slot);
                self.heed(slot, ts, wanted, None, events);
                self.ticks.push_back((now + TICK, slot, serial));
            }
        }
    }
}

impl<E, S, C> BatchConsumer for Connections<E, S, C>
where
    E: FlowExtractor,
    S: Send + 'static,
    C: Consumer<E::Key>,
{
    type Extractor = E;
    type State = S;
    type Event = C::Event;

    fn table(&self) -> &FlowTable<E, S> {
        &self.table
    }

    fn table_mut(&mut self) -> &mut FlowTable<E, S> {
        &mut self.table
    }

    fn packet(&mut self, packet: &Packet<'_>, lend: Lend<'_>, events: &mut VecDeque<C::Event>) {
        let Self { table, told, .. } = self;
        let seen = table.take_next(packet, &mut |slot, event| told.push_back((slot, event)));
        let arrived = seen.as_ref().map(|seen| Arrived { seen, packet, lend });
        self.go_on(arrived, events);
        self.tick(TICKS_A_PACKET, events);
    }

    fn advance(&mut self, now: u64, most: usize, events: &mut VecDeque<C::Event>) -> bool {
        let Self { table, told, .. } = self;
        let has_more = table.go_to(now, most, &mut |slot, event| told.push_back((slot, event)));
        self.go_on(None, events);
        self.tick(most, events);
        has_more || self.ticks.front().is_some_and(|(due, ..)| *due <= now)
    }

    fn next_due(&self) -> Option<u64> {
        let tick = self.ticks.front().map(|(due, ..)| *due);
        self.table.next_due().into_iter().chain(tick).min()
    }

    fn finish(&mut self, most: usize, events: &mut VecDeque<C::Event>) -> bool {
        let Self { table, told, .. } = self;
        let has_more = table.end_some(most, &mut |slot, event| told.push_back((slot, event)));
        self.go_on(None, events);
        has_more
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
