//! Indexes of files that have none: of a recorder that was killed, or told to write none.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::archive::Archive;
use super::index::{self, Collector, Piece};
use super::parts::{Accounts, Found, Part, open, read};
use super::progress::Counted;
use crate::error::{FileError, Result};
use crate::packet::LinkType;
use crate::pcap::CaptureReader;

/// An index that ends this many bytes before its file does is as good as whole.
const NEARLY: u64 = 512 << 10;

/// What [`Archive::index`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Indexed {
    /// Files that were looked at.
    pub files: u64,
    /// Indexes that were written.
    pub written: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the files that they are about.
    pub of_bytes: u64,
}

impl Archive {
    /// Writes an index for each file that has none, or one that ends long before the file: reads these files from their
    /// beginning. The last file of a series, if it was not closed, may be being written: it is left alone if it has an index.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if a file cannot be read, or an index not be written.
    pub fn index(&self) -> Result<Indexed> {
        let mut indexed = Indexed::default();
        for name in self.series() {
            let files = self.files(name);
            for (number, path) in files.iter().enumerate() {
                let Some(file) = open(path)? else { continue };
                indexed.files += 1;
                let is_last = number + 1 == files.len();
                let of = |error| FileError::io(0, error).of(path);
                if !is_missing(&file, path, is_last).map_err(of)? {
                    self.progress().add(file.metadata().map_err(of)?.len());
                    continue;
                }
                let (bytes, of_bytes) = rebuild(Counted(file, self.progress()), path)?;
                indexed.written += 1;
                indexed.bytes += bytes;
                indexed.of_bytes += of_bytes;
            }
        }
        Ok(indexed)
    }
}

/// Whether the index of a file is not there, is another's, or leaves out much of it.
fn is_missing(file: &File, path: &Path, is_last: bool) -> io::Result<bool> {
    let index = fs::read(index::path_of(path));
    let is_there = index.is_ok();
    let index = index.unwrap_or_default();
    let known = index::first_part(&index);
    let mut accounts = Accounts::of(file);
    let (mut end, mut is_its, mut is_closed) = (0, false, false);
    while let Some(part) = accounts.next()? {
        is_its |= known.as_ref().is_some_and(|(_, is_it)| is_it(&part));
        is_closed = part.told.packets == 0;
        end = part.group().map_or(end, |group| group.end());
    }
    if is_last && !is_closed && is_there {
        return Ok(false);
    }
    let covered = index::entries(&index).last().map_or(0, |entry| entry.group.end());
    Ok(end > 0 && !(is_its && covered + NEARLY >= end))
}

/// A part whose packets are seen.
#[derive(Debug)]
struct Seen {
    part: Part,
    piece: Piece,
    packets: u32,
}

/// Reads a file and writes its index. Returns the bytes of the index, and those of the file.
fn rebuild(file: Counted, path: &Path) -> Result<(u64, u64)> {
    let mut collector = Collector::new(link_type(path));
    let (mut out, mut entries, mut len) = (Vec::new(), Vec::new(), 0);
    let mut current: Option<Seen> = None;
    let mut end =
        |seen: Seen, next: Option<u64>, collector: &mut Collector, entries: &mut Vec<u8>| {
            let Seen { part, piece, packets } = seen;
            len = part.offset + u64::from(part.told.span);
            // A part that is being written may have more packets than there were to be seen, and a damaged one another length.
            let is_as_told = packets == part.told.packets && next.is_none_or(|next| next == len);
            let group = part.group().filter(|_| is_as_told);
            match part.group() {
                Some(_) => piece.end(group, collector, entries),
                None => collector.end_group(entries), // what is read in any case ends what came before
            }
            if out.is_empty() && group.is_some() {
                index::begin(&mut out, &part);
            }
            out.append(entries);
        };
    read(file, path, |found| match found {
        Found::Part(part) => {
            let seen = Seen { part, piece: Piece::at(part.offset), packets: 0 };
            if let Some(former) = current.replace(seen) {
                end(former, Some(part.offset), &mut collector, &mut entries);
            }
        }
        Found::Packet(at, packet) => {
            // A part that is read in any case has no pieces.
            if let Some(Seen { part, piece, packets }) = &mut current
                && part.group().is_some()
            {
                let nanos = packet.timestamp().as_nanos();
                piece.reach(at, nanos, &mut collector, &mut entries);
                *packets += 1;
            }
            collector.see(packet.data(), packet.stripped_vlan());
        }
        Found::Other => {}
    })?;
    if let Some(last) = current {
        end(last, None, &mut collector, &mut entries);
    }
    if !out.is_empty() {
        collector.end_group(&mut out);
    }
    write(&index::path_of(path), &out)?;
    Ok((out.len() as u64, len))
}

/// The link type of a file's first interface.
fn link_type(path: &Path) -> LinkType {
    let described = CaptureReader::open(path).ok().and_then(|mut reader| {
        reader.next_record().ok()??;
        reader.interfaces().first().map(|interface| interface.link_type)
    });
    described.unwrap_or(LinkType::ETHERNET)
}

/// Writes a file that is there whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let part = path.with_extension("idx.part");
    let written = fs::write(&part, bytes).and_then(|()| fs::rename(&part, path));
    written.map_err(|error| {
        let _ = fs::remove_file(&part);
        FileError::io(0, error).of(path).into()
    })
}
