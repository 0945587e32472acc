//! Connections as streams of what both sides say, each read by a task of its own. `cargo run --features flow --example
//! conversations -- eth0`, or without arguments in the lab.

use std::cell::Cell;
use std::rc::Rc;

use futures_util::StreamExt;
use ringtap::executor::{self, spawn_local};
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::{FlowChunk, FlowExt};
use ringtap::{AsyncCapture, Capture};
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
        let mut conversations = flows.into_conversations();
        let (heard, bytes) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let mut tasks = Vec::new();
        while let Some(conversation) = conversations.next().await {
            let mut conversation = conversation?;
            let (heard, bytes) = (Rc::clone(&heard), Rc::clone(&bytes));
            tasks.push(spawn_local(async move {
                while let Some(chunk) = conversation.next_chunk().await {
                    match chunk {
                        FlowChunk::Initiator(said) | FlowChunk::Responder(said) => {
                            bytes.set(bytes.get() + said.len());
                            if heard.get() < 3 {
                                let line = said.split(|byte| *byte == b'\r').next().unwrap_or(&[]);
                                println!("{}", line.escape_ascii());
                            }
                        }
                        FlowChunk::Closed(_) => heard.set(heard.get() + 1),
                        _ => {}
                    }
                }
            }));
        }
        for task in tasks {
            task.await?;
        }
        println!("{} conversations, {} bytes", heard.get(), bytes.get());
        Ok(())
    })
}
