//! Statistics read from another thread, while the capture runs undisturbed.
//! `cargo run --example stats -- eth0`, or without arguments in the lab.

use std::time::Duration;

use ringtap::Capture;
use ringtap_lab_wire::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    // A ring of 1 MiB, so that there is something to drop.
    let ring = Capture::builder().interface(stage.interface()).block_size(1 << 16).block_count(16);
    let mut capture = ring.block_timeout_ms(10).build()?;
    let (stats, stop) = (capture.stats_handle(), capture.stop_handle()?);
    let traffic = stage.flood(Duration::from_secs(4));

    let watcher = std::thread::spawn(move || -> ringtap::Result<()> {
        let mut before = stats.stats()?;
        for second in 1..=4 {
            std::thread::sleep(Duration::from_secs(1));
            let now = stats.stats()?;
            let delta = now.delta_since(&before);
            println!(
                "{second} s: {} packets, {} dropped ({:.1} %), {} freezes, {} in the ring",
                delta.packets,
                delta.drops,
                100.0 * delta.drop_ratio(),
                delta.freezes,
                now.pending(),
            );
            before = now;
        }
        stop.stop();
        Ok(())
    });

    for (number, batch) in capture.batches().enumerate() {
        let batch = batch?;
        if number % 32 == 0 {
            std::thread::sleep(Duration::from_millis(5)); // a consumer that is too slow at times
        }
        drop(batch);
    }
    watcher.join().expect("the watcher does not panic")?;
    drop(traffic);
    let stats = capture.stats()?;
    println!("in all: {} = {} delivered + {} dropped", stats.packets, stats.delivered, stats.drops);
    match stats.packets == stats.delivered + stats.drops {
        true => Ok(()),
        false => Err("packets are not accounted for".into()),
    }
}
