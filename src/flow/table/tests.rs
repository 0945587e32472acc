use etherparse::PacketBuilder;
use flowscope::extract::FiveTuple;

use super::*;
use crate::packet::Timestamp;

fn syn_or_rst(port: u16, is_syn: bool) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    let tcp = builder.tcp(port, 7, 1, 1000);
    let mut frame = Vec::new();
    if is_syn { tcp.syn() } else { tcp.rst() }.write(&mut frame, &[]).unwrap();
    frame
}

#[test]
fn ports_that_are_used_again_and_again_take_no_more_memory() {
    let (mut table, mut events) = (FlowTable::new(FiveTuple::bidirectional()), VecDeque::new());
    let frames = [syn_or_rst(7, true), syn_or_rst(7, false)];
    for number in 0..100_000_u32 {
        let time = Timestamp { secs: 1000, nanos: number };
        for frame in &frames {
            table.packet(&Packet::from_bytes(frame, time), &mut events);
        }
        events.clear();
    }
    assert_eq!(table.stats().flows_created, 100_000);
    assert!(table.expiry.len() < 3000, "{}", table.expiry.len());
}

#[test]
fn clocks_that_disagree_do_not_have_all_flows_looked_at_with_each_packet() {
    let (mut table, mut events) = (FlowTable::new(FiveTuple::bidirectional()), VecDeque::new());
    for port in 0..3200 {
        let time = Timestamp { secs: 1000, nanos: port.into() };
        table.packet(&Packet::from_bytes(&syn_or_rst(port, true), time), &mut events);
    }
    let frame = syn_or_rst(1, true);
    let mut looks = 0;
    for number in 0..2000_u32 {
        let time = Timestamp { secs: 1000 + (number & 1) * 2, nanos: 0 };
        table.packet(&Packet::from_bytes(&frame, time), &mut events);
        looks += u32::from(table.calm == 0);
    }
    assert!((2..=10).contains(&looks), "{looks}");
}
