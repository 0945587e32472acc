//! Counts TCP connections by their history: the flags in Zeek's letters, in capitals for the initiator.
//!
//! ```sh
//! cargo run --release --features flow --example flow_history -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- flow_history` tries it on generated traffic, without root.
//! It needs the crates `ctrlc` and `futures-util` besides ringtap.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::{FlowEvent, FlowExt, L4Proto};
use ringtap::{AsyncCapture, executor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: flow_history INTERFACE")?;
    executor::block_on(async {
        let mut capture = AsyncCapture::open(&interface)?;
        let stop = capture.stop_handle()?;
        ctrlc::set_handler(move || stop.stop())?;
        println!("capturing on {interface}");
        let mut flows = capture.flow_stream(FiveTuple::bidirectional());
        let mut histories = BTreeMap::new();
        while let Some(event) = flows.next().await {
            if let FlowEvent::Ended { l4: Some(L4Proto::Tcp), history, reason, .. } = event? {
                *histories.entry((history.to_string(), reason.as_str())).or_insert(0) += 1;
            }
        }
        for ((history, reason), count) in &histories {
            println!("{count:>6} {history:<16} {reason}");
        }
        println!("{} connections", histories.values().sum::<u64>());
        Ok(())
    })
}
