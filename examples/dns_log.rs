//! Prints the names that are looked up, and how long the answers take.
//!
//! ```sh
//! cargo run --release --features flow-dns --example dns_log -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- dns_log` tries it on generated traffic, without root.
//! It needs the crates `ctrlc` and `futures-util` besides ringtap.

use futures_util::StreamExt;
use ringtap::flow::dns::{DnsMessage, DnsUdpParser};
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::{FlowExt, Protocols, SessionEvent};
use ringtap::{AsyncCapture, Capture, executor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: dns_log INTERFACE")?;
    executor::block_on(async {
        // The kernel drops everything else.
        let filter = "udp port 53".parse()?;
        let capture = Capture::builder().interface(&interface).filter(filter).build()?;
        let mut capture = AsyncCapture::new(capture)?;
        let stop = capture.stop_handle()?;
        ctrlc::set_handler(move || stop.stop())?;
        println!("capturing on {interface}");

        let dns = Protocols::new().udp_ports([53], DnsUdpParser::default(), |message| message);
        let mut sessions = capture.flow_stream(FiveTuple::bidirectional()).protocol_stream(dns);
        let (mut queries, mut responses) = (0, 0);
        while let Some(event) = sessions.next().await {
            let SessionEvent::Application { message, .. } = event? else { continue };
            match message {
                DnsMessage::Query(_) => queries += 1,
                DnsMessage::Response(response) => {
                    responses += 1;
                    let name = response.questions.first().map_or("?", |question| &question.name);
                    let (records, elapsed) = (response.answers.len(), response.elapsed);
                    println!("{name}: {records} answers, {elapsed:?} after the question");
                }
                _ => {}
            }
        }
        println!("{queries} queries, {responses} responses");
        Ok(())
    })
}
