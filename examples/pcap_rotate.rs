//! Writes what it captures to a series of files, the oldest of which go.
//! `cargo run --features pcap --example pcap_rotate -- eth0 /var/spool/capture`, or without arguments in the lab.

use std::time::{Duration, Instant};

use ringtap::Capture;
use ringtap::pcap::{PacketSink, RotatingWriter};
use ringtap_lab_wire::{Directory, Stage};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = Stage::from_args()?;
    let scratch = Directory::new();
    let directory = std::env::args().nth(2).map_or_else(|| scratch.path().to_owned(), Into::into);
    let files = RotatingWriter::builder(&directory, "example").max_bytes(2 << 20).keep_files(4);
    let mut files = files.max_time(Duration::from_secs(60)).build()?;

    let options = Capture::builder().interface(stage.interface()).block_timeout_ms(10);
    let mut capture = options.build()?;
    let traffic = stage.pace(Duration::from_secs(2), 100_000);
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        let Some(batch) = capture.next_batch_timeout(Duration::from_millis(100))? else { continue };
        // A full disk is no reason to stop: it is told once, and packets are counted as lost until there is room.
        if let Err(error) = files.write_batch(&batch) {
            eprintln!("{error}");
        }
        files.set_statistics(capture.stats()?.into());
    }
    drop(traffic);
    println!("{:?}", files.finish()?);
    let mut names: Vec<_> = std::fs::read_dir(&directory)?.collect::<Result<_, _>>()?;
    names.sort_by_key(std::fs::DirEntry::file_name);
    for name in names {
        println!("{} {} bytes", name.path().display(), name.metadata()?.len());
    }
    Ok(())
}
