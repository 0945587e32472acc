//! Prints connections as they end, live or from a capture file.
//!
//! ```sh
//! cargo run --release --features flow --example flows -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- flows` tries it on generated traffic, without root.
//! It needs the crates `ctrlc` and `futures-util` besides ringtap.

use std::path::Path;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use ringtap::flow::extract::{FiveTuple, FiveTupleKey};
use ringtap::flow::{FlowConfig, FlowEvent, FlowExt};
use ringtap::pcap::PcapSource;
use ringtap::{AsyncCapture, executor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let source = std::env::args().nth(1).ok_or("usage: flows INTERFACE-OR-FILE")?;
    if Path::new(&source).is_file() {
        let file = PcapSource::open(source)?;
        return executor::block_on(print(file.flow_stream(FiveTuple::bidirectional())));
    }
    let mut config = FlowConfig::default();
    config.idle_timeout_udp = Duration::from_secs(10);
    executor::block_on(async {
        let mut capture = AsyncCapture::open(&source)?;
        let stop = capture.stop_handle()?;
        ctrlc::set_handler(move || stop.stop())?;
        println!("capturing on {source}");
        print(capture.flow_stream(FiveTuple::bidirectional()).with_config(config)).await
    })
}

async fn print(
    mut flows: impl Stream<Item = ringtap::Result<FlowEvent<FiveTupleKey>>> + Unpin,
) -> Result<(), Box<dyn std::error::Error>> {
    let (mut begun, mut ended) = (0, 0);
    while let Some(event) = flows.next().await {
        match event? {
            FlowEvent::Started { .. } => begun += 1,
            FlowEvent::Ended { key, reason, stats, history, .. } => {
                ended += 1;
                println!(
                    "{:?} {} - {}  {} + {} packets, {} + {} bytes, {history} {reason}",
                    key.proto(),
                    key.a(),
                    key.b(),
                    stats.packets_initiator,
                    stats.packets_responder,
                    stats.bytes_initiator,
                    stats.bytes_responder,
                );
            }
            _ => {}
        }
    }
    println!("{begun} begun, {ended} ended");
    Ok(())
}
