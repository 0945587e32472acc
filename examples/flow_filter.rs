//! Selects flows with a filter in the kernel, by their addresses, and by how they ended.
//!
//! ```sh
//! cargo run --release --features flow --example flow_filter -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- flow_filter` tries it on generated traffic, without root.
//! It needs the crates `ctrlc` and `futures-util` besides ringtap.

use futures_util::StreamExt;
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::{EndReason, FlowEvent, FlowExt};
use ringtap::{AsyncCapture, Capture, executor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: flow_filter INTERFACE")?;
    executor::block_on(async {
        // The cheapest way: a packet that the kernel drops costs nothing here.
        let filter = "tcp port 443 or tcp port 80".parse()?;
        let capture = Capture::builder().interface(&interface).filter(filter).build()?;
        let mut capture = AsyncCapture::new(capture)?;
        let stop = capture.stop_handle()?;
        ctrlc::set_handler(move || stop.stop())?;
        println!("capturing on {interface}");

        let mut flows = capture.flow_stream(FiveTuple::bidirectional());
        let (mut all, mut closed) = (0, 0);
        while let Some(event) = flows.next().await {
            match event? {
                // By its key, when it begins.
                FlowEvent::Started { key, .. } if key.either_port(443) => all += 1,
                // By the reason, when it ends.
                FlowEvent::Ended { key, reason: EndReason::Fin, stats, .. }
                    if key.either_port(443) =>
                {
                    closed += 1;
                    let bytes = stats.bytes_initiator + stats.bytes_responder;
                    println!("{} - {}: {bytes} bytes", key.a(), key.b());
                }
                _ => {}
            }
        }
        println!("{all} connections to port 443, {closed} closed; {:?}", flows.stats());
        Ok(())
    })
}
