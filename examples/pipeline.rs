//! Moves batches to worker threads without copying them.
//!
//! ```sh
//! cargo run --release --example pipeline -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- pipeline` tries it on generated traffic, without root.
//! It needs the crate `ctrlc` besides ringtap.

use std::sync::mpsc::{Receiver, TrySendError, sync_channel};

use ringtap::{AsyncCapture, PacketBatch, executor};

/// The most batches that wait for a worker: each is a block that the kernel cannot fill meanwhile.
const QUEUED: usize = 8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: pipeline INTERFACE")?;
    let (senders, workers): (Vec<_>, Vec<_>) = (0..2)
        .map(|_| {
            let (sender, batches) = sync_channel(QUEUED);
            (sender, std::thread::spawn(move || work(batches)))
        })
        .unzip();
    let (stats, copied) = executor::block_on(async {
        let mut capture = AsyncCapture::open(&interface)?;
        let stop = capture.stop_handle()?;
        ctrlc::set_handler(move || stop.stop())?;
        println!("capturing on {interface}");
        let (mut next, mut copied) = (0, 0);
        while let Some(batch) = capture.next_batch().await? {
            next = (next + 1) % senders.len();
            // A worker that is behind gets a copy, so that the ring stays free.
            if let Err(TrySendError::Full(batch)) = senders[next].try_send(batch) {
                copied += 1;
                senders[next].send(batch.detach())?;
            }
        }
        Ok::<_, Box<dyn std::error::Error>>((capture.stats()?, copied))
    })?;
    drop(senders);
    let counts = workers.into_iter().map(|worker| worker.join().expect("no worker panics"));
    println!("{} packets through the workers; {copied} batches were copied", counts.sum::<usize>());
    println!("{stats:?}");
    Ok(())
}

/// Counts packets. When a batch is dropped, its block returns to the kernel.
fn work(batches: Receiver<PacketBatch>) -> usize {
    batches.into_iter().map(|batch| batch.iter().count()).sum()
}
