//! Writes packets to a file with tokio-uring, on the thread that captures them.
//!
//! ```sh
//! cargo run --release -p ringtap-tokio-uring --example tokio_uring_server -- eth0 packets.bin
//! ```
//!
//! `cargo run --release --bin lab -- tokio_uring_server` tries it on generated traffic, without root.
//! It needs the crates `ctrlc`, `ringtap-tokio-uring` and `tokio-uring` besides ringtap.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringtap::{AsyncCapture, time};
use tokio_uring::fs::File;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(interface), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err("usage: tokio_uring_server INTERFACE FILE".into());
    };
    tokio_uring::start(async {
        let attached = ringtap_tokio_uring::attach()?;
        let mut capture = AsyncCapture::open(&interface)?;
        let stop = capture.stop_handle()?;
        ctrlc::set_handler(move || stop.stop())?;
        let file = File::create(&path).await?;
        println!("capturing on {interface}");

        // The other work of the server; timers of both libraries work.
        let written = Rc::new(Cell::new(0_u64));
        let progress = Rc::clone(&written);
        let ticking = tokio_uring::spawn(async move {
            loop {
                time::sleep(Duration::from_secs(1)).await;
                println!("{} bytes written", progress.get());
            }
        });

        let mut packets = 0;
        while let Some(batch) = capture.next_batch().await? {
            // A record is the length of a packet, in four bytes, and the packet.
            let mut records = Vec::new();
            for packet in &batch {
                records.extend_from_slice(&(packet.len() as u32).to_be_bytes());
                records.extend_from_slice(packet.data());
                packets += 1;
            }
            let len = records.len() as u64;
            let (result, _) = file.write_all_at(records, written.get()).await;
            result?;
            written.set(written.get() + len);
        }
        ticking.abort();
        file.sync_all().await?;
        file.close().await?;
        println!("{packets} packets, {} bytes in {path}", written.get());
        capture.close().await;
        attached.shutdown().await?;
        Ok(())
    })
}
