//! What a flow table costs a packet, beside flowscope's bare tracker: in turn, on the same packets.
//! `cargo bench --features flow --bench flow`

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Instant;

use etherparse::PacketBuilder;
use hdrhistogram::Histogram;
use ringtap::Packet;
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::{EventMask, FlowConfig, FlowTable, FlowTracker, PacketView};
use ringtap::packet::Timestamp;

const ROUNDS: usize = 7;
const PACKETS: u64 = 2_000_000;
/// Packets of a turn.
const TURN: u64 = 1024;

fn config(flows: usize) -> FlowConfig {
    let mut config = FlowConfig::default().with_event_filter(EventMask::PACKET);
    config.max_flows = 2 * flows;
    config
}

/// Packets of so many flows, in an order that no cache likes: each is given to `take`, with its time.
fn each(flows: u64, from: u64, count: u64, mut take: impl FnMut(&[u8], Timestamp)) {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 9, 9, 9], 64);
    let mut frame = Vec::new();
    builder.udp(7, 7).write(&mut frame, &[0; 60]).expect("a Vec takes all");
    for number in from..from + count {
        let flow = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % flows;
        frame[26..30].copy_from_slice(&(0x0a00_0000 + flow as u32).to_be_bytes());
        let micros = number;
        let time = Timestamp {
            secs: 1_700_000_000 + (micros / 1_000_000) as u32,
            nanos: (micros % 1_000_000 * 1_000) as u32,
        };
        take(&frame, time);
    }
}

/// A flood of SYNs, each of a flow of its own: how long a turn of 1,024 packets takes, where no more flows than that fit.
fn flood() {
    println!("2,000,000 SYNs of as many flows, microseconds a turn of {TURN} packets:");
    for flows in [10_000, 100_000, 1_000_000] {
        let mut config = FlowConfig::default();
        (config.max_flows, config.suppress_events) = (flows, EventMask::all());
        let mut tracker: FlowTracker<FiveTuple> =
            FlowTracker::with_config(FiveTuple::bidirectional(), config.clone());
        let mut table =
            FlowTable::with_config_and_state(FiveTuple::bidirectional(), config, |_| ());
        let mut events = VecDeque::new();
        let bare = turns(|frame, time| {
            let time = flowscope::Timestamp::new(time.secs, time.nanos);
            black_box(tracker.track(PacketView::new(frame, time)));
        });
        let ours = turns(|frame, time| table.packet(&Packet::from_bytes(frame, time), &mut events));
        let evicted = table.stats().flows_evicted;
        println!(
            "{flows:>9} fit  flowscope's tracker: {bare}; our table: {ours}; {evicted} evicted"
        );
    }
}

/// How long turns take, in short.
fn turns(mut take: impl FnMut(&[u8], Timestamp)) -> String {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 9, 9, 9], 64);
    let mut frame = Vec::new();
    builder.tcp(7, 7, 1, 1000).syn().write(&mut frame, &[]).expect("a Vec takes all");
    let mut turns = Histogram::<u64>::new(3).expect("three digits");
    for turn in 0..2_000_000 / TURN {
        let began = Instant::now();
        for number in turn * TURN..(turn + 1) * TURN {
            frame[26..30].copy_from_slice(&(0x0b00_0000 + number as u32).to_be_bytes());
            let time = Timestamp {
                secs: 1_700_000_000 + (number / 100_000) as u32,
                nanos: (number % 100_000 * 10_000) as u32,
            };
            take(&frame, time);
        }
        turns.record(began.elapsed().as_micros() as u64).expect("it grows");
    }
    let at = |quantile| turns.value_at_quantile(quantile);
    format!("p50 {} p99 {} most {}", at(0.5), at(0.99), turns.max())
}

fn main() {
    println!(
        "ns a packet: the packets themselves, flowscope's tracker, our table; median (least to most)"
    );
    for flows in [64_u64, 10_000, 1_000_000] {
        let mut tracker: FlowTracker<FiveTuple> =
            FlowTracker::with_config(FiveTuple::bidirectional(), config(flows as usize));
        let mut table = FlowTable::with_config_and_state(
            FiveTuple::bidirectional(),
            config(flows as usize),
            |_| (),
        );
        let mut events = VecDeque::new();
        let mut times = [const { Vec::new() }; 3];
        let mut from = 0;
        // The first round begins the flows, and does not count.
        for round in 0..=ROUNDS {
            let mut took = [0.0; 3];
            let mut time = |which: usize, work: &mut dyn FnMut(&[u8], Timestamp)| {
                let began = Instant::now();
                each(flows, from, PACKETS, work);
                took[which] = began.elapsed().as_nanos() as f64 / PACKETS as f64;
            };
            time(0, &mut |frame, time| {
                black_box((frame, time));
            });
            time(1, &mut |frame, time| {
                let time = flowscope::Timestamp::new(time.secs, time.nanos);
                black_box(tracker.track(PacketView::new(frame, time)));
            });
            time(2, &mut |frame, time| {
                table.packet(&Packet::from_bytes(frame, time), &mut events);
                events.clear();
            });
            from += PACKETS;
            if round > 0 {
                times.iter_mut().zip(took).for_each(|(times, took)| times.push(took));
            }
        }
        let spread = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            let median = times[times.len() / 2];
            (median, format!("{median:.0} ({:.0} to {:.0})", times[0], times[times.len() - 1]))
        };
        let [(none, none_text), (bare, bare_text), (ours, ours_text)] =
            times.each_mut().map(spread);
        let ratio = (ours - none) / (bare - none);
        println!(
            "{flows:>9} flows  {none_text:>16} {bare_text:>20} {ours_text:>20}  {ratio:.2} times the tracker"
        );
    }
    flood();
}
