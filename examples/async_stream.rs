//! A capture as a `Stream`, with what `futures` has for streams: `cargo run --example async_stream -- eth0`, or
//! without arguments in the lab.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, future};
use ringtap::{AsyncCapture, Capture, executor};
use ringtap_lab_wire::Stage;

/// Packets to wait for.
const ENOUGH: u64 = 20_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let ring = Capture::builder().interface(stage.interface()).block_timeout_ms(5);
    let traffic = stage.pace(Duration::from_secs(3), 20_000);
    let (packets, bytes) = executor::block_on(async {
        let capture = AsyncCapture::new(ring.build()?)?;
        capture
            .map_ok(|batch| {
                let bytes: u64 = batch.iter().map(|packet| packet.len() as u64).sum();
                (batch.len() as u64, bytes)
            })
            .inspect_ok(|(packets, bytes)| println!("{packets} packets, {bytes} bytes"))
            .scan(0, |seen, figures| {
                let goes_on = *seen < ENOUGH;
                *seen += figures.as_ref().map_or(0, |(packets, _)| *packets);
                future::ready(goes_on.then_some(figures))
            })
            .try_fold((0, 0), |sum: (u64, u64), (packets, bytes)| {
                future::ok((sum.0 + packets, sum.1 + bytes))
            })
            .await
    })?;
    println!("in all {packets} packets, {bytes} bytes");
    drop(traffic);
    Ok(())
}
