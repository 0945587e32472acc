//! Batches move, without being copied, from the capturing task to worker threads.
//! `cargo run --release --example pipeline -- eth0`, or without arguments in the lab.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use futures_util::StreamExt;
use ringtap::{AsyncCapture, Capture, PacketBatch, executor};
use ringtap_lab_wire::Stage;

/// Batches a worker may have waiting: they are blocks that the kernel cannot fill meanwhile.
const QUEUED: usize = 8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let (senders, workers): (Vec<SyncSender<PacketBatch>>, Vec<_>) = (0..2)
        .map(|_| {
            let (sender, batches) = sync_channel(QUEUED);
            (sender, std::thread::spawn(move || work(batches)))
        })
        .unzip();

    let traffic = stage.flood(Duration::from_secs(2));
    let (stats, detached) = executor::block_on(async {
        let ring = Capture::builder().interface(stage.interface()).block_size(1 << 18);
        let mut capture = AsyncCapture::new(ring.block_timeout_ms(10).build()?)?;
        let stop = capture.stop_handle()?;
        std::thread::spawn(move || {
            traffic.finish();
            stop.stop();
        });
        let (mut next, mut detached) = (0, 0);
        while let Some(batch) = capture.next().await {
            next = (next + 1) % senders.len();
            // A worker that is behind gets a copy instead, so that the ring stays free.
            if let Err(TrySendError::Full(batch)) = senders[next].try_send(batch?) {
                detached += 1;
                senders[next].send(batch.detach())?;
            }
        }
        Ok::<_, Box<dyn std::error::Error>>((capture.stats()?, detached))
    })?;
    drop(senders);
    let packets: u64 = workers.into_iter().map(|worker| worker.join().expect("no panic")).sum();
    println!("{packets} packets through the workers; {detached} batches had to be copied");
    println!("{stats:?}");
    assert_eq!(packets, stats.delivered);
    Ok(())
}

/// Counts packets; dropping a batch here gives its block back to the kernel.
fn work(batches: Receiver<PacketBatch>) -> u64 {
    batches.into_iter().map(|batch| batch.iter().count() as u64).sum()
}
