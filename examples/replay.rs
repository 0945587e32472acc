//! Sends what a capture file has at the pace it was recorded at, or a multiple of it:
//! `cargo run --release --features pcap --example replay -- eth0 2.5 a.pcap`, or without arguments in the lab, on a
//! recording that is made up here: bursts with pauses between them.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ringtap::packet::Timestamp;
use ringtap::pcap::{CaptureWriter, PcapSource, Speed};
use ringtap::{AsyncInjector, Packet, executor};
use ringtap_lab_wire::{Directory, Stage, Traffic, link};

fn record(path: &Path) -> ringtap::Result<()> {
    let traffic = Traffic { len: 600, varied: true, flows: 16, ..Traffic::default() };
    let mut file = CaptureWriter::create(path)?;
    for number in 0..20_000 {
        let micros = 10_000 * (number / 100) + 3 * (number % 100);
        let time = Timestamp {
            secs: 1_700_000_000 + (micros / 1_000_000) as u32,
            nanos: (micros % 1_000_000 * 1_000) as u32,
        };
        file.write(&Packet::from_bytes(&traffic.frame(number, 0), time))?;
    }
    file.finish().map(drop)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let speed: f64 = std::env::args().nth(2).map_or(Ok(1.0), |speed| speed.parse())?;
    let scratch = Directory::new();
    let path = match std::env::args().nth(3) {
        Some(path) => path.into(),
        None => {
            let path = scratch.path().join("recorded.pcapng");
            record(&path)?;
            path
        }
    };
    executor::block_on(async {
        let mut injector = AsyncInjector::open(stage.sending_interface())?;
        let mut recording = PcapSource::open(&path)?.speed(Speed::Recorded(speed));
        let (start, mut first, mut latest) = (Instant::now(), None, Duration::ZERO);
        let mut recorded = Duration::ZERO;
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
        println!(
            "{sent} frames, recorded in {recorded:?}, sent in {took:?} at {speed} times the pace"
        );
        println!("the latest batch was {latest:?} behind its time");
        if !stage.is_real() {
            println!("the far end received {}", link::stats(stage.interface())?.received);
        }
        Ok(())
    })
}
