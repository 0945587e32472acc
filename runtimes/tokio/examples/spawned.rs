//! Captures in a task of tokio's multi-thread runtime: `spawned INTERFACE`, until Ctrl-C.
//!
//! The capture is `Send`: it waits with tokio's own readiness, in whatever thread the task runs. Nothing is attached.

use ringtap_tokio::Capture;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: spawned INTERFACE")?;
    let mut capture = Capture::open(&interface)?;
    let stop = capture.stop_handle()?;
    let counting = tokio::spawn(async move {
        let mut packets = 0;
        while let Some(batch) = capture.next_batch().await? {
            packets += batch.iter().count();
        }
        Ok::<_, ringtap::Error>((packets, capture.get_ref().stats()?.drops))
    });
    println!("capturing on {interface}");
    tokio::signal::ctrl_c().await?;
    stop.stop();
    let (packets, dropped) = counting.await??;
    println!("{packets} packets counted, {dropped} dropped");
    Ok(())
}
