//! Sends a stream of frames at a rate, with backpressure, beside other work on the same thread.
//! `cargo run --release --example async_inject -- eth0`, or without arguments in the lab.

use std::time::{Duration, Instant};

use futures_util::stream;
use ringtap::inject::Pacer;
use ringtap::{AsyncInjector, executor, time};
use ringtap_lab_wire::{Stage, link};

const RATE: u64 = 50_000;
const COUNT: u64 = 2 * RATE;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    executor::block_on(async {
        let mut injector = AsyncInjector::open(stage.sending_interface())?;
        let ticking = executor::spawn_local(async {
            let mut ticks = time::interval(Duration::from_millis(500));
            loop {
                ticks.tick().await;
                println!("… the thread does other things meanwhile");
            }
        });

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
        let rate = sent as f64 / start.elapsed().as_secs_f64();
        println!("{sent} frames at {rate:.0} a second (asked for {RATE}): {:?}", injector.stats());
        drop(ticking); // cancels it
        if !stage.is_real() {
            println!("the far end received {}", link::stats(stage.interface())?.received);
        }
        Ok(())
    })
}
