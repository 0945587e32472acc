//! Which servers are named when TLS begins. `cargo run --features flow-tls --example tls_sni -- eth0`, or without
//! arguments in the lab.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::tls::{TlsMessage, TlsParser};
use ringtap::flow::{FlowExt, Protocols, SessionEvent};
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
        // On any port: a record of TLS is known by its first bytes.
        let is_tls = |_, bytes: &[u8]| bytes.starts_with(&[22, 3]);
        let tls = Protocols::new().tcp_bytes(is_tls, TlsParser::default(), |message| message);
        let flows = capture.flow_stream(FiveTuple::bidirectional());
        let mut sessions = flows.protocol_stream(tls);
        let (mut hellos, mut names) = (0, BTreeMap::new());
        while let Some(event) = sessions.next().await {
            let SessionEvent::Application { message: TlsMessage::ClientHello(hello), .. } = event?
            else {
                continue;
            };
            hellos += 1;
            *names.entry(hello.sni.unwrap_or_default()).or_insert(0) += 1;
        }
        for (name, count) in names.iter().take(10) {
            println!("{count:>6} {name}");
        }
        println!("{hellos} hellos, {} servers", names.len());
        Ok(())
    })
}
