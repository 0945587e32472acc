//! Counts the server names in TLS handshakes.
//!
//! ```sh
//! cargo run --release --features flow-tls --example tls_sni -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- tls_sni` tries it on generated traffic, without root.
//! It needs the crates `ctrlc` and `futures-util` besides ringtap.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::tls::{TlsMessage, TlsParser};
use ringtap::flow::{FlowExt, Protocols, SessionEvent};
use ringtap::{AsyncCapture, executor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: tls_sni INTERFACE")?;
    executor::block_on(async {
        let mut capture = AsyncCapture::open(&interface)?;
        let stop = capture.stop_handle()?;
        ctrlc::set_handler(move || stop.stop())?;
        println!("capturing on {interface}");
        // On any port: the first bytes show that it is TLS.
        let is_tls = |_, bytes: &[u8]| bytes.starts_with(&[22, 3]);
        let tls = Protocols::new().tcp_bytes(is_tls, TlsParser::default(), |message| message);
        let mut sessions = capture.flow_stream(FiveTuple::bidirectional()).protocol_stream(tls);
        let (mut hellos, mut names) = (0, BTreeMap::new());
        while let Some(event) = sessions.next().await {
            let SessionEvent::Application { message, .. } = event? else { continue };
            if let TlsMessage::ClientHello(hello) = message {
                hellos += 1;
                *names.entry(hello.sni.unwrap_or_default()).or_insert(0) += 1;
            }
        }
        for (name, count) in &names {
            println!("{count:>6} {name}");
        }
        println!("{hellos} hellos, {} servers", names.len());
        Ok(())
    })
}
