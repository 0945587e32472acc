//! Writes what it captures to a file, by a thread, so that a slow disk holds up nothing.
//! `cargo run --features pcap --example pcap_write -- eth0 a.pcapng`, or without arguments in the lab.

use std::time::{Duration, Instant};

use ringtap::Capture;
use ringtap::pcap::{BackgroundWriter, CaptureReader, CaptureWriter, FileInterface, PacketSink};
use ringtap_lab_wire::{Directory, Stage};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let scratch = Directory::new();
    let path = std::env::args().nth(2).map_or_else(|| scratch.path().join("a.pcapng"), Into::into);
    let mut interface = FileInterface::ethernet(stage.interface());
    interface.filter = Some("udp".to_owned());
    let file = CaptureWriter::builder()
        .interface(interface)
        .comment("written by an example")
        .create(&path)?;
    let mut writer = BackgroundWriter::spawn(file, 64 << 20)?;

    let options = Capture::builder().interface(stage.interface()).block_timeout_ms(10);
    let mut capture = options.filter("udp".parse()?).build()?;
    let traffic = stage.pace(Duration::from_secs(2), 100_000);
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        if let Some(batch) = capture.next_batch_timeout(Duration::from_millis(100))? {
            writer.write_batch(&batch)?;
        }
    }
    drop(traffic);
    let (mut file, stats) = writer.finish()?;
    // Its last block says what was dropped, so that who reads it later knows.
    file.set_statistics(0, capture.stats()?.into());
    file.finish()?;
    println!("{} packets written, {} dropped on the way", stats.written, stats.dropped);

    let mut reader = CaptureReader::open(&path)?;
    let mut packets = 0;
    while reader.next_record()?.is_some() {
        packets += 1;
    }
    println!("{}: {packets} packets, {:?}", path.display(), reader.interfaces()[0].statistics);
    Ok(())
}
