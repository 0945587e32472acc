//! Who talks most, at Ctrl-C. `cargo run --features flow --example flow_summary -- eth0`, or without arguments in the
//! lab, for two seconds.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use ringtap::flow::extract::{FiveTuple, FiveTupleKey};
use ringtap::flow::{FlowEvent, FlowExt, FlowStats};
use ringtap::{AsyncCapture, Capture, executor};
use ringtap_lab_wire::Stage;

fn bytes(stats: &FlowStats) -> u64 {
    stats.bytes_initiator + stats.bytes_responder
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let options = Capture::builder().interface(stage.interface()).block_timeout_ms(10);
    let mut capture = options.build()?;
    let stop = capture.stop_handle()?;
    let at_the_end = stop.clone();
    ctrlc::set_handler(move || at_the_end.stop())?;
    let traffic = stage.pace(Duration::from_secs(2), 20_000);
    if !stage.is_real() {
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(2));
            stop.stop();
        });
    }
    let mut talkers: HashMap<FiveTupleKey, u64> = HashMap::new();
    executor::block_on(async {
        // Stopped, the stream ends, and so do the flows that are left.
        let mut flows = AsyncCapture::new(capture)?.flow_stream(FiveTuple::bidirectional());
        while let Some(event) = flows.next().await {
            if let FlowEvent::Ended { key, stats, .. } = event? {
                *talkers.entry(key).or_default() += bytes(&stats);
            }
        }
        println!("{:?}\n{:?}", flows.stats(), flows.get_ref().stats()?);
        Ok::<(), ringtap::Error>(())
    })?;
    drop(traffic);
    let mut talkers: Vec<_> = talkers.into_iter().collect();
    talkers.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    for (key, bytes) in talkers.iter().take(10) {
        println!("{bytes:>12} bytes  {:?} {} - {}", key.proto, key.a, key.b);
    }
    Ok(())
}
