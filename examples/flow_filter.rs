//! Only some flows, told apart by the kernel, by a look at each packet, and by what becomes of them. `cargo run --features
//! flow --example flow_filter -- eth0`, or without arguments in the lab.

use futures_util::StreamExt;
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::{EndReason, FlowEvent, FlowExt};
use ringtap::{AsyncCapture, BpfFilter, Capture, executor};
use ringtap_lab_wire::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    executor::block_on(async {
        let options = Capture::builder().interface(stage.interface()).block_timeout_ms(50);
        // The cheapest: what the kernel leaves out costs nothing here.
        let options = options.filter(BpfFilter::parse("tcp port 443 or tcp port 80")?);
        let mut capture = AsyncCapture::new(options.ignore_outgoing(true).build()?)?;
        let stop = capture.stop_handle()?;
        let talk = stage.talk(1000);
        std::thread::spawn(move || {
            talk.finish();
            stop.stop();
        });
        let mut flows = capture.flow_stream(FiveTuple::bidirectional());
        let (mut all, mut closed) = (0, 0);
        while let Some(event) = flows.next().await {
            match event? {
                // By its key, when it begins.
                FlowEvent::Started { key, .. } if key.either_port(443) => all += 1,
                // By how it went, when it ends.
                FlowEvent::Ended { key, reason: EndReason::Fin, stats, .. }
                    if key.either_port(443) =>
                {
                    closed += 1;
                    if closed <= 5 {
                        let bytes = stats.bytes_initiator + stats.bytes_responder;
                        println!("{} - {}: {bytes} bytes", key.a, key.b);
                    }
                }
                _ => {}
            }
        }
        println!("{all} connections to port 443, {closed} closed; {:?}", flows.stats());
        Ok(())
    })
}
