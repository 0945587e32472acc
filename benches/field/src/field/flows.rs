//! Flows of a live capture: 100,000 TCP segments a second, both ways and in random order. All connections have begun before
//! the clock starts.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ringtap_lab::Veth;
use ringtap_lab::generator::Sender;

use crate::harness::{Kind, Outcome, Progress, Table, compare, cpu_time, pin};

type Receiver = fn(&str, &Progress) -> Outcome<()>;

const WAYS: &[(&str, Kind, Receiver)] = &[
    ("ringtap, flow_stream", Kind::Ours, ours),
    ("netring 0.29, flow_stream", Kind::Peer, netring29),
    #[cfg(feature = "netring32")]
    ("netring 0.32, flow_stream", Kind::Peer, netring32),
];
const PACKETS: u32 = 60_000;
const RATE: u32 = 100_000;

pub(crate) fn table(veth: &Veth, flows: u32, title: &'static str, rounds: usize) -> Table {
    let (first, mixed) = frames(flows);
    compare(title, &["CPU ns/packet", "flows begun"], WAYS, rounds, |way| {
        let (name, progress) = (veth.right.clone(), Progress::default());
        let for_receiver = progress.clone();
        let receiving = std::thread::spawn(move || {
            pin(1);
            way(&name, &for_receiver)
        });
        pin(0);
        std::thread::sleep(Duration::from_millis(250)); // it opens its socket
        let sender = Sender::open(&veth.left)?;
        let send = |frames: &[Vec<u8>], count: u32| -> Outcome<u32> {
            let (start, mut sent) = (Instant::now(), 0_u32);
            while sent < count {
                let from = sent as usize % frames.len();
                let burst = &frames[from..(from + 200).min(frames.len())];
                sender.send_all(burst)?;
                sent += burst.len() as u32;
                let due = Duration::from_secs(1) * sent / RATE;
                std::thread::sleep(due.saturating_sub(start.elapsed()));
            }
            std::thread::sleep(Duration::from_millis(200));
            Ok(sent)
        };
        send(&first, flows)?;
        let (before, own) = (cpu_time(libc::RUSAGE_SELF), cpu_time(libc::RUSAGE_THREAD));
        let sent = send(&mixed, PACKETS.max(2 * flows))?;
        let used = cpu_time(libc::RUSAGE_SELF) - before - (cpu_time(libc::RUSAGE_THREAD) - own);
        progress.stop();
        receiving.join().map_err(|_| "the receiver panicked")??;
        Ok(vec![used.as_nanos() as f64 / f64::from(sent), progress.packets() as f64])
    })
}

/// A segment of each connection; and some of either side, in random order.
fn frames(flows: u32) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let segment = |flow: u32, is_answer: bool| {
        let (client, server) = ((0x0a00_0000 + flow).to_be_bytes(), [10, 200, 9, 9]);
        let (from, to) = if is_answer { (server, client) } else { (client, server) };
        let ports = if is_answer { (443, 7) } else { (7, 443) };
        let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from, to, 64);
        let builder = builder.tcp(ports.0, ports.1, 1, 1000).ack(1);
        let mut frame = Vec::new();
        builder.write(&mut frame, &[0; 18]).expect("a Vec takes all");
        frame
    };
    let first = (0..flows).map(|flow| segment(flow, false)).collect();
    let count = (2 * flows).max(4_000);
    let mut mixed: Vec<_> =
        (0..count).map(|number| segment(number / 2 % flows, number % 2 == 1)).collect();
    let mut state = 1_u64;
    for at in (1..mixed.len()).rev() {
        // Knuth's, of MMIX.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        mixed.swap(at, (state >> 33) as usize % (at + 1));
    }
    (first, mixed)
}

fn ours(name: &str, progress: &Progress) -> Outcome<()> {
    use ringtap::flow::extract::FiveTuple;
    use ringtap::flow::{FlowEvent, FlowExt};
    let run = async {
        let capture = ringtap::AsyncCapture::open(name)?;
        let mut events = capture.flow_stream(FiveTuple::bidirectional());
        while !progress.is_over() {
            match ringtap::time::timeout(Duration::from_millis(50), events.next()).await {
                Ok(Some(event)) => {
                    if matches!(event?, FlowEvent::Started { .. }) {
                        progress.add(1);
                    }
                }
                Ok(None) => break,
                Err(_) => {}
            }
        }
        Ok(())
    };
    ringtap::shard::Runtime::run(&ringtap_tokio::Tokio::default(), None, run)?
}

macro_rules! netring {
    ($name:ident, $krate:ident) => {
        fn $name(name: &str, progress: &Progress) -> Outcome<()> {
            use ::$krate::flow::FlowEvent;
            use ::$krate::flow::extract::FiveTuple;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let capture = ::$krate::AsyncCapture::open(name)?;
                let mut events = std::pin::pin!(capture.flow_stream(FiveTuple::bidirectional()));
                while !progress.is_over() {
                    match tokio::time::timeout(Duration::from_millis(50), events.next()).await {
                        Ok(Some(event)) => {
                            if matches!(event?, FlowEvent::Started { .. }) {
                                progress.add(1);
                            }
                        }
                        Ok(None) => break,
                        Err(_) => {}
                    }
                }
                Ok(())
            })
        }
    };
}

netring!(netring29, netring);
#[cfg(feature = "netring32")]
netring!(netring32, netring32);
