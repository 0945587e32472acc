//! The parts of a file, from one account to the next.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::copying::{ALIGN, ALWAYS};
use super::progress::Counted;
use crate::error::{Error, FileError, FileFault, Result};
use crate::packet::Packet;
use crate::pcap::{CaptureReader, FileBlock};
use crate::ring::rewrite::pcapng::{ACCOUNT, Told, WHOLE_ACCOUNT};

/// A part of a file that begins with an account or a packet's block, and ends where another one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) offset: u64,
    pub(super) span: u64,
    pub(super) packets: u64,
    /// The times of the earliest and the latest packet.
    pub(super) times: (u64, u64),
}

impl Group {
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.span)
    }
}

/// The account of a part, and where the part begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) offset: u64,
    pub(super) told: Told,
}

impl Part {
    /// Returns what an index may tell of this part; nothing if it must be read in any case.
    pub(super) fn group(&self) -> Option<Group> {
        let Told { packets, span, times, .. } = self.told;
        let group =
            Group { offset: self.offset, span: span.into(), packets: packets.into(), times };
        (packets > 0 && times != ALWAYS).then_some(group)
    }
}

/// Goes from account to account without reading what is between them.
#[derive(Debug)]
pub(super) struct Accounts<'a> {
    file: &'a File,
    at: u64,
}

impl<'a> Accounts<'a> {
    pub(super) fn of(file: &'a File) -> Self {
        Self { file, at: 0 }
    }

    /// Returns the next one, up to the end of what can be read.
    pub(super) fn next(&mut self) -> io::Result<Option<Part>> {
        loop {
            let mut head = [0; WHOLE_ACCOUNT];
            let len = read_at(self.file, &mut head, self.at)?;
            if let Some(told) = Told::read(&head[..len]) {
                let (offset, span) = (self.at, u64::from(told.span));
                let is_sound = span >= WHOLE_ACCOUNT as u64 && span.is_multiple_of(ALIGN as u64);
                self.at += span;
                return Ok(is_sound.then_some(Part { offset, told }));
            }
            // A block of the header.
            let length = u32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
            if len < WHOLE_ACCOUNT || length < 12 {
                return Ok(None);
            }
            self.at += u64::from(length);
        }
    }
}

/// Opens a file, unless the recorder has removed it since the directory was read.
pub(super) fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::io(0, error).of(path).into()),
    }
}

/// A piece of a file, as [`read`] shows it.
#[derive(Debug)]
pub(super) enum Found<'a> {
    Part(Part),
    /// A packet, and where its block begins.
    Packet(u64, Packet<'a>),
    /// Anything else.
    Other,
}

/// How a file ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    /// In the middle of a block, at this offset.
    CutShort(u64),
}

/// Reads a whole file, and shows all of it. Returns how it ends.
pub(super) fn read(file: Counted, path: &Path, mut see: impl FnMut(Found<'_>)) -> Result<End> {
    let mut reader = match CaptureReader::from_reader(file) {
        Ok(reader) => reader,
        Err(error) => return cut_short(error, 0, path),
    };
    loop {
        let offset = reader.offset();
        match reader.next_block() {
            Ok(None) => return Ok(End::Whole),
            Ok(Some(FileBlock::Packet(record))) => see(Found::Packet(offset, record.packet())),
            Ok(Some(FileBlock::Other { kind: ACCOUNT, body })) => match Told::of_body(body) {
                Some(told) => see(Found::Part(Part { offset, told })),
                None => see(Found::Other),
            },
            Ok(Some(_)) => see(Found::Other),
            Err(error) => return cut_short(error, offset, path),
        }
    }
}

/// A file that cannot be read to its end is one that ends early; one that cannot be read at all is an error.
fn cut_short(error: Error, offset: u64, path: &Path) -> Result<End> {
    match error {
        Error::File(error) if !matches!(error.fault(), FileFault::Io(_)) => {
            Ok(End::CutShort(offset))
        }
        Error::File(error) => Err(error.of(path).into()),
        error => Err(error),
    }
}

/// Reads as much as there is.
pub(super) fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(&mut buffer[len..], at + len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}
