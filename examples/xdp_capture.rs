//! Counts the packets of one queue through AF_XDP: `cargo run --release --features af-xdp --example xdp_capture
//! -- eth0`, or without arguments in the lab. Receiving takes root.

use std::time::{Duration, Instant};

use ringtap::XdpSocket;
use ringtap::xdp::XdpMode;
use ringtap_lab_wire::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let mut socket = XdpSocket::builder().interface(stage.interface()).mode(XdpMode::Rx).build()?;
    println!("queue 0, {}", if socket.is_zerocopy() { "zero copy" } else { "copied" });

    let traffic = (!stage.is_real()).then(|| stage.flood(Duration::from_secs(2)));
    let (mut packets, mut bytes) = (0_u64, 0_u64);
    let end = Instant::now() + Duration::from_secs(if stage.is_real() { 10 } else { 2 });
    while Instant::now() < end {
        let Some(batch) = socket.next_batch_timeout(Duration::from_millis(100))? else { continue };
        for packet in &batch {
            packets += 1;
            bytes += packet.len() as u64;
        }
    }
    println!("{packets} packets, {bytes} bytes; {:?}", socket.stats()?);
    drop(traffic);
    Ok(())
}
