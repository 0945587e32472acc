//! Flows on every core, asked for while they run, and records of those that have ended. `cargo run --features flow-records
//! --example flow_shards -- eth0`, or without arguments in the lab.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::{RecordFormat, RecordWriter};
use ringtap::shard::Cores;
use ringtap::{Capture, Shards};
use ringtap_lab_wire::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let records = Arc::new(Mutex::new(RecordWriter::new(Vec::new(), RecordFormat::Ndjson)?));
    let into = Arc::clone(&records);
    let options = Capture::builder().interface(stage.interface()).block_timeout_ms(50);
    let shards = Shards::builder()
        .capture(options.ignore_outgoing(true))
        .cores(if stage.is_real() { Cores::All } else { Cores::Unpinned })
        .flow(FiveTuple::bidirectional())
        .spawn(move |shard| {
            let into = Arc::clone(&into);
            async move {
                let mut ended = shard.flows.into_records();
                while let Some(record) = ended.next().await {
                    let record = record?;
                    let written = into.lock().expect("no writer panics").write(&record);
                    written.map_err(ringtap::Error::other)?;
                }
                Ok(())
            }
        })?;
    let talk = stage.talk(1000);
    while talk.is_under_way() {
        std::thread::sleep(Duration::from_millis(50));
    }
    let flows = shards.flows(3);
    println!("{} flows are open", flows.active());
    for (key, stats) in flows.top(3) {
        println!("{} - {}: {} bytes", key.a, key.b, stats.bytes_initiator + stats.bytes_responder);
    }
    talk.finish();
    shards.stop();
    shards.join()?;
    let records = Arc::into_inner(records).ok_or("a shard still writes")?;
    let records = records.into_inner().map_err(|_| "a writer has panicked")?;
    let count = records.count();
    let text = String::from_utf8(records.finish()?)?;
    text.lines().take(3).for_each(|line| println!("{line}"));
    println!("{count} flows have ended");
    Ok(())
}
