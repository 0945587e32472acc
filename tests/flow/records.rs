//! Flows on every core, and records of those that have ended: counted as tshark counts, in formats that others read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ringtap::flow::extract::{FiveTuple, FiveTupleKey};
use ringtap::flow::{
    EndReason, FlowEvent, FlowExt, FlowRecord, KeyFields, L4Proto, Orientation, RecordFormat,
    RecordWriter,
};
use ringtap::pcap::PcapSource;
use ringtap::shard::Cores;
use ringtap::{Capture, Shards, executor};
use ringtap_lab::generator::Sender;
use ringtap_lab::{Generator, Traffic, namespace, pcap, skip, tool};

fn records(path: &Path) -> Vec<FlowRecord<FiveTupleKey>> {
    let flows = PcapSource::open(path).unwrap().flow_stream(FiveTuple::bidirectional());
    let records = flows.into_records().map(Result::unwrap);
    executor::block_on(records.collect())
}

/// Packets and bytes of IP, by Community ID.
type Counts = BTreeMap<String, (u64, u64)>;

/// Those of TCP and UDP, as tshark has them; `None` where it is missing.
fn tsharks(path: &Path) -> Option<Counts> {
    let filter = "(tcp || udp) && !icmp && !icmpv6";
    let path = path.to_str().unwrap();
    let mut arguments = vec!["-r", path, "-2", "-Y", filter, "--enable-protocol", "communityid"];
    arguments.extend(["-T", "fields", "-e", "communityid", "-e", "ip.len", "-e", "ipv6.plen"]);
    let text = tool::run("tshark", &arguments, &[])?;
    let mut counts = Counts::new();
    for line in text.lines() {
        let [id, v4, v6] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let octets: u64 = match (v4.parse::<u64>(), v6.parse::<u64>()) {
            (Ok(octets), _) => octets,
            (_, Ok(octets)) => octets + 40,
            _ => panic!("{line}"),
        };
        let count = counts.entry(id.to_owned()).or_default();
        *count = (count.0 + 1, count.1 + octets);
    }
    Some(counts)
}

#[ringtap_lab::test]
fn records_count_packets_and_bytes_of_ip_as_tshark_does() {
    let Some(directory) = pcap::directory() else {
        return skip("no captures beside the repository");
    };
    let names = [
        "tcpreplay-flows-test.pcap",
        "zeek-flows-wikipedia.pcap",
        "zeek-flows-nmap-vsn.pcap",
        "ipfixprobe-flows-bstats.pcap",
        "pcappp-flows-4KHttpRequests.pcap",
        "pcappp-dns-DnsPackets.pcap",
        "arkime-http-http-wrapped-header.pcap",
        "arkime-ipv6-v6-http.pcap",
        "pcappp-linktype-raw_ip.pcap",
        "zeek-tls-chrome-34-google.pcap",
    ];
    for name in names {
        let path = directory.join(name);
        let mut ours = Counts::new();
        for record in records(&path) {
            if matches!(record.l4, Some(L4Proto::Tcp | L4Proto::Udp)) {
                let count = ours.entry(record.key.community_id().unwrap_or_default()).or_default();
                count.0 += record.sent.packets + record.received.packets;
                count.1 += record.sent.octets + record.received.octets;
                assert!(record.start <= record.end);
            }
        }
        assert!(!ours.is_empty());
        let Some(theirs) = tsharks(&path) else { return };
        assert_eq!(ours, theirs, "{name}");
    }
}

#[ringtap_lab::test]
fn community_ids_of_protocols_without_ports_are_those_of_tshark() {
    const MANY_TYPES: &str = "zeek-icmp-icmp6.pcap";
    let Some(directory) = pcap::directory() else {
        return skip("no captures beside the repository");
    };
    let names = [
        "zeek-icmp-5-pings.pcap",
        "zeek-linktype-linux_dlt_sll2.pcap",
        "pcappp-vlan-VlanPackets.pcap",
        "pcappp-mcast-IgmpPackets.pcap",
        "arkime-mpls-mpls-basic.pcap",
        "arkime-ipv6-v6-http.pcap",
        "tcpreplay-flows-test.pcap",
        // Here, messages of several types between two hosts are one flow, with the Community ID of the first.
        MANY_TYPES,
    ];
    for name in names {
        let path = directory.join(name);
        let arguments = ["-r", path.to_str().unwrap(), "--enable-protocol", "communityid"];
        let fields = ["-Y", "icmp || icmpv6 || !(tcp || udp)", "-T", "fields", "-e", "communityid"];
        let Some(text) = tool::run("tshark", &[&arguments[..], &fields].concat(), &[]) else {
            return;
        };
        let theirs: BTreeSet<_> =
            text.lines().filter(|id| !id.is_empty()).map(str::to_owned).collect();
        let flows = records(&path);
        let flows =
            flows.iter().filter(|record| !matches!(record.l4, Some(L4Proto::Tcp | L4Proto::Udp)));
        let ours: BTreeSet<_> = flows.filter_map(|record| record.key.community_id()).collect();
        assert!(!ours.is_empty());
        match name {
            MANY_TYPES => assert!(ours.is_subset(&theirs), "{name}: {ours:?} {theirs:?}"),
            _ => assert_eq!(ours, theirs, "{name}"),
        }
    }
}

#[ringtap_lab::test]
fn records_are_written_so_that_others_read_them() {
    let Some(directory) = pcap::directory() else {
        return skip("no captures beside the repository");
    };
    let records = records(&directory.join("zeek-flows-wikipedia.pcap"));
    let python = |text: &[u8], script: &str| tool::run("python3", &["-c", script], text);
    let written = |format| {
        let mut writer = RecordWriter::new(Vec::new(), format).unwrap();
        records.iter().for_each(|record| writer.write(record).unwrap());
        assert_eq!(writer.count(), records.len() as u64);
        writer.finish().unwrap()
    };
    let octets: u64 =
        records.iter().map(|record| record.sent.octets + record.received.octets).sum();
    let count = records.len();
    let ndjson = "import json,sys\nrows=[json.loads(l) for l in sys.stdin]\nprint(len(rows), sum(r['octets_sent']+r['octets_received'] for r in rows))";
    let expected = format!("{count} {octets}\n");
    let Some(read) = python(&written(RecordFormat::Ndjson), ndjson) else { return };
    assert_eq!(read, expected);
    let eve = "import json,sys\nrows=[json.loads(l) for l in sys.stdin]\nassert all(r['event_type']=='flow' and r['proto'] in ('TCP','UDP','ICMP','ICMP6') for r in rows)\nprint(len(rows), sum(r['flow']['bytes_toserver']+r['flow']['bytes_toclient'] for r in rows))";
    let Some(read) = python(&written(RecordFormat::Eve), eve) else { return };
    assert_eq!(read, expected);
    let csv = "import csv,sys\nrows=list(csv.DictReader(sys.stdin))\nprint(len(rows), sum(int(r['octets_sent'])+int(r['octets_received']) for r in rows))";
    let Some(read) = python(&written(RecordFormat::Csv), csv) else { return };
    assert_eq!(read, expected);
    let zeek = "import sys\nlines=sys.stdin.read().splitlines()\nnames=[l for l in lines if l.startswith('#fields')][0].split('\\t')[1:]\nrows=[dict(zip(names,l.split('\\t'),strict=True)) for l in lines if not l.startswith('#')]\nprint(len(rows), sum(int(r['orig_ip_bytes'])+int(r['resp_ip_bytes']) for r in rows))";
    let Some(read) = python(&written(RecordFormat::Zeek), zeek) else { return };
    assert_eq!(read, expected);
    // One of them, whole: who asks is the initiator, though his address is the greater.
    let asked = records
        .iter()
        .find(|record| record.initiator == Orientation::Forward && record.key.a().port() == 48649)
        .or_else(|| records.iter().find(|record| record.l4 == Some(L4Proto::Tcp)))
        .unwrap();
    let mut writer = RecordWriter::new(Vec::new(), RecordFormat::Zeek).unwrap();
    writer.write(asked).unwrap();
    let text = String::from_utf8(writer.finish().unwrap()).unwrap();
    let line: Vec<&str> = text.lines().last().unwrap().split('\t').collect();
    assert_eq!((line[2], line[5], line[6]), ("141.142.220.118", "80", "tcp"), "{text}");
    assert!(asked.key.proto_str() == Some("TCP"));
}

const PATIENCE: Duration = Duration::from_secs(20);

#[ringtap_lab::test]
fn running_shards_are_asked_for_their_flows() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let capture = Capture::builder().interface(&veth.right).block_timeout_ms(2);
    let capture = capture.block_size(1 << 18).block_count(32).ignore_outgoing(true);
    let shards = Shards::builder()
        .capture(capture)
        .cores(Cores::Unpinned)
        .shards(3)
        .flow(FiveTuple::bidirectional())
        .spawn(|mut shard| async move {
            while let Some(event) = shard.flows.next().await {
                if let FlowEvent::Ended { reason, .. } = event? {
                    assert_eq!(reason, EndReason::IdleTimeout);
                }
            }
            Ok(())
        })
        .unwrap();
    // Before any packet: they answer all the same.
    let none = shards.flows(10);
    assert_eq!((none.shards().iter().flatten().count(), none.active()), (3, 0));
    const FLOWS: u64 = 300;
    const EACH: u64 = 20;
    let traffic = Traffic { flows: FLOWS as u32, both_directions: true, ..Traffic::default() };
    let began = Instant::now();
    let mut generator = Generator::new(&veth.left, &traffic);
    for turn in 1..=EACH {
        generator.flood(FLOWS);
        while shards.stats().unwrap().total().delivered < turn * FLOWS {
            assert!(began.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
    }
    // One of them is much greater.
    Generator::new(&veth.left, &Traffic { flows: 1, ..Traffic::default() }).flood(500);
    while shards.stats().unwrap().total().delivered < EACH * FLOWS + 500 {
        assert!(began.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    // Delivered is not looked at yet.
    let flows = loop {
        let flows = shards.flows(10);
        let top = flows.top(10);
        let packets =
            top.first().map_or(0, |(_, stats)| stats.packets_initiator + stats.packets_responder);
        if packets >= 500 + EACH {
            break flows;
        }
        assert!(began.elapsed() < PATIENCE, "{packets}");
    };
    assert_eq!(flows.active() as u64, FLOWS);
    let total = flows.total();
    assert_eq!((total.flows_created, total.flows_ended, total.packets_unmatched), (FLOWS, 0, 0));
    let top = flows.top(10);
    assert_eq!(top.len(), 10);
    let bytes = |stats: &ringtap::flow::FlowStats| stats.bytes_initiator + stats.bytes_responder;
    assert!(top.windows(2).all(|pair| bytes(&pair[0].1) >= bytes(&pair[1].1)));
    assert!(bytes(&top[0].1) > 10 * bytes(&top[1].1));
    let used = flows.shards().iter().flatten().filter(|shard| shard.active > 0).count();
    assert!(used > 1, "{used} shards have flows");
    shards.stop();
    let began = Instant::now();
    while !shards.is_finished() {
        assert!(began.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    // Those that have ended have said how it ended.
    let total = shards.flows(1).total();
    assert_eq!((total.flows_created, total.flows_ended), (FLOWS, FLOWS));
    let stats: HashMap<_, _> =
        shards.join().unwrap().shards().iter().map(|s| (s.spec.index, s.capture)).collect();
    assert_eq!(stats.len(), 3);
}

#[ringtap_lab::test]
fn fragments_are_of_the_shard_of_their_flow() {
    let Some(directory) = pcap::directory() else {
        return skip("no captures beside the repository");
    };
    let path = directory.join("pcappp-frag-ip4_fragments.pcap");
    let [offline] = &records(&path)[..] else { panic!("one flow") };
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    veth.set_mtu(9_000);
    let capture = Capture::builder().interface(&veth.right).block_timeout_ms(2);
    let capture = capture.block_size(1 << 18).block_count(16).ignore_outgoing(true);
    let shards = Shards::builder()
        .capture(capture)
        .cores(Cores::Unpinned)
        .shards(4)
        .flow(FiveTuple::bidirectional())
        .spawn(|mut shard| async move {
            while let Some(event) = shard.flows.next().await {
                event?;
            }
            Ok(())
        })
        .unwrap();
    Sender::open(&veth.left).unwrap().send_all(&pcap::ethernet_frames(&path)).unwrap();
    let began = Instant::now();
    let expected = offline.sent.packets + offline.received.packets;
    loop {
        let flows = shards.flows(2);
        if let [(key, stats)] = &flows.top(2)[..]
            && stats.packets_initiator + stats.packets_responder == expected
        {
            assert_eq!(*key, offline.key);
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{flows:?}");
    }
    shards.stop();
    shards.join().unwrap();
}
