//! Writes packets to a series of files, and removes the oldest.
//!
//! ```sh
//! cargo run --release --features pcap --example pcap_rotate -- eth0 /var/spool/capture
//! ```
//!
//! `cargo run --release --bin lab -- pcap_rotate` tries it on generated traffic, without root.
//! It needs the crate `ctrlc` besides ringtap.

use std::time::Duration;

use ringtap::Capture;
use ringtap::pcap::{PacketSink, RotatingWriter};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(interface), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: pcap_rotate INTERFACE FOLDER".into());
    };
    let files = RotatingWriter::builder(&folder, "example").max_bytes(2 << 20).keep_files(4);
    let mut files = files.max_time(Duration::from_secs(60)).build()?;
    let mut capture = Capture::open(&interface)?;
    let (stop, stats) = (capture.stop_handle()?, capture.stats_handle());
    ctrlc::set_handler(move || stop.stop())?;
    println!("capturing on {interface}");
    for batch in capture.batches() {
        // A full disk is reported once, and packets are counted as lost until there is room again.
        if let Err(error) = files.write_batch(&batch?) {
            eprintln!("{error}");
        }
        // Each file says how many packets were dropped.
        files.set_statistics(stats.stats()?.into());
    }
    println!("{:?}", files.finish()?);
    Ok(())
}
