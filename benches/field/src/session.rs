//! Sessions of HTTP on many live connections, side by side: `cargo run --release --bin session [-- --rounds N]` in this
//! directory, as root. The same frames over veth, one receiver a time, in turn; each figure is the receiver's CPU time a
//! packet that was sent, a median over the rounds with the least and the most, and how many messages of how many were told.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use futures_util::StreamExt;
use ringtap_lab::generator::Sender;
use ringtap_lab::{Namespace, Veth};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;
/// Receives until it is told to end: how many messages there were.
type Receiver = fn(&str, Arc<AtomicBool>) -> Outcome<u64>;

const RECEIVERS: &[(&str, Receiver)] = &[("ringtap", by_ringtap), ("netring 0.29", by_netring)];
/// Of flows alone: how many began.
const TRACKERS: &[(&str, Receiver)] =
    &[("flow_stream", by_flow_stream), ("bare FlowTracker", by_tracker)];
/// Packets a second that are sent, in bursts.
const RATE: u32 = 40_000;
const TURNS: u32 = 3;
/// How long a receiver waits for more at the end.
const PATIENCE: Duration = Duration::from_millis(500);

fn main() -> Outcome<()> {
    let mut args = pico_args::Arguments::from_env();
    let rounds: usize = args.opt_value_from_str("--rounds")?.unwrap_or(5);
    let namespace = Namespace::enter()?;
    let veth = namespace.veth();
    println!("receiver CPU ns a packet, median (least to most), {rounds} rounds");
    for flows in [64, 10_000] {
        let (frames, messages) = frames(flows);
        compare(
            &veth,
            RECEIVERS,
            rounds,
            &frames,
            RATE,
            &format!("{flows} connections, {messages} messages"),
        )?;
    }
    for flows in [64, 10_000, 500_000] {
        let frames = datagrams(flows);
        compare(
            &veth,
            TRACKERS,
            rounds,
            &frames,
            4 * RATE,
            &format!("{flows} flows, {flows} begin"),
        )?;
    }
    Ok(())
}

/// Has receivers take the same frames, in turn.
fn compare(
    veth: &Veth,
    receivers: &[(&str, Receiver)],
    rounds: usize,
    frames: &[Vec<u8>],
    rate: u32,
    what: &str,
) -> Outcome<()> {
    let mut times = vec![Vec::new(); receivers.len()];
    let mut told = vec![Vec::new(); receivers.len()];
    // The first round touches memory that the machine has not used yet, and does not count.
    for round in 0..=rounds {
        for at in 0..receivers.len() {
            let at = (at + round) % receivers.len(); // none is always first
            let (cpu, count) = measure(veth, receivers[at].1, frames, rate)?;
            if round > 0 {
                times[at].push(cpu.as_nanos() as f64 / frames.len() as f64);
                told[at].push(count);
            }
        }
    }
    for (((name, _), times), told) in receivers.iter().zip(&mut times).zip(&told) {
        times.sort_by(f64::total_cmp);
        let (least, most) = (times[0], times[times.len() - 1]);
        let (median, told) = (times[times.len() / 2], told.iter().min().expect("a round"));
        println!(
            "{what:<40} {name:<16} {median:>8.0} ({least:.0} to {most:.0})  at least {told} told"
        );
    }
    Ok(())
}

fn measure(
    veth: &Veth,
    receiver: Receiver,
    frames: &[Vec<u8>],
    rate: u32,
) -> Outcome<(Duration, u64)> {
    let (name, is_over) = (veth.right.clone(), Arc::new(AtomicBool::new(false)));
    let stop = Arc::clone(&is_over);
    let receiving = std::thread::spawn(move || -> Outcome<(Duration, u64)> {
        let before = cpu_time();
        let count = receiver(&name, stop)?;
        Ok((cpu_time() - before, count))
    });
    std::thread::sleep(Duration::from_millis(200)); // the receiver opens its socket
    let sender = Sender::open(&veth.left)?;
    let start = Instant::now();
    let mut sent = 0_u32;
    for burst in frames.chunks(200) {
        sender.send_all(burst)?;
        sent += burst.len() as u32;
        let due = Duration::from_secs(1) * sent / rate;
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    is_over.store(true, Ordering::Relaxed);
    receiving.join().expect("no receiver panics")
}

/// Datagrams of so many flows, each flow in turn, a million in all.
fn datagrams(flows: u32) -> Vec<Vec<u8>> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 9, 9, 9], 64);
    let mut frame = Vec::new();
    builder.udp(7, 7).write(&mut frame, &[0; 60]).expect("a Vec takes all");
    let one = |number: u32| {
        let mut frame = frame.clone();
        frame[26..30].copy_from_slice(&(0x0a00_0000 + number % flows).to_be_bytes());
        frame[24..26].fill(0);
        frame
    };
    (0..1_000_000).map(one).collect()
}

/// Takes batches until there are no more.
async fn batches(
    name: &str,
    is_over: &AtomicBool,
    mut take: impl FnMut(&ringtap::PacketBatch),
) -> Outcome<()> {
    let options = ringtap::Capture::builder().interface(name).ignore_outgoing(true).build()?;
    let mut capture = ringtap::AsyncCapture::new(options)?;
    loop {
        match ringtap::time::timeout(PATIENCE, capture.next_batch()).await {
            Ok(batch) => batch?.iter().for_each(&mut take),
            Err(_) if is_over.load(Ordering::Relaxed) => return Ok(()),
            Err(_) => {}
        }
    }
}

fn ours() -> ringtap::flow::FlowConfig {
    let mut config = ringtap::flow::FlowConfig::default();
    config.max_flows = 1_000_000;
    config
}

fn config() -> flowscope::FlowTrackerConfig {
    let mut config = flowscope::FlowTrackerConfig::default();
    config.suppress_events = flowscope::EventMask::PACKET;
    config.max_flows = 1_000_000;
    config
}

fn by_tracker(name: &str, is_over: Arc<AtomicBool>) -> Outcome<u64> {
    use flowscope::extract::FiveTuple;

    let mut tracker: flowscope::FlowTracker<FiveTuple> =
        flowscope::FlowTracker::with_config(FiveTuple::bidirectional(), config());
    ringtap::executor::block_on(batches(name, &is_over, |batch| {
        for packet in batch {
            let time = packet.timestamp();
            let time = flowscope::Timestamp::new(time.secs, time.nanos);
            let view = flowscope::PacketView::new(packet.data(), time);
            std::hint::black_box(tracker.track(view));
        }
    }))?;
    Ok(tracker.stats().flows_created)
}

fn by_flow_stream(name: &str, is_over: Arc<AtomicBool>) -> Outcome<u64> {
    use ringtap::flow::FlowExt;
    use ringtap::flow::extract::FiveTuple;

    let options = ringtap::Capture::builder().interface(name).ignore_outgoing(true).build()?;
    ringtap::executor::block_on(async {
        let capture = ringtap::AsyncCapture::new(options)?;
        let mut flows = capture.flow_stream(FiveTuple::bidirectional());
        flows.table_mut().set_config(ours());
        loop {
            match ringtap::time::timeout(PATIENCE, flows.next()).await {
                Ok(event) => drop(std::hint::black_box(event)),
                Err(_) if is_over.load(Ordering::Relaxed) => break,
                Err(_) => {}
            }
        }
        Ok(flows.stats().flows_created)
    })
}

/// Connections that all begin, and then ask and are answered in turn.
fn frames(flows: u32) -> (Vec<Vec<u8>>, u64) {
    let request = b"GET /index.html HTTP/1.1\r\nHost: example.org\r\nUser-Agent: bench\r\n\r\n";
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\nContent-Type: text/plain\r\n\r\n";
    let answer = [&head[..], &[b'x'; 600]].concat();
    let turns = if flows < 1000 { TURNS * 10_000 / flows } else { TURNS };
    let mut frames = Vec::new();
    let mut packet =
        |flow: u32, is_clients: bool, flags: &str, seq: u32, ack: u32, bytes: &[u8]| {
            let (client, server) = ((0x0a00_0000 + flow).to_be_bytes(), [192, 168, 0, 1]);
            let (from, to, source, destination) = match is_clients {
                true => (client, server, 40_000, 80),
                false => (server, client, 80, 40_000),
            };
            let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from, to, 64);
            let mut tcp = builder.tcp(source, destination, seq, 60_000);
            for flag in flags.chars() {
                tcp = if flag == 'S' { tcp.syn() } else { tcp.ack(ack) };
            }
            let mut frame = Vec::new();
            tcp.write(&mut frame, bytes).expect("a Vec takes all");
            frames.push(frame);
        };
    for flow in 0..flows {
        packet(flow, true, "S", 999, 0, &[]);
        packet(flow, false, "SA", 999, 1000, &[]);
        packet(flow, true, "A", 1000, 1000, &[]);
    }
    for turn in 0..turns {
        for number in 0..flows {
            let flow = number.wrapping_mul(7919) % flows;
            let (from, to) =
                (1000 + turn * request.len() as u32, 1000 + turn * answer.len() as u32);
            let asked = from + request.len() as u32;
            packet(flow, true, "A", from, to, request);
            for (piece, bytes) in answer.chunks(answer.len().div_ceil(3)).enumerate() {
                let at = to + (piece * answer.len().div_ceil(3)) as u32;
                packet(flow, false, "A", at, asked, bytes);
            }
            packet(flow, true, "A", asked, to + answer.len() as u32, &[]);
        }
    }
    (frames, u64::from(2 * turns * flows))
}

fn by_ringtap(name: &str, is_over: Arc<AtomicBool>) -> Outcome<u64> {
    use ringtap::flow::extract::FiveTuple;
    use ringtap::flow::http::HttpParser;
    use ringtap::flow::{FlowExt, SessionEvent};

    let options = ringtap::Capture::builder().interface(name).ignore_outgoing(true).build()?;
    ringtap::executor::block_on(async {
        let capture = ringtap::AsyncCapture::new(options)?;
        let mut sessions =
            capture.flow_stream(FiveTuple::bidirectional()).session_stream(HttpParser::default());
        let mut messages = 0;
        loop {
            match ringtap::time::timeout(PATIENCE, sessions.next()).await {
                Ok(Some(event)) => {
                    messages += u64::from(matches!(event?, SessionEvent::Application { .. }));
                }
                Ok(None) => break,
                Err(_) if is_over.load(Ordering::Relaxed) => break,
                Err(_) => {}
            }
        }
        Ok(messages)
    })
}

fn by_netring(name: &str, is_over: Arc<AtomicBool>) -> Outcome<u64> {
    use netring::flow::SessionEvent;
    use netring::flow::extract::FiveTuple;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let capture = netring::AsyncCapture::open(name)?;
        let mut sessions = capture
            .flow_stream(FiveTuple::bidirectional())
            .session_stream(flowscope::http::HttpParser::default());
        let mut messages = 0;
        loop {
            match tokio::time::timeout(PATIENCE, sessions.next()).await {
                Ok(Some(event)) => {
                    messages += u64::from(matches!(event?, SessionEvent::Application { .. }));
                }
                Ok(None) => break,
                Err(_) if is_over.load(Ordering::Relaxed) => break,
                Err(_) => {}
            }
        }
        Ok(messages)
    })
}

fn cpu_time() -> Duration {
    // SAFETY: a C struct of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is writable.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    Duration::from_micros(micros(usage.ru_utime) + micros(usage.ru_stime))
}
