//! What flows say, as tshark reads it: DNS, HTTP, TLS; and parsers that go wrong.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use ringtap::executor;
use ringtap::flow::dns::DnsMessage;
use ringtap::flow::extract::{FiveTuple, FiveTupleKey};
use ringtap::flow::http::HttpMessage;
use ringtap::flow::tls::TlsMessage;
use ringtap::flow::{
    AppMessage, EndReason, FlowConfig, FlowExt, FlowExtractor, FlowRecord, FlowSource, Protocols,
    SessionEvent,
};
use ringtap::packet::Tunnels;
use ringtap::pcap::PcapSource;
use ringtap_lab::{pcap, skip};

/// How many messages of each kind there are, and the names that are asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Talk {
    counts: BTreeMap<&'static str, u64>,
    names: Vec<String>,
}

async fn talk(
    stream: impl FlowSource + Unpin,
    extractor: impl FlowExtractor<Key = FiveTupleKey> + Unpin,
) -> ringtap::Result<Talk> {
    let mut sessions = stream.flow_stream(extractor).protocol_stream(Protocols::well_known());
    let mut talk = Talk::default();
    while let Some(event) = sessions.next().await {
        let SessionEvent::Application { message, .. } = event? else { continue };
        let kind = match message {
            AppMessage::Dns(DnsMessage::Query(_)) => "dns_queries",
            AppMessage::Dns(DnsMessage::Response(_)) => "dns_responses",
            AppMessage::Http(HttpMessage::Request(_)) => "http_requests",
            AppMessage::Http(HttpMessage::Response(_)) => "http_responses",
            AppMessage::Tls(TlsMessage::ClientHello(hello)) => {
                talk.names.extend(hello.sni);
                "tls_client_hello"
            }
            AppMessage::Tls(TlsMessage::ServerHello(_)) => "tls_server_hello",
            _ => continue,
        };
        *talk.counts.entry(kind).or_default() += 1;
    }
    talk.names.sort_unstable();
    talk.names.dedup();
    Ok(talk)
}

fn offline(path: &Path) -> Option<Talk> {
    let (source, plain) = (PcapSource::open(path).ok()?, FiveTuple::bidirectional());
    executor::block_on(talk(source, plain.tunnels(Tunnels::Innermost))).ok()
}

/// Counts in which we say otherwise than tshark: of which file, what, how many, and why.
const OTHERWISE: &[(&str, &str, u64, &str)] = &[
    ("zeek-tls-hrr.pcap", "tls_server_hello", 2, "the segment of the second is out of order"),
    #[cfg(not(feature = "flow-quic"))]
    ("zeek-quic-curl-8.1.2-dev-http3-www-google-de.pcap", "tls_client_hello", 0, "in QUIC"),
    (
        "zeek-quic-curl-8.1.2-dev-http3-www-google-de.pcap",
        "tls_server_hello",
        0,
        "encrypted in QUIC",
    ),
    ("zeek-mpls-mixed-vlan-mpls.pcap", "http_requests", 1, "in a protocol of F5's"),
    ("arkime-sctp-sctp-www.pcap", "http_requests", 0, "over SCTP"),
    ("arkime-sctp-sctp-www.pcap", "http_responses", 0, "over SCTP"),
    ("zeek-icmp-icmp6.pcap", "dns_responses", 0, "quoted by ICMP"),
    ("zeek-icmp-icmp-destunreach-udp.pcap", "dns_responses", 0, "quoted by ICMP"),
];
#[ringtap_lab::test]
fn messages_are_those_that_tshark_reads() {
    let Some(directory) = pcap::directory() else {
        return skip("no captures beside the repository");
    };
    let oracle = std::fs::read_to_string(directory.join("ORACLE.tsv")).unwrap();
    let header: Vec<&str> = oracle.lines().next().unwrap().split('\t').collect();
    let column = |name: &str| header.iter().position(|column| *column == name).unwrap();
    let kinds = [
        "dns_queries",
        "dns_responses",
        "http_requests",
        "http_responses",
        "tls_client_hello",
        "tls_server_hello",
    ];
    let (mut equal, mut differ) = (0, Vec::new());
    for line in oracle.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let name = columns[column("file")];
        let Some(ours) = offline(&directory.join(name)) else { continue };
        for kind in kinds {
            let own = ours.counts.get(kind).copied().unwrap_or(0);
            let known = OTHERWISE.iter().find(|(of, what, ..)| (*of, *what) == (name, kind));
            let count: u64 = columns[column(kind)].parse().unwrap();
            if let Some((.., expected, why)) = known {
                if own != *expected {
                    differ.push(format!(
                        "{name} {kind}: {own}, not {expected} ({why}), tshark {count}"
                    ));
                }
            } else if own == count {
                equal += usize::from(count > 0);
            } else {
                differ.push(format!("{name} {kind}: {own}, not {count}"));
            }
        }
        let names = columns[column("tls_sni")];
        let is_hidden = name.contains("quic") && !cfg!(feature = "flow-quic");
        let ours = ours.names.join(",");
        match ours == names || is_hidden {
            true => equal += usize::from(!names.is_empty()),
            false => differ.push(format!("{name} tls_sni: {ours}, not {names}")),
        }
    }
    println!("{equal} equal");
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
    assert!(equal >= 70);
}

#[ringtap_lab::test]
fn shards_hear_the_same_messages_as_one_offline() {
    let Some(captures) = crate::replay::captures() else { return };
    let plain = FiveTuple::bidirectional;
    let (mut files, mut messages) = (0, 0);
    for (path, counts) in captures {
        let offline = executor::block_on(talk(PcapSource::open(&path).unwrap(), plain()));
        let Ok(offline) = offline else { continue };
        if offline.counts.is_empty() {
            continue;
        }
        (files, messages) = (files + 1, messages + offline.counts.values().sum::<u64>());
        for &count in counts {
            let hear = move |capture| talk(capture, plain());
            let Some(shards) = crate::replay::onto_shards(&path, count, hear) else { return };
            let mut all = Talk::default();
            for of_shard in shards {
                for (kind, count) in of_shard.counts {
                    *all.counts.entry(kind).or_default() += count;
                }
                all.names.extend(of_shard.names);
            }
            all.names.sort_unstable();
            all.names.dedup();
            assert_eq!(all, offline, "{} {count}", path.display());
        }
    }
    println!("{files} captures, {messages} messages");
    assert!(files >= 25 && messages > 2_500, "{files} captures, {messages} messages");
}

/// The key, the counts and the reason of a record.
type Told = (FiveTupleKey, u64, u64, u64, u64, Option<EndReason>);

fn told(record: &FlowRecord<FiveTupleKey>) -> Told {
    let FlowRecord { key, sent, received, reason, .. } = record;
    (*key, sent.packets, sent.octets, received.packets, received.octets, *reason)
}

/// Records among messages are those that there are without messages, in their order, and nothing of a flow is behind its own.
#[ringtap_lab::test]
fn records_among_messages_are_those_of_all_flows() {
    let Some(directory) = pcap::directory() else {
        return skip("no captures beside the repository");
    };
    let (mut files, mut records, mut messages, mut lines) = (0, 0, 0, 0);
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let flows = || {
            let flows = PcapSource::open(&path).ok()?.flow_stream(FiveTuple::bidirectional());
            let mut config = FlowConfig::default();
            config.active_timeout = Some(Duration::from_secs(5));
            Some(flows.with_config(config))
        };
        let (Some(alone), Some(among)) = (flows(), flows()) else { continue };
        let alone: Vec<_> = executor::block_on(alone.into_records().collect());
        let Ok(alone) = alone.into_iter().collect::<Result<Vec<_>, _>>() else { continue };
        let among = among.protocol_stream(Protocols::well_known()).with_records();
        let among: Vec<_> = executor::block_on(among.map(Result::unwrap).collect());
        let mut over = HashSet::new();
        let mut of_all = Vec::new();
        for event in &among {
            match event {
                SessionEvent::Started { key, .. } => drop(over.remove(key)),
                SessionEvent::Record(record) => {
                    of_all.push(told(record));
                    let line = serde_json::to_value(event).unwrap();
                    let is_its = line["packets_sent"] == record.sent.packets;
                    lines += usize::from(line["type"] == "record" && is_its);
                    if record.reason.is_some() {
                        over.insert(record.key);
                    }
                }
                other => {
                    assert!(!over.contains(other.key()), "{}: {other:?}", path.display());
                    messages += u64::from(matches!(other, SessionEvent::Application { .. }));
                }
            }
        }
        let alone: Vec<_> = alone.iter().map(told).collect();
        assert_eq!(of_all, alone, "{}", path.display());
        (files, records) = (files + 1, records + alone.len());
    }
    println!("{records} records among {messages} messages of {files} files");
    assert_eq!(lines, records, "a record is a line of JSON that says what it is");
    assert!(files > 50 && records > 1000 && messages > 1000);
}
