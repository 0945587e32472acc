//! Captures 20,000 packets as a stream, with the combinators of `futures-util`.
//!
//! ```sh
//! cargo run --release --example async_stream -- eth0
//! ```
//!
//! `cargo run --release --bin lab -- async_stream` tries it on generated traffic, without root.
//! It needs the crate `futures-util` besides ringtap.

use futures_util::{StreamExt, TryStreamExt, future};
use ringtap::{AsyncCapture, executor};

const ENOUGH: u64 = 20_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: async_stream INTERFACE")?;
    executor::block_on(async {
        let capture = AsyncCapture::open(&interface)?;
        println!("capturing on {interface}");
        let (packets, bytes) = capture
            .map_ok(|batch| {
                let bytes: u64 = batch.iter().map(|packet| packet.len() as u64).sum();
                (batch.len() as u64, bytes)
            })
            .inspect_ok(|(packets, bytes)| println!("{packets} packets, {bytes} bytes"))
            .scan(0, |seen, batch| {
                let goes_on = *seen < ENOUGH;
                *seen += batch.as_ref().map_or(0, |(packets, _)| *packets);
                future::ready(goes_on.then_some(batch))
            })
            .try_fold((0, 0), |sum, (packets, bytes)| future::ok((sum.0 + packets, sum.1 + bytes)))
            .await?;
        println!("in all {packets} packets, {bytes} bytes");
        Ok(())
    })
}
