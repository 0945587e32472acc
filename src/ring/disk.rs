//! Bytes on their way to the disk: a block of a ring turned into pcapng where it lies, or memory of our own.

use super::block::BlockLease;
use crate::sys::aligned::AlignedBuf;

/// Bytes that stay where they are, unchanged, for as long as this lives.
#[derive(Debug)]
pub(crate) enum DiskBuffer {
    /// A block, and how many of its bytes are to be written.
    Block {
        lease: BlockLease,
        len: usize,
    },
    Own(AlignedBuf),
    /// Of any length and anywhere, for a file that is written through the page cache.
    Cached(Vec<u8>),
}

impl DiskBuffer {
    /// Returns the bytes to be written. For a file that is written past the page cache, their number is a multiple of what
    /// they were aligned to.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Block { lease, len } => lease.whole(*len),
            Self::Own(buffer) => buffer.bytes(),
            Self::Cached(bytes) => bytes,
        }
    }
}
