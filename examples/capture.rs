//! Prints twenty packets.
//!
//! ```sh
//! cargo run --release --example capture -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- capture` tries it on generated traffic, without root.

use ringtap::Capture;
use ringtap::interface::interface_info;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: capture INTERFACE")?;
    let mut capture = Capture::open(&interface)?;
    println!("capturing on {interface}: {:?}", interface_info(&interface)?);
    for packet in capture.packets().take(20) {
        let packet = packet?;
        let packet = packet.packet();
        let from = packet.source_ll_addr().map_or("?".to_owned(), |mac| mac.to_string());
        println!(
            "{} {from} {:?} 0x{:04x} {} bytes",
            packet.timestamp(),
            packet.direction(),
            packet.ll_protocol().unwrap_or(0),
            packet.original_len(),
        );
    }
    println!("{:?}", capture.stats()?);
    Ok(())
}
