//! What a flow table costs a packet, in random order: in batches and one by one, beside flowscope's tracker, on the
//! same packets and in turn.
//!
//! Connections of TCP speak both ways and are replaced by others; sizes are those of a mix of 64, 594 and 1518 bytes;
//! flows are all alike, or a few have most of the packets (Zipf).
//! `cargo bench --features flow --bench flow`

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Instant;

use etherparse::PacketBuilder;
use flowscope::{FlowTracker, FlowTrackerConfig};
use hdrhistogram::Histogram;
use ringtap::Packet;
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::{EventMask, FlowConfig, FlowTable, PacketView};
use ringtap::packet::Timestamp;

const ROUNDS: usize = 7;
/// Packets of a turn.
const TURN: usize = 1024;
/// Bytes of a packet that are there: its headers. flowscope's tracker takes no cut packets, so their total length says
/// that they are all.
const SNAP: usize = 54;

fn config(flows: usize) -> FlowConfig {
    let mut config = FlowConfig::default().with_event_filter(EventMask::PACKET);
    config.max_flows = 2 * flows;
    config
}

fn tracker(flows: usize, events: EventMask) -> FlowTracker<flowscope::extract::FiveTuple> {
    let mut config = FlowTrackerConfig::default();
    config.max_flows = flows;
    config.suppress_events = events;
    FlowTracker::with_config(flowscope::extract::FiveTuple::bidirectional(), config)
}

/// Numbers that look random (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mix {
    Even,
    /// About four of five packets are those of a fifth of the flows, again and again.
    Zipf,
}

/// Packets one after the other in memory, as a block has them, with their lengths on the wire and times.
struct Traffic {
    bytes: Vec<u8>,
    about: Vec<(u16, u64)>,
}

const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 1;

impl Traffic {
    fn new() -> Self {
        Self { bytes: Vec::new(), about: Vec::new() }
    }

    fn packets(&self) -> impl Iterator<Item = Packet<'_>> {
        self.about.iter().zip(self.bytes.chunks_exact(SNAP)).map(|(&(len, nanos), bytes)| {
            let time = Timestamp::from_nanos(nanos);
            Packet::from_bytes(bytes, time).with_original_len(len.into())
        })
    }
}

/// Makes packets of connections that are replaced by others now and then.
struct Maker {
    random: Random,
    mix: Mix,
    /// How often each connection was replaced.
    epochs: Vec<u16>,
    now: u64,
    frame: Vec<u8>,
}

impl Maker {
    fn new(flows: usize, mix: Mix) -> Self {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [0; 4], 64);
        let mut frame = Vec::new();
        builder.tcp(7, 443, 1, 1000).ack(1).write(&mut frame, &[]).expect("a Vec takes all");
        let now = 1_700_000_000_000_000_000;
        Self { random: Random(7), mix, epochs: vec![0; flows], now, frame }
    }

    fn flow(&mut self) -> usize {
        let mut limit = self.epochs.len() as u64;
        while self.mix == Mix::Zipf && limit > 5 && self.random.below(5) > 0 {
            limit /= 5;
        }
        self.random.below(limit) as usize
    }

    fn push(&mut self, traffic: &mut Traffic, flow: usize, is_answer: bool, flags: u8) {
        let len = match self.random.below(12) {
            0..7 => 64,
            7..11 => 594,
            _ => 1518,
        };
        let client = (0x0b00_0000 + flow as u32).to_be_bytes();
        let port = (20_000 + self.epochs[flow] % 40_000).to_be_bytes();
        let (addresses, ports) =
            if is_answer { ([30, 26], [36, 34]) } else { ([26, 30], [34, 36]) };
        let frame = &mut self.frame;
        frame[addresses[0]..addresses[0] + 4].copy_from_slice(&client);
        frame[addresses[1]..addresses[1] + 4].copy_from_slice(&[10, 0, 0, 1]);
        frame[ports[0]..ports[0] + 2].copy_from_slice(&port);
        frame[ports[1]..ports[1] + 2].copy_from_slice(&443_u16.to_be_bytes());
        frame[47] = flags;
        self.now += 500;
        traffic.bytes.extend_from_slice(&frame[..SNAP]);
        traffic.about.push((len, self.now));
    }

    /// Makes packets of all flows in turn, so that they are known, or in random order.
    fn fill(&mut self, traffic: &mut Traffic, count: usize, is_first: bool) {
        traffic.bytes.clear();
        traffic.about.clear();
        while traffic.about.len() < count {
            let at = traffic.about.len();
            let flow = if is_first { at } else { self.flow() };
            let is_answer = self.random.below(2) == 0;
            if !is_first && self.random.below(256) == 0 {
                for (is_answer, flags) in [(false, FIN | ACK), (true, FIN | ACK)] {
                    self.push(traffic, flow, is_answer, flags);
                }
                self.epochs[flow] = self.epochs[flow].wrapping_add(1);
                self.push(traffic, flow, false, SYN);
                self.push(traffic, flow, true, SYN | ACK);
            }
            self.push(traffic, flow, is_answer, ACK);
        }
    }
}

fn median(mut times: Vec<f64>) -> (f64, String) {
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    (median, format!("{median:.0} ({:.0} to {:.0})", times[0], times[times.len() - 1]))
}

fn compare(flows: usize, mix: Mix) {
    let count = 1_000_000;
    let mut maker = Maker::new(flows, mix);
    let mut traffic = Traffic::new();
    let mut bare = tracker(2 * flows, EventMask::PACKET);
    let table =
        || FlowTable::with_config_and_state(FiveTuple::bidirectional(), config(flows), |_| ());
    let (mut single, mut batched) = (table(), table());
    let mut events = VecDeque::new();
    let mut times = [const { Vec::new() }; 4];
    for round in 0..=ROUNDS {
        maker.fill(&mut traffic, if round == 0 { flows } else { count }, round == 0);
        let packets = traffic.about.len() as f64;
        let mut time = |which: usize, work: &mut dyn FnMut(&Traffic)| {
            let began = Instant::now();
            work(&traffic);
            if round > 0 {
                times[which].push(began.elapsed().as_nanos() as f64 / packets);
            }
        };
        time(0, &mut |traffic| {
            for packet in traffic.packets() {
                black_box(packet.data()[30]);
            }
        });
        time(1, &mut |traffic| {
            for packet in traffic.packets() {
                let time = packet.timestamp();
                let time = flowscope::Timestamp::new(time.secs, time.nanos);
                black_box(bare.track(PacketView::new(packet.data(), time)));
            }
        });
        time(2, &mut |traffic| {
            for packet in traffic.packets() {
                single.packet(&packet, &mut events);
                events.clear();
            }
        });
        time(3, &mut |traffic| {
            let mut packets = traffic.packets().peekable();
            while packets.peek().is_some() {
                batched.packets(packets.by_ref().take(TURN), &mut events);
                events.clear();
            }
        });
    }
    assert_eq!(single.stats(), batched.stats());
    let [(none, _), (theirs, theirs_text), (single, single_text), (batched, batched_text)] =
        times.map(median);
    println!(
        "{flows:>9} {mix:?}  {none:>3.0} {theirs_text:>20} {single_text:>16} {batched_text:>16}   {:.2} {:.2}",
        (single - none) / (theirs - none),
        (batched - none) / (theirs - none)
    );
}

/// A flood of SYNs, each of a flow of its own: how long a turn takes, where no more flows than that fit.
fn flood() {
    println!("2,000,000 SYNs of as many flows, microseconds a turn of {TURN} packets:");
    for flows in [10_000, 100_000, 1_000_000] {
        let mut config = FlowConfig::default();
        (config.max_flows, config.suppress_events) = (flows, EventMask::all());
        let mut bare = tracker(flows, EventMask::all());
        let mut table =
            FlowTable::with_config_and_state(FiveTuple::bidirectional(), config, |_| ());
        let mut events = VecDeque::new();
        let theirs = turns(|traffic| {
            for packet in traffic.packets() {
                let time = packet.timestamp();
                let time = flowscope::Timestamp::new(time.secs, time.nanos);
                black_box(bare.track(PacketView::new(packet.data(), time)));
            }
        });
        let ours = turns(|traffic| table.packets(traffic.packets(), &mut events));
        let evicted = table.stats().flows_evicted;
        println!(
            "{flows:>9} fit  flowscope's tracker: {theirs}; our table: {ours}; {evicted} evicted"
        );
    }
}

/// How long turns take, in short.
fn turns(mut take: impl FnMut(&Traffic)) -> String {
    let mut maker = Maker::new(2_000_000, Mix::Even);
    let mut traffic = Traffic::new();
    let mut turns = Histogram::<u64>::new(3).expect("three digits");
    for turn in 0..2_000_000 / TURN {
        traffic.bytes.clear();
        traffic.about.clear();
        for flow in turn * TURN..(turn + 1) * TURN {
            maker.now += 9_500;
            maker.push(&mut traffic, flow, false, SYN);
        }
        let began = Instant::now();
        take(&traffic);
        turns.record(began.elapsed().as_micros() as u64).expect("it grows");
    }
    let at = |quantile| turns.value_at_quantile(quantile);
    format!("p50 {} p99 {} most {}", at(0.5), at(0.99), turns.max())
}

fn main() {
    println!(
        "ns a packet, median (least to most): reading it, flowscope's tracker, our table one by one, in batches of {TURN}; \
         what ours add, of what the tracker adds"
    );
    for flows in [64, 65_536, 1_000_000] {
        compare(flows, Mix::Even);
    }
    compare(1_000_000, Mix::Zipf);
    flood();
}
