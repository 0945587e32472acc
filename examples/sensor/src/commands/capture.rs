//! Packets into files.

use std::time::{Duration, Instant};

use ringtap::interface::LocalNames;
use ringtap::pcap::{CaptureWriter, FileInterface, PacketSink, RotatingWriter};
use ringtap::{BpfFilter, Capture};

use super::End;
use crate::cli::CaptureArgs;
use crate::sink::Outcome;

pub(super) fn run(args: &CaptureArgs) -> Outcome<()> {
    let from = &args.from;
    let is_any = from.interface == "any";
    let mut options = Capture::builder().interface(&from.interface).promiscuous(true);
    if let Some(filter) = &from.filter {
        options = options.filter(BpfFilter::parse_with(filter, &LocalNames::of(&from.interface))?);
    }
    if let Some(snap_len) = args.snap_len {
        options = options.snap_len(snap_len);
    }
    let end = End::new(from.seconds)?;
    let mut capture = options.build()?;
    let file = if is_any {
        CaptureWriter::builder().each_interface()
    } else {
        let mut interface = FileInterface::new(capture.link_type());
        interface.name = Some(from.interface.clone());
        interface.filter.clone_from(&from.filter);
        CaptureWriter::builder().interface(interface)
    };
    let mut files = RotatingWriter::builder(&args.directory, &from.interface)
        .file(file)
        .max_bytes(args.file_mib << 20);
    if let Some(keep) = args.keep {
        files = files.keep_files(keep);
    }
    let mut files = files.build()?;
    let mut told = Instant::now();
    while !end.has_come() {
        if let Some(batch) = capture.next_batch_timeout(Duration::from_millis(100))? {
            // A full disk is no reason to stop: packets are counted as lost until there is room.
            if let Err(error) = files.write_batch(&batch) {
                eprintln!("{error}");
            }
        }
        files.set_statistics(capture.stats()?.into());
        if told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            let stats = capture.stats()?;
            eprintln!("{} packets, {} dropped by the kernel", stats.delivered, stats.drops);
        }
    }
    let stats = capture.stats()?;
    println!("{:?}", files.finish()?);
    println!("{} packets, {} dropped by the kernel", stats.delivered, stats.drops);
    Ok(())
}
