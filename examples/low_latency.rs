//! Latency of frames (TPACKET_V2) beside that of blocks (TPACKET_V3) with a timeout of 1 ms, on the same
//! traffic at the same time: `cargo run --release --example low_latency`, in the lab.

use std::time::Duration;

use hdrhistogram::Histogram;
use ringtap::capture::{CaptureBuilder, RingLayout};
use ringtap::{AsyncCapture, Capture, StopHandle, executor};
use ringtap_lab_wire::{Mark, Stage, traffic};

const RATE: u64 = 10_000;

type Measuring = std::thread::JoinHandle<ringtap::Result<Histogram<u32>>>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::open(None)?;
    let mut ratios = Vec::new();
    println!("{RATE} frames a second   p50 µs   p90 µs   p99 µs  p99.9 µs");
    for _round in 0..5 {
        let ring = Capture::builder().interface(stage.interface()).block_size(1 << 18);
        let (blocks, stop_blocks) = measure(ring.clone().block_timeout_ms(1).block_count(16))?;
        let (frames, stop_frames) = measure(ring.layout(RingLayout::Frames).block_count(16))?;
        stage.pace(Duration::from_secs(1), RATE).finish();
        stop_blocks.stop();
        stop_frames.stop();
        let blocks = blocks.join().expect("no panic")?;
        let frames = frames.join().expect("no panic")?;
        for (name, latency) in [("blocks, 1 ms", &blocks), ("frames", &frames)] {
            let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999]
                .map(|quantile| latency.value_at_quantile(quantile) as f64 / 1e3);
            println!("{name:<22} {p50:>8.1} {p90:>8.1} {p99:>8.1} {p999:>9.1}");
        }
        ratios.push(blocks.value_at_quantile(0.5) as f64 / frames.value_at_quantile(0.5) as f64);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "p50 of frames is {:.0} times lower ({:.0} to {:.0})",
        ratios[2], ratios[0], ratios[4]
    );
    Ok(())
}

/// Captures on a thread of its own, and measures from the sender's stamp to here, in nanoseconds.
fn measure(ring: CaptureBuilder) -> ringtap::Result<(Measuring, StopHandle)> {
    let mut capture = ring.build()?;
    let stop = capture.stop_handle()?;
    let thread = std::thread::spawn(move || {
        executor::block_on(async {
            let mut capture = AsyncCapture::new(capture)?;
            let mut latency = Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("bounds");
            while let Some(batch) = capture.next_batch().await? {
                let now = traffic::now();
                for mark in batch.iter().filter_map(|packet| Mark::find(packet.data())) {
                    latency.saturating_record(now.saturating_sub(mark.stamp));
                }
            }
            Ok(latency)
        })
    });
    Ok((thread, stop))
}
