//! Compares the latency of blocks (TPACKET_V3) and frames (TPACKET_V2) by receiving each packet with both.
//!
//! ```sh
//! cargo run --release --example low_latency -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- low_latency` tries it on generated traffic, without root.
//! It needs the crates `ctrlc` and `hdrhistogram` besides ringtap.

use std::time::SystemTime;

use hdrhistogram::Histogram;
use ringtap::Capture;
use ringtap::capture::RingLayout;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: low_latency INTERFACE")?;
    let ring = Capture::builder().interface(&interface).block_size(1 << 18).block_count(16);
    let mut blocks = ring.clone().block_timeout_ms(1).build()?;
    let mut frames = ring.layout(RingLayout::Frames).build()?;
    let stops = [blocks.stop_handle()?, frames.stop_handle()?];
    ctrlc::set_handler(move || stops.iter().for_each(|stop| stop.stop()))?;
    println!("capturing on {interface}");
    let threads = [blocks, frames].map(|capture| std::thread::spawn(move || measure(capture)));

    println!("latency           p50 µs   p90 µs   p99 µs  p99.9 µs");
    let mut medians = Vec::new();
    for (name, thread) in ["blocks, 1 ms", "frames"].into_iter().zip(threads) {
        let latency = thread.join().expect("the thread does not panic")?;
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999]
            .map(|quantile| latency.value_at_quantile(quantile) as f64 / 1e3);
        println!("{name:<15} {p50:>8.1} {p90:>8.1} {p99:>8.1} {p999:>9.1}");
        medians.push(p50);
    }
    println!("the median of frames is {:.0} times lower", medians[0] / medians[1]);
    Ok(())
}

/// The nanoseconds from the kernel's time stamp of each packet to this thread.
fn measure(mut capture: Capture) -> ringtap::Result<Histogram<u32>> {
    let mut latency = Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("valid bounds");
    for batch in capture.batches() {
        let batch = batch?;
        let now = SystemTime::now();
        for packet in &batch {
            let age = now.duration_since(packet.timestamp().into()).unwrap_or_default();
            latency.saturating_record(age.as_nanos() as u64);
        }
    }
    Ok(latency)
}
