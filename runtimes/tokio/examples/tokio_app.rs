//! Captures in a tokio application, beside a TCP server that sends the packet count to its clients.
//!
//! ```sh
//! cargo run --release -p ringtap-tokio --example tokio_app -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- tokio_app` tries it on generated traffic, without root.
//! It needs the crates `ringtap-tokio` and `tokio` besides ringtap.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringtap::AsyncCapture;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

/// Try `nc 127.0.0.1 7200`.
const ADDRESS: &str = "127.0.0.1:7200";

async fn serve(listener: TcpListener, packets: Arc<AtomicU64>) -> std::io::Result<()> {
    loop {
        let (mut client, _) = listener.accept().await?;
        let packets = Arc::clone(&packets);
        tokio::spawn(async move {
            loop {
                let line = format!("{} packets\n", packets.load(Ordering::Relaxed));
                if client.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        });
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: tokio_app INTERFACE")?;
    // The server and the counting run on the threads of the runtime, the capture on this one.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let packets = Arc::new(AtomicU64::new(0));
    LocalSet::new().block_on(&runtime, async {
        let attached = ringtap_tokio::attach()?;
        let mut capture = AsyncCapture::open(&interface)?;
        let stop = capture.stop_handle()?;
        tokio::spawn(async move {
            let _ = tokio::signal::ctrl_c().await;
            stop.stop();
        });
        tokio::spawn(serve(TcpListener::bind(ADDRESS).await?, Arc::clone(&packets)));
        println!("capturing on {interface}, serving on {ADDRESS}");
        let mut counting = tokio::task::JoinSet::new();
        while let Some(batch) = capture.next_batch().await? {
            // The batch goes to another thread without a copy.
            let packets = Arc::clone(&packets);
            counting.spawn(async move {
                packets.fetch_add(batch.iter().count() as u64, Ordering::Relaxed);
            });
            while counting.try_join_next().is_some() {}
        }
        counting.join_all().await;
        let counted = packets.load(Ordering::Relaxed);
        println!("{counted} packets counted, {} dropped", capture.stats()?.drops);
        capture.close().await;
        attached.shutdown().await?;
        Ok(())
    })
}
