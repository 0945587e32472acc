//! Headers of any bytes, and tables at any times.

use std::collections::{HashMap, VecDeque};
use std::io::Cursor;

use ringtap::Packet;
use ringtap::flow::extract::{FiveTuple, FiveTupleKey};
use ringtap::flow::{EventMask, FlowConfig, FlowEvent, FlowTable};
use ringtap::packet::{LinkType, Timestamp, Tunnels};
use ringtap::pcap::{CaptureReader, CaptureWriter, FileFormat, FileInterface};

const LINKS: [u16; 17] = [0, 1, 9, 12, 14, 50, 51, 101, 104, 108, 113, 228, 229, 276, 10, 127, 147];
const TUNNELS: [Tunnels; 3] = [Tunnels::Outer, Tunnels::Inner, Tunnels::Innermost];

/// Headers are read or not; what is read lies where it says, and deeper layers within the outer ones.
pub fn layers(bytes: &[u8]) {
    let [link, cut, bytes @ ..] = bytes else { return };
    let link = LinkType(LINKS[usize::from(*link) % LINKS.len()]);
    let interface = FileInterface::new(link);
    let writer = CaptureWriter::builder().format(FileFormat::PcapNanos).interface(interface);
    let mut writer = writer.to(Vec::new()).expect("a Vec takes all");
    let packet = Packet::from_bytes(bytes, Timestamp::default());
    let packet = packet.with_original_len(bytes.len() + usize::from(*cut));
    writer.write(&packet).expect("a Vec takes all");
    let file = writer.finish().expect("a Vec takes all");
    let mut reader = CaptureReader::from_reader(Cursor::new(file)).expect("of our own writer");
    let record = reader.next_record().expect("of our own writer").expect("there is one");
    let packet = record.packet();
    let found = TUNNELS.map(|tunnels| packet.layers(tunnels));
    assert!(found.iter().all(|layers| layers.is_some() == found[0].is_some()));
    let mut outer = 0;
    for layers in found.iter().flatten() {
        let (network, transport) = (layers.network_offset(), layers.transport_offset());
        assert!(outer <= network && network < bytes.len().max(1) && network <= transport);
        assert!(
            transport <= layers.payload().start && layers.payload().start <= layers.payload().end
        );
        assert!(layers.payload().end <= packet.original_len());
        assert!(layers.ip_len() <= packet.original_len());
        if let Some((source, destination)) = layers.ports() {
            let at =
                |at: usize| bytes.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
            assert_eq!((at(transport), at(transport + 2)), (Some(source), Some(destination)));
        }
        outer = network;
    }
}

/// Whatever the times, each flow that begins ends once, its packets are those that came, and no table is fuller than
/// it may be.
pub fn flow_table(bytes: &[u8]) {
    let [options, bytes @ ..] = bytes else { return };
    let mut config = FlowConfig::default();
    config.max_flows = 1 + usize::from(options & 15);
    if options & 16 != 0 {
        config.active_timeout = Some(std::time::Duration::from_secs(1));
    }
    config.suppress_events = EventMask::PACKET;
    let mut table = FlowTable::with_config_and_state(FiveTuple::bidirectional(), config, |_| ());
    let mut open: HashMap<FiveTupleKey, u64> = HashMap::new();
    let mut events = VecDeque::new();
    let (mut sent, mut told, mut now) = (0, 0, 1_700_000_000_000_000_000_u64);
    for step in bytes.chunks_exact(4) {
        let [time, flags, ends, seq] = *step else { return };
        let jump = 1_u64 << (time >> 2);
        now = match time & 3 {
            0 => now.saturating_sub(jump % (1 << 62)),
            1 => u64::from(time) << 56,
            _ => now.saturating_add(jump % (1 << 62)),
        };
        if ends & 0xc0 == 0xc0 {
            table.advance(now, usize::from(seq), &mut events);
        } else {
            sent += 1;
            let frame = segment(flags, ends, seq);
            table.packet(&Packet::from_bytes(&frame, Timestamp::from_nanos(now)), &mut events);
        }
        told += follow(&mut open, &mut events);
        assert!(open.len() == table.len() && table.len() <= 1 + usize::from(options & 15));
    }
    while table.finish(2, &mut events) {}
    told += follow(&mut open, &mut events);
    assert!(open.is_empty() && table.is_empty());
    let stats = table.stats();
    assert_eq!(stats.flows_created, stats.flows_ended);
    assert_eq!(told + stats.packets_unmatched + table.late_packets(), sent);
}

fn follow(
    open: &mut HashMap<FiveTupleKey, u64>,
    events: &mut VecDeque<FlowEvent<FiveTupleKey>>,
) -> u64 {
    let mut told = 0;
    for event in events.drain(..) {
        match event {
            FlowEvent::Started { key, .. } => assert!(open.insert(key, 0).is_none()),
            FlowEvent::Ended { key, stats, .. } => {
                assert!(open.remove(&key).is_some_and(|before| before <= stats.total_packets()));
                told += stats.total_packets();
            }
            FlowEvent::Report { key, stats, .. } => {
                let before = open.insert(key, stats.total_packets());
                assert!(before.is_some_and(|before| before <= stats.total_packets()));
            }
            other => assert!(open.contains_key(other.key())),
        }
    }
    told
}

fn segment(flags: u8, ends: u8, seq: u8) -> [u8; 54] {
    let mut frame = [0; 54];
    let host = ends & 0x1f;
    (frame[12], frame[14], frame[17], frame[23]) = (8, 0x45, 40, 6);
    let ends = if ends & 0x20 == 0 { [host, 200] } else { [200, host] };
    (frame[29], frame[33], frame[35], frame[37]) = (ends[0], ends[1], ends[0], ends[1]);
    (frame[40], frame[41], frame[46], frame[47]) = (seq, 0, 0x50, flags);
    frame
}
