//! Prints the ten flows with the most bytes on Ctrl-C.
//!
//! ```sh
//! cargo run --release --features flow --example flow_summary -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- flow_summary` tries it on generated traffic, without root.
//! It needs the crates `ctrlc` and `futures-util` besides ringtap.

use std::cmp::Reverse;
use std::collections::HashMap;

use futures_util::StreamExt;
use ringtap::flow::extract::{FiveTuple, FiveTupleKey};
use ringtap::flow::{FlowEvent, FlowExt};
use ringtap::{AsyncCapture, executor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: flow_summary INTERFACE")?;
    executor::block_on(async {
        let mut capture = AsyncCapture::open(&interface)?;
        let stop = capture.stop_handle()?;
        ctrlc::set_handler(move || stop.stop())?;
        println!("capturing on {interface}");
        let mut flows = capture.flow_stream(FiveTuple::bidirectional());
        let mut talkers: HashMap<FiveTupleKey, u64> = HashMap::new();
        // When the capture is stopped, the remaining flows end, and then the stream does.
        while let Some(event) = flows.next().await {
            if let FlowEvent::Ended { key, stats, .. } = event? {
                *talkers.entry(key).or_default() += stats.bytes_initiator + stats.bytes_responder;
            }
        }
        println!("{:?}\n{:?}", flows.stats(), flows.get_ref().stats()?);
        let mut talkers: Vec<_> = talkers.into_iter().collect();
        talkers.sort_by_key(|(_, bytes)| Reverse(*bytes));
        for (key, bytes) in talkers.iter().take(10) {
            println!("{bytes:>12} bytes  {:?} {} - {}", key.proto(), key.a(), key.b());
        }
        Ok(())
    })
}
