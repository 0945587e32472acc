//! An async capture, batch by batch, beside a clock that ticks: `cargo run --example async_capture -- eth0`, or
//! without arguments in the lab.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringtap::{AsyncCapture, Capture, executor, time};
use ringtap_lab_wire::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let mut capture =
        Capture::builder().interface(stage.interface()).block_timeout_ms(10).build()?;
    let stop = capture.stop_handle()?;
    let traffic = stage.pace(Duration::from_secs(3), 10_000);
    let packets = Rc::new(Cell::new(0_u64));
    executor::block_on(async {
        // Another task of the same thread: both share what they count without a lock.
        let seen = Rc::clone(&packets);
        let clock = executor::spawn_local(async move {
            for second in 1..=3 {
                let before = seen.get();
                time::sleep(Duration::from_secs(1)).await;
                println!("second {second}: {} packets", seen.get() - before);
            }
            stop.stop();
        });
        let mut capture = AsyncCapture::new(capture)?;
        while let Some(batch) = capture.next_batch().await? {
            packets.set(packets.get() + batch.len() as u64);
        }
        clock.await?;
        let stats = capture.stats()?;
        println!("{} packets, {} dropped", packets.get(), stats.drops);
        Ok::<_, ringtap::Error>(())
    })?;
    drop(traffic);
    Ok(())
}
