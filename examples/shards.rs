//! The main job: capture on every core, one shard each, and account for every packet.
//!
//! Without arguments it floods a network namespace of its own, without root. On a real interface
//! (needs CAP_NET_RAW, `setcap cap_net_raw+ep BINARY`):
//!     cargo run --release --example shards -- eth0 --shards 4 --fanout hash --seconds 10

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use hdrhistogram::Histogram;
use ringtap::fanout::FanoutMode;
use ringtap::shard::{AllShardStats, Cores, Shard, Source};
use ringtap::{Capture, Shards};
use ringtap_lab_wire::Stage;

/// What a shard measures by itself.
struct Meter {
    bytes: u64,
    /// Microseconds from the kernel's stamp to us.
    latency: Histogram<u32>,
}

type Meters = Arc<Vec<Mutex<Meter>>>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = pico_args::Arguments::from_env();
    let count: Option<usize> = args.opt_value_from_str("--shards")?;
    let mode = args.opt_value_from_str("--fanout")?.unwrap_or(FanoutMode::Hash);
    let seconds = args.opt_value_from_str("--seconds")?.unwrap_or(4);
    let stage = Stage::open(args.opt_free_from_str()?)?;

    let count = count.unwrap_or(std::thread::available_parallelism()?.get().max(2));
    let latency = Histogram::new_with_bounds(1, 60_000_000, 2)?; // up to a minute
    let meter = || Mutex::new(Meter { bytes: 0, latency: latency.clone() });
    let meters: Meters = Arc::new((0..count).map(|_| meter()).collect());
    let work = Arc::clone(&meters);
    let shards = Shards::builder()
        .interface(stage.interface())
        .capture(Capture::builder().block_size(1 << 20).block_timeout_ms(10).promiscuous(true))
        .source(Source::Fanout(mode))
        .cores(Cores::All)
        .shards(count)
        .spawn(move |shard| measure(shard, Arc::clone(&work)))?;

    let traffic = stage.flood(Duration::from_secs(seconds));
    let mut before = shards.stats()?;
    let mut bytes = vec![0; count];
    println!("shard core    packets       pps   Mbit/s  drops freezes wakes  p50 µs  p99 µs");
    while traffic.is_under_way() && !shards.is_finished() {
        std::thread::sleep(Duration::from_secs(1));
        let now = shards.stats()?;
        print_table(&now, &before, &meters, &mut bytes);
        before = now;
    }
    let sent = traffic.finish();
    shards.stop();
    let total = shards.join()?.total();
    let (lost, dropped) = (stage.lost(), total.drops);
    let sent = if stage.is_real() { total.packets } else { sent };
    let accounted = total.delivered + dropped + lost;
    println!(
        "sent {sent} = delivered {} + dropped {dropped} + lost before {lost}",
        total.delivered
    );
    println!("accounted: {accounted} of {sent}");
    println!("{}", if accounted == sent { "every packet is accounted for" } else { "MISMATCH" });
    std::process::exit(i32::from(accounted != sent));
}

/// One shard's work: count bytes and latencies until the shards are stopped.
async fn measure(mut shard: Shard, meters: Meters) -> ringtap::Result<()> {
    while let Some(batch) = shard.capture.next().await {
        let batch = batch?;
        let now = SystemTime::now();
        let mut meter = meters[shard.index()].lock().expect("nobody panics with it");
        for packet in &batch {
            meter.bytes += packet.original_len() as u64;
            let age = now.duration_since(packet.timestamp().into()).unwrap_or_default();
            meter.latency.saturating_record(age.as_micros() as u64);
        }
    }
    Ok(())
}

fn print_table(now: &AllShardStats, before: &AllShardStats, meters: &Meters, bytes: &mut [u64]) {
    for ((now, before), bytes) in now.shards().iter().zip(before.shards()).zip(bytes) {
        let (capture, spec) = (now.capture.delta_since(&before.capture), now.spec);
        let wakes = now.reactor.delta_since(&before.reactor).wakeups;
        let mut meter = meters[spec.index].lock().expect("nobody panics with it");
        let mbit = (meter.bytes - std::mem::replace(bytes, meter.bytes)) as f64 * 8e-6;
        let core = spec.core.map_or("-".to_owned(), |core| core.to_string());
        let [p50, p99] = [0.5, 0.99].map(|quantile| meter.latency.value_at_quantile(quantile));
        meter.latency.reset();
        println!(
            "{:>5} {core:>4} {:>10} {:>9} {mbit:>8.1} {:>6} {:>7} {wakes:>5} {p50:>7} {p99:>7}",
            spec.index, now.capture.packets, capture.packets, capture.drops, capture.freezes,
        );
    }
    println!();
}
