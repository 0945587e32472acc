//! Sends the byte streams of TCP connections to two threads that work on them.
//!
//! ```sh
//! cargo run --release --features flow --example flow_channel -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- flow_channel` tries it on generated traffic, without root.
//! It needs the crates `ctrlc` and `futures-util` besides ringtap.

use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Duration;

use futures_util::StreamExt;
use ringtap::executor::{self, spawn_local};
use ringtap::flow::extract::{FiveTuple, FiveTupleKey};
use ringtap::flow::{BacklogPolicy, Conversation, FlowChunk, FlowExt, FlowSide, channel_factory};
use ringtap::{AsyncCapture, time};

/// One direction of a connection.
type Direction = Conversation<(FiveTupleKey, FlowSide)>;

/// Reads each stream in a task of its own, and counts the streams and their bytes.
async fn work(streams: Receiver<Direction>) -> (usize, usize) {
    let mut tasks = Vec::new();
    loop {
        match streams.try_recv() {
            Ok(stream) => {
                tasks.push(spawn_local(stream.fold(0, async |bytes, chunk| match chunk {
                    FlowChunk::Initiator(said) | FlowChunk::Responder(said) => bytes + said.len(),
                    _ => bytes,
                })));
            }
            Err(TryRecvError::Empty) => time::sleep(Duration::from_millis(1)).await,
            Err(TryRecvError::Disconnected) => break,
        }
    }
    let (count, mut bytes) = (tasks.len(), 0);
    for task in tasks {
        bytes += task.await.unwrap_or_default();
    }
    (count, bytes)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: flow_channel INTERFACE")?;
    let workers: [_; 2] = std::array::from_fn(|_| {
        let (sender, streams) = mpsc::channel();
        (sender, std::thread::spawn(move || executor::block_on(work(streams))))
    });
    let [(first, first_worker), (second, second_worker)] = workers;
    executor::block_on(async {
        let mut capture = AsyncCapture::open(&interface)?;
        let stop = capture.stop_handle()?;
        ctrlc::set_handler(move || stop.stop())?;
        println!("capturing on {interface}");
        let mut is_first = false;
        let factory = channel_factory(64 << 10, move |stream| {
            is_first = !is_first;
            // If a worker has ended, its streams are dropped.
            let _ = if is_first { first.send(stream) } else { second.send(stream) };
        });
        let mut flows = capture
            .flow_stream(FiveTuple::bidirectional())
            .with_async_reassembler(factory)
            .with_backlog(1 << 20, BacklogPolicy::Gap);
        while let Some(event) = flows.next().await {
            event?;
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    for worker in [first_worker, second_worker] {
        let (count, bytes) = worker.join().map_err(|_| "a worker has panicked")?;
        println!("a worker took {count} streams, {bytes} bytes");
    }
    Ok(())
}
