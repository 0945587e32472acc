//! Captures in a thread of its own, and takes the batches from a queue with two others.
//!
//! ```sh
//! cargo run --release --features channel --example channel -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- channel` tries it on generated traffic, without root.
//! It needs the crate `ctrlc` besides ringtap.

use ringtap::Capture;
use ringtap::channel::{ChannelCapture, Overflow};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: channel INTERFACE")?;
    let options = Capture::builder().interface(&interface).block_timeout_ms(10);
    // If the readers are too slow, whole batches are dropped here, and counted.
    let channel = ChannelCapture::builder(options).capacity(32).overflow(Overflow::Drop);
    let capture = channel.build()?;
    let stop = capture.stop_handle();
    ctrlc::set_handler(move || stop.stop())?;
    println!("capturing on {interface}");

    let count = || -> ringtap::Result<usize> {
        capture.iter().try_fold(0, |sum, batch| Ok(sum + batch?.len()))
    };
    let counts = std::thread::scope(|scope| {
        let readers = [scope.spawn(count), scope.spawn(count)];
        readers.map(|reader| reader.join().expect("the reader does not panic"))
    });
    for (number, count) in counts.into_iter().enumerate() {
        println!("thread {number}: {} packets", count?);
    }
    let stats = capture.stats()?;
    println!(
        "{} received + {} dropped at the queue + {} dropped in the kernel = {}",
        stats.received, stats.dropped, stats.capture.drops, stats.capture.packets
    );
    Ok(())
}
