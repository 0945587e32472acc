//! Tables whose packets are made for it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use flowscope::{EndReason, EventMask};

use super::FlowTable;
use crate::flow::config::FlowConfig;
use crate::flow::event::FlowEvent;
use crate::flow::extract::{FiveTuple, FiveTupleKey};
use crate::packet::{Packet, Timestamp};

/// A datagram of a flow of this number.
fn datagram(number: u32) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[12..18].copy_from_slice(&[8, 0, 0x45, 0, 0, 46]);
    frame[23] = 17;
    frame[26..30].copy_from_slice(&number.to_be_bytes());
    frame[30..34].copy_from_slice(&[10, 0, 0, 1]);
    frame[34..40].copy_from_slice(&[0, 7, 0, 9, 0, 26]);
    frame
}

type Events = VecDeque<FlowEvent<FiveTupleKey>>;

fn give(table: &mut FlowTable<FiveTuple>, millis: u64, frame: &[u8], events: &mut Events) {
    let time =
        Timestamp { secs: (millis / 1000) as u32, nanos: (millis % 1000 * 1_000_000) as u32 };
    table.packet(&Packet::from_bytes(frame, time), events);
}

fn table(config: FlowConfig) -> FlowTable<FiveTuple> {
    FlowTable::with_config_and_state(FiveTuple::bidirectional(), config, |_| ())
}

fn with_room(most: usize) -> FlowConfig {
    FlowConfig { max_flows: most, ..FlowConfig::default() }
}

/// How many flows ended, by reason.
fn ends(events: &mut Events) -> HashMap<&'static str, usize> {
    let mut all = HashMap::new();
    for event in events.drain(..) {
        if let FlowEvent::Ended { reason, .. } = event {
            *all.entry(reason.as_str()).or_default() += 1;
        }
    }
    all
}

#[test]
fn a_million_flows_that_end_at_once_hold_up_no_packet() {
    let (mut table, mut events) = (table(with_room(100_000)), Events::new());
    (0..50_000).for_each(|number| give(&mut table, 0, &datagram(number), &mut events));
    events.clear();
    // All are due; each packet ends a few.
    let mut turns = 0;
    while table.len() > 1 && turns < 10_000 {
        give(&mut table, 100_000 + turns / 1000, &datagram(1 << 30), &mut events);
        assert!(events.len() <= super::DUE_A_PACKET + 1);
        turns += 1;
        events.clear();
    }
    assert_eq!(turns as usize, 50_000 / super::DUE_A_PACKET);
    assert_eq!(table.stats().flows_ended, 50_000);
}

#[test]
fn the_flow_that_was_not_used_for_longest_makes_room() {
    let (mut table, mut events) = (table(with_room(100)), Events::new());
    for number in 0..10_000_u32 {
        give(
            &mut table,
            u64::from(number) * 200,
            &datagram((1 << 20) | (number % 10)),
            &mut events,
        );
        give(&mut table, u64::from(number) * 200 + 100, &datagram(number), &mut events);
        assert!(table.len() <= 100);
    }
    // The ten that are used all the time have begun once each.
    let begun = table.flows().filter(|(_, flow)| flow.stats.total_packets() == 1000).count();
    assert_eq!(begun, 10);
    assert_eq!(ends(&mut events)["evicted"] as u64, table.stats().flows_evicted);
    // All at the same moment: no order tells them apart, and the table still holds no more than it may.
    (0..100_000).for_each(|number| give(&mut table, 3_000_000, &datagram(number), &mut events));
    assert_eq!(table.len(), 100);
    let stats = table.stats();
    assert_eq!(stats.flows_created, stats.flows_ended + 100);
}

/// A segment without bytes from the client of this number or to it.
fn segment(number: u32, is_clients: bool, flags: u8, seq: u32, ack: u32) -> [u8; 60] {
    let mut frame = datagram(number);
    frame[17] = 40;
    frame[23] = 6;
    frame[34..38].copy_from_slice(&[0, 7, 0, 9]);
    if !is_clients {
        frame[26..30].copy_from_slice(&[10, 0, 0, 1]);
        frame[30..34].copy_from_slice(&number.to_be_bytes());
        frame[34..38].copy_from_slice(&[0, 9, 0, 7]);
    }
    frame[38..42].copy_from_slice(&seq.to_be_bytes());
    frame[42..46].copy_from_slice(&ack.to_be_bytes());
    (frame[46], frame[47], frame[48]) = (0x50, flags, 1);
    frame
}

/// Returns the counters of the flow that these frames are of.
fn told(frames: &[Vec<u8>]) -> crate::flow::event::FlowStats {
    let (mut table, mut events) = (table(with_room(10)), Events::new());
    frames.iter().for_each(|frame| give(&mut table, 1000, frame, &mut events));
    let (_, flow) = table.flows().next().expect("there is one");
    flow.stats
}

#[test]
fn the_first_packet_of_each_side_tells_its_class_and_the_first_of_all_its_vlan() {
    let with = |class: u8, vlan: Option<u16>, is_answer: bool| {
        let mut frame = datagram(0x0a00_0002).to_vec();
        frame[15] = class;
        if is_answer {
            frame[26..34].rotate_left(4);
            frame[34..38].rotate_left(2);
        }
        if let Some(vlan) = vlan {
            frame.splice(12..12, [[0x81, 0], vlan.to_be_bytes()].concat());
        }
        frame
    };
    let tagged = Some(0x2007); // of priority 1
    let both = [with(0xb8, tagged, false), with(0x20, Some(9), true), with(0x48, None, false)];
    let stats = told(&both);
    assert_eq!((stats.class_initiator, stats.class_responder, stats.vlan), (0xb8, 0x20, Some(7)));
    let alone = told(&[with(0x48, None, false)]);
    assert_eq!((alone.class_initiator, alone.class_responder, alone.vlan), (0x48, 0, None));

    let mut v6 = datagram(1).to_vec();
    v6[12..22].copy_from_slice(&[0x86, 0xdd, 0x6b, 0x80, 0, 0, 0, 6, 17, 64]);
    assert_eq!(told(&[v6]).class_initiator, 0xb8);

    // Of fragments, the class of the packet that they make.
    let whole = with(0x88, None, false);
    let fragment = |from: usize, to: usize, has_more: bool| {
        let mut frame = [&whole[..34], &whole[34 + from..34 + to]].concat();
        frame[17] = (20 + to - from) as u8;
        let field = u16::from(has_more) << 13 | (from / 8) as u16;
        frame[20..22].copy_from_slice(&field.to_be_bytes());
        frame
    };
    let stats = told(&[fragment(0, 16, true), fragment(16, 26, false)]);
    assert_eq!((stats.packets_initiator, stats.class_initiator), (1, 0x88));
}

const SYN: u8 = 2;
const ACK: u8 = 16;

#[test]
fn a_flood_of_syns_ends_only_its_own() {
    let (mut table, mut events) = (table(with_room(1000)), Events::new());
    for (flags, is_clients) in [(SYN, true), (SYN | ACK, false), (ACK, true)] {
        give(&mut table, 0, &segment(7, is_clients, flags, 1, 1), &mut events);
    }
    for number in 0..20_000_u32 {
        let millis = u64::from(number);
        give(&mut table, millis, &datagram(1 << 20), &mut events);
        give(&mut table, millis, &segment(number + 1000, true, SYN, 1, 0), &mut events);
    }
    let packets: Vec<u64> = table.flows().map(|(_, flow)| flow.stats.total_packets()).collect();
    assert!(packets.contains(&20_000) && packets.contains(&3), "{packets:?}");
    assert_eq!(table.stats().flows_evicted, 20_002 - 1000);
}

#[test]
fn a_few_packets_of_the_future_end_no_flows() {
    let (mut table, mut events) = (table(with_room(10_000)), Events::new());
    (0..5000).for_each(|number| give(&mut table, 1000, &datagram(number), &mut events));
    for number in 0..20_000_u32 {
        let millis = if number % 8000 == 5 { 86_400_000 } else { 1000 + u64::from(number / 100) };
        give(&mut table, millis, &datagram(number % 5000), &mut events);
    }
    let ended = table.stats().flows_ended;
    // Those that the packets of the future found due, and their own.
    assert!(ended <= 3 * (super::DUE_A_PACKET as u64 + 1), "{ended}");
}

#[test]
fn options_that_change_are_heeded_by_flows_that_are_there() {
    let (mut table, mut events) = (table(with_room(10)), Events::new());
    for (flags, is_clients) in [(SYN, true), (SYN | ACK, false), (ACK, true)] {
        give(&mut table, 0, &segment(7, is_clients, flags, 1, 1), &mut events);
    }
    table.set_config(FlowConfig { active_timeout: Some(Duration::from_secs(10)), ..with_room(10) });
    (1..=15)
        .for_each(|secs| give(&mut table, secs * 1000, &segment(7, true, ACK, 2, 2), &mut events));
    let reports = events.iter().filter(|event| matches!(event, FlowEvent::Report { .. }));
    assert_eq!(reports.count(), 1, "{events:?}");
    // The shortest times that there are.
    table.set_idle_timeout_fn(|_, _| Some(Duration::ZERO));
    table.set_config(FlowConfig { close_delay: Duration::ZERO, ..with_room(10) });
    (0..5).for_each(|number| give(&mut table, 20_000, &datagram(number), &mut events));
    give(&mut table, 20_010, &datagram(0), &mut events);
    assert_eq!(ends(&mut events)["idle"], 1);
}

#[test]
fn a_flow_that_goes_on_is_reported_at_intervals_and_at_its_end() {
    let config = FlowConfig { active_timeout: Some(Duration::from_secs(10)), ..with_room(10) };
    let (mut table, mut events) = (table(config), Events::new());
    (0..=600).for_each(|tenth| give(&mut table, tenth * 100, &datagram(1), &mut events));
    while table.finish(10, &mut events) {}
    let counts: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            FlowEvent::Report { stats, ts, .. } => Some((stats.packets_initiator, ts.sec)),
            FlowEvent::Ended { stats, reason: EndReason::IdleTimeout, .. } => {
                Some((stats.packets_initiator, 0))
            }
            _ => None,
        })
        .collect();
    let [reports @ .., end] = &counts[..] else { panic!("it has ended") };
    assert_eq!(*end, (601, 0));
    assert!((4..=6).contains(&reports.len()), "{reports:?}");
    for pair in reports.windows(2) {
        assert!((10..=11).contains(&(pair[1].1 - pair[0].1)), "{reports:?}");
    }
    // Nothing is reported of a flow that nothing comes for.
    give(&mut table, 100_000, &datagram(2), &mut events);
    events.clear();
    table.advance(120_000_000_000, 100, &mut events);
    assert!(events.is_empty(), "{events:?}");
}

#[test]
fn a_smaller_table_evicts_and_a_closed_flow_is_told() {
    let (mut table, mut events) = (table(with_room(100)), Events::new());
    (0..100).for_each(|number| give(&mut table, number, &datagram(number as u32), &mut events));
    events.clear();
    table.set_config(with_room(10));
    assert_eq!(table.len(), 10);
    let key = *table.flows().next().unwrap().0;
    assert!(table.close(&key) && !table.close(&key) && table.get(&key).is_none());
    give(&mut table, 100, &datagram(7), &mut events);
    let ends = ends(&mut events);
    assert_eq!((ends["evicted"], ends["force_closed"], table.len()), (90, 1, 10));
    // A larger one.
    table.set_config(with_room(1000));
    (0..500).for_each(|number| give(&mut table, 200, &datagram(number), &mut events));
    assert_eq!(table.len(), 500);
}

#[test]
fn packets_at_once_say_what_packets_one_by_one_say() {
    // More flows than those that are not fetched ahead.
    let frames: Vec<_> = (0..20_000_u32).map(|number| datagram(number * 7 % 6000)).collect();
    let packets = || {
        let each = frames.iter().enumerate();
        let time = |at| Timestamp { secs: at as u32 / 1000, nanos: at as u32 % 1000 };
        each.map(move |(at, frame)| Packet::from_bytes(frame, time(at)))
    };
    let config = FlowConfig { suppress_events: EventMask::empty(), ..with_room(4000) };
    let (mut one, mut many) = (table(config.clone()), table(config));
    let (mut by_one, mut at_once) = (Events::new(), Events::new());
    packets().for_each(|packet| one.packet(&packet, &mut by_one));
    many.packets(packets(), &mut at_once);
    assert_eq!(by_one, at_once);
    assert!(by_one.len() > 20_000 && many.len() > super::ahead::NEAR);
}

#[test]
fn a_flow_takes_at_most_160_bytes() {
    for most in [100_000, 1_000_000] {
        let table = table(with_room(most));
        assert!(table.slots.bytes() <= 160 * most, "{}", table.slots.bytes() / most);
    }
}

#[test]
fn hostile_times_and_lengths_neither_end_nor_fill_anything() {
    let (mut table, mut events) = (table(with_room(1000)), Events::new());
    let mut state = 1_u64;
    for _ in 0..200_000 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let millis =
            [state >> 52, state >> 32, u64::from(u32::MAX) * 1000, 0][(state >> 20) as usize % 4];
        give(&mut table, millis, &datagram((state >> 40) as u32 % 3000), &mut events);
        events.clear();
    }
    assert!(table.len() <= 1000);
    while table.finish(100, &mut events) {}
    assert_eq!(table.stats().flows_created, table.stats().flows_ended);
}

#[test]
fn a_foreign_extractor_has_the_classes_of_whole_and_of_cut_frames() {
    let mut frame = datagram(0x0a00_0002).to_vec();
    frame[15] = 0xb8;
    let time = Timestamp { secs: 1, nanos: 0 };
    let cut = Packet::from_bytes(&frame[..50], time).with_original_len(frame.len());
    for packet in [Packet::from_bytes(&frame, time), cut] {
        let extractor = flowscope::extract::FiveTuple::bidirectional();
        let mut table = FlowTable::with_config_and_state(extractor, with_room(10), |_| ());
        table.packet(&packet, &mut VecDeque::new());
        let (_, flow) = table.flows().next().expect("there is one");
        assert_eq!((flow.stats.class_initiator, flow.stats.packets_initiator), (0xb8, 1));
    }
}
