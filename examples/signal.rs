//! Ends a capture on Ctrl-C without losing the packets in its ring.
//!
//! ```sh
//! cargo run --release --example signal -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- signal` tries it on generated traffic, without root.
//! It needs the crates `ctrlc` and `futures-util` besides ringtap.

use futures_util::StreamExt;
use ringtap::{AsyncCapture, executor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: signal INTERFACE")?;
    executor::block_on(async {
        let mut capture = AsyncCapture::open(&interface)?;
        let stop = capture.stop_handle()?;
        ctrlc::set_handler(move || stop.stop())?;
        println!("capturing on {interface} until Ctrl-C");
        let mut packets = 0;
        // After the stop, the stream delivers the packets in the ring, and then ends.
        while let Some(batch) = capture.next().await {
            packets += batch?.len();
        }
        let stats = capture.stats()?;
        println!("interrupted: {packets} packets, none left behind: {}", stats.pending() == 0);
        Ok(())
    })
}
