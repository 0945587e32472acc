//! Tracks flows on every core, prints the largest on Ctrl-C, and writes a record for each flow that ends.
//!
//! ```sh
//! cargo run --release --features flow-records --example flow_shards -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- flow_shards` tries it on generated traffic, without root.
//! It needs the crates `ctrlc` and `futures-util` besides ringtap.

use std::sync::{Arc, Mutex, mpsc};

use futures_util::StreamExt;
use ringtap::Shards;
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::{RecordFormat, RecordWriter};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: flow_shards INTERFACE")?;
    let records = Arc::new(Mutex::new(RecordWriter::new(Vec::new(), RecordFormat::Ndjson)?));
    let writer = Arc::clone(&records);
    let shards = Shards::builder().interface(&interface).flow(FiveTuple::bidirectional()).spawn(
        move |shard| {
            let writer = Arc::clone(&writer);
            async move {
                let mut ended = shard.flows.into_records();
                while let Some(record) = ended.next().await {
                    let record = record?;
                    let written = writer.lock().expect("no thread panics").write(&record);
                    written.map_err(ringtap::Error::other)?;
                }
                Ok(())
            }
        },
    )?;
    let (interrupt, interrupted) = mpsc::channel();
    ctrlc::set_handler(move || {
        let _ = interrupt.send(());
    })?;
    println!("capturing on {interface}");
    interrupted.recv()?;

    let flows = shards.flows(3);
    println!("{} flows are open", flows.active());
    for (key, stats) in flows.top(3) {
        println!(
            "{} - {}: {} bytes",
            key.a(),
            key.b(),
            stats.bytes_initiator + stats.bytes_responder
        );
    }
    shards.stop();
    shards.join()?;
    let records = Arc::into_inner(records).ok_or("a shard is still running")?.into_inner()?;
    let count = records.count();
    let text = String::from_utf8(records.finish()?)?;
    text.lines().take(3).for_each(|line| println!("{line}"));
    println!("{count} flows have ended");
    Ok(())
}
