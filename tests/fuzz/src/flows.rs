//! Flows of any frames at any times.

use std::collections::HashMap;
use std::io::Cursor;

use futures_util::{FutureExt, Stream, StreamExt};
use ringtap::Packet;
use ringtap::flow::dns::{DnsTcpParser, DnsUdpParser};
use ringtap::flow::extract::{AutoDetectEncap, FiveTuple, FiveTupleKey, InnerGtpU, InnerVxlan};
use ringtap::flow::http::HttpParser;
use ringtap::flow::icmp::IcmpParser;
use ringtap::flow::tls::TlsParser;
use ringtap::flow::{
    BacklogPolicy, FlowChunk, FlowConfig, FlowExt, FlowExtractor, FlowSide, FlowTimestamp,
    MemoryPolicy, Overlap, Protocols, ReassemblyConfig, SessionEvent, SessionParser,
};
use ringtap::packet::Timestamp;
use ringtap::pcap::{CaptureWriter, PcapSource};

/// Takes bytes off the front.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// A frame of a kind: some are as they come, most have sound headers around what comes.
fn frame(input: &mut Input<'_>) -> Vec<u8> {
    let (kind, hosts) = (input.byte(), input.byte());
    let len = usize::from(input.byte());
    let ends = [[10, 0, 0, 1 + (hosts & 1)], [10, 0, 0, 2 - (hosts & 1)]];
    let client = 40_000 + u16::from(hosts >> 1 & 3);
    let ports = |server: u16| match hosts & 1 {
        0 => [client.to_be_bytes(), server.to_be_bytes()].concat(),
        _ => [server.to_be_bytes(), client.to_be_bytes()].concat(),
    };
    let ip = |protocol: u8, fragment: [u8; 2], upper: &[u8]| {
        let mut frame = [[2; 6], [4; 6]].concat();
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((20 + upper.len() as u16).to_be_bytes());
        frame.extend([0, hosts, fragment[0], fragment[1], 64, protocol, 0, 0]);
        frame.extend(ends.concat());
        frame.extend(upper);
        frame
    };
    let udp = |server: u16, payload: &[u8]| {
        let len = (8 + payload.len() as u16).to_be_bytes();
        ip(17, [0, 0], &[&ports(server), &len[..], &[0, 0], payload].concat())
    };
    match kind % 8 {
        0 => input.take(len).to_vec(),
        1..=3 => {
            let (flags, seq, ack) = (input.byte(), input.byte(), input.byte());
            let server = [80, 443, 53, 7][usize::from(kind >> 3 & 3)];
            // Near the wrap, so that it happens.
            let number =
                |of: u8| u32::MAX.wrapping_add(u32::from(of)).wrapping_sub(100).to_be_bytes();
            let payload = input.take(len);
            let header = [
                &ports(server)[..],
                &number(seq),
                &number(ack),
                &[0x50, flags, 0xff, 0xff, 0, 0, 0, 0],
            ];
            ip(6, [0, 0], &[&header.concat(), payload].concat())
        }
        4 => udp(53, input.take(len)),
        5 => udp([2152, 4789][usize::from(kind >> 3 & 1)], input.take(len)),
        6 => {
            let (at, more) = (input.byte() & 3, kind >> 3 & 1);
            ip(17, [more << 5, at], input.take(len & !7))
        }
        _ => ip([1, 47, 4, 41][usize::from(kind >> 3 & 3)], [0, 0], input.take(len)),
    }
}

/// The frames of an input, at times that go back and forth, as a file; some are cut.
fn source(input: &mut Input<'_>) -> PcapSource {
    let mut writer = CaptureWriter::builder().to(Vec::new()).expect("a Vec takes all");
    let mut millis = 1_700_000_000_000_i64;
    for _ in 0..300 {
        if input.0.is_empty() {
            break;
        }
        let step = i64::from(input.byte() as i8);
        millis += if step.abs() > 100 { step * 1000 } else { step };
        let time =
            Timestamp { secs: (millis / 1000) as u32, nanos: (millis % 1000 * 1_000_000) as u32 };
        let frame = frame(input);
        let cut = if step == 7 { frame.len().min(60) } else { frame.len() };
        let packet = Packet::from_bytes(&frame[..cut], time).with_original_len(frame.len());
        writer.write(&packet).expect("a Vec takes all");
    }
    let file = writer.finish().expect("a Vec takes all");
    PcapSource::from_reader(Cursor::new(file)).expect("of our own writer")
}

/// Says how much it is fed.
#[derive(Debug, Default, Clone)]
struct Lengths;

impl SessionParser for Lengths {
    type Message = u64;

    fn feed_initiator(&mut self, bytes: &[u8], _: FlowTimestamp, out: &mut Vec<u64>) {
        assert!(!bytes.is_empty());
        out.push(bytes.len() as u64);
    }

    fn feed_responder(&mut self, bytes: &[u8], ts: FlowTimestamp, out: &mut Vec<u64>) {
        self.feed_initiator(bytes, ts, out);
    }
}

fn protocols() -> Protocols<FiveTupleKey, ()> {
    Protocols::new()
        .udp_ports([53], DnsUdpParser::default(), |_| ())
        .tcp_ports([53], DnsTcpParser::default(), |_| ())
        .tcp_ports([443], TlsParser::default(), |_| ())
        .tcp_bytes(|side, _| side == FlowSide::Initiator, HttpParser::default(), |_| ())
        .icmp(IcmpParser::default(), |_| ())
}

/// Whatever comes, each flow that begins ends once, each byte that is passed on is told, and nothing is held at the end.
pub fn flow_frames(bytes: &[u8]) {
    let mut input = Input(bytes);
    match input.byte() % 3 {
        0 => check(&mut input, AutoDetectEncap::new(FiveTuple::bidirectional())),
        1 => check(&mut input, InnerGtpU::new(FiveTuple::bidirectional())),
        _ => check(&mut input, InnerVxlan::new(FiveTuple::bidirectional())),
    }
}

fn check<E: FlowExtractor<Key = FiveTupleKey> + Unpin>(input: &mut Input<'_>, extractor: E) {
    let choice = input.byte();
    let policy = match choice % 3 {
        0 => MemoryPolicy::GiveUpOldest,
        1 => MemoryPolicy::PassThrough,
        _ => MemoryPolicy::EndFlow,
    };
    let overlap = if choice & 0x40 == 0 { Overlap::First } else { Overlap::Last };
    let reassembly =
        ReassemblyConfig::new().side_cap(600).memory_cap(1500, policy).overlap(overlap);
    let mut config = FlowConfig::default();
    config.max_flows = 4;
    let flows = source(input).flow_stream(extractor).with_config(config);
    match choice >> 3 & 3 {
        0 => sessions(flows.session_stream(Lengths).with_reassembly(reassembly)),
        1 => {
            let mut sessions = flows.protocol_stream(protocols()).with_reassembly(reassembly);
            let mut open = HashMap::new();
            while let Some(event) = next(&mut sessions) {
                follow(&mut open, &event.expect("of our own writer"));
            }
            assert!(open.is_empty());
        }
        _ => {
            let backlog =
                if choice & 0x80 == 0 { BacklogPolicy::Gap } else { BacklogPolicy::Close };
            let mut talks =
                flows.into_conversations().with_backlog(2000, backlog).with_reassembly(reassembly);
            let mut all = Vec::new();
            while let Some(talk) = next(&mut talks) {
                all.push(talk.expect("of our own writer"));
            }
            for mut talk in all {
                let mut is_closed = false;
                while let Some(chunk) = talk.next_chunk().now_or_never().expect("all is there") {
                    assert!(!is_closed);
                    is_closed = matches!(chunk, FlowChunk::Closed(_));
                }
                assert!(is_closed);
            }
            assert_eq!(talks.reassembly_stats().held, 0);
        }
    }
}

/// Each flow begins once, says things, and ends once.
/// The next item of a stream that waits for nothing, but lets others have their turn now and then.
fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    loop {
        if let Some(next) = stream.next().now_or_never() {
            return next;
        }
    }
}

fn follow<M>(open: &mut HashMap<FiveTupleKey, u64>, event: &SessionEvent<FiveTupleKey, M>) {
    match event {
        SessionEvent::Started { key, .. } => assert!(open.insert(*key, 0).is_none()),
        SessionEvent::Closed { key, .. } => assert!(open.remove(key).is_some()),
        other => assert!(open.contains_key(other.key())),
    }
}

fn sessions<E: FlowExtractor<Key = FiveTupleKey> + Unpin>(
    mut sessions: ringtap::flow::SessionStream<PcapSource, E, (), u64>,
) {
    let (mut open, mut said, mut missing) = (HashMap::new(), 0, 0);
    while let Some(event) = next(&mut sessions) {
        let event = event.expect("of our own writer");
        follow(&mut open, &event);
        match event {
            SessionEvent::Application { message, .. } => said += message,
            SessionEvent::Gap { bytes, .. } => missing += bytes,
            SessionEvent::ParserError { fault, .. } => panic!("{fault}"),
            _ => {}
        }
    }
    assert!(open.is_empty());
    let stats = sessions.reassembly_stats();
    assert_eq!((stats.held, stats.bytes, stats.gap_bytes), (0, said, missing));
    assert!(stats.high_watermark < 1500 + 600);
    assert_eq!(sessions.stats().flows_created, sessions.stats().flows_ended);
}
