//! Prints HTTP requests and responses.
//!
//! ```sh
//! cargo run --release --features flow-http --example http_sessions -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- http_sessions` tries it on generated traffic, without root.
//! It needs the crates `ctrlc` and `futures-util` besides ringtap.

use futures_util::StreamExt;
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::http::{HttpMessage, HttpParser};
use ringtap::flow::{FlowExt, SessionEvent};
use ringtap::{AsyncCapture, executor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: http_sessions INTERFACE")?;
    executor::block_on(async {
        let mut capture = AsyncCapture::open(&interface)?;
        let stop = capture.stop_handle()?;
        ctrlc::set_handler(move || stop.stop())?;
        println!("capturing on {interface}");
        let flows = capture.flow_stream(FiveTuple::bidirectional());
        let mut sessions = flows.session_stream(HttpParser::default());
        let (mut requests, mut responses) = (0, 0);
        while let Some(event) = sessions.next().await {
            let SessionEvent::Application { key, message, .. } = event? else { continue };
            match message {
                HttpMessage::Request(request) => {
                    requests += 1;
                    let (host, path) = (request.host(), request.path_str());
                    let (host, path) = (host.unwrap_or("?"), path.unwrap_or("?"));
                    println!("{} asks {host} for {path}", key.a());
                }
                HttpMessage::Response(response) => {
                    responses += 1;
                    let (status, bytes) = (response.status(), response.body_len());
                    println!("{} gets {status}, {bytes} bytes", key.a());
                }
                _ => {}
            }
        }
        println!("{requests} requests, {responses} responses");
        Ok(())
    })
}
