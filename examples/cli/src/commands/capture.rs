//! Packets as lines, or into files.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ringtap::interface::{InterfaceNames, LocalNames};
use ringtap::pcap::{
    CaptureWriter, CaptureWriterBuilder, FileInterface, InterfaceStatistics, PacketSink,
    RotatingWriter,
};
use ringtap::{BpfFilter, Capture, PacketBatch};

use super::End;
use crate::cli::CaptureArgs;
use crate::lines::Lines;
use crate::say::note;
use crate::sink::Outcome;

pub(super) fn run(args: &CaptureArgs) -> Outcome<ExitCode> {
    if args.keep == Some(0) {
        return Err("--keep 0: give at least one file, or leave it out to keep all".into());
    }
    match &args.read {
        Some(file) => read(args, file),
        None => listen(args),
    }
}

/// The packets of a file.
fn read(args: &CaptureArgs, path: &Path) -> Outcome<ExitCode> {
    let mut source = super::source_of(path, args.which.filter(true)?.as_deref())?;
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut files = None;
    while left > 0
        && let Some(batch) = source.next_batch()?
    {
        // The interfaces are known by now.
        let files = match &mut files {
            Some(files) => files,
            none => {
                let mut of_file = source.interfaces().first().cloned();
                if let Some(of_file) = &mut of_file {
                    of_file.statistics = InterfaceStatistics::default();
                }
                let file = CaptureWriter::builder();
                let file = match of_file {
                    Some(of_file) => file.interface(of_file),
                    None => file,
                };
                none.insert(Files::open(args, "file", file)?)
            }
        };
        files.write(&batch, &mut left)??;
    }
    match files {
        Some(files) => files.finish().2?,
        None => Files::open(args, "file", CaptureWriter::builder())?.finish().2?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The packets of an interface.
fn listen(args: &CaptureArgs) -> Outcome<ExitCode> {
    let which = &args.which;
    let (interface, filter) = (which.interface()?, which.filter(false)?);
    let mut options = Capture::builder().interface(interface).promiscuous(true);
    if let Some(filter) = &filter {
        options = options.filter(BpfFilter::parse_with(filter, &LocalNames::of(interface))?);
    }
    if let Some(snap_len) = args.snap_len.filter(|bytes| *bytes > 0) {
        options = options.snap_len(snap_len);
    }
    let end = End::new(args.seconds)?;
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
        let is_time = !files.are_lines() && told.elapsed() > Duration::from_secs(1);
        if is_time || end.is_status_asked() {
            told = Instant::now();
            let stats = capture.stats()?;
            note!("{} packets, {} dropped by the kernel", stats.delivered, stats.drops);
        }
    }
    let drops = capture.stats()?.drops;
    let is_to_people = args.write.as_deref() != Some(Path::new("-")) && !files.are_lines();
    let (written, lost, finished) = files.finish();
    let account =
        format!("{written} packets, {drops} dropped by the kernel, {lost} could not be written");
    match is_to_people {
        true => crate::say::say!("{account}")?,
        false => note!("{account}"),
    }
    finished?;
    match (lost, args.write.as_deref().or(args.directory.as_deref())) {
        (0, _) | (_, None) => Ok(end.code()),
        (lost, Some(place)) => {
            Err(format!("{lost} packets are in no file; make room in {}", place.display()).into())
        }
    }
}

/// Where packets go.
enum Files {
    Many(Box<RotatingWriter>),
    One {
        file: Box<CaptureWriter<Box<dyn Write>>>,
        written: u64,
    },
    /// Onto standard output, as text.
    Lines {
        lines: Lines,
        text: String,
        written: u64,
    },
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
        let Some(directory) = &args.directory else {
            let names = if interface == "any" { Some(InterfaceNames::new()?) } else { None };
            let (lines, text) = (Lines::new(names), String::new());
            return Ok(Self::Lines { lines, text, written: 0 });
        };
        let mut files =
            RotatingWriter::builder(directory, interface).file(file).max_bytes(args.file_mib << 20);
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
            Self::Lines { lines, text, written } => {
                text.clear();
                for packet in packets {
                    lines.write(&packet, text)?;
                    *written += 1;
                }
                let mut out = std::io::stdout().lock();
                out.write_all(text.as_bytes())?;
                out.flush()?;
                Ok(Ok(()))
            }
        }
    }

    fn set_statistics(&mut self, statistics: InterfaceStatistics) {
        match self {
            Self::Many(files) => files.set_statistics(statistics),
            Self::One { file, .. } => file.set_statistics(0, statistics),
            Self::Lines { .. } => {}
        }
    }

    fn are_lines(&self) -> bool {
        matches!(self, Self::Lines { .. })
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
            Self::Lines { written, .. } => (written, 0, Ok(())),
        }
    }
}
