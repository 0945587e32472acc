//! Indexes of files that have none: of a recorder that was killed, or told to write none.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::archive::{Archive, open};
use super::index::{self, Collector, Piece};
use super::parts::{Accounts, Found, Part, read};
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
    /// beginning. The last file of a series, which may be being written, is left alone if it has an index.
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
                let is_missing = is_missing(&file, path, is_last);
                if is_missing.map_err(|error| FileError::io(0, error).of(path))? {
                    let (bytes, of_bytes) = rebuild(path)?;
                    indexed.written += 1;
                    indexed.bytes += bytes;
                    indexed.of_bytes += of_bytes;
                }
            }
        }
        Ok(indexed)
    }
}

/// Whether the index of a file is not there, is another's, or leaves out much of it.
fn is_missing(file: &File, path: &Path, is_last: bool) -> io::Result<bool> {
    let index = fs::read(index::path_of(path)).unwrap_or_default();
    let mut accounts = Accounts::of(file);
    let (mut first, mut end) = (None, 0);
    while let Some(part) = accounts.next()? {
        if let Some(group) = part.group() {
            first = first.or(Some(part));
            end = group.end();
        }
    }
    let Some(first) = first else { return Ok(false) };
    let is_its = index::first_part(&index).is_some_and(|(_, is_first)| is_first(&first));
    let covered = index::entries(&index).last().map_or(0, |entry| entry.group.end());
    Ok(!is_its || !is_last && covered + NEARLY < end)
}

/// Reads a file and writes its index. Returns the bytes of the index, and those of the file.
fn rebuild(path: &Path) -> Result<(u64, u64)> {
    let mut collector = Collector::new(link_type(path));
    let (mut out, mut entries, mut len) = (Vec::new(), Vec::new(), 0);
    let mut current: Option<(Part, Piece)> = None;
    let mut end =
        |(part, piece): (Part, Piece), collector: &mut Collector, entries: &mut Vec<u8>| {
            len = part.offset + u64::from(part.told.span);
            if out.is_empty() && part.group().is_some() {
                index::begin(&mut out, &part);
            }
            piece.end(part.group(), collector, entries);
            out.append(entries);
        };
    read(path, |found| match found {
        Found::Part(part) => {
            if let Some(former) = current.replace((part, Piece::at(part.offset))) {
                end(former, &mut collector, &mut entries);
            }
        }
        Found::Packet(at, packet) => {
            if let Some((_, piece)) = &mut current {
                let nanos = packet.timestamp().as_nanos();
                piece.reach(at, nanos, &mut collector, &mut entries);
            }
            collector.see(packet.data(), packet.stripped_vlan());
        }
        Found::Other => {}
    })?;
    // The entry of a part that is cut reaches behind the file, and is not read.
    if let Some(last) = current {
        end(last, &mut collector, &mut entries);
    }
    collector.end_group(&mut out);
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
