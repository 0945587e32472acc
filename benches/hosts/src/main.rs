//! What a wake-up costs on every runtime, beside the runtime's own readiness of the same socket.
//!
//! `cargo run --release -p ringtap-bench-hosts [-- ROUNDS]`, without root. One frame at a time, each on a
//! sleeping receiver; the ways take turns. Latency is from the sender's stamp to the callback. System calls
//! are counted by strace, where there is one, in runs of their own, as the difference of two lengths.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::process::Command;
use std::time::Duration;

use hdrhistogram::Histogram;
use ringtap::capture::RingLayout;
use ringtap::reactor::run_anywhere;
use ringtap::shard::{BuiltIn, Runtime};
use ringtap::{AsyncCapture, Capture, Result};
use ringtap_compio::Compio;
use ringtap_glommio::Glommio;
use ringtap_lab::traffic::now;
use ringtap_lab::{Generator, Mark, Namespace, Traffic, bootstrap};
use ringtap_monoio::Monoio;
use ringtap_smol::Smol;
use ringtap_tokio::Tokio;
use ringtap_tokio_uring::TokioUring;
use tokio::io::unix::AsyncFd;
use tokio::task::spawn_local;

/// The ways to wait, each with the one that it is measured against.
const WAYS: [(&str, Option<&str>); 12] = [
    ("poll(2), blocking", None),
    ("built-in", Some("poll(2), blocking")),
    ("tokio's AsyncFd", None),
    ("tokio", Some("tokio's AsyncFd")),
    ("tokio, any task", Some("tokio's AsyncFd")),
    ("AsyncFd, tokio-uring", None),
    ("tokio-uring", Some("AsyncFd, tokio-uring")),
    ("glommio", None),
    ("smol", None),
    ("compio", None),
    ("monoio", None),
    ("no I/O (a thread)", None),
];
const FRAMES: u64 = 2_000;
const PAUSE: Duration = Duration::from_micros(150);
const TRACED: [u64; 2] = [200, 1_200];

type Times = Histogram<u64>;

struct Raw(Capture);

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

fn record(batch: &ringtap::PacketBatch, times: &mut Times) {
    for packet in batch {
        if let Some(mark) = Mark::find(packet.data()) {
            times.record(now().saturating_sub(mark.stamp)).expect("less than a minute");
        }
    }
}

fn no_times() -> Times {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("legal bounds")
}

async fn with_ringtap(capture: Capture, count: u64) -> Result<Times> {
    let (mut capture, mut times) = (AsyncCapture::new(capture)?, no_times());
    while times.len() < count {
        let Some(batch) = capture.next_batch().await? else { break };
        record(&batch, &mut times);
    }
    Ok(times)
}

async fn with_any_task(capture: Capture, count: u64) -> Result<Times> {
    let (mut capture, mut times) = (ringtap_tokio::Capture::new(capture)?, no_times());
    while times.len() < count {
        let Some(batch) = capture.next_batch().await? else { break };
        record(&batch, &mut times);
    }
    Ok(times)
}

async fn with_async_fd(capture: Capture, count: u64) -> Result<Times> {
    let mut times = no_times();
    #[allow(deprecated, reason = "the socket keeps its descriptor open, as its successor demands")]
    let mut socket = AsyncFd::new(Raw(capture)).map_err(ringtap::Error::other)?;
    while times.len() < count {
        let mut ready = socket.readable_mut().await.map_err(ringtap::Error::other)?;
        ready.clear_ready();
        while let Some(batch) = ready.get_inner_mut().0.next_batch() {
            record(&batch, &mut times);
        }
    }
    Ok(times)
}

fn with_poll(mut capture: Capture, count: u64) -> Result<Times> {
    let mut times = no_times();
    while times.len() < count {
        if let Some(batch) = capture.next_batch_timeout(Duration::from_secs(10))? {
            record(&batch, &mut times);
        }
    }
    Ok(times)
}

/// Receives `count` frames one way, in a task, as applications do: where tokio's outermost future is woken,
/// tokio asks the kernel once more before it sleeps.
fn receive(way: &str, capture: Capture, count: u64) -> Result<Times> {
    let tokio_task = |task: tokio::task::JoinHandle<_>| async { task.await.expect("no panic") };
    match way {
        "poll(2), blocking" => with_poll(capture, count),
        "built-in" => BuiltIn::default().run(None, with_ringtap(capture, count))?,
        "tokio" => Tokio::default()
            .run(None, async { tokio_task(spawn_local(with_ringtap(capture, count))).await })?,
        "tokio-uring" => TokioUring::default()
            .run(None, async { tokio_task(spawn_local(with_ringtap(capture, count))).await })?,
        "AsyncFd, tokio-uring" => TokioUring::default()
            .run(None, async { tokio_task(spawn_local(with_async_fd(capture, count))).await })?,
        "tokio, any task" => Tokio::default()
            .run(None, async { tokio_task(tokio::spawn(with_any_task(capture, count))).await })?,
        "glommio" => Glommio::default()
            .run(None, async { glommio::spawn_local(with_ringtap(capture, count)).await })?,
        "smol" => Smol::default()
            .run(None, async { ringtap_smol::spawn_local(with_ringtap(capture, count)).await })?,
        "compio" => Compio::default().run(None, async {
            let task = compio::runtime::spawn(with_ringtap(capture, count));
            task.await.expect("no panic")
        })?,
        "monoio" => Monoio::default()
            .run(None, async { monoio::spawn(with_ringtap(capture, count)).await })?,
        "no I/O (a thread)" => {
            futures_executor::block_on(run_anywhere(with_ringtap(capture, count)))?
        }
        _ => Tokio::default()
            .run(None, async { tokio_task(spawn_local(with_async_fd(capture, count))).await })?,
    }
}

fn open(interface: &str) -> Result<Capture> {
    let capture = Capture::builder().interface(interface).layout(RingLayout::Frames);
    capture.block_size(1 << 16).block_count(16).build()
}

/// Sends one frame after another until told to stop.
fn send_until(left: &str, mut is_over: impl FnMut() -> bool) {
    let mut generator = Generator::new(left, &Traffic::default());
    while !is_over() {
        generator.flood(1);
        std::thread::sleep(PAUSE);
    }
}

fn measure(way: &str, left: &str, right: &str) -> Result<Times> {
    let capture = open(right)?;
    let way = way.to_owned();
    let receiver = std::thread::spawn(move || receive(&way, capture, FRAMES));
    send_until(left, || receiver.is_finished());
    receiver.join().expect("a receiver does not panic")
}

/// System calls that it takes to receive `count` frames in a process of its own, its start included.
fn traced(way: &str, left: &str, right: &str, count: u64) -> Option<u64> {
    let report = std::env::temp_dir().join(format!("ringtap-hosts-{}", std::process::id()));
    let mut child = Command::new("strace")
        .args(["-f", "-c", "-U", "calls,name", "-o"])
        .arg(&report)
        .arg(std::env::current_exe().ok()?)
        .args(["--receive", way, right, &count.to_string()])
        .spawn()
        .ok()?;
    send_until(left, || !matches!(child.try_wait(), Ok(None)));
    let text = std::fs::read_to_string(&report).ok()?;
    let _ = std::fs::remove_file(&report);
    let total = text.lines().find(|line| line.trim_end().ends_with("total"))?;
    total.split_whitespace().next()?.parse().ok()
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, way, interface, count] = &args[..]
        && flag == "--receive"
    {
        receive(way, open(interface)?, count.parse()?)?; // in the namespace of who has started it
        return Ok(());
    }
    bootstrap::enter()?;
    let rounds: usize = args.first().map_or(Ok(7), |rounds| rounds.parse())?;
    let namespace = Namespace::enter()?;
    let veth = namespace.veth();
    let mut p50: Vec<Vec<f64>> = vec![Vec::new(); WAYS.len()];
    let mut p99 = p50.clone();
    for round in 0..rounds {
        for step in 0..WAYS.len() {
            let at = (step + round) % WAYS.len();
            let times = measure(WAYS[at].0, &veth.left, &veth.right)?;
            p50[at].push(times.value_at_quantile(0.50) as f64 / 1000.0);
            p99[at].push(times.value_at_quantile(0.99) as f64 / 1000.0);
        }
    }
    let median = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        (sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1])
    };
    println!("{rounds} rounds of {FRAMES} frames");
    println!(
        "{:<20} {:>7} {:>15} {:>8} {:>12} {:>8}",
        "way", "p50 µs", "least … most", "p99 µs", "calls/wake", "p50 to"
    );
    for (at, (way, peer)) in WAYS.iter().enumerate() {
        let (middle, least, most) = median(&p50[at]);
        let [few, many] = TRACED.map(|count| traced(way, &veth.left, &veth.right, count));
        let calls = few.zip(many).map_or("-".to_owned(), |(few, many)| {
            format!("{:.2}", (many - few) as f64 / (TRACED[1] - TRACED[0]) as f64)
        });
        let ratio = peer.map_or(String::new(), |peer| {
            let of = WAYS.iter().position(|(way, _)| *way == peer).expect("a way");
            format!("{:.2} × {peer}", middle / median(&p50[of]).0)
        });
        let spread = format!("{least:.1} … {most:.1}");
        println!(
            "{way:<20} {middle:>7.1} {spread:>15} {:>8.1} {calls:>12} {ratio}",
            median(&p99[at]).0
        );
    }
    Ok(())
}
