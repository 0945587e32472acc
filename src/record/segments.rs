//! A file of a recording without the writes that have nothing of a range of time.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::copying::ALIGN;
use crate::ring::rewrite::pcapng::{Told, WHOLE_ACCOUNT};

/// Counts what was read, for all files of a query.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub(super) read: AtomicU64,
    pub(super) passed_over: AtomicU64,
}

/// The bytes of a file, as far as they may have packets of a range of time.
#[derive(Debug)]
pub(super) struct Segments {
    file: File,
    at: u64,
    /// Bytes until something begins that may be passed over.
    left: u64,
    /// In nanoseconds; the end is not part of it.
    range: (u64, u64),
    scanned: Arc<Scanned>,
}

impl Segments {
    pub(super) fn new(file: File, range: (u64, u64), scanned: Arc<Scanned>) -> Self {
        Self { file, at: 0, left: 0, range, scanned }
    }

    /// Finds the next bytes that must be read. Returns false at the end of the file.
    fn find(&mut self) -> io::Result<bool> {
        loop {
            let mut head = [0; WHOLE_ACCOUNT];
            let len = read_at(&self.file, &mut head, self.at)?;
            if len == 0 {
                return Ok(false);
            }
            let Some(told) = Told::read(&head[..len]) else {
                // The header of the file. A block whose length is none is the reader's to refuse, and all behind it.
                let length = u32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
                self.left = if length < 12 || len < 12 { u64::MAX } else { length.into() };
                return Ok(true);
            };
            let span = u64::from(told.span);
            if span < WHOLE_ACCOUNT as u64 || !span.is_multiple_of(ALIGN as u64) {
                self.left = u64::MAX;
                return Ok(true);
            }
            let (earliest, latest) = told.times;
            if latest >= self.range.0 && earliest < self.range.1 {
                self.left = span;
                return Ok(true);
            }
            self.at += span;
            self.scanned.passed_over.fetch_add(span, Relaxed);
        }
    }
}

impl Read for Segments {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.find()? {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let len = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += len as u64;
        self.left -= len as u64;
        self.scanned.read.fetch_add(len as u64, Relaxed);
        Ok(len)
    }
}

/// Reads as much as there is.
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
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
