//! Flows inside tunnels, spread over shards by what is in the tunnel.

use std::collections::{HashMap, HashSet};

use etherparse::PacketBuilder;
use futures_util::StreamExt;
use ringtap::fanout::FanoutMode;
use ringtap::flow::extract::{FiveTuple, FiveTupleKey};
use ringtap::flow::{FlowEvent, FlowExt, FlowSource};
use ringtap::packet::Tunnels;

const SHARDS: usize = 4;
const FLOWS: u8 = 32;

/// A packet of a flow's TCP connection, from an IP header on; the `number`th flow, of one of 32 servers.
fn inner(number: u8, is_v6: bool, is_answer: bool) -> Vec<u8> {
    let (mut from, mut to) = ([10, 1, 0, number], [10, 2, 0, 1]);
    let (mut client, mut server) = (40_000 + u16::from(number) * 7, 443);
    if is_answer {
        std::mem::swap(&mut from, &mut to);
        std::mem::swap(&mut client, &mut server);
    }
    let mut packet = Vec::new();
    let builder = match is_v6 {
        true => PacketBuilder::ipv6(
            [from; 4].concat().try_into().unwrap(),
            [to; 4].concat().try_into().unwrap(),
            64,
        ),
        false => PacketBuilder::ipv4(from, to, 64),
    };
    builder.tcp(client, server, 1, 1000).write(&mut packet, b"data").unwrap();
    packet
}

fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &kind.to_be_bytes(), payload].concat()
}

/// An IP packet between the ends of the tunnel.
fn outer(protocol: u8, payload: &[u8], is_answer: bool) -> Vec<u8> {
    let (mut from, mut to) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    if is_answer {
        std::mem::swap(&mut from, &mut to);
    }
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(from, to, 64);
    builder.write(&mut packet, protocol.into(), payload).unwrap();
    packet
}

/// In UDP. The port of the sender differs with each direction, as in VXLAN.
fn udp(port: u16, payload: &[u8], is_answer: bool) -> Vec<u8> {
    let mut packet = Vec::new();
    let (mut from, mut to) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    if is_answer {
        std::mem::swap(&mut from, &mut to);
    }
    let source = 50_000 + 321 * u16::from(is_answer);
    PacketBuilder::ipv4(from, to, 64).udp(source, port).write(&mut packet, payload).unwrap();
    packet
}

/// How a packet gets into a frame.
type Wrap = fn(&[u8], bool) -> Vec<u8>;

fn kind_of(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 }
}

fn with(header: &[u8], packet: &[u8]) -> Vec<u8> {
    [header, packet].concat()
}

/// The ways in which a flow may be wrapped, by name.
const WRAPS: [(&str, Wrap); 14] = [
    ("plain", |packet, _| ethernet(kind_of(packet), packet)),
    ("one tag", |packet, _| {
        ethernet(0x8100, &with(&[&[0, 7][..], &kind_of(packet).to_be_bytes()].concat(), packet))
    }),
    ("two tags", |packet, _| {
        let tags = [&[0, 7, 0x81, 0, 0, 8][..], &kind_of(packet).to_be_bytes()].concat();
        ethernet(0x88a8, &with(&tags, packet))
    }),
    ("VXLAN", |packet, is_answer| {
        let frame = ethernet(kind_of(packet), packet);
        ethernet(0x0800, &udp(4789, &with(&[8, 0, 0, 0, 0, 1, 2, 0], &frame), is_answer))
    }),
    ("VXLAN, a tag in it", |packet, is_answer| {
        let tag = [&[0, 7][..], &kind_of(packet).to_be_bytes()].concat();
        let frame = ethernet(0x8100, &with(&tag, packet));
        ethernet(0x0800, &udp(8472, &with(&[8, 0, 0, 0, 0, 1, 2, 0], &frame), is_answer))
    }),
    ("Geneve with an option", |packet, is_answer| {
        let header = [1, 0, 0x65, 0x58, 0, 0, 7, 0, 9, 9, 9, 9];
        let frame = ethernet(kind_of(packet), packet);
        ethernet(0x0800, &udp(6081, &with(&header, &frame), is_answer))
    }),
    ("GTP-U", |packet, is_answer| {
        ethernet(0x0800, &udp(2152, &with(&[0x30, 255, 0, 0, 0, 0, 0, 5], packet), is_answer))
    }),
    ("GTP-U with a sequence number", |packet, is_answer| {
        let header = [0x32, 255, 0, 0, 0, 0, 0, 5, 0, 9, 7, 0];
        ethernet(0x0800, &udp(2152, &with(&header, packet), is_answer))
    }),
    ("GTP-U with an extension header", |packet, is_answer| {
        let header = [0x34, 255, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0x85, 1, 0, 0, 0];
        ethernet(0x0800, &udp(2152, &with(&header, packet), is_answer))
    }),
    ("GRE with a key", |packet, is_answer| {
        let kind = kind_of(packet).to_be_bytes();
        let header = [&[0x20, 0][..], &kind, &[0, 0, 0, 4]].concat();
        ethernet(0x0800, &outer(47, &with(&header, packet), is_answer))
    }),
    ("GRE of frames", |packet, is_answer| {
        let frame = ethernet(kind_of(packet), packet);
        ethernet(0x0800, &outer(47, &with(&[0, 0, 0x65, 0x58], &frame), is_answer))
    }),
    ("ERSPAN", |packet, is_answer| {
        let header = [0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 0, 0, 3, 0, 0, 0, 0];
        let frame = ethernet(kind_of(packet), packet);
        ethernet(0x0800, &outer(47, &with(&header, &frame), is_answer))
    }),
    ("IP in IP", |packet, is_answer| {
        let protocol = if kind_of(packet) == 0x86dd { 41 } else { 4 };
        ethernet(0x0800, &outer(protocol, packet, is_answer))
    }),
    ("IP in IPv6", |packet, is_answer| {
        let protocol = if kind_of(packet) == 0x86dd { 41 } else { 4 };
        let (mut from, mut to) = ([1; 16], [2; 16]);
        if is_answer {
            std::mem::swap(&mut from, &mut to);
        }
        let mut tunnel = Vec::new();
        let builder = PacketBuilder::ipv6(from, to, 64);
        builder.write(&mut tunnel, protocol.into(), packet).unwrap();
        ethernet(0x86dd, &tunnel)
    }),
];

fn frames(wrap: Wrap) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for is_answer in [false, true] {
        for is_v6 in [false, true] {
            frames.extend((0..FLOWS).map(|flow| wrap(&inner(flow, is_v6, is_answer), is_answer)));
        }
    }
    frames
}

/// The number of packets of each flow in the tunnels.
async fn counted(stream: impl FlowSource + Unpin) -> ringtap::Result<HashMap<FiveTupleKey, u64>> {
    let extractor = FiveTuple::bidirectional().tunnels(Tunnels::Innermost);
    let mut flows = stream.flow_stream(extractor);
    let mut counts = HashMap::new();
    while let Some(event) = flows.next().await {
        if let FlowEvent::Ended { key, stats, .. } = event? {
            *counts.entry(key).or_default() += stats.packets_initiator + stats.packets_responder;
        }
    }
    Ok(counts)
}

/// Counts the packets of each flow on each shard.
fn onto_shards(wrap: Wrap, of: (FanoutMode, bool)) -> Option<Vec<HashMap<FiveTupleKey, u64>>> {
    crate::replay::frames_onto_shards(&frames(wrap), SHARDS, of, counted)
}

#[ringtap_lab::test]
fn both_directions_of_a_flow_in_a_tunnel_are_on_one_shard() {
    for (is_sent, (name, wrap)) in [false, true].into_iter().flat_map(|is| WRAPS.map(|w| (is, w))) {
        let Some(shards) = onto_shards(wrap, (FanoutMode::inner_hash(), is_sent)) else { return };
        let mut all = HashSet::new();
        for (key, packets) in shards.iter().flatten() {
            assert_eq!(*packets, 2, "{name}, {is_sent}: {key}");
            assert!(all.insert(*key), "{name}, {is_sent}: {key} is on two shards");
        }
        assert_eq!(all.len(), 2 * usize::from(FLOWS), "{name}, {is_sent}");
        let sizes: Vec<_> = shards.iter().map(HashMap::len).collect();
        assert!(sizes.iter().all(|&size| size >= 4), "{name}, {is_sent}: {sizes:?}");
    }

    // The control: the kernel's hash takes a tunnel of GTP-U for one flow, which is on one shard, or on two if the ports of
    // its ends differ with the direction.
    let (_, wrap) = WRAPS[6];
    let Some(shards) = onto_shards(wrap, (FanoutMode::Hash, false)) else { return };
    assert!(shards.iter().filter(|flows| !flows.is_empty()).count() <= 2);
}
