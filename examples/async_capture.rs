//! Captures batch by batch in one task, while another task of its thread prints the rate.
//!
//! ```sh
//! cargo run --release --example async_capture -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- async_capture` tries it on generated traffic, without root.
//! It needs the crate `ctrlc` besides ringtap.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringtap::{AsyncCapture, executor, time};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: async_capture INTERFACE")?;
    executor::block_on(async {
        let mut capture = AsyncCapture::open(&interface)?;
        let stop = capture.stop_handle()?;
        ctrlc::set_handler(move || stop.stop())?;
        println!("capturing on {interface}");

        // Both tasks run on this thread, so they share the count without a lock.
        let packets = Rc::new(Cell::new(0_u64));
        let seen = Rc::clone(&packets);
        let _clock = executor::spawn_local(async move {
            loop {
                let before = seen.get();
                time::sleep(Duration::from_secs(1)).await;
                println!("{} packets in the last second", seen.get() - before);
            }
        });
        while let Some(batch) = capture.next_batch().await? {
            packets.set(packets.get() + batch.len() as u64);
        }
        println!("{} packets, {} dropped", packets.get(), capture.stats()?.drops);
        Ok(())
    })
}
