//! What is asked for by HTTP, and what is answered. `cargo run --features flow-http --example http_sessions -- eth0`, or
//! without arguments in the lab.

use futures_util::StreamExt;
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::http::{HttpMessage, HttpParser};
use ringtap::flow::{FlowExt, SessionEvent};
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
        let flows = capture.flow_stream(FiveTuple::bidirectional());
        let mut sessions = flows.session_stream(HttpParser::default());
        let (mut asked, mut answered) = (0, 0);
        while let Some(event) = sessions.next().await {
            let SessionEvent::Application { key, message, .. } = event? else { continue };
            match message {
                HttpMessage::Request(request) => {
                    asked += 1;
                    if asked <= 5 {
                        let host = request.host().unwrap_or("?");
                        println!("{} asks {host} for {}", key.a, request.path_str().unwrap_or("?"));
                    }
                }
                HttpMessage::Response(response) => {
                    answered += 1;
                    if answered <= 5 {
                        println!(
                            "{} is answered {}, {} bytes",
                            key.a,
                            response.status,
                            response.body.len()
                        );
                    }
                }
                _ => {}
            }
        }
        println!("{asked} requests, {answered} responses");
        Ok(())
    })
}
