//! What became of flows that are in no record: a file of counters that outlives a kill.
//!
//! Each shard has a line of four counters, each of which one thread writes, with one system call. A process that is
//! killed leaves what it has written to the kernel.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A shard's counters, since the spool was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Entry {
    /// Flows that its thread has made records of. Written before they are handed over.
    pub(crate) made: u64,
    /// Those for which its queue had no room.
    pub(crate) overflowed: u64,
    /// Those for which the spool had no room.
    pub(crate) refused: u64,
    /// Those that a kill took.
    pub(crate) lost: u64,
}

/// Which counter.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Counter {
    Made = 0,
    Overflowed = 8,
    Refused = 16,
    Lost = 24,
}

const LINE: u64 = 32;

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct Ledger(Arc<Flock<File>>);

impl Ledger {
    /// Opens it for this process alone.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.custom_flags(nix::libc::O_NOFOLLOW).open(path)?;
        Self::of(file)
    }

    /// One that nobody reads: gone with the process.
    pub(crate) fn scratch() -> io::Result<Self> {
        Self::of(memfd_create("ledger", MFdFlags::MFD_CLOEXEC)?.into())
    }

    fn of(file: File) -> io::Result<Self> {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self(Arc::new(file))),
            Err((_, Errno::EWOULDBLOCK)) => {
                Err(io::Error::other("another sensor has it; give each a directory of its own"))
            }
            Err((_, error)) => Err(error.into()),
        }
    }

    /// Shards that it has heard of.
    pub(crate) fn shards(&self) -> io::Result<u16> {
        let lines = self.0.metadata()?.len().div_ceil(LINE);
        u16::try_from(lines).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// What it says of a shard; zeros of one that it has not heard of.
    pub(crate) fn entry(&self, shard: u16) -> io::Result<Entry> {
        let mut line = [0; LINE as usize];
        let mut read = 0;
        while read < line.len() {
            match self.0.read_at(&mut line[read..], u64::from(shard) * LINE + read as u64)? {
                0 => break,
                count => read += count,
            }
        }
        let number = |at: Counter| {
            let at = at as usize;
            u64::from_be_bytes(*line[at..].first_chunk().expect("a counter has eight bytes"))
        };
        Ok(Entry {
            made: number(Counter::Made),
            overflowed: number(Counter::Overflowed),
            refused: number(Counter::Refused),
            lost: number(Counter::Lost),
        })
    }

    pub(crate) fn set(&self, shard: u16, counter: Counter, value: u64) -> io::Result<()> {
        self.0.write_all_at(&value.to_be_bytes(), u64::from(shard) * LINE + counter as u64)
    }
}
