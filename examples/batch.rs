//! Blocking capture, batch by batch: what a batch says of itself, and keeping one.
//! `cargo run --example batch -- eth0`, or without arguments in the lab.

use std::time::Duration;

use ringtap::Capture;
use ringtap_lab_wire::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let traffic = stage.pace(Duration::from_secs(2), 50_000);
    let mut capture = Capture::builder()
        .interface(stage.interface())
        .block_size(1 << 18)
        .block_count(16)
        .block_timeout_ms(20)
        .build()?;
    let mut largest = None;
    for batch in capture.batches().take(30) {
        let batch = batch?;
        println!(
            "block {:>3}: {:>5} packets, {} .. {}, {}{}",
            batch.seq_num(),
            batch.len(),
            batch.ts_first(),
            batch.ts_last(),
            if batch.timed_out() { "its time was up" } else { "full" },
            if batch.is_losing() { ", packets were dropped" } else { "" },
        );
        // A batch is owned: keep it as long as you like. Detached, it holds up no block of the ring.
        if largest.as_ref().is_none_or(|(len, _)| *len < batch.len()) {
            largest = Some((batch.len(), batch.detach()));
        }
    }
    drop(traffic);
    if let Some((_, batch)) = largest {
        let bytes: usize = batch.iter().map(|packet| packet.len()).sum();
        println!(
            "the largest was block {}: {} packets, {bytes} bytes",
            batch.seq_num(),
            batch.len()
        );
    }
    println!("{:?}", capture.stats()?);
    Ok(())
}
