//! Connections as streams of bytes: read by tasks, reassemblers and threads, some of them slow; events for several.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use ringtap::executor::{self, spawn_local};
use ringtap::flow::extract::{FiveTuple, FiveTupleKey};
use ringtap::flow::{
    AsyncReassembler, BacklogPolicy, Conversation, EndReason, FlowChunk, FlowConfig, FlowEvent,
    FlowExt, FlowSide, Lagged, StreamBytes, channel_factory,
};
use ringtap::pcap::PcapSource;
use ringtap::{AsyncCapture, Capture, time};
use ringtap_lab::namespace;

use crate::made::{PORT, quick_file, tcp};

/// Bytes that no two of so many streams have alike.
fn bytes(of: u64, len: usize) -> Vec<u8> {
    let mut state = of.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Bytes of a segment.
const SEGMENT: usize = 1000;

/// A file of connections that speak in turn, and close: of each, `segments` from either side.
fn file(connections: u16, segments: usize) -> PcapSource {
    let mut frames = Vec::new();
    let mut add = |from: u16, side: usize, flags: &str, place: [usize; 2], payload: &[u8]| {
        let (seq, ack) = (1 + place[side] as u32, 1 + place[1 - side] as u32);
        let seq = seq.wrapping_sub(u32::from(flags.contains('S')));
        frames.push(tcp(10_000 + from, side == 0, flags, seq, ack, payload));
    };
    for of in 0..connections {
        add(of, 0, "S", [0, 0], &[]);
        add(of, 1, "SA", [0, 0], &[]);
    }
    let streams: Vec<[Vec<u8>; 2]> = (0..u64::from(connections))
        .map(|of| [0, 1].map(|side| bytes(2 * of + side, segments * SEGMENT)))
        .collect();
    for turn in 0..segments {
        for of in 0..connections {
            let stream = |side: usize| &streams[usize::from(of)][side];
            let piece = turn * SEGMENT..(turn + 1) * SEGMENT;
            add(of, 0, "A", [piece.start, piece.start], &stream(0)[piece.clone()]);
            add(of, 1, "A", [piece.end, piece.start], &stream(1)[piece.clone()]);
        }
    }
    let end = segments * SEGMENT;
    for of in 0..connections {
        add(of, 0, "FA", [end, end], &[]);
        add(of, 1, "FA", [end + 1, end], &[]);
        // Each FIN takes a number.
        add(of, 0, "A", [end + 1, end + 1], &[]);
    }
    quick_file(&frames)
}

/// The connection's number.
fn number(key: &FiveTupleKey) -> u64 {
    let port = if key.a().port() == PORT { key.b().port() } else { key.a().port() };
    u64::from(port) - 10_000
}

/// What both sides said, how many bytes are missing, and why it ended.
async fn heard<K>(mut conversation: Conversation<K>) -> ([Vec<u8>; 2], u64, Option<EndReason>) {
    let (mut said, mut missing, mut reason) = ([Vec::new(), Vec::new()], 0, None);
    while let Some(chunk) = conversation.next_chunk().await {
        assert!(reason.is_none(), "the end is the last");
        match chunk {
            FlowChunk::Initiator(bytes) => said[0].extend_from_slice(&bytes),
            FlowChunk::Responder(bytes) => said[1].extend_from_slice(&bytes),
            FlowChunk::Gap { bytes, .. } => missing += bytes,
            FlowChunk::Closed(why) => reason = Some(why),
            other => panic!("{other:?}"),
        }
    }
    assert!(conversation.next_chunk().await.is_none());
    (said, missing, reason)
}

#[ringtap_lab::test]
fn conversations_bring_both_sides_whole() {
    executor::block_on(async {
        let flows = file(20, 30).flow_stream(FiveTuple::bidirectional());
        let mut conversations = flows.into_conversations();
        let mut tasks = Vec::new();
        while let Some(conversation) = conversations.next().await {
            let conversation = conversation.unwrap();
            let of = number(conversation.key());
            tasks.push(spawn_local(async move { (of, heard(conversation).await) }));
        }
        assert_eq!(tasks.len(), 20);
        for task in join_all(tasks).await {
            let (of, (said, missing, reason)) = task.unwrap();
            assert_eq!((missing, reason), (0, Some(EndReason::Fin)));
            assert!(said == [0, 1].map(|side| bytes(2 * of + side, 30 * SEGMENT)), "{of}");
        }
        assert_eq!(conversations.reassembly_stats().bytes, 20 * 30 * 2 * SEGMENT as u64);
    });
}

#[ringtap_lab::test]
fn who_reads_slowly_is_told_what_he_missed_and_holds_up_nobody() {
    for policy in [BacklogPolicy::Gap, BacklogPolicy::Close] {
        executor::block_on(async {
            let flows = file(5, 200).flow_stream(FiveTuple::bidirectional());
            let mut conversations = flows.into_conversations().with_backlog(100_000, policy);
            let (mut slow, mut tasks) = (Vec::new(), Vec::new());
            while let Some(conversation) = conversations.next().await {
                let conversation = conversation.unwrap();
                match number(conversation.key()) {
                    0 => slow.push(conversation),
                    1 => drop(conversation),
                    of => tasks.push(spawn_local(async move { (of, heard(conversation).await) })),
                }
            }
            for task in join_all(tasks).await {
                let (of, (said, missing, reason)) = task.unwrap();
                assert_eq!((missing, reason), (0, Some(EndReason::Fin)));
                assert!(said[0] == bytes(2 * of, 200 * SEGMENT));
            }
            let (said, missing, reason) = heard(slow.pop().unwrap()).await;
            let len = said[0].len() + said[1].len();
            assert!((80_000..100_000).contains(&len), "{len}");
            assert!(bytes(0, 200 * SEGMENT).starts_with(&said[0]));
            let all = 400 * SEGMENT as u64;
            match policy {
                BacklogPolicy::Gap => {
                    assert_eq!((len as u64 + missing, reason), (all, Some(EndReason::Fin)));
                }
                _ => assert_eq!((missing, reason), (0, Some(EndReason::BufferOverflow))),
            }
        });
    }
}

#[ringtap_lab::test]
fn a_stream_that_waits_for_who_reads_slowly_loses_nothing() {
    executor::block_on(async {
        let flows = file(5, 100).flow_stream(FiveTuple::bidirectional());
        let mut conversations =
            flows.into_conversations().with_backlog(20_000, BacklogPolicy::Wait);
        let mut tasks = Vec::new();
        while let Some(conversation) = conversations.next().await {
            let conversation = conversation.unwrap();
            let of = number(conversation.key());
            tasks.push(spawn_local(async move {
                time::sleep(Duration::from_millis(2 * of)).await;
                (of, heard(conversation).await)
            }));
        }
        for task in join_all(tasks).await {
            let (of, (said, missing, reason)) = task.unwrap();
            assert_eq!((missing, reason), (0, Some(EndReason::Fin)));
            assert!(said[1] == bytes(2 * of + 1, 100 * SEGMENT));
        }
    });
}

/// What became of each direction: its bytes, what is missing, and how it was closed.
type Ledger = Rc<RefCell<HashMap<(u64, FlowSide), (Vec<u8>, u64, Vec<EndReason>)>>>;

struct Noting {
    of: (u64, FlowSide),
    ledger: Ledger,
    pause: Duration,
}

impl AsyncReassembler for Noting {
    async fn data(&mut self, bytes: StreamBytes) {
        if !self.pause.is_zero() {
            time::sleep(self.pause).await;
        }
        self.ledger.borrow_mut().entry(self.of).or_default().0.extend_from_slice(&bytes);
    }

    async fn gap(&mut self, bytes: u64) {
        self.ledger.borrow_mut().entry(self.of).or_default().1 += bytes;
    }

    fn close(self, reason: EndReason) {
        self.ledger.borrow_mut().entry(self.of).or_default().2.push(reason);
    }
}

#[ringtap_lab::test]
fn each_reassembler_gets_its_bytes_and_is_closed_once() {
    let ledger = Ledger::default();
    let into = Rc::clone(&ledger);
    executor::block_on(async {
        let flows = file(6, 150).flow_stream(FiveTuple::bidirectional());
        let mut flows = flows
            .with_async_reassembler(move |key, side| {
                let (of, ledger) = ((number(key), side), Rc::clone(&into));
                // One of the directions is slow.
                let is_slow = of == (3, FlowSide::Initiator);
                let pause = Duration::from_micros(if is_slow { 500 } else { 0 });
                Noting { of, ledger, pause }
            })
            .with_backlog(50_000, BacklogPolicy::Gap);
        let mut ended = 0;
        while let Some(event) = flows.next().await {
            ended += usize::from(matches!(event.unwrap(), FlowEvent::Ended { .. }));
        }
        assert_eq!(ended, 6);
    });
    let ledger = ledger.borrow();
    assert_eq!(ledger.len(), 12);
    for ((of, side), (said, missing, closed)) in ledger.iter() {
        let all = bytes(2 * of + u64::from(*side == FlowSide::Responder), 150 * SEGMENT);
        assert_eq!(closed[..], [EndReason::Fin]);
        assert_eq!(said.len() as u64 + missing, all.len() as u64);
        let is_slow = (*of, *side) == (3, FlowSide::Initiator);
        assert!(is_slow || *said == all, "{of} {side:?}: {missing} missing");
    }
}

#[ringtap_lab::test]
fn reassemblers_of_a_stream_that_is_dropped_are_closed_once() {
    let ledger = Ledger::default();
    let into = Rc::clone(&ledger);
    executor::block_on(async {
        let flows = file(3, 50).flow_stream(FiveTuple::bidirectional());
        let mut flows = flows.with_async_reassembler(move |key, side| {
            let (of, ledger) = ((number(key), side), Rc::clone(&into));
            Noting { of, ledger, pause: Duration::from_secs(3600) }
        });
        // None of them takes its bytes, so the stream has no end; but its flows have.
        let mut ended = 0;
        while ended < 3 {
            let event = flows.next().await.unwrap().unwrap();
            ended += usize::from(matches!(event, FlowEvent::Ended { .. }));
        }
    });
    let ledger = ledger.borrow();
    assert_eq!(ledger.len(), 6);
    for (said, _, closed) in ledger.values() {
        assert!(said.is_empty());
        // Their flows had ended, though nobody had time for the bytes.
        assert_eq!(closed[..], [EndReason::Fin]);
    }
}

#[ringtap_lab::test]
fn channels_take_streams_to_threads() {
    let readers = Rc::new(RefCell::new(Vec::new()));
    let into = Rc::clone(&readers);
    executor::block_on(async {
        let flows = file(8, 100).flow_stream(FiveTuple::bidirectional());
        let factory = channel_factory(10_000, move |conversation| {
            let reader: JoinHandle<_> = std::thread::spawn(move || {
                let (key, side): &(FiveTupleKey, FlowSide) = conversation.key();
                let of = 2 * number(key) + u64::from(*side == FlowSide::Responder);
                (of, executor::block_on(heard(conversation)))
            });
            into.borrow_mut().push(reader);
        });
        let mut flows =
            flows.with_async_reassembler(factory).with_backlog(1 << 20, BacklogPolicy::Wait);
        while let Some(event) = flows.next().await {
            event.unwrap();
        }
    });
    let readers = readers.take();
    assert_eq!(readers.len(), 16);
    for reader in readers {
        let (of, (said, missing, reason)) = reader.join().unwrap();
        assert_eq!((missing, reason), (0, Some(EndReason::Fin)));
        assert!(said.concat() == bytes(of, 100 * SEGMENT));
    }
}

#[ringtap_lab::test]
fn all_who_listen_hear_the_same_and_who_is_slow_is_told() {
    let text =
        |event: Result<Arc<FlowEvent<FiveTupleKey>>, Lagged>| format!("{:?}", event.unwrap());
    executor::block_on(async {
        let flows = || file(50, 4).flow_stream(FiveTuple::bidirectional());
        let broadcast = flows().broadcast(10_000);
        let (first, second) = (broadcast.subscribe(), broadcast.subscribe());
        let elsewhere =
            std::thread::spawn(move || executor::block_on(first.map(text).collect::<Vec<_>>()));
        let here = spawn_local(second.map(text).collect::<Vec<_>>());
        broadcast.await.unwrap();
        let (elsewhere, here) = (elsewhere.join().unwrap(), here.await.unwrap());
        assert_eq!(elsewhere, here);

        let broadcast = flows().broadcast(64);
        let mut slow = broadcast.subscribe();
        broadcast.await.unwrap();
        let Some(Err(Lagged(lost))) = slow.next().await else { panic!("it was not told") };
        let rest: Vec<String> = slow.map(text).collect().await;
        assert_eq!((lost as usize, rest.as_slice()), (here.len() - 64, &here[here.len() - 64..]));
    });
}

#[ringtap_lab::test]
fn real_connections_are_heard_byte_by_byte() {
    let Some(net) = namespace() else { return };
    net.loopback_up();
    const CONNECTIONS: u64 = 12;
    const LEN: usize = 300_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    executor::block_on(async {
        let capture = Capture::builder().interface("lo").ignore_outgoing(true);
        // Room for all that is said, however long this thread has to wait for its turn.
        let capture = capture.block_size(1 << 19).block_count(64);
        let mut capture = AsyncCapture::new(capture.build().unwrap()).unwrap();
        let stop = capture.stop_handle().unwrap();
        let server = std::thread::spawn(move || {
            let talks = (0..CONNECTIONS).map(|_| {
                let (mut socket, _) = listener.accept().unwrap();
                std::thread::spawn(move || {
                    let mut of = [0];
                    socket.read_exact(&mut of).unwrap();
                    socket.write_all(&bytes(2 * u64::from(of[0]) + 1, LEN)).unwrap();
                    socket.read_to_end(&mut Vec::new()).unwrap();
                })
            });
            talks.collect::<Vec<_>>().into_iter().for_each(|talk| talk.join().unwrap());
        });
        let clients = (0..CONNECTIONS).map(|of| {
            std::thread::spawn(move || {
                let mut socket = TcpStream::connect(address).unwrap();
                socket.write_all(&[of as u8]).unwrap();
                socket.write_all(&bytes(2 * of, LEN)).unwrap();
                socket.shutdown(std::net::Shutdown::Write).unwrap();
                socket.read_to_end(&mut Vec::new()).unwrap();
            })
        });
        let clients: Vec<_> = clients.collect();
        // A connection whose end is missed is told as idle, not waited for.
        let mut config = FlowConfig::default();
        config.idle_timeout_established = Duration::from_secs(20);
        let flows = capture.flow_stream(FiveTuple::bidirectional()).with_config(config);
        let mut conversations = flows.into_conversations();
        let mut tasks = Vec::new();
        while tasks.len() < CONNECTIONS as usize {
            let conversation = conversations.next().await.unwrap().unwrap();
            tasks.push(spawn_local(heard(conversation)));
        }
        let all = join_all(tasks);
        let mut all = std::pin::pin!(all);
        // The stream brings the bytes while they are read.
        let mut rest = std::pin::pin!(async { while conversations.next().await.is_some() {} });
        let all = std::future::poll_fn(|cx| {
            let _ = rest.as_mut().poll(cx);
            all.as_mut().poll(cx)
        })
        .await;
        stop.stop();
        for talk in all {
            let (said, missing, reason) = talk.unwrap();
            assert_eq!((missing, reason), (0, Some(EndReason::Fin)));
            let of = u64::from(said[0][0]);
            assert!(said[0][1..] == bytes(2 * of, LEN) && said[1] == bytes(2 * of + 1, LEN));
        }
        clients.into_iter().for_each(|client| client.join().unwrap());
        server.join().unwrap();
    });
}
