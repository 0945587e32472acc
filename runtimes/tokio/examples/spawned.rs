//! Captures in a task of tokio's multi-thread runtime: `spawned INTERFACE`, until Ctrl-C.
//!
//! A thread of ringtap's captures, and the task receives its batches, wherever tokio runs it.

use ringtap::channel::ChannelCapture;

#[tokio::main]
async fn main() -> ringtap::Result<()> {
    let Some(interface) = std::env::args().nth(1) else {
        eprintln!("usage: spawned INTERFACE");
        return Ok(());
    };
    let capture = ChannelCapture::open(&interface)?;
    let stop = capture.stop_handle();
    let counting = tokio::spawn(async move {
        let (mut packets, mut bytes) = (0, 0);
        while let Some(batch) = capture.next_batch().await? {
            packets += batch.len();
            bytes += batch.iter().map(|packet| packet.len()).sum::<usize>();
        }
        Ok::<_, ringtap::Error>((packets, bytes))
    });
    tokio::signal::ctrl_c().await.map_err(ringtap::Error::other)?;
    stop.stop();
    let (packets, bytes) = counting.await.map_err(ringtap::Error::other)??;
    println!("{packets} packets, {bytes} bytes");
    Ok(())
}
