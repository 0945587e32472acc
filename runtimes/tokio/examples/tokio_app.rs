//! A capture in a tokio application, beside a TCP server that streams counters to its clients:
//! `cargo run --release -p ringtap-tokio --example tokio_app -- eth0`, or without arguments in the lab,
//! where a client of its own connects. `nc 127.0.0.1 7200` is one too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringtap::{AsyncCapture, Capture};
use ringtap_lab::{Stage, link};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

const ADDRESS: &str = "127.0.0.1:7200";

async fn serve(packets: Arc<AtomicU64>) -> std::io::Result<()> {
    let listener = TcpListener::bind(ADDRESS).await?;
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

async fn watch() -> std::io::Result<()> {
    let mut lines = BufReader::new(TcpStream::connect(ADDRESS).await?).lines();
    while let Some(line) = lines.next_line().await? {
        println!("the client reads: {line}");
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    if !stage.is_real() {
        link::set_up("lo", true)?;
    }
    // The server and the counting run on the runtime's threads, the capture on this one.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let packets = Arc::new(AtomicU64::new(0));
    runtime.spawn(serve(Arc::clone(&packets)));
    let (stats, sent) = LocalSet::new().block_on(&runtime, async {
        let attached = ringtap_tokio::attach()?;
        let capture = Capture::builder().interface(stage.interface()).block_timeout_ms(10);
        let mut capture = AsyncCapture::new(capture.build()?)?;
        let stop = capture.stop_handle()?;
        let sending = stage.pace(Duration::from_secs(2), 20_000);
        let ending = std::thread::spawn(move || {
            let sent = sending.finish();
            stop.stop();
            sent
        });
        if !stage.is_real() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            tokio::spawn(watch());
        }
        while let Some(batch) = capture.next_batch().await? {
            // Batches are owned: this one goes to another thread without a copy.
            let packets = Arc::clone(&packets);
            tokio::spawn(async move {
                packets.fetch_add(batch.iter().count() as u64, Ordering::Relaxed);
            });
        }
        let stats = capture.stats()?;
        let sent = ending.join().expect("it only waits");
        capture.close().await;
        attached.shutdown().await?;
        Ok::<_, ringtap::Error>((stats, sent))
    })?;
    while packets.load(Ordering::Relaxed) < stats.delivered {
        std::thread::sleep(Duration::from_millis(1)); // the last batches' tasks
    }
    let counted = packets.load(Ordering::Relaxed);
    println!("counted {counted}, dropped {}, of {sent}", stats.drops);
    if !stage.is_real() && counted + stats.drops + stage.lost() != sent {
        return Err(format!("{sent} were sent: {stats:?}").into());
    }
    Ok(())
}
