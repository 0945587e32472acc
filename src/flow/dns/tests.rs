//! Messages of every kind, whole and cut.

use std::net::Ipv4Addr;
use std::time::Duration;

use flowscope::{DatagramParser, FlowSide, SessionParser, Timestamp};

use super::{DnsConfig, DnsContent, DnsFault, DnsMessage, DnsRdata, DnsTcpParser, DnsUdpParser};
use crate::flow::aside;

fn name(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> =
        labels.flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes
}

fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    [id, flags, counts[0], counts[1], counts[2], counts[3]].map(u16::to_be_bytes).concat()
}

fn query(id: u16, qname: &str, qtype: u16) -> Vec<u8> {
    let question = [name(qname), qtype.to_be_bytes().to_vec(), vec![0, 1]].concat();
    [header(id, 0x0100, [1, 0, 0, 0]), question].concat()
}

/// A record whose owner is the name of the question.
fn record(rtype: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xc0, 12];
    bytes.extend(rtype.to_be_bytes());
    bytes.extend([0, 1, 0, 0, 0, 60]);
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes
}

fn response(id: u16, qname: &str, qtype: u16, records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = query(id, qname, qtype);
    bytes[2..4].copy_from_slice(&[0x81, 0x80]);
    bytes[7] = records.len() as u8;
    [bytes, records.concat()].concat()
}

fn at(secs: u32) -> Timestamp {
    Timestamp::new(1000 + secs, 0)
}

fn udp(parser: &mut DnsUdpParser, bytes: &[u8], ts: Timestamp) -> Vec<DnsMessage> {
    let mut out = Vec::new();
    parser.parse(bytes, FlowSide::Initiator, ts, &mut out);
    out
}

fn content(bytes: &[u8]) -> DnsContent {
    match udp(&mut DnsUdpParser::default(), bytes, at(0)).pop() {
        Some(DnsMessage::Query(content) | DnsMessage::Response(content)) => content,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_query_of_any_type_and_class_is_told() {
    for qtype in [0_u16, 1, 28, 64, 65, 249, 250, 251, 252, 255, 256, 4711, 65535] {
        for class in [0_u16, 1, 3, 254, 255, 4711] {
            let mut bytes = query(7, "t1.example", qtype);
            let len = bytes.len();
            bytes[len - 2..].copy_from_slice(&class.to_be_bytes());
            bytes[3] = 0x70; // the bits Z, AD and CD
            let content = content(&bytes);
            let question = &content.questions[0];
            let (name, fault) = (question.name.as_str(), content.fault);
            assert_eq!((name, question.qtype, question.qclass), ("t1.example", qtype, class));
            assert_eq!((fault, content.flags.0), (None, 0x0170));
        }
    }
    assert_eq!(content(&query(7, "", 2)).questions[0].name, ".");
    let odd = [&[2, b'a', 7][..], &name("B.example")].concat();
    let bytes = [header(1, 0, [1, 0, 0, 0]), odd, vec![0, 1, 0, 1]].concat();
    assert_eq!(content(&bytes).questions[0].name, "a\\007.B.example");
}

#[test]
fn records_have_their_data() {
    let cases: [(u16, Vec<u8>, &str); 12] = [
        (1, vec![192, 0, 2, 1], "192.0.2.1"),
        (28, [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1]].concat(), "2001:db8::1"),
        (5, vec![1, b'c', 0xc0, 12], "c.a.example"),
        (2, name("ns.example"), "ns.example"),
        (12, name("ptr.example"), "ptr.example"),
        (15, [&[0, 5][..], &name("mx.example")].concat(), "5 mx.example"),
        (16, b"\x02hi\x01\"".to_vec(), "\"hi\" \"\\\"\""),
        (33, [&[0, 1, 0, 2, 0, 80][..], &name("s.example")].concat(), "1 2 80 s.example"),
        (6, [name("m.example"), name("r.example"), vec![0; 20]].concat(), "m.example r.example 0"),
        (250, vec![1, 2, 3], "\\# 3 010203"),
        (4711, vec![], "\\# 0"),
        // An address that is not one.
        (1, vec![192, 0, 2], "\\# 3 c00002"),
    ];
    let records: Vec<Vec<u8>> = cases.iter().map(|(rtype, data, _)| record(*rtype, data)).collect();
    let content = content(&response(7, "a.example", 255, &records));
    assert_eq!((content.fault, content.rcode), (None, 0));
    assert_eq!(content.answers.len(), cases.len());
    for (record, (rtype, _, text)) in content.answers.iter().zip(&cases) {
        assert_eq!((record.rtype, record.data.to_string().as_str()), (*rtype, *text));
        assert_eq!((record.name.as_str(), record.ttl, record.rclass), ("a.example", 60, 1));
    }
}

#[test]
fn edns_adds_to_the_header() {
    let mut bytes = query(7, "a.example", 1);
    bytes[11] = 1;
    bytes.extend([0, 0, 41, 4, 0xd0, 1, 0, 0x80, 0, 0, 0]);
    let content = content(&bytes);
    let edns = content.edns.unwrap();
    assert_eq!((edns.udp_size, edns.version, edns.is_dnssec_ok), (1232, 0, true));
    assert_eq!((content.rcode, content.additionals.len(), content.fault), (16, 0, None));
}

#[test]
fn a_cut_message_is_told_as_cut_with_what_came_before() {
    let records = [record(1, &[192, 0, 2, 1]), record(1, &[192, 0, 2, 2])];
    let whole = response(7, "a.example", 1, &records);
    for len in 0..whole.len() {
        let mut parser = DnsUdpParser::default();
        aside::listen();
        let messages = udp(&mut parser, &whole[..len], at(0));
        let mut reasons = Vec::new();
        aside::refused(|reason| reasons.push(reason));
        let Some(DnsMessage::Response(content)) = messages.first() else {
            assert!(len < 12 && reasons.len() == 1, "{len} {messages:?} {reasons:?}");
            continue;
        };
        assert!(len >= 12 && reasons.is_empty(), "{len}");
        assert_eq!((content.transaction_id, content.fault), (7, Some(DnsFault::Cut)), "{len}");
        assert_eq!(content.questions.len(), usize::from(len >= 27), "{len}");
        assert_eq!(content.answers.len(), usize::from(len >= 43), "{len}");
    }
    let whole = content(&whole);
    let addresses: Vec<_> = whole.answers.iter().map(|record| record.data.clone()).collect();
    let address = |last| DnsRdata::A(Ipv4Addr::new(192, 0, 2, last));
    assert_eq!((whole.fault, addresses), (None, vec![address(1), address(2)]));
    // A name that points at itself.
    let bytes = [header(7, 0, [1, 0, 0, 0]), vec![0xc0, 12, 0, 1, 0, 1]].concat();
    assert_eq!(content(&bytes).fault, Some(DnsFault::Malformed));
}

#[test]
fn a_response_finds_its_query() {
    let config = DnsConfig { max_pending: 3, tell_unanswered: true, ..DnsConfig::default() };
    let mut parser = DnsUdpParser::with_config(config);
    let elapsed = |parser: &mut DnsUdpParser, id, secs| {
        let response = response(id, "a.example", 1, &[]);
        let elapsed = answered(parser, FlowSide::Responder, &response, at(secs));
        elapsed.map(|elapsed| elapsed.as_secs())
    };
    for id in 0..4 {
        udp(&mut parser, &query(id, "a.example", 1), at(u32::from(id)));
    }
    udp(&mut parser, &query(3, "a.example", 1), at(9));
    assert_eq!(elapsed(&mut parser, 0, 10), None, "there were more than three");
    assert_eq!(elapsed(&mut parser, 2, 10), Some(8));
    assert_eq!(elapsed(&mut parser, 2, 10), None, "it was answered");
    assert_eq!(elapsed(&mut parser, 3, 10), Some(7), "it was sent again");
    let mut out = Vec::new();
    parser.on_tick(at(32), &mut out);
    assert!(matches!(&out[..], [DnsMessage::Unanswered(query)] if query.transaction_id == 1));
    assert_eq!(elapsed(&mut parser, 1, 33), None);
}

/// The response of the other side to a query.
fn answered(
    parser: &mut DnsUdpParser,
    side: FlowSide,
    bytes: &[u8],
    ts: Timestamp,
) -> Option<Duration> {
    let mut out = Vec::new();
    parser.parse(bytes, side, ts, &mut out);
    let Some(DnsMessage::Response(content)) = out.last() else { panic!("{out:?}") };
    content.elapsed
}

#[test]
fn a_response_is_that_of_the_other_side_to_the_same_question() {
    let mut parser = DnsUdpParser::default();
    udp(&mut parser, &query(7, "a.example", 1), at(0));
    let other = response(7, "b.example", 1, &[]);
    assert_eq!(answered(&mut parser, FlowSide::Responder, &other, at(1)), None);
    let own = response(7, "a.example", 1, &[]);
    assert_eq!(answered(&mut parser, FlowSide::Initiator, &own, at(1)), None);
    let sound = response(7, "A.Example", 1, &[]);
    let elapsed = answered(&mut parser, FlowSide::Responder, &sound, at(2));
    assert_eq!(elapsed, Some(Duration::from_secs(2)));
    // The same number for another question is another query.
    udp(&mut parser, &query(8, "a.example", 1), at(3));
    udp(&mut parser, &query(8, "b.example", 1), at(5));
    let b = response(8, "b.example", 1, &[]);
    let elapsed = answered(&mut parser, FlowSide::Responder, &b, at(6));
    assert_eq!(elapsed, Some(Duration::from_secs(1)));
}

#[test]
fn queries_without_a_response_are_told_when_their_flow_is_over() {
    let config = DnsConfig { tell_unanswered: true, ..DnsConfig::default() };
    let mut parser = DnsUdpParser::with_config(config);
    (1..4).for_each(|id| drop(udp(&mut parser, &query(id, "a.example", 1), at(0))));
    let mut out = Vec::new();
    aside::over(|| parser.on_tick(at(1), &mut out));
    let ids: Vec<u16> = out
        .iter()
        .map(|message| match message {
            DnsMessage::Unanswered(content) => content.transaction_id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((ids, aside::held()), (vec![1, 2, 3], Some(0)));
}

#[test]
fn names_that_blow_a_message_up_are_a_fault() {
    let long: String = std::iter::repeat_n("\u{1}".repeat(60), 4).collect::<Vec<_>>().join(".");
    let mut bytes = response(7, &long, 1, &[]);
    let records: Vec<u8> = (0..5000).flat_map(|_| record(1, &[192, 0, 2, 1])).collect();
    bytes[6..8].copy_from_slice(&5000_u16.to_be_bytes());
    bytes.extend(records);
    let content = content(&bytes[..65_000]);
    assert_eq!(content.fault, Some(DnsFault::TooLong));
    assert!((500..5000).contains(&content.answers.len()), "{}", content.answers.len());
}

#[test]
fn a_gap_takes_the_message_it_is_in_and_no_other() {
    let framed = |bytes: Vec<u8>| [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat();
    let all: Vec<u8> = (1..4).flat_map(|id| framed(query(id, "a.example", 1))).collect();
    let each = all.len() / 3;
    for (from, to, expected) in
        [(each + 3, each + 9, vec![1, 3]), (3, each + 9, vec![]), (each, 2 * each, vec![1, 3])]
    {
        let (mut parser, mut out) = (DnsTcpParser::default(), Vec::new());
        parser.feed_initiator(&all[..from], at(0), &mut out);
        let behind = &all[to..];
        let missing = (to - from) as u64;
        aside::behind_gap(missing, || parser.feed_initiator(behind, at(0), &mut out));
        let ids: Vec<u16> = out
            .iter()
            .filter_map(|message| match message {
                DnsMessage::Query(content) => Some(content.transaction_id),
                _ => None,
            })
            .filter(|id| (1..4).contains(id))
            .collect();
        assert_eq!(ids, expected, "{from}..{to}");
    }
}

#[test]
fn what_waits_is_bounded_and_counted() {
    // A query that is never answered, and many that are.
    let mut parser = DnsUdpParser::default();
    udp(&mut parser, &query(0, "a.example", 1), at(0));
    for id in 1..=u16::MAX {
        udp(&mut parser, &query(id, "a.example", 1), at(0));
        answered(&mut parser, FlowSide::Responder, &response(id, "a.example", 1, &[]), at(0));
    }
    assert!(aside::held().unwrap() < 400 * 1024, "{:?}", aside::held());

    let mut parser = DnsUdpParser::default();
    let mut most = 0;
    for id in 0..=u16::MAX {
        aside::listen();
        udp(&mut parser, &query(id, "a.example", 1), at(0));
        most = most.max(aside::held().unwrap());
    }
    assert!((1024 * 40..1024 * 400).contains(&most), "{most}");
}

#[test]
fn a_stream_gives_the_same_messages_however_it_is_cut() {
    let messages = [
        query(1, "a.example", 1),
        query(2, "b.example", 28),
        response(1, "a.example", 1, &[record(1, &[192, 0, 2, 1])]),
    ];
    let framed = |bytes: &Vec<u8>| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let stream: Vec<u8> = messages.iter().flat_map(framed).collect();
    for most in [1, 2, 3, 5, 40, usize::MAX] {
        let (mut parser, mut out) = (DnsTcpParser::default(), Vec::new());
        stream.chunks(most).for_each(|part| parser.feed_initiator(part, at(0), &mut out));
        parser.fin_initiator(&mut out);
        let [DnsMessage::Query(a), DnsMessage::Query(b), DnsMessage::Response(c)] = &out[..] else {
            panic!("segments of {most}: {out:?}");
        };
        let ids = [a, b, c].map(|content| content.transaction_id);
        assert_eq!((ids, c.elapsed), ([1, 2, 1], None), "segments of {most}");
        assert!(!parser.is_poisoned());
    }
    let (mut parser, mut out) = (DnsTcpParser::default(), Vec::new());
    parser.feed_responder(b"\0\x03abcde", at(0), &mut out);
    assert!(parser.is_poisoned() && out.is_empty());
}
