//! Flows: counted as five other tools count them, forgotten in time, bounded.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use etherparse::PacketBuilder;
use futures_util::StreamExt;
use ringtap::capture::MultiCapture;
use ringtap::dedup::Dedup;
use ringtap::fanout::FanoutMode;
use ringtap::flow::extract::{FiveTuple, FiveTupleKey};
use ringtap::flow::{EndReason, FlowConfig, FlowEvent, FlowExt, FlowSource, FlowTable, L4Proto};
use ringtap::packet::Timestamp;
use ringtap::pcap::PcapSource;
use ringtap::{Capture, Packet, executor, time};
use ringtap_lab::{Generator, Traffic, namespace, pcap, skip};

/// TCP and UDP flows that begin in a file; `None` where it is damaged.
fn count(path: &std::path::Path) -> Option<(usize, usize)> {
    let source = PcapSource::open(path).ok()?;
    let mut flows = source.flow_stream(FiveTuple::bidirectional());
    let (mut tcp, mut udp) = (0, 0);
    executor::block_on(async {
        while let Some(event) = flows.next().await {
            match event.ok()? {
                FlowEvent::Started { l4: Some(L4Proto::Tcp), .. } => tcp += 1,
                FlowEvent::Started { l4: Some(L4Proto::Udp), .. } => udp += 1,
                _ => {}
            }
        }
        Some(())
    })?;
    assert_eq!(flows.table().len(), 0, "all have ended");
    Some((tcp, udp))
}

#[ringtap_lab::test]
fn as_many_flows_as_five_other_tools_agree_on() {
    let Some(directory) = pcap::directory() else {
        return skip("no captures beside the repository");
    };
    let table = std::fs::read_to_string(directory.join("CONSENSUS.tsv")).unwrap();
    let (mut equal, mut differ) = (0, Vec::new());
    for line in table.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [file, _, tcp, tcp_verdict, _, udp, udp_verdict, _] = columns[..] else { continue };
        let Some(ours) = count(&directory.join(file)) else { continue };
        for (name, ours, count, verdict) in
            [("tcp", ours.0, tcp, tcp_verdict), ("udp", ours.1, udp, udp_verdict)]
        {
            // What they do not agree on is explained in docs/FLOWS.md.
            match verdict {
                "UNANIMOUS" if count == ours.to_string() => equal += 1,
                // A datagram of 80 kB with the lengths 0, as a card is handed it: they are those of the frame.
                "UNANIMOUS" if file.contains("bigtcp-ipv4-vxlan") && ours == 1 => {}
                "UNANIMOUS" => differ.push(format!("{file} {name}: {ours}, not {count}")),
                _ => {}
            }
        }
    }
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
    println!("{equal} rows equal");
    assert!(equal >= 133, "{equal} rows");
}

const PATIENCE: Duration = Duration::from_secs(20);

/// A packet of UDP or, with these flags, of TCP, between two of some addresses. `A` acknowledges a SYN, `Z` a FIN, and `N`
/// is another connection.
fn packet(from: u32, to: u32, flags: Option<&str>) -> Vec<u8> {
    let ip = |number: u32| (0x0a00_0000 + number).to_be_bytes();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(ip(from), ip(to), 64);
    let mut frame = Vec::new();
    let Some(flags) = flags else {
        builder.udp(7, 7).write(&mut frame, b"payload").unwrap();
        return frame;
    };
    // Each SYN and FIN takes a number, and a connection anew begins elsewhere.
    let first = if flags.contains('S') { 1 } else { 2 };
    let is_anew = flags.contains('N');
    let mut tcp = builder.tcp(7, 7, if is_anew { 5_000_000 } else { first }, 1000);
    for flag in flags.chars() {
        tcp = match flag {
            'S' => tcp.syn(),
            'A' => tcp.ack(2),
            'Z' => tcp.ack(3),
            'F' => tcp.fin(),
            'N' => tcp,
            _ => tcp.rst(),
        };
    }
    tcp.write(&mut frame, &[]).unwrap();
    frame
}

/// What a table tells of packets at times in milliseconds, in short.
#[derive(Default)]
struct Told {
    events: VecDeque<FlowEvent<FiveTupleKey>>,
}

impl Told {
    fn give(&mut self, table: &mut FlowTable<FiveTuple>, millis: u64, frame: &[u8]) -> Vec<String> {
        let (secs, nanos) = ((millis / 1000) as u32, (millis % 1000 * 1_000_000) as u32);
        table.packet(&Packet::from_bytes(frame, Timestamp { secs, nanos }), &mut self.events);
        self.take()
    }

    fn take(&mut self) -> Vec<String> {
        let text = |event| match event {
            FlowEvent::Started { .. } => "started".to_owned(),
            FlowEvent::Ended { reason, stats, .. } => {
                format!("{reason} {}", stats.packets_initiator + stats.packets_responder)
            }
            FlowEvent::Established { .. } => "established".to_owned(),
            _ => "other".to_owned(),
        };
        self.events.drain(..).map(text).filter(|text| text != "other").collect()
    }
}

/// A table that tells the end of a connection at once.
fn table() -> FlowTable<FiveTuple> {
    let mut config = FlowConfig::default();
    config.close_delay = Duration::ZERO;
    FlowTable::with_config_and_state(FiveTuple::bidirectional(), config, |_| ())
}

#[ringtap_lab::test]
fn idle_flows_end_in_time_by_the_packets_clock_and_late_packets_begin_none() {
    let (mut table, mut told) = (table(), Told::default());
    let mut give = |millis, frame: &[u8]| told.give(&mut table, millis, frame);
    assert_eq!(give(0, &packet(1, 2, None)), ["started"]);
    assert_eq!(give(50_000, &packet(2, 1, None)), [""; 0]);
    assert_eq!(give(109_000, &packet(3, 4, None)), ["started"]);
    assert_eq!(give(110_200, &packet(3, 4, None)), ["idle 2"], "60 s after its last packet");
    // A connection that is closed, and what comes for it later.
    let talk = |from, flags| {
        packet(if from == 'a' { 5 } else { 6 }, if from == 'a' { 6 } else { 5 }, Some(flags))
    };
    assert_eq!(give(111_000, &talk('a', "S")), ["started"]);
    give(111_001, &talk('b', "SA"));
    assert_eq!(give(111_002, &talk('a', "A")), ["established"]);
    give(111_003, &talk('a', "FA"));
    give(111_004, &talk('b', "FZ"));
    assert_eq!(give(111_005, &talk('a', "Z")), ["fin 6"]);
    assert_eq!(give(111_005, &talk('b', "FZ")), [""; 0], "sent again");
    assert_eq!(give(111_006, &talk('a', "R")), [""; 0]);
    assert_eq!(give(111_006, &talk('a', "S")), [""; 0], "late itself");
    assert_eq!(give(111_007, &talk('a', "SN")), ["started"], "the same ports anew");
    assert_eq!(give(111_008, &talk('b', "RA")), ["rst 2"]);
    assert_eq!(give(180_000, &talk('a', "A")), ["idle 2", "started"], "long after");
    assert_eq!(table.late_packets(), 3);
    assert!(!table.finish(100, &mut told.events));
    assert_eq!(told.take(), ["idle 1"]);
}

#[ringtap_lab::test]
fn where_the_clock_steps_back_flows_end_in_time_all_the_same() {
    let (mut table, mut told) = (table(), Told::default());
    let mut give = |millis, frame: &[u8]| told.give(&mut table, millis, frame);
    give(10_000_000, &packet(1, 2, None));
    give(10_000_000, &packet(3, 4, None));
    assert_eq!(give(1_000_000, &packet(5, 6, None)), ["started"]);
    give(1_010_000, &packet(3, 4, None));
    assert_eq!(give(1_050_000, &packet(5, 6, None)), [""; 0]);
    let ended = give(1_061_000, &packet(5, 6, None));
    assert_eq!(ended, ["idle 1"], "the one that nothing came for");
    assert_eq!(give(1_071_000, &packet(5, 6, None)), ["idle 2"]);
    let again = give(1_200_000, &packet(5, 6, None));
    assert_eq!(again, ["idle 4", "started"], "what was idle too long does not go on");
}

#[ringtap_lab::test]
fn a_live_capture_tells_the_same_flows_with_states_and_timeouts_of_ones_own() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    executor::block_on(async {
        let capture = Capture::builder().interface(&veth.right).block_timeout_ms(2);
        let capture = capture.block_size(1 << 18).block_count(32).ignore_outgoing(true);
        let captures = MultiCapture::new([capture.build().unwrap()]).unwrap();
        let stop = captures.stop_handle();
        let mut numbers = 0_u32;
        let mut flows = captures
            .flow_stream(FiveTuple::bidirectional())
            .with_idle_timeout_fn(|_, _| Some(Duration::from_secs(1)))
            .with_dedup(Dedup::content(Duration::from_secs(60), 10_000))
            .with_state(move |_| {
                numbers += 1;
                numbers
            });
        let traffic = Traffic { flows: 8, both_directions: true, ..Traffic::default() };
        Generator::new(&veth.left, &traffic).flood(800);
        let (mut started, mut ended) = (0, 0);
        // Nothing more comes: they end by this machine's clock, each with its packets.
        while ended < 8 {
            let event = time::timeout(PATIENCE, flows.next()).await.unwrap().unwrap().unwrap();
            match event {
                FlowEvent::Started { key, .. } => {
                    started += 1;
                    assert_eq!(*flows.table().get(&key).unwrap().user, started);
                }
                FlowEvent::Ended { stats, reason, .. } => {
                    ended += 1;
                    assert_eq!(reason, EndReason::IdleTimeout);
                    assert_eq!((stats.packets_initiator, stats.packets_responder), (50, 50));
                }
                _ => {}
            }
        }
        assert_eq!((started, flows.stats().flows_created), (8, 8));
        assert_eq!(flows.dedup_stats().unwrap().duplicates, 0);
        // A consumer that does not read: the ring backs up, and says so.
        Generator::new(&veth.left, &Traffic { flows: 5_000, ..Traffic::default() }).flood(100_000);
        stop.stop();
        let mut seen = 0;
        while let Some(event) = flows.next().await {
            if let FlowEvent::Ended { stats, .. } = event.unwrap() {
                seen += stats.packets_initiator + stats.packets_responder;
            }
        }
        let stats = flows.get_ref().stats().unwrap();
        assert_eq!(seen + 800, stats.delivered);
        assert_eq!(stats.delivered + stats.drops, stats.packets);
        assert!(flows.next().await.is_none());
    });
}

#[ringtap_lab::test]
fn on_a_loopback_each_packet_counts_once_in_flows_and_twice_in_captures() {
    let Some(net) = namespace() else { return };
    net.loopback_up();
    executor::block_on(async {
        let capture = Capture::builder().interface("lo").block_timeout_ms(2);
        let capture = capture.filter("udp port 4242".parse().unwrap()).build().unwrap();
        let captures = MultiCapture::new([capture]).unwrap();
        let stop = captures.stop_handle();
        let mut flows = captures.flow_stream(FiveTuple::bidirectional());
        let socket = std::net::UdpSocket::bind("127.0.0.1:4242").unwrap();
        for _ in 0..50 {
            socket.send_to(b"payload", "127.0.0.1:4242").unwrap();
        }
        while flows.get_ref().stats().unwrap().packets < 100 {
            let _ = time::timeout(Duration::from_millis(5), flows.next()).await;
        }
        stop.stop();
        let mut packets = 0;
        while let Some(event) = flows.next().await {
            if let FlowEvent::Ended { stats, .. } = event.unwrap() {
                packets += stats.packets_initiator + stats.packets_responder;
            }
        }
        assert_eq!((packets, flows.table().loopback_copies()), (50, 50));
        assert_eq!(flows.get_ref().stats().unwrap().delivered, 100);
    });
}

#[ringtap_lab::test]
fn ipv4_segments_with_length_0_belong_to_flows() {
    let mut whole = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .single_vlan(5.try_into().unwrap())
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp(7, 80, 1, 1000)
        .write(&mut whole, &[7; 9000])
        .unwrap();
    let plain = [&whole[..12], &whole[16..]].concat();
    let unsaid = |mut frame: Vec<u8>, at: usize| {
        frame[at + 2..at + 4].copy_from_slice(&[0, 0]);
        frame
    };
    for frame in [unsaid(plain.clone(), 14), unsaid(whole, 18)] {
        for (cut, len) in [(false, frame.len()), (true, 100)] {
            let (mut table, mut events) = (table(), VecDeque::new());
            let packet = Packet::from_bytes(&frame[..len], Timestamp::default());
            let packet = if cut { packet.with_original_len(frame.len()) } else { packet };
            table.packet(&packet, &mut events);
            assert!(matches!(events[0], FlowEvent::Started { l4: Some(L4Proto::Tcp), .. }));
            table.finish(1, &mut events);
            let Some(FlowEvent::Ended { stats, .. }) = events.back() else {
                panic!("it has ended")
            };
            assert_eq!(stats.bytes_initiator as usize, frame.len(), "cut: {cut}");
        }
    }
}

/// Packets and bytes of each flow.
type Flows = HashMap<FiveTupleKey, (u64, u64)>;

async fn counted(stream: impl FlowSource + Unpin) -> ringtap::Result<Flows> {
    let mut flows = stream.flow_stream(FiveTuple::bidirectional());
    let mut all = Flows::new();
    while let Some(event) = flows.next().await {
        if let FlowEvent::Ended { key, stats, .. } = event? {
            let of = all.entry(key).or_default();
            of.0 += stats.packets_initiator + stats.packets_responder;
            of.1 += stats.bytes_initiator + stats.bytes_responder;
        }
    }
    Ok(all)
}

/// Whether the kernel's hash takes all that the key has: then a flow is of one shard, whatever the hash's seed.
fn is_as_fine_as_the_hash(key: &FiveTupleKey) -> bool {
    const DCCP: u8 = 33;
    const UDP_LITE: u8 = 136;
    let l4 = key.proto();
    matches!(l4, L4Proto::Tcp | L4Proto::Udp | L4Proto::Sctp | L4Proto::Other(DCCP | UDP_LITE))
}

/// Adds up the flows of all shards; an error names a flow that is on two shards but should be on one. Flows coarser than the
/// kernel's hash (ESP and AH, whose SPI it takes) may be on several: that depends on the hash's seed, which is drawn once per
/// boot.
fn together(shards: Vec<Flows>) -> Result<Flows, FiveTupleKey> {
    let mut all = Flows::new();
    for (key, (packets, bytes)) in shards.into_iter().flatten() {
        if all.contains_key(&key) && is_as_fine_as_the_hash(&key) {
            return Err(key);
        }
        let of = all.entry(key).or_default();
        *of = (of.0 + packets, of.1 + bytes);
    }
    Ok(all)
}

/// Two associations of SCTP between the same hosts, as frames.
fn associations() -> Vec<Vec<u8>> {
    let frame = |port: u16| {
        let mut frame = Vec::new();
        let builder =
            PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9);
        builder.udp(port, 80).write(&mut frame, &[0; 24]).unwrap();
        frame[23] = 132;
        // The header's checksum, for the other protocol.
        let sum: u32 = (14..34)
            .step_by(2)
            .filter(|&at| at != 24)
            .map(|at| u32::from(u16::from_be_bytes([frame[at], frame[at + 1]])))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        frame
    };
    (0..40).map(|number| frame(32_836 + number % 2)).collect()
}

#[ringtap_lab::test]
fn two_associations_on_two_shards_are_two_flows() {
    // By hand, not by the hash, whose seed is luck: each association goes to a shard of its own.
    let mode = FanoutMode::by_filter(&"sctp and ip[20:2] & 1 = 1".parse().unwrap()).unwrap();
    let Some(all) = crate::replay::frames_onto_shards(&associations(), 2, (mode, false), counted)
    else {
        return;
    };
    assert_eq!(all.iter().map(Flows::len).collect::<Vec<_>>(), [1, 1]);
    let together = together(all).expect("each is of one shard");
    assert_eq!(together.values().map(|counts| counts.0).collect::<Vec<_>>(), [20, 20]);

    // The control: a fanout that tears flows apart is found out.
    let alternate = (FanoutMode::LoadBalance, false);
    let one = vec![associations().remove(0); 40];
    let Some(torn) = crate::replay::frames_onto_shards(&one, 2, alternate, counted) else {
        return;
    };
    together_is_refused(torn);
}

fn together_is_refused(torn: Vec<Flows>) {
    let key = together(torn).expect_err("one flow on two shards");
    assert_eq!(key.proto(), L4Proto::Sctp);
}

#[ringtap_lab::test]
fn shards_have_the_same_flows_together_as_one_table_offline() {
    let Some(captures) = crate::replay::captures() else { return };
    let (mut files, mut flows) = (0, 0);
    for (path, counts) in captures {
        let Ok(offline) = executor::block_on(counted(PcapSource::open(&path).unwrap())) else {
            continue; // damaged
        };
        (files, flows) = (files + 1, flows + offline.len());
        for &count in counts {
            let Some(all) = crate::replay::onto_shards(&path, count, counted) else { return };
            let together = together(all).unwrap_or_else(|key| {
                panic!("{} {count}: {key:?} is of two shards", path.display())
            });
            assert!(together == offline, "{} {count}", path.display());
        }
    }
    println!("{files} captures, {flows} flows");
    assert!(files >= 67 && flows >= 4_900, "{files} captures, {flows} flows");
}
