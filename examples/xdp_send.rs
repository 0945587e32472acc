//! Sends frames through AF_XDP, which takes no more than CAP_NET_RAW: `cargo run --release --features af-xdp
//! --example xdp_send -- eth0`, or without arguments in the lab.

use std::time::{Duration, Instant};

use ringtap::XdpSocket;
use ringtap::xdp::XdpMode;
use ringtap_lab_wire::{Stage, link};

const COUNT: u64 = 1_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let interface = stage.sending_interface();
    // 4 MiB of frames: within what an ordinary user may lock by default.
    let options = XdpSocket::builder().interface(interface).mode(XdpMode::Tx).frame_count(1024);
    let mut socket = options.build()?;
    let start = Instant::now();
    for number in 0..COUNT {
        let mut slot = loop {
            match socket.reserve(60) {
                Some(slot) => break slot,
                None => drop(socket.drain(Duration::from_millis(1))?), // full: hand it over
            }
        };
        let frame = slot.data_mut();
        frame[..12].fill(0xff);
        frame[12..14].copy_from_slice(&0x88b5_u16.to_be_bytes());
        frame[14..22].copy_from_slice(&number.to_be_bytes());
        slot.send()?;
    }
    let all = socket.drain(Duration::from_secs(5))?;
    let rate = COUNT as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("{COUNT} frames, {rate:.2} million a second, all sent: {all}; {:?}", socket.stats()?);
    if !stage.is_real() {
        println!("the far end received {}", link::stats(stage.interface())?.received);
    }
    Ok(())
}
