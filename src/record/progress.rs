//! How far long work on an archive has come.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts the bytes of an archive's files that were read or passed over; from [`Archive::progress`](super::Archive::progress).
/// Another thread may look at it, to draw a bar.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Returns the bytes so far, of about [`Archive::bytes`](super::Archive::bytes) if all series are read, once: files that end early,
    /// or were removed meanwhile, have less.
    pub fn bytes(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Relaxed);
    }
}

/// A file whose bytes count as they are read.
#[derive(Debug)]
pub(super) struct Counted(pub(super) File, pub(super) Progress);

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.0.read(buffer)?;
        self.1.add(len as u64);
        Ok(len)
    }
}
