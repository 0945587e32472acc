//! Sends frames: `cargo run --release --example inject -- eth0`, or without arguments in the lab, where
//! the far end of the pair says what arrived.

use std::time::{Duration, Instant};

use ringtap::Injector;
use ringtap_lab_wire::{Stage, link};

const COUNT: u64 = 100_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let mut injector = Injector::builder().interface(stage.sending_interface()).build()?;
    println!("{injector:?}");

    // A broadcast of an experimental EtherType, numbered.
    let mut frame = [0; 60];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&0x88b5_u16.to_be_bytes());

    let start = Instant::now();
    for number in 0..COUNT {
        frame[14..22].copy_from_slice(&number.to_be_bytes());
        // Written in place where a slot is free, without a copy …
        match injector.allocate(frame.len()) {
            Some(mut slot) => {
                slot.data_mut().copy_from_slice(&frame);
                slot.send()?;
            }
            // … and where none is, `send` hands over what there is and waits.
            None => injector.send(&frame)?,
        }
    }
    let all_sent = injector.drain(Duration::from_secs(10))?;
    let rate = COUNT as f64 / start.elapsed().as_secs_f64();
    println!("{:?}, all sent: {all_sent}, {rate:.0} frames a second", injector.stats());
    if !stage.is_real() {
        println!("the far end received {}", link::stats(stage.interface())?.received);
    }
    Ok(())
}
