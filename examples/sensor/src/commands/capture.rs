//! Packets into files.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ringtap::interface::LocalNames;
use ringtap::pcap::{CaptureWriter, FileInterface, PacketSink, RotatingWriter};
use ringtap::{BpfFilter, Capture};

use super::End;
use crate::cli::CaptureArgs;
use crate::say::{note, say};
use crate::sink::Outcome;

pub(super) fn run(args: &CaptureArgs) -> Outcome<ExitCode> {
    let from = &args.from;
    if args.keep == Some(0) {
        return Err("--keep 0: give at least one file, or leave it out to keep all".into());
    }
    if args.file_mib == 0 {
        return Err("--file-mib 0: give at least one".into());
    }
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
    let (mut told, mut is_failing) = (Instant::now(), false);
    while !end.has_come() {
        if let Some(batch) = capture.next_batch_timeout(Duration::from_millis(100))? {
            // A full disk is no reason to stop: packets are counted as lost until there is room.
            let written = files.write_batch(&batch);
            match &written {
                Err(error) if !is_failing => note!("{error}; packets are lost until that is over"),
                Ok(()) if is_failing => note!("files can be written again"),
                _ => {}
            }
            is_failing = written.is_err();
        }
        files.set_statistics(capture.stats()?.into());
        if told.elapsed() > Duration::from_secs(1) || end.is_status_asked() {
            told = Instant::now();
            let stats = capture.stats()?;
            note!("{} packets, {} dropped by the kernel", stats.delivered, stats.drops);
        }
    }
    let stats = capture.stats()?;
    let written = files.stats();
    let finished = files.finish();
    let lost = finished.as_ref().unwrap_or(&written).lost;
    say!(
        "{} packets, {} dropped by the kernel, {lost} could not be written",
        stats.delivered,
        stats.drops
    )?;
    finished?;
    match lost {
        0 => Ok(end.code()),
        lost => {
            Err(format!("{lost} packets are in no file; make room in {}", args.directory.display())
                .into())
        }
    }
}
