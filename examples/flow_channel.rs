//! Streams of bytes through channels to threads, for work that takes long. `cargo run --features flow --example
//! flow_channel -- eth0`, or without arguments in the lab.

use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Duration;

use futures_util::StreamExt;
use ringtap::executor::{self, spawn_local};
use ringtap::flow::extract::{FiveTuple, FiveTupleKey};
use ringtap::flow::{BacklogPolicy, Conversation, FlowChunk, FlowExt, FlowSide, channel_factory};
use ringtap::{AsyncCapture, Capture, time};
use ringtap_lab_wire::Stage;

/// One direction of a connection.
type Direction = Conversation<(FiveTupleKey, FlowSide)>;

/// Takes what comes of streams, each in a task of its own: how many there were, and their bytes.
async fn work(streams: Receiver<Direction>) -> (u64, u64) {
    let mut tasks = Vec::new();
    loop {
        match streams.try_recv() {
            Ok(stream) => {
                tasks.push(spawn_local(stream.fold(0, async |bytes, chunk| match chunk {
                    FlowChunk::Initiator(said) | FlowChunk::Responder(said) => {
                        bytes + said.len() as u64
                    }
                    _ => bytes,
                })));
            }
            Err(TryRecvError::Empty) => time::sleep(Duration::from_millis(1)).await,
            Err(TryRecvError::Disconnected) => break,
        }
    }
    let (mut count, mut bytes) = (0, 0);
    for task in tasks {
        count += 1;
        bytes += task.await.unwrap_or_default();
    }
    (count, bytes)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let workers: [_; 2] = std::array::from_fn(|_| {
        let (to_worker, streams) = mpsc::channel();
        (to_worker, std::thread::spawn(move || executor::block_on(work(streams))))
    });
    let [(first, first_worker), (second, second_worker)] = workers;
    executor::block_on(async {
        let options = Capture::builder().interface(stage.interface()).block_timeout_ms(50);
        let mut capture = AsyncCapture::new(options.ignore_outgoing(true).build()?)?;
        let stop = capture.stop_handle()?;
        let talk = stage.talk(1000);
        std::thread::spawn(move || {
            talk.finish();
            stop.stop();
        });
        let mut is_first = false;
        let factory = channel_factory(64 << 10, move |stream| {
            is_first = !is_first;
            // A worker that is gone wants no more.
            let _ = if is_first { first.send(stream) } else { second.send(stream) };
        });
        let flows = capture.flow_stream(FiveTuple::bidirectional());
        let mut flows =
            flows.with_async_reassembler(factory).with_backlog(1 << 20, BacklogPolicy::Gap);
        while let Some(event) = flows.next().await {
            event?;
        }
        Ok::<(), ringtap::Error>(())
    })?;
    for worker in [first_worker, second_worker] {
        let (count, bytes) = worker.join().map_err(|_| "a worker has panicked")?;
        println!("a worker took {count} streams, {bytes} bytes");
    }
    Ok(())
}
