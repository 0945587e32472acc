//! Reads the bytes of both sides of each TCP connection, in one task per connection.
//!
//! ```sh
//! cargo run --release --features flow --example conversations -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- conversations` tries it on generated traffic, without root.
//! It needs the crates `ctrlc` and `futures-util` besides ringtap.

use std::cell::Cell;
use std::rc::Rc;

use futures_util::StreamExt;
use ringtap::AsyncCapture;
use ringtap::executor::{self, spawn_local};
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::{FlowChunk, FlowExt};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: conversations INTERFACE")?;
    executor::block_on(async {
        let mut capture = AsyncCapture::open(&interface)?;
        let stop = capture.stop_handle()?;
        ctrlc::set_handler(move || stop.stop())?;
        println!("capturing on {interface}");
        let flows = capture.flow_stream(FiveTuple::bidirectional());
        let mut conversations = flows.into_conversations();
        let (ended, bytes) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let mut tasks = Vec::new();
        while let Some(conversation) = conversations.next().await {
            let mut conversation = conversation?;
            let (ended, bytes) = (Rc::clone(&ended), Rc::clone(&bytes));
            tasks.push(spawn_local(async move {
                while let Some(chunk) = conversation.next_chunk().await {
                    match chunk {
                        FlowChunk::Initiator(said) | FlowChunk::Responder(said) => {
                            bytes.set(bytes.get() + said.len());
                            if ended.get() < 3 {
                                let line = said.split(|byte| *byte == b'\r').next().unwrap_or(&[]);
                                println!("{}", line.escape_ascii());
                            }
                        }
                        FlowChunk::Closed(_) => ended.set(ended.get() + 1),
                        _ => {}
                    }
                }
            }));
        }
        for task in tasks {
            task.await?;
        }
        println!("{} conversations, {} bytes", ended.get(), bytes.get());
        Ok(())
    })
}
