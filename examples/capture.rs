//! Prints packets: `cargo run --example capture -- eth0`, or without arguments in the lab.

use std::time::Duration;

use futures_util::StreamExt;
use ringtap::{AsyncCapture, Capture, executor};
use ringtap_lab_wire::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    println!("{:?}", ringtap::interface::interface_info(stage.interface())?);
    let _traffic = stage.pace(Duration::from_secs(2), 20);
    executor::block_on(async {
        let ring = Capture::builder().interface(stage.interface()).block_size(1 << 18);
        let mut capture = AsyncCapture::new(ring.block_count(16).build()?)?;
        let mut printed = 0;
        while let Some(batch) = capture.next().await {
            for packet in &batch? {
                let from = packet.source_ll_addr().map_or("?".to_owned(), |mac| mac.to_string());
                println!(
                    "{} {from} {:?} 0x{:04x} {} bytes",
                    packet.timestamp(),
                    packet.direction(),
                    packet.ll_protocol().unwrap_or(0),
                    packet.original_len(),
                );
                printed += 1;
            }
            if printed >= 20 {
                break;
            }
        }
        println!("{:?}", capture.stats()?);
        Ok(())
    })
}
