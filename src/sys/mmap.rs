//! A stretch of memory shared with the kernel, or a heap substitute for tests and Miri.

#![allow(unsafe_code, reason = "maps memory and swaps its pages")]

#[cfg(any(test, feature = "testing"))]
use std::alloc::Layout;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// Memory that others may write: accessed by pointer, never by reference.
///
/// It is `Send` and `Sync` because it only hands out a base address; code that dereferences the address
/// states why that is sound (see `ring/block.rs`).
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mmap,
    #[cfg(any(test, feature = "testing"))]
    Heap,
}

// SAFETY: the mapping is process-wide memory, not tied to the thread that created it.
unsafe impl Send for Mapping {}
// SAFETY: `&Mapping` gives an address and a length only; both are constant.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of the ring of a packet socket.
    pub(crate) fn of_ring(socket: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        mmap(len, libc::MAP_SHARED, socket.as_raw_fd(), 0)
    }

    /// Maps `len` bytes at `offset` of a descriptor.
    #[cfg(feature = "af-xdp")]
    pub(crate) fn of_file(fd: BorrowedFd<'_>, len: usize, offset: i64) -> io::Result<Self> {
        mmap(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)
    }

    /// Maps `len` zeroed bytes of private memory, in huge pages if requested.
    #[cfg(any(feature = "af-xdp", feature = "record"))]
    pub(crate) fn anonymous(len: usize, huge: bool) -> io::Result<Self> {
        let huge = if huge { libc::MAP_HUGETLB } else { 0 };
        mmap(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | huge, -1, 0)
    }

    /// Binds its pages, none of which may be in use yet, to a NUMA node (mbind(2), `MPOL_BIND`).
    #[cfg(feature = "af-xdp")]
    pub(crate) fn bind_to_node(&self, node: u32) -> io::Result<()> {
        const MPOL_BIND: i32 = 2;
        let mut mask = [0_u64; 16];
        let word = mask.get_mut(node as usize / 64);
        *word.ok_or(io::Error::from_raw_os_error(libc::EINVAL))? = 1 << (node % 64);
        // SAFETY: the stretch is our own mapping; the mask is readable for the number of bits passed.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.base.as_ptr(),
                self.len,
                MPOL_BIND,
                mask.as_ptr(),
                64 * mask.len(),
                0,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Allocates `len` zeroed, page-aligned bytes on the heap: a ring without a kernel.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn heap(len: usize) -> Self {
        let layout = heap_layout(len);
        // SAFETY: `heap_layout` never has size 0.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { std::alloc::handle_alloc_error(layout) };
        Self { base, len, kind: Kind::Heap }
    }

    /// Returns the address of the first byte, valid for `len` bytes as long as `self` lives.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Replaces the shared pages with private ones at the same address, keeping the bytes of the `kept`
    /// ranges; the rest reads as zero.
    ///
    /// A mapping of a packet ring pins its socket, which would stay in its fanout group and swallow packets
    /// for as long as a single lease lives. After this call, leases keep their bytes and the socket can go.
    /// If there is no memory for the private pages, or if the kernel refuses to move them (close to
    /// `vm.max_map_count`; seccomp), nothing has changed.
    ///
    /// The caller promises that the kernel fills no more blocks, and that nothing else writes the kept
    /// ranges.
    pub(crate) fn detach(&self, kept: impl Iterator<Item = Range<usize>>) -> io::Result<()> {
        if self.kind != Kind::Mmap {
            return Ok(());
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let private = mmap(self.len, flags, -1, 0)?;
        for range in kept {
            assert!(range.start <= range.end && range.end <= self.len, "range inside the mapping");
            // SAFETY: the start is inside the mapping, as just asserted.
            let from = unsafe { self.base.add(range.start) };
            // SAFETY: `private` has the same length.
            let to = unsafe { private.base.add(range.start) };
            // SAFETY: both stretches are valid for that many bytes and belong to different mappings; nothing
            // writes the source, as the caller promises.
            unsafe { from.copy_to_nonoverlapping(to, range.end - range.start) };
        }
        // SAFETY: the target is exactly our own mapping, which stays valid memory throughout: the
        // kernel swaps the pages under the mmap lock, so a concurrent reader sees the old page or
        // the new one, with the same bytes in every kept range.
        let moved = unsafe {
            libc::mremap(
                private.base.as_ptr().cast(),
                self.len,
                self.len,
                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                self.base.as_ptr(),
            )
        };
        if moved == libc::MAP_FAILED {
            let refusal = io::Error::last_os_error();
            if !self.check_mapped() {
                // The kernel unmapped the target before the move (`mremap_to`, mm/mremap.c), and then found
                // no memory. Leases read there.
                eprintln!("ringtap: moving a ring's pages failed: {refusal}");
                std::process::abort();
            }
            return Err(refusal);
        }
        std::mem::forget(private); // its pages are now at `self.base`
        Ok(())
    }

    /// Returns whether all of its pages are still mapped.
    fn check_mapped(&self) -> bool {
        // SAFETY: the range is our own; MS_ASYNC writes nothing and fails with ENOMEM if a page is not mapped
        // (msync(2)).
        unsafe { libc::msync(self.base.as_ptr().cast(), self.len, libc::MS_ASYNC) == 0 }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        match self.kind {
            Kind::Mmap => {
                // SAFETY: we mapped exactly this stretch, and leases keep the owner of this
                // mapping alive, so no pointer into it is left.
                unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
            }
            #[cfg(any(test, feature = "testing"))]
            Kind::Heap => {
                // SAFETY: allocated in `heap` with the same layout.
                unsafe { std::alloc::dealloc(self.base.as_ptr(), heap_layout(self.len)) };
            }
        }
    }
}

fn mmap(len: usize, flags: i32, fd: i32, offset: i64) -> io::Result<Mapping> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh mapping at an address chosen by the kernel disturbs nothing.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, offset) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let base = NonNull::new(base.cast()).expect("mmap never returns null without MAP_FIXED");
    Ok(Mapping { base, len, kind: Kind::Mmap })
}

#[cfg(any(test, feature = "testing"))]
fn heap_layout(len: usize) -> Layout {
    Layout::from_size_align(len.max(1), 4096).expect("a ring's length fits a layout")
}

/// Returns the page size of this machine in bytes.
pub(crate) fn page_size() -> usize {
    // Not rustix's, which looks for the vDSO in the auxiliary vector and finds none under valgrind.
    // SAFETY: plain call without pointers.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("every system has pages")
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    fn read(mapping: &Mapping, at: usize) -> u8 {
        assert!(at < mapping.len());
        // SAFETY: in bounds, as just asserted.
        let byte = unsafe { mapping.base().add(at) };
        // SAFETY: valid memory that this test alone writes.
        unsafe { byte.read() }
    }

    fn write(mapping: &Mapping, at: usize, value: u8) {
        assert!(at < mapping.len());
        // SAFETY: in bounds, as just asserted.
        let byte = unsafe { mapping.base().add(at) };
        // SAFETY: valid memory that this test alone writes.
        unsafe { byte.write(value) };
    }

    #[test]
    fn detaching_keeps_the_kept_bytes_at_their_address() {
        let mapping = mmap(3 * 4096, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0).unwrap();
        for page in 0..3 {
            write(&mapping, page * 4096 + 7, 0xa0 + page as u8);
        }
        let base = mapping.base();
        mapping.detach(std::iter::once(4096..8192)).unwrap();
        assert_eq!(mapping.base(), base);
        assert_eq!(read(&mapping, 7), 0);
        assert_eq!(read(&mapping, 4096 + 7), 0xa1);
        assert_eq!(read(&mapping, 2 * 4096 + 7), 0);
        write(&mapping, 4096 + 8, 1);
    }
}
