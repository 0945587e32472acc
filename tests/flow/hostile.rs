//! Connections that never get to an end, and the memory that parsers may hold for them.

use std::net::Ipv4Addr;

use etherparse::PacketBuilder;
use futures_util::StreamExt;
use ringtap::executor;
use ringtap::flow::dns::DnsUdpParser;
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::http::{HttpMessage, HttpParser};
use ringtap::flow::tls::TlsParser;
use ringtap::flow::{
    EndReason, FlowExt, FlowTimestamp, MemoryPolicy, Protocols, ReassemblyConfig, ReassemblyStats,
    SessionEvent, SessionParser,
};
use ringtap::pcap::PcapSource;

use crate::made::quick_file;

/// Bytes that may wait.
const CAP: usize = 256 * 1024;

/// A segment or a datagram of a client of its own to a server's port.
fn said(client: u32, server: u16, seq: u32, payload: &[u8]) -> Vec<u8> {
    let from = Ipv4Addr::from_bits(0x0a00_0000 + client).octets();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from, [192, 0, 2, 1], 64);
    let mut frame = Vec::new();
    match server {
        53 => builder.udp(40_000, server).write(&mut frame, payload).unwrap(),
        _ => builder.tcp(40_000, server, seq, 60_000).ack(1).write(&mut frame, payload).unwrap(),
    }
    frame
}

#[derive(Debug, Default)]
struct Outcome {
    told: Vec<String>,
    overflowed: usize,
    stats: ReassemblyStats,
}

/// Runs all parsers with a cap of memory, which must hold at every event.
fn outcome(source: PcapSource) -> Outcome {
    let protocols = Protocols::new()
        .tcp_ports([80], HttpParser::default(), |message| match message {
            HttpMessage::Request(request) => request.path_str().unwrap().to_owned(),
            other => format!("{other:?}"),
        })
        .tcp_ports([443], TlsParser::default(), |message| format!("{message:?}"))
        .tcp_ports([7], Hoard::default(), |()| String::new())
        .udp_ports([53], DnsUdpParser::default(), |_| "dns".to_owned());
    let config = ReassemblyConfig::new().memory_cap(CAP, MemoryPolicy::GiveUpOldest);
    let flows = source.flow_stream(FiveTuple::bidirectional());
    let mut events = flows.protocol_stream(protocols).with_reassembly(config);
    let mut outcome = Outcome::default();
    executor::block_on(async {
        while let Some(event) = events.next().await {
            match event.unwrap() {
                SessionEvent::Application { message, .. } => outcome.told.push(message),
                SessionEvent::Closed { reason: EndReason::BufferOverflow, .. } => {
                    outcome.overflowed += 1;
                }
                _ => {}
            }
            let held = events.reassembly_stats().held;
            // What the latest packet added is relieved after it.
            assert!(held <= CAP as u64 + 300 * 1024, "{held}");
        }
    });
    outcome.stats = events.reassembly_stats();
    outcome
}

/// Keeps all that it is given and says nothing about it, as parsers that do not know this crate.
#[derive(Debug, Clone, Default)]
struct Hoard(Vec<u8>);

impl SessionParser for Hoard {
    type Message = ();

    fn feed_initiator(&mut self, bytes: &[u8], _: FlowTimestamp, _: &mut Vec<()>) {
        self.0.extend_from_slice(bytes);
    }

    fn feed_responder(&mut self, bytes: &[u8], ts: FlowTimestamp, out: &mut Vec<()>) {
        self.feed_initiator(bytes, ts, out);
    }
}

#[ringtap_lab::test]
fn heads_that_never_end_end_the_flows_that_hold_most_long_and_no_other() {
    let mut frames = Vec::new();
    let head = b"GET /slow HTTP/1.1\r\nX: aaaaaaaaaaaa";
    for (at, byte) in head.iter().enumerate() {
        let byte = std::slice::from_ref(byte);
        frames.extend((0..10_000).map(|client| said(client, 80, 1 + at as u32, byte)));
    }
    // A connection among them that is not slow, in two segments.
    frames.push(said(20_000, 80, 1, b"GET /sound HTTP/1.1\r\nHost: "));
    frames.push(said(20_000, 80, 28, b"a.example\r\n\r\n"));
    let outcome = outcome(quick_file(&frames));
    assert_eq!(outcome.told, ["/sound"]);
    assert!(outcome.overflowed > 1000, "{outcome:?}");
    assert_eq!(outcome.stats.short_of_memory, outcome.overflowed as u64);
    assert_eq!(outcome.stats.held, 0);
    assert!(outcome.stats.high_watermark > CAP as u64 / 2, "{outcome:?}");
}

#[ringtap_lab::test]
fn handshakes_that_never_end_hold_no_more_than_the_cap() {
    let mut frames = Vec::new();
    let start = [22, 3, 1, 0x3f, 0xff, 1, 0, 0xff, 0xff];
    for client in 0..2000 {
        frames.push(said(client, 443, 1, &start));
        frames.push(said(client, 443, 10, &[7; 1000]));
    }
    let outcome = outcome(quick_file(&frames));
    assert!(outcome.told.is_empty() && outcome.overflowed > 1000, "{outcome:?}");
    assert_eq!(outcome.stats.held, 0);
}

#[ringtap_lab::test]
fn queries_that_are_never_answered_hold_no_more_than_the_cap() {
    let mut frames = Vec::new();
    for id in 0..2000_u16 {
        let query =
            [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1]].concat();
        frames.extend((0..10).map(|client| said(client, 53, 0, &query)));
    }
    let outcome = outcome(quick_file(&frames));
    // What is told up to then is not lost.
    assert!(outcome.overflowed > 0 && outcome.told.len() > 5000, "{}", outcome.told.len());
    assert_eq!(outcome.stats.held, 0);
}

#[ringtap_lab::test]
fn parsers_that_say_nothing_of_their_memory_are_assumed_to_keep_what_they_get() {
    let mut frames = Vec::new();
    for (turn, client) in (0..10_u32).flat_map(|turn| (0..100).map(move |client| (turn, client))) {
        frames.push(said(client, 7, 1 + turn * 1000, &[b'a'; 1000]));
    }
    let outcome = outcome(quick_file(&frames));
    assert!((70..100).contains(&outcome.overflowed), "{outcome:?}");
    assert_eq!(outcome.stats.held, 0);
}
