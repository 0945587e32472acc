//! Edge cases of flows: streams that end midway, consumers that are gone, flows that are forgotten unnoticed.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use etherparse::PacketBuilder;
use futures_util::{Stream, StreamExt};
use ringtap::flow::extract::{FiveTuple, FiveTupleKey};
use ringtap::flow::http::HttpParser;
use ringtap::flow::{
    AsyncReassembler, BacklogPolicy, DatagramParser, EndReason, FlowEvent, FlowExt, FlowSide,
    FlowTimestamp, MemoryPolicy, Protocols, ReassemblyConfig, SessionEvent, SessionParser,
    StreamBytes,
};
use ringtap::packet::Timestamp;
use ringtap::pcap::PcapSource;

use crate::made::{self, tcp};

/// A file of frames, at seconds.
fn file(frames: &[(u32, Vec<u8>)]) -> PcapSource {
    let time = |secs: u32, number: usize| Timestamp { secs, nanos: number as u32 * 100 };
    let frames = frames.iter().enumerate();
    made::file(frames.map(|(number, (secs, frame))| (time(*secs, number), frame.clone())))
}

fn at_once(frames: &[Vec<u8>]) -> PcapSource {
    file(&frames.iter().map(|frame| (0, frame.clone())).collect::<Vec<_>>())
}

fn udp(port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    builder.udp(port, 9).write(&mut frame, b"x").unwrap();
    frame
}

/// A connection that is opened, and says so much in so many turns, one side or both.
fn talk(turns: u32, size: usize, both: bool) -> Vec<Vec<u8>> {
    let mut frames = vec![tcp(1, true, "S", 99, 0, &[]), tcp(1, false, "SA", 499, 100, &[])];
    for turn in 0..turns {
        let (place, size) = (turn * size as u32, vec![b'a'; size]);
        frames.push(tcp(1, true, "A", 100 + place, 500 + place, &size));
        if both {
            let acked = 100 + place + size.len() as u32;
            frames.push(tcp(1, false, "A", 500 + place, acked, &size));
        }
    }
    frames
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Polls a stream to its end; or until it waits and nobody has woken it.
fn drive<S: Stream + Unpin>(stream: &mut S, mut each: impl FnMut(&mut S, S::Item)) -> &'static str {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    for _ in 0..100_000 {
        woken.0.store(false, Ordering::SeqCst);
        match stream.poll_next_unpin(&mut Context::from_waker(&waker)) {
            Poll::Ready(Some(item)) => each(stream, item),
            Poll::Ready(None) => return "ended",
            Poll::Pending if woken.0.load(Ordering::SeqCst) => {}
            Poll::Pending => return "waits",
        }
    }
    "spins"
}

/// Says its bytes as text; `?` makes it lose its way.
#[derive(Debug, Default, Clone)]
struct Text(bool);

impl SessionParser for Text {
    type Message = String;

    fn feed_initiator(&mut self, bytes: &[u8], _: FlowTimestamp, out: &mut Vec<String>) {
        self.0 |= bytes.contains(&b'?');
        out.push(String::from_utf8_lossy(bytes).into_owned());
    }

    fn feed_responder(&mut self, bytes: &[u8], ts: FlowTimestamp, out: &mut Vec<String>) {
        self.feed_initiator(bytes, ts, out);
    }

    fn is_poisoned(&self) -> bool {
        self.0
    }
}

impl DatagramParser for Text {
    type Message = String;

    fn parse(&mut self, bytes: &[u8], _: FlowSide, ts: FlowTimestamp, out: &mut Vec<String>) {
        self.feed_initiator(bytes, ts, out);
    }
}

fn name<M: std::fmt::Debug>(event: SessionEvent<FiveTupleKey, M>) -> String {
    match event {
        SessionEvent::Started { .. } => "started".to_owned(),
        SessionEvent::Application { message, .. } => format!("{message:?}"),
        SessionEvent::Gap { bytes, .. } => format!("[{bytes}]"),
        SessionEvent::ParserError { .. } => "error".to_owned(),
        SessionEvent::Closed { reason, .. } => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

fn said(frames: &[Vec<u8>]) -> Vec<String> {
    let flows = at_once(frames).flow_stream(FiveTuple::bidirectional());
    let (mut sessions, mut all) = (flows.session_stream(Text::default()), Vec::new());
    assert_eq!(drive(&mut sessions, |_, event| all.push(name(event.unwrap()))), "ended");
    assert_eq!(sessions.reassembly_stats().held, 0);
    all
}

#[ringtap_lab::test]
fn a_parser_that_loses_its_way_at_the_very_end_is_told_and_so_is_the_end() {
    let waiting = [tcp(1, true, "S", 99, 0, &[]), tcp(1, true, "A", 102, 1, b"a?b")];
    assert_eq!(said(&waiting), ["started", "[2]", "\"a?b\"", "error", "parse_error"]);
    let last = [
        tcp(1, true, "S", 99, 0, &[]),
        tcp(1, false, "SA", 499, 100, &[]),
        tcp(1, true, "A", 100, 500, b"x"),
        tcp(1, true, "FA", 102, 500, &[]),
        tcp(1, false, "FA", 500, 101, &[]),
        tcp(1, true, "A", 101, 501, b"?"),
    ];
    assert_eq!(said(&last), ["started", "\"x\"", "\"?\"", "error", "parse_error"]);
}

#[ringtap_lab::test]
fn what_is_lost_before_a_fin_is_a_gap() {
    let frames = [
        tcp(1, true, "S", 99, 0, &[]),
        tcp(1, false, "SA", 499, 100, &[]),
        tcp(1, true, "A", 100, 500, b"x"),
        tcp(1, true, "FA", 201, 500, &[]),
        tcp(1, false, "FA", 500, 202, &[]),
        tcp(1, true, "A", 202, 501, &[]),
    ];
    assert_eq!(said(&frames), ["started", "\"x\"", "[100]", "fin"]);
}

#[ringtap_lab::test]
fn a_protocol_is_told_by_the_first_bytes_there_are_and_by_no_others() {
    let said = |frames: &[Vec<u8>]| {
        let is_http = |_, bytes: &[u8]| bytes.starts_with(b"GET ");
        let http = Protocols::new().tcp_bytes(is_http, HttpParser::default(), |_| "request");
        let flows = at_once(frames).flow_stream(FiveTuple::bidirectional());
        let (mut sessions, mut all) = (flows.protocol_stream(http), Vec::new());
        assert_eq!(drive(&mut sessions, |_, event| all.push(name(event.unwrap()))), "ended");
        all
    };
    let mut frames = talk(0, 0, false);
    // Ten bytes are lost before them.
    frames.push(tcp(1, true, "A", 110, 500, b"GET / HTTP/1.1\r\nHo"));
    frames.push(tcp(1, false, "A", 500, 128, &[]));
    frames.push(tcp(1, true, "A", 128, 500, b"st: x\r\n\r\n"));
    assert_eq!(said(&frames), ["started", "[10]", "\"request\"", "idle"]);
    let mut strange = talk(0, 0, false);
    strange.push(tcp(1, true, "A", 100, 500, b"zzz"));
    strange.push(tcp(1, true, "A", 103, 500, b"GET / HTTP/1.1\r\n\r\n"));
    strange.push(tcp(1, false, "A", 500, 121, b"yyy"));
    assert_eq!(said(&strange), ["started", "idle"]);
}

#[ringtap_lab::test]
fn one_forged_segment_far_away_ends_no_stream() {
    let mut frames = talk(1, 1, false);
    frames.push(tcp(1, true, "A", 101 + (1 << 30), 500, b"#"));
    frames.push(tcp(1, false, "A", 500, 102 + (1 << 30), &[]));
    frames.push(tcp(1, true, "A", 101, 500, b"b"));
    assert_eq!(said(&frames), ["started", "\"a\"", "\"b\"", "idle"]);
}

#[ringtap_lab::test]
fn a_stream_that_goes_on_far_away_is_followed_though_acknowledgements_come_alone_and_packets_twice()
{
    let place = |number: u32| 101 + (100 << 20) + 3 * number;
    let mut frames = talk(1, 1, false);
    for number in 0..20 {
        let segment = tcp(1, true, "A", place(number), 500, b"two");
        frames.extend([segment.clone(), segment]);
        frames.push(tcp(1, true, "A", place(number) + 3, 500, &[]));
        frames.push(tcp(1, false, "A", 500, place(number) + 3, &[]));
    }
    let mut expected = vec!["started".to_owned(), "\"a\"".to_owned()];
    expected.push(format!("[{}]", (100 << 20) + 9));
    expected.extend(std::iter::repeat_n("\"two\"".to_owned(), 17));
    expected.push("idle".to_owned());
    assert_eq!(said(&frames), expected);
}

#[ringtap_lab::test]
fn want_of_memory_gives_up_what_is_missing_and_nothing_that_may_come() {
    let mut frames = talk(0, 0, false);
    frames.push(tcp(1, true, "A", 100, 500, b"one"));
    // A FIN comes early, and something waits.
    frames.push(tcp(1, true, "FA", 130, 500, &[]));
    frames.push(tcp(1, true, "A", 106, 500, b"two"));
    frames.push(tcp(1, true, "A", 109, 500, b"six"));
    let config = ReassemblyConfig::new().memory_cap(10, MemoryPolicy::GiveUpOldest);
    let flows = at_once(&frames).flow_stream(FiveTuple::bidirectional());
    let mut sessions = flows.session_stream(Text::default()).with_reassembly(config);
    let mut all = Vec::new();
    drive(&mut sessions, |_, event| all.push(name(event.unwrap())));
    let expected = ["started", "\"one\"", "[3]", "\"two\"", "\"six\"", "[18]", "idle"];
    assert_eq!(all, expected);
}

#[ringtap_lab::test]
fn flows_that_were_idle_too_long_do_not_go_on() {
    let mut flows = file(&[(0, udp(7)), (36_000, udp(7))]).flow_stream(FiveTuple::bidirectional());
    let mut all = Vec::new();
    drive(&mut flows, |_, event| {
        all.push(match event.unwrap() {
            FlowEvent::Started { .. } => 0,
            FlowEvent::Ended { stats, .. } => stats.packets_initiator,
            other => panic!("{other:?}"),
        });
    });
    assert_eq!(all, [0, 1, 0, 1]);
}

/// Writes down what it is given.
struct Noting(Rc<RefCell<Vec<String>>>);

impl AsyncReassembler for Noting {
    async fn data(&mut self, bytes: StreamBytes) {
        self.0.borrow_mut().push(String::from_utf8_lossy(&bytes).into_owned());
    }

    async fn gap(&mut self, bytes: u64) {
        self.0.borrow_mut().push(format!("[{bytes}]"));
    }

    fn close(self, reason: EndReason) {
        self.0.borrow_mut().push(reason.to_string());
    }
}

#[ringtap_lab::test]
fn a_reassembler_gets_the_last_bytes_before_a_silence_at_once() {
    let notes = Rc::new(RefCell::new(Vec::new()));
    let into = Rc::clone(&notes);
    let stream = at_once(&talk(1, 3, false)).chain(futures_util::stream::pending());
    let flows = stream.flow_stream(FiveTuple::bidirectional());
    let mut flows = flows.with_async_reassembler(move |_, _| Noting(Rc::clone(&into)));
    assert_eq!(drive(&mut flows, |_, event| assert!(event.is_ok())), "waits");
    assert_eq!(*notes.borrow(), ["aaa"]);
}

#[ringtap_lab::test]
fn flows_that_are_closed_or_forgotten_behind_our_back_end_all_the_same() {
    let notes = Rc::new(RefCell::new(Vec::new()));
    let into = Rc::clone(&notes);
    let mut frames = talk(1, 3, false);
    frames.push(tcp(2, true, "S", 99, 0, &[]));
    let flows = at_once(&frames).flow_stream(FiveTuple::bidirectional());
    let mut flows = flows.with_async_reassembler(move |_, _| Noting(Rc::clone(&into)));
    let mut started = 0;
    let ended = drive(&mut flows, |flows, event| {
        started += usize::from(matches!(event.unwrap(), FlowEvent::Started { .. }));
        if started == 2 {
            let keys: Vec<_> = flows.table().flows().map(|(key, _)| *key).collect();
            for key in keys {
                flows.table_mut().close(&key);
            }
        }
    });
    assert_eq!((ended, started), ("ended", 2));
    assert_eq!(*notes.borrow(), ["aaa", "force_closed"]);

    // The same ports again and again, each time with something that waits.
    let again = |number: u32| {
        let other = tcp(2, true, "A", 100 + number, 1, b"m");
        [tcp(1, true, "S", 99, 0, &[]), tcp(1, true, "A", 200, 1, &[b'x'; 1000]), other]
    };
    let frames: Vec<_> = (0..50).flat_map(again).collect();
    let flows = at_once(&frames).flow_stream(FiveTuple::bidirectional());
    let mut sessions = flows.session_stream(Text::default());
    let (mut started, mut closed) = (0, 0);
    drive(&mut sessions, |sessions, event| match event.unwrap() {
        SessionEvent::Started { .. } => started += 1,
        SessionEvent::Closed { .. } => closed += 1,
        SessionEvent::Application { message, .. } if message == "m" => {
            let keys = sessions.table().flows().map(|(key, _)| *key);
            for key in keys.filter(|key| key.either_port(1)).collect::<Vec<_>>() {
                sessions.table_mut().close(&key);
            }
        }
        _ => {}
    });
    assert_eq!((started, closed, sessions.reassembly_stats().held), (51, 51, 0));

    // A smaller table, in the middle.
    let frames: Vec<_> = (0..20).map(|of| udp(100 + of)).collect();
    let flows = at_once(&frames).flow_stream(FiveTuple::bidirectional());
    let mut sessions = flows.datagram_stream(Text::default());
    let (mut started, mut closed) = (0, 0);
    drive(&mut sessions, |sessions, event| match event.unwrap() {
        SessionEvent::Started { .. } => {
            started += 1;
            if started == 20 {
                let mut config = sessions.table().config().clone();
                config.max_flows = 5;
                sessions.table_mut().set_config(config);
            }
        }
        SessionEvent::Closed { .. } => closed += 1,
        _ => {}
    });
    assert_eq!((started, closed), (20, 20));
}

#[ringtap_lab::test]
fn a_reader_that_is_gone_holds_up_nobody_and_one_that_never_reads_costs_no_more_than_he_may() {
    let flows = at_once(&talk(100, 1000, false)).flow_stream(FiveTuple::bidirectional());
    let mut talks = flows.into_conversations().with_backlog(20_000, BacklogPolicy::Wait);
    let mut all = Vec::new();
    assert_eq!(drive(&mut talks, |_, talk| all.push(talk.unwrap())), "waits");
    drop(all);
    assert_eq!(drive(&mut talks, |_, _| panic!("another")), "ended");
    for cap in [0, 1, 2] {
        let flows = at_once(&talk(10, 10, false)).flow_stream(FiveTuple::bidirectional());
        let mut talks = flows.into_conversations().with_backlog(cap, BacklogPolicy::Gap);
        assert_eq!(drive(&mut talks, |_, _| {}), "ended");
    }
    let flows = at_once(&talk(10_000, 10, true)).flow_stream(FiveTuple::bidirectional());
    let mut talks = flows.into_conversations().with_backlog(1000, BacklogPolicy::Gap);
    let mut all = Vec::new();
    drive(&mut talks, |_, talk| all.push(talk.unwrap()));
    let mut chunks = 0;
    drive(&mut all.pop().unwrap(), |_, _| chunks += 1);
    assert!(chunks < 20, "{chunks} chunks");
}

#[ringtap_lab::test]
fn flows_that_waited_once_and_went_on_are_not_given_up() {
    let waited = |client| {
        [
            tcp(client, true, "S", 99, 0, &[]),
            tcp(client, true, "A", 102, 1, b"c"),
            tcp(client, true, "A", 100, 1, b"ab"),
        ]
    };
    let mut frames: Vec<_> = (100..200).flat_map(waited).collect();
    frames.push(tcp(1, true, "S", 99, 0, &[]));
    frames.push(tcp(1, true, "A", 200, 1, &[b'x'; 1000]));
    let config = ReassemblyConfig::new().memory_cap(500, MemoryPolicy::GiveUpOldest);
    let flows = at_once(&frames).flow_stream(FiveTuple::bidirectional());
    let mut sessions = flows.session_stream(Text::default()).with_reassembly(config);
    drive(&mut sessions, |_, event| drop(event.unwrap()));
    let stats = sessions.reassembly_stats();
    assert_eq!((stats.short_of_memory, stats.gap_bytes, stats.held), (1, 100, 0));
}

/// With the fragment's header before other extensions.
#[ringtap_lab::test]
fn datagrams_behind_extensions_that_are_in_the_fragments_are_whole() {
    let payload: Vec<u8> = (0..3000_u32).map(|at| b'a' + (at % 26) as u8).collect();
    let mut datagram = vec![17, 0, 1, 4, 0, 0, 0, 0, 0, 7, 0, 9];
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(&payload);
    let last = datagram.len().div_ceil(1000) - 1;
    let frames: Vec<_> = datagram
        .chunks(1000)
        .enumerate()
        .map(|(number, piece)| {
            let mut frame = [[2_u8; 6], [4; 6]].concat();
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((8 + piece.len() as u16).to_be_bytes());
            frame.extend([44, 64]);
            frame.extend([[1; 16], [2; 16]].concat());
            frame.extend([60, 0]);
            frame.extend(((number * 1000) as u16 | u16::from(number < last)).to_be_bytes());
            frame.extend([0, 0, 0, 1]);
            frame.extend(piece);
            frame
        })
        .collect();
    let flows = at_once(&frames).flow_stream(FiveTuple::bidirectional());
    let (mut sessions, mut heard) = (flows.datagram_stream(Text::default()), Vec::new());
    drive(&mut sessions, |_, event| {
        if let SessionEvent::Application { message, .. } = event.unwrap() {
            heard.push(message.into_bytes());
        }
    });
    assert_eq!(heard, [payload]);
}

#[cfg(feature = "flow-records")]
#[ringtap_lab::test]
fn records_say_how_connections_went_in_zeeks_words() {
    use ringtap::flow::{RecordFormat, RecordWriter};

    let opened = [
        tcp(1, true, "S", 99, 0, &[]),
        tcp(1, false, "SA", 499, 100, &[]),
        tcp(1, true, "A", 100, 500, &[]),
    ];
    let with = |more: &[Vec<u8>]| [&opened[..], more].concat();
    let fins = |seq: u32| {
        [
            tcp(1, true, "FA", seq, 500, &[]),
            tcp(1, false, "FA", 500, seq + 1, &[]),
            tcp(1, true, "A", seq + 1, 501, &[]),
        ]
    };
    let data = |count: u32| (0..count).map(|at| tcp(1, true, "A", 100 + at, 500, b"x"));
    let long: Vec<_> = data(20).chain(fins(120)).collect();
    let cases = [
        (with(&fins(100)), "SF", "ShAFf"),
        (with(&long), "SF", "ShADFf"),
        (with(&[tcp(1, false, "RA", 500, 100, &[])]), "RSTR", "ShAr"),
        (with(&[tcp(1, true, "RA", 100, 500, &[])]), "RSTO", "ShAR"),
        (with(&[tcp(1, true, "A", 100, 500, b"x")]), "S1", "ShAD"),
        (vec![opened[0].clone(), tcp(1, false, "RA", 0, 100, &[])], "REJ", "Sr"),
        (vec![opened[0].clone()], "S0", "S"),
        (data(2).collect(), "OTH", "D"),
        (vec![udp(5)], "S0", "-"),
    ];
    for (frames, state, history) in cases {
        let flows = at_once(&frames).flow_stream(FiveTuple::bidirectional());
        let mut records = flows.into_records();
        let mut writer = RecordWriter::new(Vec::new(), RecordFormat::Zeek).unwrap();
        drive(&mut records, |_, record| writer.write(&record.unwrap()).unwrap());
        let text = String::from_utf8(writer.finish().unwrap()).unwrap();
        let line: Vec<&str> = text.lines().last().unwrap().split('\t').collect();
        assert_eq!((line[8], line[9]), (state, history), "{text}");
    }
}
