//! Small captures that trackers and parsers read wrongly; each test says the rule.
//!
//! Made up, of documentation addresses. The values were checked with tshark 4.0.17 and libpcap 1.10.3.

use std::path::PathBuf;

use futures_util::StreamExt;
use ringtap::executor;
use ringtap::filter::BpfFilter;
use ringtap::flow::dns::DnsMessage;
use ringtap::flow::extract::{FiveTuple, FiveTupleKey};
use ringtap::flow::http::HttpMessage;
use ringtap::flow::{AppMessage, EndReason, FlowExt, FlowRecord, L4Proto, Protocols, SessionEvent};
use ringtap::packet::Tunnels;
use ringtap::pcap::{CaptureReader, PcapSource};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/flow/cases").join(name)
}

fn innermost() -> FiveTuple {
    FiveTuple::bidirectional().tunnels(Tunnels::Innermost)
}

/// The messages of a file, in short: requests with their method and path, responses with status, length and body.
fn messages(name: &str) -> Vec<String> {
    let flows = PcapSource::open(path(name)).unwrap().flow_stream(innermost());
    let mut events = flows.protocol_stream(Protocols::well_known());
    let mut all = Vec::new();
    executor::block_on(async {
        while let Some(event) = events.next().await {
            match event.unwrap() {
                SessionEvent::Application { message, .. } => all.push(short(&message)),
                SessionEvent::ParserError { fault, .. } => panic!("{name}: {fault}"),
                _ => {}
            }
        }
    });
    all
}

fn short(message: &AppMessage) -> String {
    match message {
        AppMessage::Http(HttpMessage::Request(request)) => {
            format!("{} {}", request.method(), request.path_str().unwrap())
        }
        AppMessage::Http(HttpMessage::Response(response)) => {
            assert!(response.is_complete());
            let body = response.body().escape_ascii();
            format!("{} {} {body}", response.status(), response.body_len())
        }
        AppMessage::Dns(DnsMessage::Query(query)) => {
            assert_eq!(query.fault, None);
            format!("{} {}", query.questions[0].name, query.questions[0].qtype)
        }
        other => panic!("{other:?}"),
    }
}

fn flows(name: &str) -> Vec<FlowRecord<FiveTupleKey>> {
    let source = PcapSource::open(path(name)).unwrap();
    let mut records = source.flow_stream(innermost()).into_records();
    let mut all = Vec::new();
    executor::block_on(async {
        while let Some(record) = records.next().await {
            all.push(record.unwrap());
        }
    });
    all
}

/// RFC 9112 §6.3: where a message ends.
#[ringtap_lab::test]
fn http_messages_end_where_the_rules_say() {
    let cases: [(&str, &[&str]); 5] = [
        ("http-plain.pcap", &["GET /1", "200 2 ok", "GET /2", "200 2 ok"]),
        (
            "http-chunked.pcap",
            &["GET /1", "200 5 hello", "GET /2", "200 5 hello", "GET /3", "200 2 ok"],
        ),
        ("http-100-continue.pcap", &["100 0 ", "POST /p", "200 2 ok", "GET /2", "200 2 ok"]),
        ("http-304.pcap", &["GET /1", "304 0 ", "GET /2", "200 2 ok"]),
        ("http-head.pcap", &["HEAD /1", "200 0 ", "GET /2", "200 2 ok"]),
    ];
    for (name, expected) in cases {
        assert_eq!(messages(name), expected, "{name}");
    }
}

/// RFC 3597: a query of a type that nobody knows is legal.
#[ringtap_lab::test]
fn dns_queries_of_all_types_are_told() {
    let told = messages("dns-query-types.pcap");
    assert_eq!(told.len(), 48);
    for query in told {
        let (name, qtype) = query.split_once(' ').unwrap();
        assert_eq!(name, format!("t{qtype}.example"));
    }
}

/// RFC 9293 §3.6: a FIN closes one direction, and the same FIN again closes nothing.
#[ringtap_lab::test]
fn a_fin_that_is_sent_again_closes_nothing() {
    let [flow] = &flows("tcp-fin-retransmitted.pcap")[..] else { panic!("one flow") };
    assert_eq!((flow.sent.packets, flow.received.packets), (10, 10));
    assert_eq!(flow.reason, Some(EndReason::Fin));
    let source = PcapSource::open(path("tcp-fin-retransmitted.pcap")).unwrap();
    let mut talks = source.flow_stream(innermost()).into_conversations();
    let bytes = executor::block_on(async {
        let mut bytes = 0;
        let mut all = Vec::new();
        while let Some(talk) = talks.next().await {
            all.push(talk.unwrap());
        }
        for mut talk in all {
            while let Some(chunk) = talk.next_chunk().await {
                if let ringtap::flow::FlowChunk::Initiator(of_client) = chunk {
                    bytes += of_client.len();
                }
            }
        }
        bytes
    });
    assert_eq!(bytes, 550);
}

/// Bytes told already are not told again, and the half of a known connection is not a new one.
#[ringtap_lab::test]
fn a_connection_goes_on_after_a_silence() {
    assert_eq!(messages("tcp-retransmit-late.pcap"), ["GET /1"]);
    assert_eq!(flows("tcp-retransmit-late.pcap").len(), 1);
    let [flow] = &flows("tcp-quiet-10min.pcap")[..] else { panic!("one flow") };
    assert_eq!(flow.sent.packets + flow.received.packets, 14);
    assert_eq!(flow.reason, Some(EndReason::Fin));
}

/// Linux's IPv4 BIG TCP: the frame's length counts if the total length is 0.
#[ringtap_lab::test]
fn a_total_length_of_zero_is_that_of_the_frame() {
    assert_eq!(messages("ip-total-length-0.pcap"), ["GET /"]);
    let [flow] = &flows("ip-total-length-0.pcap")[..] else { panic!("one flow") };
    assert_eq!((flow.sent.packets, flow.sent.octets, flow.sent.bytes), (1, 77, 91));
}

/// One HTTP connection and one datagram, behind headers of every kind. Bytes of IP are the same everywhere.
#[ringtap_lab::test]
fn flows_are_the_same_behind_every_header() {
    let cases = [
        ("link-raw-101.pcap", 0),
        ("link-ipv4-228.pcap", 0),
        ("link-loop-108.pcap", 4),
        ("link-ppp-9.pcap", 4),
        ("encap-gre.pcap", 38),
        ("encap-gtpu.pcap", 50),
        ("encap-ipip.pcap", 34),
        ("encap-pppoe.pcap", 22),
        ("encap-vlan3.pcap", 26),
    ];
    for (name, header) in cases {
        let flows = flows(name);
        let [tcp, udp] = &flows[..] else { panic!("{name}: {flows:?}") };
        assert_eq!((tcp.l4, udp.l4), (Some(L4Proto::Tcp), Some(L4Proto::Udp)), "{name}");
        let counts = |flow: &FlowRecord<FiveTupleKey>| {
            (flow.sent.packets, flow.sent.octets, flow.received.packets, flow.received.octets)
        };
        assert_eq!((counts(tcp), counts(udp)), ((6, 276, 4, 200), (1, 58, 0, 0)), "{name}");
        // Short frames of Ethernet are padded.
        let least = if name.starts_with("link") { 0 } else { tcp.sent.bytes };
        let bytes = [(tcp.sent, 6), (tcp.received, 4), (udp.sent, 1)];
        for (direction, packets) in bytes {
            let expected = direction.octets + packets * header;
            assert!(
                direction.bytes == expected || least > 0 && direction.bytes > expected,
                "{name}: {direction:?}"
            );
        }
        assert_eq!(messages(name), ["GET /1", "200 2 ok", "host.example 1"], "{name}");
    }
    let [flow] = &flows("snap-ip.pcap")[..] else { panic!("one flow") };
    assert_eq!((flow.l4, flow.key.either_port(1)), (Some(L4Proto::Udp), true));
}

#[ringtap_lab::test]
fn filters_are_compiled_for_the_links_of_files() {
    for name in ["link-ipv4-228.pcap", "link-loop-108.pcap", "link-ppp-9.pcap", "link-raw-101.pcap"]
    {
        for (text, expected) in [("tcp port 80", 10), ("host 192.0.2.10", 11)] {
            let source = PcapSource::open(path(name)).unwrap().filter(text.parse().unwrap());
            let mut source = source;
            let count: usize = source.batches().map(|batch| batch.unwrap().len()).sum();
            assert_eq!(count, expected, "{name}: {text}");
        }
    }
    for text in ["mpls", "pppoes", "arp", "vlan"] {
        let source = PcapSource::open(path("link-raw-101.pcap")).unwrap();
        let error = source.filter(text.parse().unwrap()).next_batch().unwrap_err();
        assert!(error.to_string().contains("filter"), "{text}: {error}");
    }
}

#[ringtap_lab::test]
fn filters_mean_what_libpcap_says() {
    for (text, same) in [
        ("tcp portrange 80", "tcp port 80"),
        ("tcp portrange ssh-http", "tcp portrange 22-80"),
        ("ip6 host ::1/128", "ip6 host ::1"),
        ("ether host 00.11.22.33.44.55", "ether host 00:11:22:33:44:55"),
        ("ip6 host 2001:db8:1:2:3:4:192.0.2.1", "ip6 host 2001:db8:1:2:3:4:c000:201"),
        ("ip6 net 2001:db8:1:2:3:4:192.0.2.0/120", "ip6 net 2001:db8:1:2:3:4:c000:200/120"),
        ("pppoed", "ether proto 0x8863"),
        ("ip proto \\ip", "ip proto 0"),
        ("carp", "ip proto 112"),
        // Of TCP: whether a port has a name in other protocols too is up to the machine's /etc/services.
        ("tcp port git", "tcp port 9418"),
        ("tcp port rtsp", "tcp port 554"),
    ] {
        use ringtap::filter::FilterTarget::{Offline, Socket};
        let [one, two] = [text, same].map(|text| text.parse::<BpfFilter>().unwrap());
        for target in [Offline, Socket] {
            assert_eq!(one.disassembly(target), two.disassembly(target), "{text}");
        }
    }
}

#[ringtap_lab::test]
fn files_of_odd_versions_and_comments_are_read() {
    let mut reader = CaptureReader::open(path("pcap-543-0.pcap")).unwrap();
    let record = reader.next_record().unwrap().unwrap();
    assert_eq!((record.packet().len(), record.packet().original_len()), (54, 64));
    assert!(reader.next_record().unwrap().is_none());
    // libpcap refuses it, although nothing is different; tshark reads it, and so do we.
    let mut reader = CaptureReader::open(path("pcap-2-5.pcap")).unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().packet().len(), 54);
    let mut reader = CaptureReader::open(path("pcapng-comment-nul.pcapng")).unwrap();
    let mut comments = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        comments.push(record.comments().map(|text| text.into_owned()).collect::<Vec<_>>());
        assert_eq!(
            record.comment().as_deref(),
            comments.last().unwrap().first().map(String::as_str)
        );
    }
    assert_eq!(comments, [vec!["hello".to_owned()], vec!["one".to_owned(), "two".to_owned()]]);
}

/// What `serde` writes of a record is what the writer of NDJSON writes.
#[cfg(feature = "serde")]
#[ringtap_lab::test]
fn records_are_the_same_for_serde() {
    use ringtap::flow::{RecordFormat, RecordWriter};
    for name in ["link-raw-101.pcap", "tcp-retransmit-late.pcap", "encap-gre.pcap"] {
        let records = flows(name);
        let mut writer = RecordWriter::new(Vec::new(), RecordFormat::Ndjson).unwrap();
        records.iter().for_each(|record| writer.write(record).unwrap());
        let text = String::from_utf8(writer.finish().unwrap()).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let values: Vec<serde_json::Value> =
            records.iter().map(|record| serde_json::to_value(record).unwrap()).collect();
        assert_eq!(values, lines, "{name}");
        let key = serde_json::to_value(records[0].key).unwrap();
        assert_eq!((&key["proto"], &key["src_ip"]), (&"tcp".into(), &"192.0.2.10".into()));
    }
}
