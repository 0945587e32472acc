//! Removes duplicates: on loopback, a capture sees each packet go out and come in.
//!
//! ```sh
//! cargo run --release --example dedup -- lo
//! ```
//!
//! `cargo run --release --bin lab -- dedup` tries it on generated traffic, without root.
//! It needs the crates `ctrlc` and `futures-util` besides ringtap.

use std::time::Duration;

use futures_util::StreamExt;
use ringtap::dedup::{Dedup, DedupExt, DedupMode};
use ringtap::{AsyncCapture, Capture, executor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: dedup INTERFACE")?;
    executor::block_on(async {
        let capture = Capture::builder().interface(&interface).filter("udp".parse()?).build()?;
        let mut capture = AsyncCapture::new(capture)?;
        let stop = capture.stop_handle()?;
        ctrlc::set_handler(move || stop.stop())?;
        println!("capturing on {interface}");

        // `Dedup::loopback()` remembers packets for 1 ms, which is too short for a busy machine.
        let dedup = Dedup::new(DedupMode::Loopback, Duration::from_millis(100), 1 << 16);
        let mut stream = capture.with_dedup(dedup);
        let mut kept = 0;
        while let Some(batch) = stream.next().await {
            kept += batch?.iter().count();
        }
        println!("{kept} packets kept; {:?}", stream.stats());
        Ok(())
    })
}
