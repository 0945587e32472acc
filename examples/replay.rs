//! Sends recorded frames at the pace they were recorded at, or a multiple of it:
//! `cargo run --release --example replay -- eth0 2.5`, or without arguments in the lab.
//!
//! The recording is made up here: bursts with pauses between them.

use std::time::{Duration, Instant};

use ringtap::{AsyncInjector, executor, time};
use ringtap_lab::{Stage, Traffic, link};

/// A frame, and when it was seen, since the first.
struct Recorded {
    after: Duration,
    frame: Vec<u8>,
}

fn recording() -> impl Iterator<Item = Recorded> {
    let traffic = Traffic { len: 600, varied: true, flows: 16, ..Traffic::default() };
    (0..20_000).map(move |number| {
        let (burst, within) = (number / 100, number % 100);
        let after = Duration::from_millis(10 * burst) + Duration::from_micros(3 * within);
        Recorded { after, frame: traffic.frame(number, 0) }
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let speed: f64 = std::env::args().nth(2).map_or(Ok(1.0), |speed| speed.parse())?;
    executor::block_on(async {
        let mut injector = AsyncInjector::open(stage.sending_interface())?;
        let (start, mut latest) = (Instant::now(), Duration::ZERO);
        let mut recorded = Duration::ZERO;
        for Recorded { after, frame } in recording() {
            recorded = after;
            let due = start + after.div_f64(speed);
            if due > Instant::now() {
                time::sleep_until(due).await; // what was committed goes out with this wait
            }
            latest = latest.max(due.elapsed());
            injector.send(&frame).await?;
        }
        injector.drained().await?;
        let (took, sent) = (start.elapsed(), injector.stats().committed);
        println!(
            "{sent} frames, recorded in {recorded:?}, sent in {took:?} at {speed} times the pace"
        );
        println!("the latest frame was {latest:?} behind its time");
        if !stage.is_real() {
            println!("the far end received {}", link::stats(stage.interface())?.received);
        }
        Ok(())
    })
}
