//! Captures on an executor that knows no I/O: `pollster INTERFACE`, until Ctrl-C.
//!
//! ```sh
//! cargo run --release --example pollster -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- pollster` tries it on generated traffic, without root.
//! It needs the crates `ctrlc` and `pollster` besides ringtap.

use ringtap::{AsyncCapture, reactor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: pollster INTERFACE")?;
    pollster::block_on(reactor::run_anywhere(async {
        let mut capture = AsyncCapture::open(&interface)?;
        let stop = capture.stop_handle()?;
        ctrlc::set_handler(move || stop.stop())?;
        println!("capturing on {interface}");
        let mut packets = 0;
        while let Some(batch) = capture.next_batch().await? {
            packets += batch.iter().count();
        }
        println!("{packets} packets, {} dropped", capture.stats()?.drops);
        Ok(())
    }))?
}
