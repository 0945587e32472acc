//! Packets into files.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ringtap::interface::LocalNames;
use ringtap::pcap::{
    CaptureWriter, CaptureWriterBuilder, FileInterface, InterfaceStatistics, PacketSink,
    RotatingWriter,
};
use ringtap::{BpfFilter, Capture, PacketBatch};

use super::End;
use crate::cli::CaptureArgs;
use crate::say::note;
use crate::sink::Outcome;

pub(super) fn run(args: &CaptureArgs) -> Outcome<ExitCode> {
    if args.keep == Some(0) {
        return Err("--keep 0: give at least one file, or leave it out to keep all".into());
    }
    if args.file_mib == 0 {
        return Err("--file-mib 0: give at least one".into());
    }
    let which = &args.from.which;
    let (interface, filter) = (which.interface()?, which.filter(false)?);
    let mut options = Capture::builder().interface(interface).promiscuous(true);
    if let Some(filter) = &filter {
        options = options.filter(BpfFilter::parse_with(filter, &LocalNames::of(interface))?);
    }
    if let Some(snap_len) = args.snap_len.filter(|bytes| *bytes > 0) {
        options = options.snap_len(snap_len);
    }
    let end = End::new(args.from.seconds)?;
    let mut capture = options.build()?;
    let file = if interface == "any" {
        CaptureWriter::builder().each_interface()
    } else {
        let mut of_file = FileInterface::new(capture.link_type());
        of_file.name = Some(interface.to_owned());
        of_file.filter = filter;
        CaptureWriter::builder().interface(of_file)
    };
    let mut files = Files::open(args, interface, file)?;
    let mut left = args.count.unwrap_or(u64::MAX);
    let (mut told, mut is_failing) = (Instant::now(), false);
    while !end.has_come() && left > 0 {
        if let Some(batch) = capture.next_batch_timeout(Duration::from_millis(100))? {
            // A full disk is no reason to stop: packets are counted as lost until there is room.
            let written = files.write(&batch, &mut left)?;
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
    let drops = capture.stats()?.drops;
    let (written, lost, finished) = files.finish();
    let account =
        format!("{written} packets, {drops} dropped by the kernel, {lost} could not be written");
    match args.write.as_deref() == Some(Path::new("-")) {
        true => note!("{account}"),
        false => crate::say::say!("{account}")?,
    }
    finished?;
    match lost {
        0 => Ok(end.code()),
        lost => {
            let place = args.write.as_deref().unwrap_or(&args.directory);
            Err(format!("{lost} packets are in no file; make room in {}", place.display()).into())
        }
    }
}

/// Where packets go.
enum Files {
    Many(Box<RotatingWriter>),
    One { file: Box<CaptureWriter<Box<dyn Write>>>, written: u64 },
}

impl Files {
    fn open(args: &CaptureArgs, interface: &str, file: CaptureWriterBuilder) -> Outcome<Self> {
        if let Some(path) = &args.write {
            let out: Box<dyn Write> = match path.to_str() {
                Some("-") => Box::new(std::io::stdout()),
                _ => Box::new(
                    std::fs::File::create(path)
                        .map_err(|error| format!("{}: {error}", path.display()))?,
                ),
            };
            return Ok(Self::One { file: Box::new(file.to(out)?), written: 0 });
        }
        let mut files = RotatingWriter::builder(&args.directory, interface)
            .file(file)
            .max_bytes(args.file_mib << 20);
        if let Some(keep) = args.keep {
            files = files.keep_files(keep);
        }
        Ok(Self::Many(Box::new(files.build()?)))
    }

    /// Writes a batch, but at most `left` packets of it. The inner error may pass, such as a full disk; a single file that
    /// could not be written is broken for good, which is the outer one.
    fn write(&mut self, batch: &PacketBatch, left: &mut u64) -> Outcome<ringtap::Result<()>> {
        let count = (batch.len() as u64).min(*left);
        *left -= count;
        let packets = batch.iter().take(count as usize);
        match self {
            Self::Many(files) if count == batch.len() as u64 => Ok(files.write_batch(batch)),
            Self::Many(files) => Ok(packets
                .map(|packet| files.write_packet(&packet))
                .fold(Ok(()), ringtap::Result::and)),
            Self::One { file, written } => {
                for packet in packets {
                    file.write(&packet)?;
                    *written += 1;
                }
                file.flush()?; // whoever reads it sees packets as they come
                Ok(Ok(()))
            }
        }
    }

    fn set_statistics(&mut self, statistics: InterfaceStatistics) {
        match self {
            Self::Many(files) => files.set_statistics(statistics),
            Self::One { file, .. } => file.set_statistics(0, statistics),
        }
    }

    /// Ends the files. Returns how many packets they have, how many were lost, and the last error.
    fn finish(self) -> (u64, u64, ringtap::Result<()>) {
        match self {
            Self::Many(files) => {
                let before = files.stats();
                let finished = files.finish();
                let stats = finished.as_ref().unwrap_or(&before);
                (stats.packets, stats.lost, finished.map(drop))
            }
            Self::One { file, written } => (written, 0, file.finish().map(drop)),
        }
    }
}
