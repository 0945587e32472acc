//! Writes packets to a file with a thread, so that a slow disk does not delay the capture.
//!
//! ```sh
//! cargo run --release --features pcap --example pcap_write -- eth0 a.pcapng
//! ```
//!
//! `cargo run --release --bin lab -- pcap_write` tries it on generated traffic, without root.
//! It needs the crate `ctrlc` besides ringtap.

use ringtap::Capture;
use ringtap::pcap::{BackgroundWriter, CaptureReader, CaptureWriter, FileInterface, PacketSink};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(interface), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err("usage: pcap_write INTERFACE FILE".into());
    };
    let mut description = FileInterface::ethernet(&interface);
    description.filter = Some("udp".to_owned());
    let file = CaptureWriter::builder().interface(description).comment("an example");
    let mut writer = BackgroundWriter::spawn(file.create(&path)?, 64 << 20)?;

    let mut capture = Capture::builder().interface(&interface).filter("udp".parse()?).build()?;
    let stop = capture.stop_handle()?;
    ctrlc::set_handler(move || stop.stop())?;
    println!("capturing on {interface}");
    for batch in capture.batches() {
        writer.write_batch(&batch?)?;
    }
    let (mut file, stats) = writer.finish()?;
    // The last block of the file says how many packets were dropped.
    file.set_statistics(0, capture.stats()?.into());
    file.finish()?;
    println!("{} packets written, {} lost on the way", stats.written, stats.dropped);

    let mut reader = CaptureReader::open(&path)?;
    let mut packets = 0;
    while reader.next_record()?.is_some() {
        packets += 1;
    }
    println!("{path}: {packets} packets, {:?}", reader.interfaces()[0].statistics);
    Ok(())
}
