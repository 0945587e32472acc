//! Records packets into a pcapng file that tokio-uring writes, on the thread that captures them; reads the file back at the end.
//!
//! ```sh
//! cargo run --release -p ringtap-tokio-uring --example tokio_uring_recorder -- eth0 packets.pcapng
//! ```
//!
//! `cargo run --release --bin lab -- tokio_uring_recorder` tries it on generated traffic, without root.
//! It needs the crates `ctrlc`, `ringtap-tokio-uring` and `tokio-uring`, and ringtap's feature `pcap`.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringtap::pcap::{CaptureReader, CaptureWriter, FileInterface};
use ringtap::{AsyncCapture, time};
use tokio_uring::fs::File;

/// Bytes of one write.
const CHUNK: u64 = 1 << 18;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(interface), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err("usage: tokio_uring_recorder INTERFACE FILE".into());
    };
    tokio_uring::start(async {
        let attached = ringtap_tokio_uring::attach()?;
        let mut capture = AsyncCapture::open(&interface)?;
        let stop = capture.stop_handle()?;
        ctrlc::set_handler(move || stop.stop())?;
        let file = File::create(&path).await?;
        println!("recording {interface}");

        // The other work of the program; timers of both libraries work.
        let written = Rc::new(Cell::new(0_u64));
        let progress = Rc::clone(&written);
        let ticking = tokio_uring::spawn(async move {
            loop {
                time::sleep(Duration::from_secs(1)).await;
                println!("{} bytes written", progress.get());
            }
        });

        // The writer formats into memory. Its bytes go to the kernel as an owned buffer, and come back to be used again.
        let link = FileInterface::new(capture.link_type());
        let mut writer = CaptureWriter::builder().interface(link).to(Vec::new())?;
        let mut spare = Vec::new();
        let mut is_open = true;
        while is_open {
            match capture.next_batch().await? {
                Some(batch) => writer.write_batch(&batch)?,
                None => is_open = false,
            }
            if is_open && writer.len() < written.get() + CHUNK {
                continue;
            }
            writer.flush()?;
            let full = std::mem::replace(writer.get_mut(), spare);
            let len = full.len() as u64;
            let (result, buffer) = file.write_all_at(full, written.get()).await;
            result?;
            written.set(written.get() + len);
            spare = buffer;
            spare.clear();
        }
        ticking.abort();
        file.sync_all().await?;
        file.close().await?;

        let (recorded, dropped) = (writer.stats().packets, capture.stats()?.drops);
        let mut read_back = 0;
        let mut reader = CaptureReader::open(&path)?;
        while reader.next_record()?.is_some() {
            read_back += 1;
        }
        println!("{recorded} packets recorded, {read_back} read back, {dropped} dropped");
        capture.close().await;
        attached.shutdown().await?;
        Ok(())
    })
}
