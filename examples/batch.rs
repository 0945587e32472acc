//! Prints the properties of thirty batches, and keeps the largest.
//!
//! ```sh
//! cargo run --release --example batch -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- batch` tries it on generated traffic, without root.

use ringtap::Capture;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: batch INTERFACE")?;
    let mut capture = Capture::builder()
        .interface(&interface)
        .block_size(1 << 18)
        .block_count(16)
        .block_timeout_ms(20)
        .build()?;
    println!("capturing on {interface}");
    let mut largest = None;
    for batch in capture.batches().take(30) {
        let batch = batch?;
        println!(
            "block {:>3}: {:>5} packets, {} to {}, {}{}",
            batch.seq_num(),
            batch.len(),
            batch.ts_first(),
            batch.ts_last(),
            if batch.timed_out() { "timed out" } else { "full" },
            if batch.is_losing() { ", packets were dropped" } else { "" },
        );
        // A batch can be kept as long as you like. A detached one is a copy, and keeps no block of the ring.
        if largest.as_ref().is_none_or(|(len, _)| *len < batch.len()) {
            largest = Some((batch.len(), batch.detach()));
        }
    }
    if let Some((packets, batch)) = largest {
        let bytes: usize = batch.iter().map(|packet| packet.len()).sum();
        println!("the largest was block {}: {packets} packets, {bytes} bytes", batch.seq_num());
    }
    println!("{:?}", capture.stats()?);
    Ok(())
}
