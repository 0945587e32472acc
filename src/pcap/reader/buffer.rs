//! A sliding buffer over the bytes of a file.

use std::io::Read;

use crate::error::{FileError, FileFault};

/// Number of bytes read at once.
const CHUNK: usize = 256 << 10;

pub(super) struct Buffer {
    reader: Box<dyn Read + Send>,
    bytes: Vec<u8>,
    /// The part of `bytes` in use.
    start: usize,
    end: usize,
    /// Offset of `start` in the file.
    offset: u64,
    /// Bytes that were handed out; they are released when the next are requested.
    held: usize,
}

impl Buffer {
    pub(super) fn new(reader: Box<dyn Read + Send>) -> Self {
        Self { reader, bytes: Vec::new(), start: 0, end: 0, offset: 0, held: 0 }
    }

    /// Buffers at least `len` bytes. Returns false if the file ends earlier.
    pub(super) fn fill(&mut self, len: usize) -> Result<bool, FileError> {
        while self.end - self.start < len {
            if self.bytes.len() - self.start < len.max(CHUNK / 2) {
                self.bytes.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
                // Do not allocate much more than the file has delivered so far.
                let wanted = len.min(2 * self.end.max(CHUNK / 2)).max(CHUNK);
                if self.bytes.len() < wanted {
                    self.bytes.resize(wanted, 0);
                }
            }
            match self.reader.read(&mut self.bytes[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // For example, truncated compressed data.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Err(self.fault(FileFault::CutShort));
                }
                Err(error) => return Err(FileError::io(self.offset, error)),
            }
        }
        Ok(true)
    }

    /// Like [`fill`](Self::fill), but a partial rest is a fault. Returns false at the end of the file.
    pub(super) fn fill_or_end(&mut self, len: usize) -> Result<bool, FileError> {
        match self.fill(len)? {
            true => Ok(true),
            false if self.bytes().is_empty() => Ok(false),
            false => Err(self.fault(FileFault::CutShort)),
        }
    }

    /// Like [`fill`](Self::fill), but the end of the file is a fault.
    pub(super) fn need(&mut self, len: usize) -> Result<(), FileError> {
        match self.fill(len)? {
            true => Ok(()),
            false => Err(self.fault(FileFault::CutShort)),
        }
    }

    pub(super) fn fault(&self, fault: FileFault) -> FileError {
        FileError::new(self.offset, fault)
    }

    /// Returns the buffered bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Returns the buffered bytes after those that were handed out.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.start + self.held..self.end]
    }

    /// Advances by `len` bytes at once.
    pub(super) fn consume(&mut self, len: usize) {
        self.start += len;
        self.offset += len as u64;
    }

    /// Advances by `len` bytes when the next bytes are requested.
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
