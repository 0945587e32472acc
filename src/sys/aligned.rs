//! A buffer at the beginning of a page, as direct I/O wants it.

#![allow(unsafe_code, reason = "slices of a private mapping")]

use std::io;

use super::Mapping;

/// Private memory that is filled from its beginning.
#[derive(Debug)]
pub(crate) struct AlignedBuf {
    mapping: Mapping,
    len: usize,
}

impl AlignedBuf {
    /// Allocates room for `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> io::Result<Self> {
        Ok(Self { mapping: Mapping::anonymous(capacity, false)?, len: 0 })
    }

    /// Returns the bytes written so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is private, longer than `len`, zeroed or written, and lives as long as `self`. It is written
        // through `&mut self` only.
        unsafe { std::slice::from_raw_parts(self.mapping.base().as_ptr(), self.len) }
    }

    fn all(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.base().as_ptr(), self.mapping.len()) }
    }

    /// Appends bytes.
    ///
    /// # Panics
    /// If there is no room for them.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let at = self.len;
        self.all()[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}
