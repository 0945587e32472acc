//! Sends the packets of a capture file at the pace at which they were recorded, or a multiple of it.
//!
//! ```sh
//! cargo run --release --features pcap --example replay -- eth0 a.pcap 2.5
//! ```
//!
//! `cargo run --release --bin lab -- replay` tries it on generated traffic, without root.
//! It needs the crate `futures-util` besides ringtap.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ringtap::pcap::{PcapSource, Speed};
use ringtap::{AsyncInjector, executor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(interface), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err("usage: replay INTERFACE FILE [SPEED]".into());
    };
    let speed: f64 = arguments.next().map_or(Ok(1.0), |speed| speed.parse())?;
    executor::block_on(async {
        let mut injector = AsyncInjector::open(&interface)?;
        let mut recording = PcapSource::open(&path)?.speed(Speed::Recorded(speed));
        println!("sending on {interface}");
        let (start, mut first) = (Instant::now(), None);
        let (mut recorded, mut latest) = (Duration::ZERO, Duration::ZERO);
        while let Some(batch) = recording.next().await {
            let batch = batch?;
            let first = *first.get_or_insert(batch.ts_first());
            for packet in &batch {
                injector.send(packet.data()).await?;
            }
            recorded = batch.ts_last().as_duration().saturating_sub(first.as_duration());
            latest = latest.max(start.elapsed().saturating_sub(recorded.div_f64(speed)));
        }
        injector.drain().await?;
        let (took, stats) = (start.elapsed(), injector.stats());
        let sent = stats.committed - stats.rejected;
        println!("{sent} frames, recorded in {recorded:?}, sent in {took:?}");
        println!("the latest batch was {latest:?} behind its time");
        Ok(())
    })
}
