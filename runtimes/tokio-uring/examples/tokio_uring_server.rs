//! Captures, and writes what it captures to a file through tokio-uring, on one thread:
//! `cargo run --release -p ringtap-tokio-uring --example tokio_uring_server -- eth0 packets.bin`, or
//! without arguments in the lab. Each record is the packet's length, four bytes, and its bytes.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringtap::{AsyncCapture, Capture, time};
use ringtap_lab::Stage;
use tokio_uring::fs::File;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let path = std::env::args().nth(2).map_or_else(
        || std::env::temp_dir().join(format!("ringtap-{}.bin", std::process::id())),
        Into::into,
    );
    tokio_uring::start(async {
        let attached = ringtap_tokio_uring::attach()?;
        let capture = Capture::builder().interface(stage.interface()).block_timeout_ms(10);
        let mut capture = AsyncCapture::new(capture.build()?)?;
        let stop = capture.stop_handle()?;
        let file = File::create(&path).await?;
        let sending = stage.pace(Duration::from_secs(2), 20_000);

        // Beside the capture: the server's other work, with timers of either library.
        let written = Rc::new(Cell::new(0_u64));
        let progress = Rc::clone(&written);
        tokio_uring::spawn(async move {
            let mut ticks = time::interval(Duration::from_millis(500));
            while sending.is_under_way() {
                ticks.tick().await;
                println!("{} bytes written", progress.get());
            }
            println!("{} frames were sent", sending.finish());
            stop.stop();
        });

        let mut packets = 0;
        while let Some(batch) = capture.next_batch().await? {
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
        file.sync_all().await?;
        file.close().await?;
        println!("{packets} packets, {} bytes in {}", written.get(), path.display());
        capture.close().await;
        attached.shutdown().await?;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    if !stage.is_real() {
        std::fs::remove_file(&path)?;
    }
    Ok(())
}
