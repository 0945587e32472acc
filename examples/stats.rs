//! Prints statistics from another thread once a second, without disturbing the capture.
//!
//! ```sh
//! cargo run --release --example stats -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- stats` tries it on generated traffic, without root.
//! It needs the crate `ctrlc` besides ringtap.

use std::time::Duration;

use ringtap::Capture;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: stats INTERFACE")?;
    // A small ring, of 1 MiB, so that a flood has something to overflow.
    let ring = Capture::builder().interface(&interface).block_size(1 << 16).block_count(16);
    let mut capture = ring.build()?;
    let (stats, stop) = (capture.stats_handle(), capture.stop_handle()?);
    ctrlc::set_handler(move || stop.stop())?;
    println!("capturing on {interface}");

    std::thread::spawn(move || -> ringtap::Result<()> {
        let mut before = stats.stats()?;
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = stats.stats()?;
            let delta = now.delta_since(&before);
            println!(
                "{} packets, {} dropped ({:.1} %), {} freezes, {} in the ring",
                delta.packets,
                delta.drops,
                100.0 * delta.drop_ratio(),
                delta.freezes,
                now.pending(),
            );
            before = now;
        }
    });
    for batch in capture.batches() {
        batch?;
    }
    let stats = capture.stats()?;
    println!("in all: {} = {} delivered + {} dropped", stats.packets, stats.delivered, stats.drops);
    Ok(())
}
