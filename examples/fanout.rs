//! Sets up a fanout group of three captures by hand, each in a thread; shards do this for you.
//!
//! ```sh
//! cargo run --release --example fanout -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- fanout` tries it on generated traffic, without root.
//! It needs the crate `ctrlc` besides ringtap.

use std::sync::mpsc;

use ringtap::Capture;
use ringtap::fanout::FanoutMode;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: fanout INTERFACE")?;
    let options = Capture::builder().interface(&interface).block_size(1 << 18).block_count(32);
    // For the first member the kernel chooses the id of a group that no other program uses ...
    let first = options.clone().fanout_auto(FanoutMode::Hash).build()?;
    let group = first.fanout_group().ok_or("the capture is in no group")?;
    // ... which the others join.
    let mut captures = vec![first];
    for _ in 0..2 {
        captures.push(options.clone().fanout(FanoutMode::Hash, group).build()?);
    }

    let mut members = Vec::new();
    for mut capture in captures {
        let stop = capture.stop_handle()?;
        let thread = std::thread::spawn(move || -> ringtap::Result<usize> {
            capture.batches().try_fold(0, |packets, batch| Ok(packets + batch?.len()))
        });
        members.push((stop, thread));
    }
    let (interrupt, interrupted) = mpsc::channel();
    ctrlc::set_handler(move || {
        let _ = interrupt.send(());
    })?;
    println!("capturing on {interface} in fanout group {group}");
    interrupted.recv()?;

    // The last member first: if another one left, the kernel would move the last one into its place, and flows with it.
    let mut packets = 0;
    for (number, (stop, thread)) in members.into_iter().enumerate().rev() {
        stop.stop();
        let count = thread.join().expect("the thread does not panic")?;
        println!("member {number}: {count} packets");
        packets += count;
    }
    println!("{packets} packets captured");
    Ok(())
}
