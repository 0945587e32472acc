//! Ctrl-C ends a capture cleanly: what the ring holds is still delivered.
//! `cargo run --example signal -- eth0`, or without arguments in the lab, where it interrupts itself
//! after two seconds.

use std::time::Duration;

use futures_util::StreamExt;
use ringtap::{AsyncCapture, Capture, executor};
use ringtap_lab_wire::Stage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let traffic = stage.pace(Duration::from_secs(2), 10_000);
    executor::block_on(async {
        let ring = Capture::builder().interface(stage.interface()).block_size(1 << 18);
        let mut capture = AsyncCapture::new(ring.block_count(16).build()?)?;
        let stop = capture.stop_handle()?;
        ctrlc::set_handler(move || stop.stop())?;

        if !stage.is_real() {
            let process = std::process::id() as libc::pid_t;
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(2));
                // SAFETY: a signal to this process, which has a handler for it.
                unsafe { libc::kill(process, libc::SIGINT) };
            });
        }
        println!("capturing until Ctrl-C");
        let mut packets = 0;
        while let Some(batch) = capture.next().await {
            packets += batch?.iter().count();
        }
        let stats = capture.stats()?;
        println!("interrupted: {packets} packets, none left behind: {}", stats.pending() == 0);
        capture.close().await;
        drop(traffic);
        Ok(())
    })
}
