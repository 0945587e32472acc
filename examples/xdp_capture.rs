//! Counts the packets of one queue through AF_XDP.
//!
//! ```sh
//! cargo run --release --features af-xdp --example xdp_capture -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- xdp_capture` tries it on generated traffic, as root.
//! It needs the crate `ctrlc` besides ringtap.

use ringtap::XdpSocket;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: xdp_capture INTERFACE")?;
    let mut socket = XdpSocket::builder().interface(&interface).build_receiver()?;
    let stop = socket.stop_handle()?;
    ctrlc::set_handler(move || stop.stop())?;
    let how = if socket.is_zerocopy() { "without copies" } else { "with copies" };
    println!("capturing on {interface}, queue 0, {how}");
    let (mut packets, mut bytes) = (0, 0);
    for batch in socket.batches() {
        let batch = batch?;
        packets += batch.len();
        bytes += batch.iter().map(|packet| packet.len()).sum::<usize>();
    }
    println!("{packets} packets, {bytes} bytes; {:?}", socket.stats()?);
    Ok(())
}
