//! What parsing sessions costs a packet: three parsers in one pass, over many connections that are all alive.
//! `cargo bench --features flow-protocols --bench session`

use std::cell::Cell;
use std::io::Cursor;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use etherparse::PacketBuilder;
use futures_util::{Stream, StreamExt};
use ringtap::flow::dns::DnsUdpParser;
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::http::HttpParser;
use ringtap::flow::tls::TlsParser;
use ringtap::flow::{FlowExt, Protocols, SessionEvent};
use ringtap::packet::Timestamp;
use ringtap::pcap::{CaptureWriter, PcapSource};
use ringtap::{Packet, PacketBatch, executor};

const ROUNDS: usize = 7;
/// Messages of each flow.
const TURNS: u32 = 25;

/// A file of flows that all begin, and then speak in turn: a third HTTP, a third TLS, a third DNS. Answers of TCP have
/// three segments and are acknowledged; one answer of a hundred comes out of order.
fn file(flows: u32) -> (Vec<u8>, u64) {
    let mut writer = CaptureWriter::builder().to(Vec::new()).expect("a Vec takes all");
    let (mut count, mut frame) = (0_u64, Vec::new());
    let mut write = |frame: &[u8]| {
        count += 1;
        let time = Timestamp {
            secs: 1_700_000_000 + (count / 1_000_000) as u32,
            nanos: (count % 1_000_000 * 1_000) as u32,
        };
        writer.write(&Packet::from_bytes(frame, time)).expect("a Vec takes all");
    };
    let request = b"GET /index.html HTTP/1.1\r\nHost: example.org\r\nUser-Agent: bench\r\n\r\n";
    let body = [b'x'; 600];
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\nContent-Type: text/plain\r\n\r\n";
    let response = [&head[..], &body].concat();
    let record = |kind: u8, len: usize| {
        let mut record = vec![kind, 3, 3, (len >> 8) as u8, len as u8];
        record.resize(5 + len, 0x5a);
        record
    };
    let data = [record(23, 300), record(23, 700)];
    let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x03org\0\0\x01\0\x01";
    let answer = b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0\x07example\x03org\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x01\x02\x03\x04";
    let said = |flow: u32, side: usize| -> &[u8] {
        match (flow % 3, side) {
            (0, 0) => request,
            (0, _) => &response,
            (1, _) => &data[side],
            (_, 0) => query,
            (..) => answer,
        }
    };
    let ports = [80, 443, 53];
    let mut packet = |flow: u32, side: usize, flags: &str, seq: u32, ack: u32, payload: &[u8]| {
        let (client, server) = ((0x0a00_0000 + flow).to_be_bytes(), [192, 168, 0, 1]);
        let port = ports[flow as usize % 3];
        let (from, to, source, destination) = match side {
            0 => (client, server, 40_000, port),
            _ => (server, client, port, 40_000),
        };
        frame.clear();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from, to, 64);
        if flow % 3 == 2 {
            builder.udp(source, destination).write(&mut frame, payload).expect("a Vec takes all");
        } else {
            let mut tcp = builder.tcp(source, destination, seq, 60_000);
            if flags.contains('S') {
                tcp = tcp.syn();
            }
            if flags.contains('A') {
                tcp = tcp.ack(ack);
            }
            tcp.write(&mut frame, payload).expect("a Vec takes all");
        }
        write(&frame);
    };
    for flow in (0..flows).filter(|flow| flow % 3 < 2) {
        packet(flow, 0, "S", 999, 0, &[]);
        packet(flow, 1, "SA", 999, 1000, &[]);
        packet(flow, 0, "A", 1000, 1000, &[]);
    }
    for turn in 0..TURNS {
        for number in 0..flows {
            let flow = number.wrapping_mul(7919) % flows;
            let seq = |side: usize| 1000 + turn * said(flow, side).len() as u32;
            let [asked, answered] = [0, 1].map(|side| said(flow, side));
            let [from, to] = [0, 1].map(seq);
            packet(flow, 0, "A", from, to, asked);
            if flow % 3 == 2 {
                packet(flow, 1, "", 0, 0, answered);
                continue;
            }
            let ack = from + asked.len() as u32;
            let size = answered.len().div_ceil(3);
            let mut order = [0, 1, 2];
            order.swap(1, 1 + usize::from(number % 100 == 0));
            for piece in order {
                let bytes = answered.chunks(size).nth(piece).expect("three");
                packet(flow, 1, "A", to + (piece * size) as u32, ack, bytes);
            }
            packet(flow, 0, "A", ack, to + answered.len() as u32, &[]);
        }
    }
    (writer.finish().expect("a Vec takes all"), count)
}

/// A source that notes when the flows had all begun and spoken, and when its last packet was taken.
struct Timed<'a> {
    source: PcapSource,
    warm: u64,
    seen: u64,
    span: &'a Cell<Option<(Instant, u64, Instant)>>,
}

impl Stream for Timed<'_> {
    type Item = ringtap::Result<PacketBatch>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let next = Pin::new(&mut this.source).poll_next(cx);
        let now = Instant::now();
        if let Poll::Ready(Some(Ok(batch))) = &next {
            this.seen += batch.len() as u64;
            if this.seen >= this.warm && this.span.get().is_none() {
                this.span.set(Some((now, this.seen, now)));
            }
        } else if let Some((start, from, _)) = this.span.get() {
            this.span.set(Some((start, from, now)));
        }
        next
    }
}

fn protocols() -> Protocols<ringtap::flow::extract::FiveTupleKey, ()> {
    let is_http = |_, bytes: &[u8]| bytes.starts_with(b"GET ") || bytes.starts_with(b"HTTP/1.");
    let is_tls = |_, bytes: &[u8]| matches!(bytes, [20..=23, 3, ..]);
    Protocols::new()
        .tcp_bytes(is_http, HttpParser::default(), |_| ())
        .tcp_bytes(is_tls, TlsParser::default(), |_| ())
        .udp_ports([53], DnsUdpParser::default(), |_| ())
}

fn main() {
    println!("ns a packet: read, with flows, with sessions; median (least to most)");
    for flows in [64_u32, 10_000] {
        let repeats = 10_000 / flows;
        let (file, packets) = file(flows);
        let file: Arc<[u8]> = file.into();
        let mut times = [const { Vec::new() }; 3];
        let mut messages = 0_u64;
        for round in 0..=ROUNDS {
            for (which, times) in times.iter_mut().enumerate() {
                let (mut spent, mut count) = (0, 0);
                for _ in 0..repeats {
                    let span = Cell::new(None);
                    let source =
                        PcapSource::from_reader(Cursor::new(Arc::clone(&file))).expect("our own");
                    let source = Timed { source, warm: packets / 5, seen: 0, span: &span };
                    messages += executor::block_on(play(source, which));
                    let (start, from, end) = span.get().expect("long enough");
                    spent += end.duration_since(start).as_nanos();
                    count += packets - from;
                }
                if round > 0 {
                    times.push(spent as f64 / count as f64);
                }
            }
        }
        let text = times.each_mut().map(|times| {
            times.sort_by(f64::total_cmp);
            let (least, most) = (times[0], times[times.len() - 1]);
            format!("{:.0} ({least:.0} to {most:.0})", times[times.len() / 2])
        });
        let messages = messages / (u64::from(repeats) * (ROUNDS as u64 + 1));
        println!(
            "{flows:>9} flows, {packets} packets, {messages} messages  {:>16} {:>18} {:>18}",
            text[0], text[1], text[2]
        );
    }
}

/// Plays a file, without more, with flows or with sessions: how many messages there were.
async fn play(mut source: Timed<'_>, which: usize) -> u64 {
    let mut messages = 0;
    match which {
        0 => while source.next().await.is_some() {},
        1 => {
            let mut flows = source.flow_stream(FiveTuple::bidirectional());
            while flows.next().await.is_some() {}
        }
        _ => {
            let flows = source.flow_stream(FiveTuple::bidirectional());
            let mut sessions = flows.protocol_stream(protocols());
            while let Some(event) = sessions.next().await {
                let event = event.expect("of our writer");
                messages += u64::from(matches!(event, SessionEvent::Application { .. }));
            }
        }
    }
    messages
}
