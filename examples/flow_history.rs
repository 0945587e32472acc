//! How connections went: TCP's flags in Zeek's letters, the initiator's in capitals. `cargo run --features flow --example
//! flow_history -- eth0`, or without arguments in the lab.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::{FlowEvent, FlowExt, L4Proto};
use ringtap::{AsyncCapture, Capture, executor};
use ringtap_lab_wire::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    executor::block_on(async {
        let options = Capture::builder().interface(stage.interface()).block_timeout_ms(50);
        let mut capture = AsyncCapture::new(options.ignore_outgoing(true).build()?)?;
        let stop = capture.stop_handle()?;
        let talk = stage.talk(1000);
        std::thread::spawn(move || {
            talk.finish();
            stop.stop();
        });
        let mut flows = capture.flow_stream(FiveTuple::bidirectional());
        let mut histories = BTreeMap::new();
        while let Some(event) = flows.next().await {
            if let FlowEvent::Ended { l4: Some(L4Proto::Tcp), history, reason, .. } = event? {
                *histories.entry((history.as_str().to_owned(), reason.as_str())).or_insert(0) += 1;
            }
        }
        for ((history, reason), count) in &histories {
            println!("{count:>6} {history:<16} {reason}");
        }
        println!("{} connections", histories.values().sum::<u64>());
        Ok(())
    })
}
