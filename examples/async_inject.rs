//! Sends 100,000 frames at a given rate, while another task of its thread goes on.
//!
//! ```sh
//! cargo run --release --example async_inject -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- async_inject` tries it on generated traffic, without root.
//! It needs the crate `futures-util` besides ringtap.

use std::time::{Duration, Instant};

use futures_util::stream;
use ringtap::inject::Pacer;
use ringtap::{AsyncInjector, executor, time};

const RATE: u64 = 50_000;
const COUNT: u64 = 2 * RATE;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: async_inject INTERFACE")?;
    executor::block_on(async {
        let mut injector = AsyncInjector::open(&interface)?;
        println!("sending on {interface}");
        let _ticking = executor::spawn_local(async {
            loop {
                time::sleep(Duration::from_millis(500)).await;
                println!("... the other task runs");
            }
        });

        // Numbered broadcasts with an EtherType for experiments.
        let frames = stream::iter((0..COUNT).map(|number| {
            let mut frame = [0xff; 60];
            frame[12..14].copy_from_slice(&0x88b5_u16.to_be_bytes());
            frame[14..22].copy_from_slice(&number.to_be_bytes());
            frame
        }));
        let start = Instant::now();
        let pacer = Pacer::packets_per_second(RATE, 64);
        let sent = injector.send_stream(frames, Some(pacer)).await?;
        injector.drain().await?;
        println!("{sent} frames in {:?}: {:?}", start.elapsed(), injector.stats());
        Ok(())
    })
}
