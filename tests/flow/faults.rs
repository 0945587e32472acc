//! Flows of packets that are cut, fragmented or malformed, and parsers that fail.

use std::collections::{HashMap, VecDeque};
use std::io::Cursor;
use std::time::Duration;

use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder,
    UdpHeader, ip_number,
};
use futures_util::StreamExt;
use ringtap::flow::dns::{DnsMessage, DnsUdpParser};
use ringtap::flow::extract::{AutoDetectEncap, FiveTuple, FiveTupleKey, InnerGtpU, InnerVxlan};
use ringtap::flow::icmp::IcmpParser;
use ringtap::flow::{
    DatagramParser, EndReason, FlowEvent, FlowExt, FlowExtractor, FlowSide, FlowTable,
    FlowTimestamp, MemoryPolicy, Overlap, ParserFault, ParserKind, Protocols, ReassemblyConfig,
    SessionEvent, SessionParser,
};
use ringtap::packet::Timestamp;
use ringtap::pcap::{CaptureWriter, PcapSource};
use ringtap::{AsyncCapture, Capture, Packet, executor, time};
use ringtap_lab::{Generator, Traffic, namespace, pcap, skip};

use crate::made::{self, quick_file as file};

/// A segment that acknowledges nothing new.
fn tcp(client: u16, from_client: bool, flags: &str, seq: u32, payload: &[u8]) -> Vec<u8> {
    made::tcp(client, from_client, flags, seq, 1, payload)
}

/// Says each byte it is fed; some make it go wrong.
#[derive(Debug, Default, Clone)]
struct Brittle {
    is_poisoned: bool,
    is_done: bool,
}

impl SessionParser for Brittle {
    type Message = u8;

    fn feed_initiator(&mut self, bytes: &[u8], _: FlowTimestamp, out: &mut Vec<u8>) {
        for byte in bytes {
            match byte {
                b'!' => panic!("deliberate"),
                b'?' => self.is_poisoned = true,
                b'.' => self.is_done = true,
                byte => out.push(*byte),
            }
        }
    }

    fn feed_responder(&mut self, bytes: &[u8], ts: FlowTimestamp, out: &mut Vec<u8>) {
        self.feed_initiator(bytes, ts, out);
    }

    fn is_poisoned(&self) -> bool {
        self.is_poisoned
    }

    fn poison_reason(&self) -> Option<&str> {
        Some("a question")
    }

    fn is_done(&self) -> bool {
        self.is_done
    }

    fn parser_kind(&self) -> ParserKind {
        ParserKind::Other("brittle")
    }
}

#[ringtap_lab::test]
fn a_parser_that_goes_wrong_ends_its_own_flow_and_no_other() {
    let say = |client, seq, bytes: &[u8]| tcp(client, true, "A", seq, bytes);
    let frames = [
        say(1, 100, b"a"),
        say(2, 100, b"a"),
        say(3, 100, b"a"),
        say(4, 100, b"a"),
        say(1, 101, b"b!c"),
        say(2, 101, b"b?c"),
        say(3, 101, b"b.c"),
        say(1, 104, b"unheard"),
        say(2, 104, b"unheard"),
        say(3, 104, b"unheard"),
        say(4, 101, b"b"),
    ];
    let flows = file(&frames).flow_stream(FiveTuple::bidirectional());
    let mut told: HashMap<u16, Vec<String>> = HashMap::new();
    executor::block_on(async {
        let mut sessions = flows.session_stream(Brittle::default());
        while let Some(event) = sessions.next().await {
            let event = event.unwrap();
            let text = match &event {
                SessionEvent::Started { .. } => "started".to_owned(),
                SessionEvent::Application { message, .. } => char::from(*message).to_string(),
                SessionEvent::ParserError { fault, .. } => {
                    assert!(matches!(fault, ParserFault::Panicked(_) | ParserFault::Poisoned(_)));
                    fault.to_string()
                }
                SessionEvent::Closed { reason, .. } => reason.to_string(),
                other => panic!("{other:?}"),
            };
            told.entry(event.key().a().port()).or_default().push(text);
        }
    });
    let panicked = "the parser has panicked: deliberate";
    let poisoned = "the parser can no longer follow the stream: a question";
    assert_eq!(told[&1], ["started", "a", "b", panicked, "parse_error"]);
    assert_eq!(told[&2], ["started", "a", "b", "c", poisoned, "parse_error"]);
    assert_eq!(told[&3], ["started", "a", "b", "c", "parser_done"]);
    assert_eq!(told[&4], ["started", "a", "b", "idle"]);
}

/// Says how long datagrams are.
#[derive(Debug, Default, Clone)]
struct Lengths;

impl DatagramParser for Lengths {
    type Message = usize;

    fn parse(&mut self, bytes: &[u8], _: FlowSide, _: FlowTimestamp, out: &mut Vec<usize>) {
        assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == at as u8));
        out.push(bytes.len());
    }
}

/// Datagrams of so many bytes, of IPv4 or behind extensions of IPv6, in fragments.
fn fragments(is_v6: bool, id: u32, len: usize, size: usize) -> Vec<Vec<u8>> {
    let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
    let mut datagram = Vec::new();
    UdpHeader::without_ipv4_checksum(7, 9, len).unwrap().write(&mut datagram).unwrap();
    datagram.extend(payload);
    let last = datagram.len().div_ceil(size) - 1;
    let pieces = datagram.chunks(size).enumerate();
    let frames = pieces.map(|(number, piece)| {
        let at = IpFragOffset::try_new((number * size / 8) as u16).unwrap();
        let mut frame = Vec::new();
        let ether_type = if is_v6 { EtherType::IPV6 } else { EtherType::IPV4 };
        let ethernet = Ethernet2Header { source: [2; 6], destination: [4; 6], ether_type };
        ethernet.write(&mut frame).unwrap();
        if is_v6 {
            // Hop by hop, then the fragment.
            let header = Ipv6Header {
                payload_length: (piece.len() + 16) as u16,
                next_header: ip_number::IPV6_HOP_BY_HOP,
                hop_limit: 9,
                source: [1; 16],
                destination: [2; 16],
                ..Ipv6Header::default()
            };
            header.write(&mut frame).unwrap();
            frame.extend([44, 0, 1, 4, 0, 0, 0, 0]);
            // The place, and whether there are more, in one number.
            let place = (number * size) as u16 | u16::from(number < last);
            frame.extend([17, 0]);
            frame.extend(place.to_be_bytes());
            frame.extend(id.to_be_bytes());
        } else {
            let ip = [10, 0, 0, 1];
            let mut header =
                Ipv4Header::new(piece.len() as u16, 9, IpNumber::UDP, ip, [10, 0, 0, 2]).unwrap();
            (header.identification, header.fragment_offset) = (id as u16, at);
            header.more_fragments = number < last;
            header.header_checksum = header.calc_header_checksum();
            header.write(&mut frame).unwrap();
        }
        frame.extend(piece);
        frame
    });
    frames.collect()
}

fn lengths(frames: &[Vec<u8>]) -> Vec<usize> {
    let flows = file(frames).flow_stream(FiveTuple::bidirectional());
    let sessions = flows.datagram_stream(Lengths);
    let messages = sessions.filter_map(async |event| match event.unwrap() {
        SessionEvent::Application { message, .. } => Some(message),
        SessionEvent::ParserError { fault, .. } => panic!("{fault}"),
        _ => None,
    });
    executor::block_on(std::pin::pin!(messages).collect())
}

#[ringtap_lab::test]
fn datagrams_in_fragments_are_heard_whole_in_any_order() {
    for is_v6 in [false, true] {
        let mut frames = fragments(is_v6, 1, 3000, 1000);
        assert_eq!(lengths(&frames), [3000]);
        frames.reverse();
        assert_eq!(lengths(&frames), [3000]);
        // Each twice, two datagrams at once; one of them is not whole.
        let mut more = frames.clone();
        more.extend(frames.iter().cloned());
        more.extend(fragments(is_v6, 2, 5000, 800));
        more.extend(fragments(is_v6, 3, 5000, 800).into_iter().skip(1));
        assert_eq!(lengths(&more), [3000, 3000, 5000]);
        // A fragment that contradicts another one at the same offset spoils the datagram.
        let mut forged = fragments(is_v6, 4, 3000, 1000);
        let mut other = forged[1].clone();
        *other.last_mut().unwrap() ^= 1;
        forged.insert(2, other);
        assert_eq!(lengths(&forged), [0; 0]);
    }
}

#[ringtap_lab::test]
fn a_spray_of_fragments_is_bounded_and_counted() {
    let mut table = FlowTable::new(FiveTuple::bidirectional());
    let mut events = VecDeque::new();
    for id in 0..16_384_u32 {
        let frame = &fragments(true, id, 1400, 1000)[0];
        let time = Timestamp { secs: 1_700_000_000, nanos: id * 1000 };
        table.packet(&Packet::from_bytes(frame, time), &mut events);
    }
    let stats = table.fragment_stats();
    assert_eq!((stats.fragments, stats.datagrams, stats.bad), (16_384, 0, 0));
    // Four mebibytes of them wait, in 1.3 KiB each.
    assert!((10_000..16_384 - 2_000).contains(&stats.given_up), "{stats:?}");
    assert!(events.is_empty());
    let Some(directory) = pcap::directory() else {
        return skip("no captures beside the repository");
    };
    let path = directory.join("suricata-verify-malformed-defrag-af-confusion-spray-h8.pcap");
    let mut source = PcapSource::open(path).unwrap();
    let mut table = FlowTable::new(FiveTuple::bidirectional());
    let mut packets = 0;
    while let Some(batch) = source.next_batch().unwrap() {
        for packet in &batch {
            packets += 1;
            table.packet(&packet, &mut events);
        }
    }
    let stats = table.fragment_stats();
    println!("{packets} packets: {stats:?}, {} flows", table.stats().flows_created);
    assert!(stats.fragments > 4_000 && stats.fragments <= packets);
}

#[ringtap_lab::test]
fn cut_frames_have_flows_and_what_was_cut_off_is_a_gap() {
    let whole = [
        tcp(1, true, "A", 100, b"abcdefghij"),
        tcp(1, true, "A", 110, b"klmnopqrst"),
        tcp(1, true, "A", 120, b"uv"),
    ];
    let mut writer = CaptureWriter::builder().to(Vec::new()).unwrap();
    for frame in &whole {
        let packet = Packet::from_bytes(&frame[..frame.len().min(58)], Timestamp::default());
        writer.write(&packet.with_original_len(frame.len())).unwrap();
    }
    let source = PcapSource::from_reader(Cursor::new(writer.finish().unwrap())).unwrap();
    let mut told = String::new();
    executor::block_on(async {
        let flows = source.flow_stream(FiveTuple::bidirectional());
        let mut sessions = flows.session_stream(Brittle::default());
        while let Some(event) = sessions.next().await {
            match event.unwrap() {
                SessionEvent::Application { message, .. } => told.push(message.into()),
                SessionEvent::Gap { bytes, .. } => told.push_str(&format!("[{bytes}]")),
                SessionEvent::Closed { stats, .. } => {
                    assert_eq!(stats.packets_initiator, 3);
                    assert_eq!(stats.bytes_initiator, 3 * 54 + 22);
                }
                _ => {}
            }
        }
    });
    assert_eq!(told, "abcd[6]klmn[6]uv");
}

/// Frames of GTP-U with each combination of flags, however short.
#[ringtap_lab::test]
fn short_headers_of_tunnels_are_of_no_flow() {
    let gtp = InnerGtpU::new(FiveTuple::bidirectional());
    let auto = AutoDetectEncap::new(FiveTuple::bidirectional());
    let vxlan = InnerVxlan::new(FiveTuple::bidirectional());
    for len in 0..40_usize {
        for first in 0..=255_u8 {
            let mut payload = vec![first; len];
            payload.resize(len, 0);
            for port in [2152, 4789] {
                let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
                let mut frame = Vec::new();
                let udp = builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(port, port);
                udp.write(&mut frame, &payload).unwrap();
                let view = || ringtap::flow::PacketView::new(&frame, FlowTimestamp::default());
                let _ = (gtp.extract(view()), auto.extract(view()), vxlan.extract(view()));
            }
        }
    }
}

#[ringtap_lab::test]
fn memory_for_all_is_bounded_by_each_policy() {
    // Of each of a hundred connections, all but the first segment.
    let frames: Vec<Vec<u8>> = (0..100)
        .flat_map(|of| {
            let first = std::iter::once(tcp(1000 + of, true, "S", 99, &[]));
            first.chain(
                (1..20_u32).map(move |n| tcp(1000 + of, true, "A", 100 + 500 * n, &[b'x'; 500])),
            )
        })
        .collect();
    for policy in [MemoryPolicy::GiveUpOldest, MemoryPolicy::PassThrough, MemoryPolicy::EndFlow] {
        let flows = file(&frames).flow_stream(FiveTuple::bidirectional());
        let config = ReassemblyConfig::new().memory_cap(50_000, policy).overlap(Overlap::Last);
        let mut sessions = flows.session_stream(Brittle::default()).with_reassembly(config);
        let (mut said, mut overflowed) = (0, 0);
        executor::block_on(async {
            while let Some(event) = sessions.next().await {
                match event.unwrap() {
                    SessionEvent::Application { .. } => said += 1,
                    SessionEvent::Closed { reason: EndReason::BufferOverflow, .. } => {
                        overflowed += 1;
                    }
                    _ => {}
                }
                // One segment may be too much before room is made.
                assert!(sessions.reassembly_stats().held <= 50_000 + 564);
            }
        });
        let stats = sessions.reassembly_stats();
        assert!(stats.short_of_memory > 0 && stats.held == 0 && stats.high_watermark <= 50_564);
        match policy {
            MemoryPolicy::EndFlow => assert!(overflowed > 90 && said < 100 * 19 * 500),
            _ => assert_eq!((overflowed, said, stats.bytes), (0, 950_000, 950_000)),
        }
    }
}

#[ringtap_lab::test]
fn messages_of_icmp_and_of_dns_are_told_apart() {
    let dns = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x03org\0\0\x01\0\x01";
    let builder = || PacketBuilder::ethernet2([2; 6], [4; 6]);
    let (mut query, mut ping, mut ping6) = (Vec::new(), Vec::new(), Vec::new());
    let v4 = builder().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    v4.udp(4000, 53).write(&mut query, dns).unwrap();
    let v4 = builder().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    v4.icmpv4_echo_request(1, 2).write(&mut ping, b"ping").unwrap();
    builder()
        .ipv6([1; 16], [2; 16], 64)
        .icmpv6_echo_request(1, 2)
        .write(&mut ping6, b"ping")
        .unwrap();
    let frames = [query, ping, ping6];
    let count = |protocols: Protocols<FiveTupleKey, &'static str>| {
        let flows = file(&frames).flow_stream(FiveTuple::bidirectional());
        let messages =
            flows.protocol_stream(protocols).filter_map(async |event| match event.unwrap() {
                SessionEvent::Application { message, .. } => Some(message),
                _ => None,
            });
        executor::block_on(std::pin::pin!(messages).collect::<Vec<_>>())
    };
    let both = Protocols::new()
        .udp_ports([53], DnsUdpParser::default(), |_| "dns")
        .icmp(IcmpParser::default(), |_| "icmp");
    assert_eq!(count(both), ["dns", "icmp", "icmp"]);
    let is_dns = |_, bytes: &[u8]| bytes.starts_with(b"\x12\x34");
    let by_bytes = Protocols::new().udp_bytes(is_dns, DnsUdpParser::default(), |message| {
        if matches!(message, DnsMessage::Query(_)) { "query" } else { "other" }
    });
    assert_eq!(count(by_bytes), ["query"]);
    let flows = || file(&frames).flow_stream(FiveTuple::bidirectional());
    let all = executor::block_on(flows().datagram_stream(IcmpParser::default()).count());
    assert_eq!(all, 6, "two flows of ICMP begin, say something and end");
}

#[ringtap_lab::test]
fn a_consumer_that_stops_reading_holds_up_its_ring_alone() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    executor::block_on(async {
        let capture = Capture::builder().interface(&veth.right).block_timeout_ms(2);
        let capture = capture.block_size(1 << 16).block_count(4).ignore_outgoing(true);
        let mut capture = AsyncCapture::new(capture.build().unwrap()).unwrap();
        let stop = capture.stop_handle().unwrap();
        let mut sessions =
            capture.flow_stream(FiveTuple::bidirectional()).datagram_stream(AnyLength);
        let traffic = Traffic { flows: 64, ..Traffic::default() };
        // Nobody reads for five seconds, while packets come.
        let mut generator = Generator::new(&veth.left, &traffic);
        for _ in 0..50 {
            generator.flood(400);
            time::sleep(Duration::from_millis(100)).await;
        }
        stop.stop();
        let mut heard = 0;
        while let Some(event) = sessions.next().await {
            heard += u64::from(matches!(event.unwrap(), SessionEvent::Application { .. }));
        }
        let stats = sessions.get_ref().stats().unwrap();
        assert_eq!(heard, stats.delivered);
        assert_eq!(stats.delivered + stats.drops, 20_000);
        assert!(stats.drops > 0, "the ring held all of it");
        assert_eq!(sessions.stats().flows_created, sessions.stats().flows_ended);
    });
}

#[derive(Debug, Default, Clone)]
struct AnyLength;

impl DatagramParser for AnyLength {
    type Message = usize;

    fn parse(&mut self, bytes: &[u8], _: FlowSide, _: FlowTimestamp, out: &mut Vec<usize>) {
        out.push(bytes.len());
    }
}

#[ringtap_lab::test]
fn resets_and_resumed_ports_end_flows_once() {
    let frames = [
        tcp(1, true, "S", 99, &[]),
        tcp(1, false, "SA", 499, &[]),
        tcp(1, true, "A", 100, b"ab"),
        tcp(1, false, "R", 500, b"what a reset carries is not said"),
        tcp(1, true, "S", 7099, &[]),
        tcp(1, true, "A", 7100, b"cd"),
    ];
    let flows = file(&frames).flow_stream(FiveTuple::bidirectional());
    let events = executor::block_on(flows.session_stream(Brittle::default()).collect::<Vec<_>>());
    let text = events.into_iter().map(|event| match event.unwrap() {
        SessionEvent::Started { .. } => "started".to_owned(),
        SessionEvent::Application { message, .. } => char::from(message).to_string(),
        SessionEvent::Closed { reason, .. } => reason.to_string(),
        other => panic!("{other:?}"),
    });
    let text: Vec<String> = text.collect();
    assert_eq!(text, ["started", "a", "b", "rst", "started", "c", "d", "idle"]);
    let mut flows = file(&frames).flow_stream(FiveTuple::bidirectional());
    let mut ended = 0;
    executor::block_on(async {
        while let Some(event) = flows.next().await {
            ended += usize::from(matches!(event.unwrap(), FlowEvent::Ended { .. }));
        }
    });
    assert_eq!(ended, 2);
}
