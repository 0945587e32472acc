//! Names that are asked for, and how long the answers take. `cargo run --features flow-dns --example dns_log -- eth0`, or
//! without arguments in the lab.

use futures_util::StreamExt;
use ringtap::flow::dns::{DnsMessage, DnsUdpParser};
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::{FlowExt, Protocols, SessionEvent};
use ringtap::{AsyncCapture, BpfFilter, Capture, executor};
use ringtap_lab_wire::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    executor::block_on(async {
        let options = Capture::builder().interface(stage.interface()).block_timeout_ms(50);
        // The kernel leaves all else out.
        let options = options.filter(BpfFilter::parse("udp port 53")?).ignore_outgoing(true);
        let mut capture = AsyncCapture::new(options.build()?)?;
        let stop = capture.stop_handle()?;
        let talk = stage.talk(1000);
        std::thread::spawn(move || {
            talk.finish();
            stop.stop();
        });
        let dns =
            Protocols::new().udp_ports([53], DnsUdpParser::with_correlation(), |message| message);
        let flows = capture.flow_stream(FiveTuple::bidirectional());
        let mut sessions = flows.protocol_stream(dns);
        let (mut asked, mut answered) = (0, 0);
        while let Some(event) = sessions.next().await {
            match event? {
                SessionEvent::Application { message: DnsMessage::Query(_), .. } => asked += 1,
                SessionEvent::Application { message: DnsMessage::Response(response), .. } => {
                    answered += 1;
                    if answered <= 10 {
                        let name =
                            response.questions.first().map_or("?", |question| &question.name);
                        let records = response.answers.len();
                        println!(
                            "{name}: {records} answers, {:?} after the question",
                            response.elapsed
                        );
                    }
                }
                _ => {}
            }
        }
        println!("{asked} queries, {answered} responses");
        Ok(())
    })
}
