//! Connections as they begin and end. `cargo run --features flow --example flows -- eth0`, on a capture file
//! (`-- a.pcap`), or without arguments in the lab.

use std::time::Duration;

use futures_util::{Stream, StreamExt};
use ringtap::flow::extract::{FiveTuple, FiveTupleKey};
use ringtap::flow::{FlowEvent, FlowExt, FlowTrackerConfig};
use ringtap::pcap::PcapSource;
use ringtap::{AsyncCapture, Capture, executor};
use ringtap_lab_wire::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = std::env::args().nth(1);
    if let Some(path) = argument.filter(|argument| std::path::Path::new(argument).is_file()) {
        let source = PcapSource::open(path)?;
        return executor::block_on(print(source.flow_stream(FiveTuple::bidirectional())));
    }
    let stage = Stage::from_args()?;
    let mut config = FlowTrackerConfig::default();
    config.idle_timeout_udp = Duration::from_secs(if stage.is_real() { 60 } else { 1 });
    executor::block_on(async {
        let options = Capture::builder().interface(stage.interface()).block_timeout_ms(50);
        let mut capture = AsyncCapture::new(options.build()?)?;
        let stop = capture.stop_handle()?;
        let traffic = stage.pace(Duration::from_secs(1), 20_000);
        if !stage.is_real() {
            // Long enough for the flows to be idle.
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(3));
                stop.stop();
            });
        }
        let flows = capture.flow_stream(FiveTuple::bidirectional()).with_config(config);
        print(flows).await?;
        drop(traffic);
        Ok(())
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
                    key.proto,
                    key.a,
                    key.b,
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
