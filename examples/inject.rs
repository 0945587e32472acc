//! Sends 100,000 frames, written in place in the ring.
//!
//! ```sh
//! cargo run --release --example inject -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- inject` tries it on generated traffic, without root.

use std::time::{Duration, Instant};

use ringtap::Injector;

const COUNT: u64 = 100_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: inject INTERFACE")?;
    let mut injector = Injector::open(&interface)?;
    println!("sending on {interface}");

    // A broadcast with an EtherType for experiments, which is numbered below.
    let mut frame = [0; 60];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&0x88b5_u16.to_be_bytes());

    let start = Instant::now();
    for number in 0..COUNT {
        frame[14..22].copy_from_slice(&number.to_be_bytes());
        match injector.allocate(frame.len()) {
            Some(mut slot) => {
                slot.data_mut().copy_from_slice(&frame);
                slot.send()?;
            }
            // The ring is full: `send` hands it to the kernel and waits for room.
            None => injector.send(&frame)?,
        }
    }
    let all_sent = injector.drain(Duration::from_secs(10))?;
    let rate = COUNT as f64 / start.elapsed().as_secs_f64();
    println!("{:?}, all sent: {all_sent}, {rate:.0} frames per second", injector.stats());
    Ok(())
}
