//! Bytes of a file, as many as are looked at.

use std::io::Read;

use crate::error::{FileError, FileFault};

/// How much is read at once.
const CHUNK: usize = 256 << 10;

pub(super) struct Buffer {
    reader: Box<dyn Read + Send>,
    bytes: Vec<u8>,
    /// What is in use of it.
    start: usize,
    end: usize,
    /// Where in the file `start` is.
    offset: u64,
    /// Bytes that were handed out, and go when the next are asked for.
    held: usize,
}

impl Buffer {
    pub(super) fn new(reader: Box<dyn Read + Send>) -> Self {
        Self { reader, bytes: Vec::new(), start: 0, end: 0, offset: 0, held: 0 }
    }

    /// Has so many bytes at hand: false where the file ends before.
    pub(super) fn fill(&mut self, len: usize) -> Result<bool, FileError> {
        while self.end - self.start < len {
            if self.bytes.len() - self.start < len.max(CHUNK / 2) {
                self.bytes.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
                // No more than the file has to show for it.
                let wanted = len.min(2 * self.end.max(CHUNK / 2)).max(CHUNK);
                if self.bytes.len() < wanted {
                    self.bytes.resize(wanted, 0);
                }
            }
            match self.reader.read(&mut self.bytes[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // Compressed data that is cut off, say.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Err(self.fault(FileFault::CutShort));
                }
                Err(error) => return Err(FileError::io(self.offset, error)),
            }
        }
        Ok(true)
    }

    /// As [`fill`](Self::fill), where an end before is a fault, and an end at once is the end.
    pub(super) fn fill_or_end(&mut self, len: usize) -> Result<bool, FileError> {
        match self.fill(len)? {
            true => Ok(true),
            false if self.bytes().is_empty() => Ok(false),
            false => Err(self.fault(FileFault::CutShort)),
        }
    }

    /// As [`fill`](Self::fill), where an end is a fault.
    pub(super) fn need(&mut self, len: usize) -> Result<(), FileError> {
        match self.fill(len)? {
            true => Ok(()),
            false => Err(self.fault(FileFault::CutShort)),
        }
    }

    pub(super) fn fault(&self, fault: FileFault) -> FileError {
        FileError::new(self.offset, fault)
    }

    /// What is at hand.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// What is at hand behind what was handed out.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.start + self.held..self.end]
    }

    /// Goes on behind so many bytes at once.
    pub(super) fn consume(&mut self, len: usize) {
        self.start += len;
        self.offset += len as u64;
    }

    /// Goes on behind so many bytes when the next are asked for.
    pub(super) fn hold(&mut self, len: usize) {
        self.held = len;
    }

    pub(super) fn release(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.consume(held);
    }

    pub(super) fn next_offset(&self) -> u64 {
        self.offset + self.held as u64
    }

    pub(super) fn word(&self, at: usize, is_swapped: bool) -> u32 {
        word(self.bytes(), at, is_swapped)
    }
}

pub(super) fn word(bytes: &[u8], at: usize, is_swapped: bool) -> u32 {
    let word = u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if is_swapped { word.swap_bytes() } else { word }
}

pub(super) fn half(bytes: &[u8], at: usize, is_swapped: bool) -> u16 {
    let half = u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    if is_swapped { half.swap_bytes() } else { half }
}
