//! The rings of somebody else's AF_XDP socket, to do to them what no careful user would.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Which ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// What was received.
    Rx,
    /// What is to be sent.
    Tx,
}

/// A second mapping of a socket's ring of descriptors.
#[derive(Debug)]
pub struct Ring {
    base: NonNull<u8>,
    len: usize,
    offsets: libc::xdp_ring_offset,
    entries: u32,
}

impl Ring {
    /// Maps a ring of `entries` descriptors.
    ///
    /// # Errors
    /// The kernel's.
    pub fn of(socket: BorrowedFd<'_>, which: Which, entries: u32) -> io::Result<Self> {
        // SAFETY: a C struct of integers.
        let mut all: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
        let mut size = size_of_val(&all) as libc::socklen_t;
        let (fd, into) = (socket.as_raw_fd(), (&raw mut all).cast());
        // SAFETY: `all` is writable for its size.
        let got = unsafe {
            libc::getsockopt(fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, into, &raw mut size)
        };
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        let (offsets, page) = match which {
            Which::Rx => (all.rx, libc::XDP_PGOFF_RX_RING),
            Which::Tx => (all.tx, libc::XDP_PGOFF_TX_RING),
        };
        let len = offsets.desc as usize + entries as usize * size_of::<libc::xdp_desc>();
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a fresh mapping, of no memory of ours.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, page) };
        match NonNull::new(base.cast::<u8>()) {
            Some(place) if base != libc::MAP_FAILED => {
                Ok(Self { base: place, len, offsets, entries })
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// How many descriptors were ever put in.
    pub fn producer(&self) -> u32 {
        self.index(self.offsets.producer).load(Ordering::Acquire)
    }

    /// Has the reader be so far, whatever it has read.
    pub fn set_consumer(&self, at: u32) {
        self.index(self.offsets.consumer).store(at, Ordering::Release);
    }

    /// Changes a descriptor that the other side has not read.
    pub fn change(&self, number: u32, change: impl FnOnce(&mut libc::xdp_desc)) {
        let at = (number % self.entries) as usize;
        // SAFETY: inside the mapping.
        let first = unsafe { self.base.add(self.offsets.desc as usize) }.cast::<libc::xdp_desc>();
        // SAFETY: one of its descriptors.
        let place = unsafe { first.add(at) };
        // SAFETY: readable; the kernel writes none of them in a ring to send from.
        let mut descriptor = unsafe { place.read_volatile() };
        change(&mut descriptor);
        // SAFETY: writable, and nobody reads it before the next kick.
        unsafe { place.write_volatile(descriptor) };
    }

    fn index(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: inside the mapping.
        let place = unsafe { self.base.add(offset as usize) };
        // SAFETY: an aligned index, which lives as long as the mapping.
        unsafe { AtomicU32::from_ptr(place.as_ptr().cast()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: our own mapping, to which no reference is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
