//! What moderation buys and costs: receiver CPU, throughput and latency, interleaved in one run.
//!
//! `cargo bench --bench coalesce [-- --rounds N] [-- --loaded]`, without root. The receiver reads frames
//! (TPACKET_V2) on one thread; each cell is a median over the rounds, with the least and the most.
//! `--loaded` keeps a spinner on each core.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringtap::capture::RingLayout;
use ringtap::executor::Executor;
use ringtap::reactor::{Coalesce, ReactorOptions};
use ringtap::{AsyncCapture, Capture};
use ringtap_lab::{Generator, Mark, Stage, Traffic, traffic};

/// How long each measurement lasts.
const TIME: Duration = Duration::from_millis(600);

#[derive(Clone, Copy)]
enum Load {
    Paced(u64),
    Flood,
}

#[derive(Default)]
struct Cell {
    cpu_ns: Vec<f64>,
    kpps: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
    wakeups: Vec<f64>,
    lost: u64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = pico_args::Arguments::from_env();
    let rounds: usize = args.opt_value_from_str("--rounds")?.unwrap_or(5);
    let is_loaded = args.contains("--loaded");
    let stage = Stage::open(None)?;
    let _spinners = is_loaded.then(Spinners::new);
    let fixed = |us| Coalesce::Fixed(Duration::from_micros(us));
    let kinds = [
        ("off", Coalesce::Off),
        ("20 us", fixed(20)),
        ("50 us", fixed(50)),
        ("100 us", fixed(100)),
        ("200 us", fixed(200)),
        ("adaptive", Coalesce::Adaptive { max: Duration::from_micros(200) }),
    ];
    println!("{} machine, {rounds} rounds", if is_loaded { "loaded" } else { "quiet" });
    for (name, load) in
        [("5 kpps", Load::Paced(5_000)), ("100 kpps", Load::Paced(100_000)), ("flood", Load::Flood)]
    {
        let mut cells: Vec<Cell> = kinds.iter().map(|_| Cell::default()).collect();
        for round in 0..rounds {
            for at in 0..kinds.len() {
                let at = (at + round) % kinds.len(); // no kind is always first
                measure(&stage, load, kinds[at].1, &mut cells[at])?;
            }
        }
        println!(
            "\n{name:<9} CPU ns/packet          kpps    p50 us           p99 us   wakes/s  lost"
        );
        for ((name, _), cell) in kinds.iter().zip(&mut cells) {
            println!(
                "{name:<9} {}  {:>8.1}  {}  {:>8.0}  {:>8.0}  {:>4}",
                spread(&mut cell.cpu_ns),
                median(&mut cell.kpps),
                spread(&mut cell.p50_us),
                median(&mut cell.p99_us),
                median(&mut cell.wakeups),
                cell.lost,
            );
        }
    }
    Ok(())
}

fn measure(
    stage: &Stage,
    load: Load,
    coalesce: Coalesce,
    cell: &mut Cell,
) -> Result<(), Box<dyn std::error::Error>> {
    let ring = Capture::builder().interface(stage.interface()).layout(RingLayout::Frames);
    let mut capture = ring.block_size(1 << 18).block_count(64).build()?;
    let stop = capture.stop_handle()?;
    let receiver = std::thread::spawn(move || receive(capture, coalesce));
    let mut generator =
        Generator::new(stage.sending_interface(), &Traffic { flows: 4, ..Traffic::default() });
    let start = Instant::now();
    while start.elapsed() < TIME {
        match load {
            Load::Paced(rate) => generator.paced(rate / 50, rate),
            Load::Flood => generator.flood(1024),
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    stop.stop();
    let (packets, cpu, latency, wakeups, drops) = receiver.join().expect("no panic")?;
    cell.cpu_ns.push(cpu.as_nanos() as f64 / packets as f64);
    cell.kpps.push(packets as f64 / elapsed / 1e3);
    cell.p50_us.push(latency.value_at_quantile(0.5) as f64 / 1e3);
    cell.p99_us.push(latency.value_at_quantile(0.99) as f64 / 1e3);
    cell.wakeups.push(wakeups as f64 / elapsed);
    cell.lost += drops;
    Ok(())
}

type Received = (u64, Duration, Histogram<u32>, u64, u64);

fn receive(capture: Capture, coalesce: Coalesce) -> ringtap::Result<Received> {
    Executor::new(ReactorOptions::new().coalesce(coalesce))?.block_on(async {
        let mut capture = AsyncCapture::new(capture)?;
        let mut latency = Histogram::new_with_bounds(1, 10_000_000_000, 2).expect("bounds");
        let (mut packets, before) = (0, cpu_time());
        while let Some(batch) = capture.next_batch().await? {
            let now = traffic::now();
            for packet in &batch {
                packets += 1;
                if let Some(mark) = Mark::find(packet.data()) {
                    latency.saturating_record(now.saturating_sub(mark.stamp));
                }
            }
        }
        let cpu = cpu_time() - before;
        let wakeups = ringtap::reactor::Reactor::current()?.stats().wakeups;
        Ok((packets, cpu, latency, wakeups, capture.stats()?.drops))
    })
}

/// A busy thread on each core, until dropped.
struct Spinners(Arc<AtomicBool>, Vec<std::thread::JoinHandle<()>>);

impl Spinners {
    fn new() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let spin = |stop: Arc<AtomicBool>| {
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = (0..cores).map(|_| spin(Arc::clone(&stop))).collect();
        Self(stop, threads)
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        for thread in self.1.drain(..) {
            let _ = thread.join();
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn spread(values: &mut [f64]) -> String {
    let middle = median(values);
    format!("{middle:>6.0} ({:.0}-{:.0})", values[0], values[values.len() - 1])
}

/// User and system time of this thread so far.
fn cpu_time() -> Duration {
    // SAFETY: a C struct of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is writable.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    Duration::from_micros(micros(usage.ru_utime) + micros(usage.ru_stime))
}
