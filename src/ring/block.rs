//! The TPACKET_V3 block ring: who owns a block, taking it, and giving it back.
//!
//! A block belongs to the kernel or to us, as its status word says; [`lease`](super::lease) describes the
//! protocol. The bytes after a block's status word are read only between take and return, when the kernel
//! does not write them. The status word itself is only ever accessed as an atomic.
//!
//! The kernel fills blocks strictly in order and stops at the first one it does not own, and so does the
//! cursor; leases come back in any order.

#![allow(unsafe_code, reason = "shared memory, reached by pointer; each use names its invariant")]

#[cfg(test)]
mod tests;

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(feature = "record")]
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::lease::Leases;
#[cfg(any(test, feature = "testing"))]
use super::lease::{STATUS_KERNEL, STATUS_USER};
#[cfg(feature = "record")]
use super::rewrite::pcapng::{self, Converted, Placed, Plan};
use super::rewrite::rewrite_block;
use super::rx_features::Extras;
use crate::sys::Mapping;

/// Bytes before a block's status word (`struct tpacket_block_desc`): version, offset_to_priv.
const STATUS_AT: usize = 8;
/// Offset of the readable part of a block: right after the status word.
pub(crate) const BODY_AT: usize = 12;

/// The reader's half of a block ring.
#[derive(Debug)]
pub(crate) struct BlockRing {
    shared: Arc<Shared>,
    /// The block that the kernel will retire next, as far as we have read.
    cursor: usize,
}

/// The state shared by the ring and its leases, freed by the last of them.
#[derive(Debug)]
struct Shared {
    mapping: Mapping,
    block_size: usize,
    extras: Extras,
    leases: Leases,
    malformed: Arc<AtomicU64>,
    /// Held while a lease's block is written, and while the pages are moved.
    #[cfg(feature = "record")]
    writing: Mutex<()>,
}

impl BlockRing {
    /// Creates a ring of `mapping.len() / block_size` blocks.
    ///
    /// `extras` is what the kernel was asked to add to packets; `malformed` counts packets that iteration had
    /// to leave out.
    pub(crate) fn new(
        mapping: Mapping,
        block_size: usize,
        extras: Extras,
        malformed: Arc<AtomicU64>,
    ) -> Self {
        assert!(block_size > BODY_AT && block_size.is_multiple_of(8), "validated by the geometry");
        assert!(mapping.len().is_multiple_of(block_size), "validated by the geometry");
        let block_count = mapping.len() / block_size;
        let leases = Leases::new(block_count);
        let shared = Shared {
            mapping,
            block_size,
            extras,
            leases,
            malformed,
            #[cfg(feature = "record")]
            writing: Mutex::new(()),
        };
        Self { shared: Arc::new(shared), cursor: 0 }
    }

    /// Takes the next block if the kernel has retired it and no lease holds it.
    ///
    /// No system call and no allocation. Blocks come in the order in which the kernel filled them.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<BlockLease> {
        let index = self.cursor;
        let status = self.shared.leases.try_take(index, self.shared.status(index))?;
        self.cursor = if index + 1 == self.shared.leases.len() { 0 } else { index + 1 };
        let shared = Arc::clone(&self.shared);
        let mut lease = BlockLease { shared, index, status, is_counted: AtomicBool::new(false) };
        if self.shared.extras.rewrites() {
            rewrite_block(lease.body_mut(), self.shared.extras);
        }
        Some(lease)
    }

    /// Returns whether [`take`](Self::take) would find a block.
    pub(crate) fn is_ready(&self) -> bool {
        self.shared.leases.is_ready(self.cursor, self.shared.status(self.cursor))
    }

    /// Returns whether any lease is out.
    pub(crate) fn has_leases(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }

    pub(crate) fn ring_len(&self) -> usize {
        self.shared.mapping.len()
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn kernel_half(&self) -> KernelHalf {
        KernelHalf { shared: Arc::clone(&self.shared) }
    }
}

impl Drop for BlockRing {
    /// Releases the socket even if leases are out: they keep their bytes in private memory. The owner has
    /// closed the intake before.
    fn drop(&mut self) {
        if !self.has_leases() {
            return;
        }
        let size = self.shared.block_size;
        // A block is written in one other place, with this lock.
        #[cfg(feature = "record")]
        let _writing = self.shared.writing();
        // Without the status word, which is an atomic.
        let kept = self.shared.leases.held().flat_map(|index| {
            let start = index * size;
            [start..start + STATUS_AT, start + BODY_AT..start + size]
        });
        #[cfg(feature = "record")]
        let marks: Vec<(usize, u32)> = self
            .shared
            .leases
            .held()
            .map(|index| (index, self.shared.status(index).load(Ordering::Relaxed)))
            .collect();
        // If there is too little memory for the copy, the leases go on pinning the socket; this is documented
        // on `PacketBatch`, and nothing else can be done here.
        let detached = self.shared.mapping.detach(kept);
        #[cfg(feature = "record")]
        if detached.is_ok() {
            // That of a converted block is in its file. Nobody asks for those of a ring that is gone.
            for (index, mark) in marks {
                self.shared.status(index).store(mark, Ordering::Relaxed);
            }
        }
        drop(detached);
    }
}

impl Shared {
    #[cfg(feature = "record")]
    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn block(&self, index: usize) -> NonNull<u8> {
        assert!(index < self.leases.len(), "block index within the ring");
        // SAFETY: the mapping is `leases.len() * block_size` bytes long, and the index is below
        // that length, as just asserted.
        unsafe { self.mapping.base().add(index * self.block_size) }
    }

    #[inline]
    fn status(&self, index: usize) -> &AtomicU32 {
        // SAFETY: a block is longer than its header, so this stays inside it.
        let word = unsafe { self.block(index).add(STATUS_AT) };
        // SAFETY: inside the mapping, which lives as long as `self`; blocks are page-aligned, so
        // the word is 4-aligned; and the word is only ever accessed atomically, by us and by the
        // kernel.
        unsafe { AtomicU32::from_ptr(word.as_ptr().cast()) }
    }
}

/// One block, ours until dropped, on any thread.
#[derive(Debug)]
pub(crate) struct BlockLease {
    shared: Arc<Shared>,
    index: usize,
    status: u32,
    /// Whether this block's malformed packets have been counted.
    is_counted: AtomicBool,
}

impl BlockLease {
    /// Returns the block from after its status word to its end.
    #[inline]
    pub(crate) fn body(&self) -> &[u8] {
        // SAFETY: a block is longer than `BODY_AT`, as `BlockRing::new` asserts.
        let body = unsafe { self.shared.block(self.index).add(BODY_AT) };
        // SAFETY: the stretch lies inside the mapping, which `shared` keeps alive. The status word was USER
        // when this block was taken, with acquire, and only our drop sets it back, so the kernel writes
        // nothing here meanwhile; nor does any code of ours. `Mapping::detach` may replace the pages with
        // private ones that hold the same bytes.
        unsafe { std::slice::from_raw_parts(body.as_ptr(), self.shared.block_size - BODY_AT) }
    }

    /// Returns the bytes of [`body`](Self::body) for writing.
    fn body_mut(&mut self) -> &mut [u8] {
        // SAFETY: a block is longer than `BODY_AT`, as `BlockRing::new` asserts.
        let body = unsafe { self.shared.block(self.index).add(BODY_AT) };
        // SAFETY: as in `body`; and this is the only lease of this block, borrowed exclusively. `Mapping::detach`, which
        // reads it, runs only when its ring is dropped: not while it is being taken from that ring, nor while it is
        // converted, as both hold a lock then.
        unsafe { std::slice::from_raw_parts_mut(body.as_ptr(), self.shared.block_size - BODY_AT) }
    }

    /// Turns the block into pcapng, where it lies; see [`rewrite`](super::rewrite). It holds no packets afterwards.
    #[cfg(feature = "record")]
    pub(crate) fn convert(&mut self, plan: &Plan<'_>, see: impl FnMut(Placed<'_>)) -> Converted {
        let (extras, shared) = (self.extras(), Arc::clone(&self.shared));
        let _writing = shared.writing();
        let converted = pcapng::convert(self.body_mut(), extras, plan, see);
        self.count_malformed(converted.left_out);
        for (at, word) in [(0, pcapng::ACCOUNT), (4, converted.head as u32)] {
            // SAFETY: a block is longer than its header.
            let place = unsafe { self.shared.block(self.index).add(at) };
            // SAFETY: inside the mapping, and aligned as the block is. The kernel writes the two words before the status word
            // when it opens the block, and `detach` alone reads them, with the lock; this is the only lease of the block,
            // borrowed exclusively.
            unsafe { place.cast::<u32>().write(word) };
        }
        self.status = pcapng::MARK;
        self.shared.status(self.index).store(self.status, Ordering::Relaxed);
        converted
    }

    /// Returns the size of the block.
    #[cfg(feature = "record")]
    pub(crate) fn size(&self) -> usize {
        self.shared.block_size
    }

    /// Returns the first `len` bytes of a block that was [converted](Self::convert).
    #[cfg(feature = "record")]
    pub(crate) fn whole(&self, len: usize) -> &[u8] {
        assert!(len <= self.shared.block_size, "within the block");
        // SAFETY: the stretch is inside the mapping, which `shared` keeps alive. Neither the kernel nor we write it as long
        // as the block is ours and `self` is borrowed; `Mapping::detach` may replace the pages with private ones that hold
        // the same bytes.
        unsafe { std::slice::from_raw_parts(self.shared.block(self.index).as_ptr(), len) }
    }

    /// Returns the block's status word at the time it was taken: USER, and the LOSING and TMO flags.
    #[inline]
    pub(crate) fn status(&self) -> u32 {
        self.status
    }

    #[inline]
    pub(crate) fn extras(&self) -> Extras {
        self.shared.extras
    }

    /// Counts packets that a walk had to leave out, only once however often the block is walked.
    pub(crate) fn count_malformed(&self, packets: u64) {
        // Relaxed: statistics.
        if !self.is_counted.swap(true, Ordering::Relaxed) {
            self.shared.malformed.fetch_add(packets, Ordering::Relaxed);
        }
    }
}

impl Drop for BlockLease {
    #[inline]
    fn drop(&mut self) {
        self.shared.leases.give_back(self.index, self.shared.status(self.index));
    }
}

/// The kernel's operations on a ring, for [`peer`](super::fake_kernel).
#[cfg(any(test, feature = "testing"))]
#[derive(Debug)]
pub(super) struct KernelHalf {
    shared: Arc<Shared>,
}

#[cfg(any(test, feature = "testing"))]
impl KernelHalf {
    pub(super) fn block_count(&self) -> usize {
        self.shared.leases.len()
    }

    pub(super) fn block_size(&self) -> usize {
        self.shared.block_size
    }

    /// Fills the block's body and retires it, if the kernel owns it.
    pub(super) fn retire(&mut self, index: usize, body: &[u8], status: u32) -> bool {
        assert!(body.len() <= self.shared.block_size - BODY_AT, "the body fits the block");
        // Acquire: pairs with RETURN.
        if self.shared.status(index).load(Ordering::Acquire) != STATUS_KERNEL {
            return false;
        }
        // SAFETY: a block is longer than `BODY_AT`.
        let target = unsafe { self.shared.block(index).add(BODY_AT) };
        let source = NonNull::from(body).cast::<u8>();
        // SAFETY: the body fits, as asserted; the block belongs to the kernel, which we play with
        // `&mut self`, so nothing else reads or writes it; and `body` is not in the mapping.
        unsafe { source.copy_to_nonoverlapping(target, body.len()) };
        self.shared.status(index).store(STATUS_USER | status, Ordering::Release);
        true
    }
}
