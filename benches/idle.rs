//! What waiting costs: CPU time and wake-ups on an interface where nothing happens.
//!
//! `cargo bench --bench idle [-- SECONDS]`, without root. Each way of waiting has the same time.

use std::time::{Duration, Instant};

use ringtap::capture::CaptureBuilder;
use ringtap::reactor::Reactor;
use ringtap::{AsyncCapture, Capture, Shards, executor, time};
use ringtap_lab::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(10);
    let time = Duration::from_secs(seconds);
    let stage = Stage::open(None)?;
    let ring =
        || Capture::builder().interface(stage.interface()).block_size(1 << 18).block_timeout_ms(10);
    println!("{seconds} s of silence     CPU ms   CPU %  wake-ups");
    measure("blocking", time, || blocking(&ring(), time))?;
    measure("async", time, || asynchronous(&ring(), time))?;
    measure("2 shards", time, || shards(ring(), time))?;
    Ok(())
}

fn blocking(ring: &CaptureBuilder, time: Duration) -> ringtap::Result<String> {
    let mut capture = ring.clone().build()?;
    while capture.next_batch_timeout(time)?.is_some() {}
    Ok("-".to_owned())
}

fn asynchronous(ring: &CaptureBuilder, limit: Duration) -> ringtap::Result<String> {
    executor::block_on(async {
        let mut capture = AsyncCapture::new(ring.clone().build()?)?;
        let _ = time::timeout(limit, capture.next_batch()).await;
        Ok(Reactor::current()?.stats().wakeups.to_string())
    })
}

fn shards(ring: CaptureBuilder, time: Duration) -> ringtap::Result<String> {
    let shards = Shards::builder().capture(ring).shards(2).spawn(|mut shard| async move {
        while shard.capture.next_batch().await?.is_some() {}
        Ok(())
    })?;
    std::thread::sleep(time);
    let stats = shards.stats()?;
    let wakeups: u64 = stats.shards().iter().map(|shard| shard.reactor.wakeups).sum();
    shards.stop();
    shards.join()?;
    Ok(wakeups.to_string())
}

fn measure(
    name: &str,
    time: Duration,
    run: impl FnOnce() -> ringtap::Result<String>,
) -> ringtap::Result<()> {
    let (start, before) = (Instant::now(), cpu_time());
    let wakeups = run()?;
    let cpu = cpu_time() - before;
    let percent = 100.0 * cpu.as_secs_f64() / start.elapsed().max(time).as_secs_f64();
    println!("{name:<20} {:>8.2} {percent:>7.3} {wakeups:>9}", cpu.as_secs_f64() * 1e3);
    Ok(())
}

/// User and system time of this process so far.
fn cpu_time() -> Duration {
    // SAFETY: a C struct of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is writable.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    Duration::from_micros(micros(usage.ru_utime) + micros(usage.ru_stime))
}
