//! A capture in a thread of its own, for programs without an executor: batches come through a queue.
//! `cargo run --features channel --example channel -- eth0`, or without arguments in the lab.

use std::time::Duration;

use ringtap::Capture;
use ringtap::channel::{ChannelCapture, Overflow};
use ringtap_lab_wire::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let options = Capture::builder().interface(stage.interface()).block_timeout_ms(10);
    // A reader that is too slow loses whole batches here, not packets in the kernel: both are counted.
    let channel = ChannelCapture::builder(options).capacity(32).overflow(Overflow::Drop);
    let capture = channel.build()?;
    let traffic = stage.flood(Duration::from_secs(2));
    let stop = capture.stop_handle();
    std::thread::scope(|scope| -> ringtap::Result<()> {
        // Any number of threads may take from the queue.
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| -> ringtap::Result<usize> {
                    capture.iter().try_fold(0, |sum, batch| Ok(sum + batch?.len()))
                })
            })
            .collect();
        std::thread::sleep(Duration::from_secs(2));
        stop.stop();
        for (number, reader) in readers.into_iter().enumerate() {
            println!("thread {number}: {} packets", reader.join().expect("it does not panic")?);
        }
        Ok(())
    })?;
    drop(traffic);
    let stats = capture.stats()?;
    println!(
        "{} received + {} dropped at the queue + {} in the kernel = {}",
        stats.received, stats.dropped, stats.capture.drops, stats.capture.packets
    );
    match stats.received + stats.dropped + stats.capture.drops == stats.capture.packets {
        true => Ok(()),
        false => Err("packets are not accounted for".into()),
    }
}
