//! Sends a million frames through AF_XDP, which takes only `CAP_NET_RAW`.
//!
//! ```sh
//! cargo run --release --features af-xdp --example xdp_send -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- xdp_send` tries it on generated traffic, without root.

use std::time::{Duration, Instant};

use ringtap::XdpSocket;

const COUNT: u64 = 1_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: xdp_send INTERFACE")?;
    // 4 MiB of frames: an ordinary user may lock that much by default.
    let options = XdpSocket::builder().interface(&interface).frame_count(1024);
    let mut socket = options.build_sender()?;
    println!("sending on {interface}");
    let start = Instant::now();
    for number in 0..COUNT {
        let mut slot = loop {
            match socket.reserve(60) {
                Some(slot) => break slot,
                None => drop(socket.drain(Duration::from_millis(1))?), // no frame is free
            }
        };
        let frame = slot.data_mut();
        frame[..12].fill(0xff);
        frame[12..14].copy_from_slice(&0x88b5_u16.to_be_bytes());
        frame[14..22].copy_from_slice(&number.to_be_bytes());
        slot.send()?;
    }
    let all_sent = socket.drain(Duration::from_secs(5))?;
    let rate = COUNT as f64 / start.elapsed().as_secs_f64();
    println!("{:?}, all sent: {all_sent}, {rate:.0} frames per second", socket.stats()?);
    Ok(())
}
