//! Streams of TCP, put together as tshark's `follow` does.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use etherparse::PacketBuilder;
use futures_util::StreamExt;
use ringtap::flow::extract::{AutoDetectEncap, FiveTuple, FiveTupleKey, InnerVxlan};
use ringtap::flow::{
    FlowExt, FlowExtractor, FlowSide, FlowTimestamp, Orientation, SessionEvent, SessionParser,
};
use ringtap::packet::Timestamp;
use ringtap::pcap::{CaptureWriter, PcapSource};
use ringtap::{Packet, executor};
use ringtap_lab::{Directory, pcap, skip, tool};

/// Says what it is fed.
#[derive(Debug, Default, Clone)]
struct Recorder;

impl SessionParser for Recorder {
    type Message = Vec<u8>;

    fn feed_initiator(&mut self, bytes: &[u8], _: FlowTimestamp, out: &mut Vec<Vec<u8>>) {
        out.push(bytes.to_vec());
    }

    fn feed_responder(&mut self, bytes: &[u8], _: FlowTimestamp, out: &mut Vec<Vec<u8>>) {
        out.push(bytes.to_vec());
    }
}

/// What was said from an address to another.
type Streams = HashMap<(SocketAddr, SocketAddr), Vec<u8>>;

/// The streams of a file, with what is missing written into them as tshark does.
fn ours(path: &Path) -> Streams {
    let source = PcapSource::open(path).unwrap();
    let plain = FiveTuple::bidirectional();
    match path.file_name().unwrap().to_str().unwrap() {
        name if name.contains("vxlan") => said(source, InnerVxlan::new(plain)),
        name if name.contains("mpls") => said(source, AutoDetectEncap::new(plain)),
        _ => said(source, plain),
    }
}

fn said<E>(source: PcapSource, extractor: E) -> Streams
where
    E: FlowExtractor<Key = FiveTupleKey> + Unpin,
{
    let mut sessions = source.flow_stream(extractor).session_stream(Recorder);
    let mut open: HashMap<FiveTupleKey, [Vec<u8>; 2]> = HashMap::new();
    let mut all = Streams::new();
    executor::block_on(async {
        while let Some(event) = sessions.next().await {
            let number = |side| usize::from(side == FlowSide::Responder);
            match event.unwrap() {
                SessionEvent::Started { key, .. } => {
                    assert!(open.insert(key, Default::default()).is_none(), "{key:?}");
                }
                SessionEvent::Application { key, side, message, .. } => {
                    open.get_mut(&key).unwrap()[number(side)].extend(message);
                }
                SessionEvent::Gap { key, side, bytes, .. } => {
                    open.get_mut(&key).unwrap()[number(side)].extend(gap(bytes).as_bytes());
                }
                SessionEvent::Closed { key, stats, .. } => {
                    let [initiator, responder] = open.remove(&key).unwrap();
                    let (from, to) = match stats.initiator_orientation {
                        Orientation::Forward => (key.a(), key.b()),
                        Orientation::Reverse => (key.b(), key.a()),
                    };
                    all.entry((from, to)).or_default().extend(initiator);
                    all.entry((to, from)).or_default().extend(responder);
                }
                other => panic!("{other:?}"),
            }
        }
    });
    assert!(open.is_empty());
    assert_eq!(sessions.reassembly_stats().held, 0);
    all.retain(|_, bytes| !bytes.is_empty());
    all
}

/// What tshark writes where bytes are missing.
fn gap(bytes: u64) -> String {
    format!("[{bytes} bytes missing in capture file]\0")
}

/// The same by tshark; `None` where it is missing.
fn tsharks(path: &Path, streams: usize) -> Option<Streams> {
    let follow: Vec<String> =
        (0..streams).map(|number| format!("follow,tcp,raw,{number}")).collect();
    let mut arguments = vec!["-r", path.to_str().unwrap(), "-q"];
    arguments.extend(follow.iter().flat_map(|follow| ["-z", follow]));
    let text = tool::output("tshark", &arguments, &[])?.stdout;
    let text = String::from_utf8(text).unwrap();
    let mut all = Streams::new();
    let mut nodes = Vec::new();
    for line in text.lines() {
        if let Some(node) = line.strip_prefix("Node ") {
            let (ip, port) = node.split_once(": ").unwrap().1.rsplit_once(':').unwrap();
            let ip: IpAddr = ip.trim_matches(['[', ']']).parse().unwrap_or(IpAddr::from([0; 4]));
            nodes.push(SocketAddr::new(ip, port.parse().unwrap()));
        } else if line.starts_with("Follow:") {
            nodes.clear();
        } else if let [first, second] = nodes[..]
            && !line.starts_with("==")
        {
            let pair = if line.starts_with('\t') { (second, first) } else { (first, second) };
            let hex = line.trim();
            let bytes = (0..hex.len()).step_by(2);
            let bytes = bytes.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
            all.entry(pair).or_default().extend(bytes);
        }
    }
    Some(all)
}

/// Files in which we say otherwise than tshark, and why.
const OTHERWISE: [(&str, &str); 5] = [
    ("zeek-tcp-rst-inject-rae.pcap", "behind a forged RST, segments are late"),
    ("zeek-malformed-truncated-header.pcap", "tshark follows no cut segments"),
    ("tcpdump-malformed-heapoverflow-tcp_print.pcap", "tshark follows no cut segments"),
    ("zeek-vlan-pppoe-over-qinq.pcap", "PPPoE has no extractor"),
    ("arkime-tunnel-gre-erspan-vxlan.pcap", "nor has ERSPAN"),
];

#[ringtap_lab::test]
fn streams_are_those_that_tshark_follows() {
    let Some(directory) = pcap::directory() else {
        return skip("no captures beside the repository");
    };
    let oracle = std::fs::read_to_string(directory.join("ORACLE.tsv")).unwrap();
    let header: Vec<&str> = oracle.lines().next().unwrap().split('\t').collect();
    let column = |name: &str| header.iter().position(|column| *column == name).unwrap();
    let (file, streams) = (column("file"), column("tcp_streams"));
    let (mut captures, mut equal, mut longer, mut differ) = (0, 0, 0, Vec::new());
    for line in oracle.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let (name, count) = (columns[file], columns[streams].parse().unwrap_or(0));
        let path = directory.join(name);
        let is_otherwise = OTHERWISE.iter().any(|(file, _)| *file == name);
        if count == 0 || is_otherwise || PcapSource::open(&path).is_err() {
            continue;
        }
        let Some(theirs) = tsharks(&path, count) else { return };
        let ours = ours(&path);
        captures += usize::from(!theirs.is_empty());
        for (pair, theirs) in &theirs {
            let ours = ours.get(pair).map_or(&[][..], Vec::as_slice);
            match ours.strip_prefix(&theirs[..]) {
                Some([]) => equal += 1,
                // What waits at the end for what nobody has acknowledged, tshark leaves out.
                Some(rest) if is_gap(rest) => longer += 1,
                _ => differ.push(format!("{name} {pair:?}: {}, not {}", ours.len(), theirs.len())),
            }
        }
        let more = ours.iter().filter(|(pair, _)| !theirs.contains_key(pair));
        differ.extend(more.map(|(pair, ours)| format!("{name} {pair:?}: {}, not 0", ours.len())));
    }
    println!("{captures} captures: {equal} streams equal, {longer} with more behind a last gap");
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
    assert!(captures >= 34 && equal >= 440, "{captures} captures, {equal} streams");
}

/// Whether bytes begin with what is written for missing ones.
fn is_gap(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
    let number = text.strip_prefix('[').and_then(|text| text.split_once(' '));
    number.is_some_and(|(number, rest)| {
        number.parse::<u64>().is_ok() && rest.starts_with("bytes missing in capture file]\0")
    })
}

/// Two streams of a connection, in segments that were lost, sent again with more or less, and came in any order, some
/// acknowledged though they are not there; the sequence numbers wrap.
fn rough_connection(seed: u64, path: &Path) {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = move |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    let start = [u32::MAX - 3000, below(1 << 32) as u32];
    let streams: [Vec<u8>; 2] =
        std::array::from_fn(|_| (0..8000 + below(4000)).map(|_| below(256) as u8).collect());
    let mut frames = Vec::new();
    let mut add = |side: usize, flags: &str, seq: u32, ack: u32, payload: &[u8]| {
        let (from, to) = ([10, 0, 0, 1 + side as u8], [10, 0, 0, 2 - side as u8]);
        let (source, destination) = if side == 0 { (4000, 80) } else { (80, 4000) };
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from, to, 64);
        let mut tcp = builder.tcp(source, destination, seq, 60_000);
        if flags.contains('S') {
            tcp = tcp.syn();
        }
        if flags.contains('A') {
            tcp = tcp.ack(ack);
        }
        let mut frame = Vec::new();
        tcp.write(&mut frame, payload).unwrap();
        frames.push(frame);
    };
    let at = |side: usize, place: usize| start[side].wrapping_add(place as u32);
    add(0, "S", at(0, 0).wrapping_sub(1), 0, &[]);
    add(1, "SA", at(1, 0).wrapping_sub(1), at(0, 0), &[]);
    add(0, "A", at(0, 0), at(1, 0), &[]);
    // A window of segments that slides over each stream.
    let mut done = [0, 0];
    while (0..2).any(|side| done[side] < streams[side].len()) {
        let side = below(2) as usize;
        let (stream, from) = (&streams[side], done[side]);
        let until = stream.len().min(from + 1200);
        if from == until {
            done[side] = until;
            continue;
        }
        for _ in 0..8 {
            let begin = from + below((until - from) as u64) as usize;
            let end = until.min(begin + 1 + below(400) as usize);
            let other = 1 - side;
            add(side, "A", at(side, begin), at(other, done[other]), &stream[begin..end]);
        }
        if below(3) > 0 {
            add(side, "A", at(side, from), at(1 - side, done[1 - side]), &stream[from..until]);
        }
        done[side] = until;
        // The other side has all of it, whatever is here.
        add(1 - side, "A", at(1 - side, done[1 - side]), at(side, until), &[]);
    }
    let mut writer = CaptureWriter::create(path).unwrap();
    for (number, frame) in frames.iter().enumerate() {
        let time = Timestamp { secs: 1_700_000_000, nanos: number as u32 * 1000 };
        writer.write(&Packet::from_bytes(frame, time)).unwrap();
    }
    writer.finish().unwrap();
}

#[ringtap_lab::test]
fn lost_reordered_overlapping_and_wrapped_streams_are_put_together_as_by_tshark() {
    let directory = Directory::new();
    let mut gaps = 0;
    for seed in 1..=24 {
        let path = directory.path().join(format!("{seed}.pcap"));
        rough_connection(seed, &path);
        let Some(theirs) = tsharks(&path, 1) else { return };
        let ours = ours(&path);
        assert_eq!(theirs.len(), 2);
        assert!(ours == theirs, "{seed}");
        gaps += ours
            .values()
            .filter(|bytes| String::from_utf8_lossy(bytes).contains("missing"))
            .count();
    }
    assert!(gaps > 8, "{gaps}");
}
