//! A flood of flows. Alone in its process, whose memory is measured.
#![cfg(feature = "flow")]

use std::collections::VecDeque;

use etherparse::PacketBuilder;
use ringtap::Packet;
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::{EventMask, FlowConfig, FlowTable};
use ringtap::packet::Timestamp;

#[test]
fn a_flood_of_flows_is_bounded_and_what_is_evicted_is_counted() {
    let mut config = FlowConfig::default();
    (config.max_flows, config.suppress_events) = (10_000, EventMask::all());
    let mut table = FlowTable::with_config_and_state(FiveTuple::bidirectional(), config, |_| ());
    let mut events = VecDeque::new();
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    builder.tcp(7, 7, 1, 1000).syn().write(&mut frame, &[]).unwrap();
    let before = resident();
    for number in 0..2_000_000_u32 {
        frame[26..30].copy_from_slice(&(0x0b00_0000 + number).to_be_bytes());
        let time = Timestamp { secs: number / 100_000, nanos: number % 100_000 * 10_000 };
        table.packet(&Packet::from_bytes(&frame, time), &mut events);
    }
    let stats = table.stats();
    assert_eq!((stats.flows_created, stats.flows_evicted), (2_000_000, 1_990_000));
    assert_eq!((table.len(), events.len()), (10_000, 0));
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes for 10,000 flows");
}

/// Bytes of memory that this process has.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    4096 * pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap()
}
