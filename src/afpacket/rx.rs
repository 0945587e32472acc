//! A receive ring of either layout.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::geometry::{RingLayout, RxGeometry};
use crate::ring::batch::PacketBatch;
use crate::ring::block::BlockRing;
use crate::ring::rx_features::Extras;
use crate::ring::slot::FrameRing;
use crate::sys::Mapping;

/// The most frames that one batch lends.
const BATCH_FRAMES: usize = 64;

/// The ring of a capture.
#[derive(Debug)]
pub(super) enum RxRing {
    Blocks(BlockRing),
    Frames(FrameRing),
}

impl RxRing {
    pub(super) fn new(
        mapping: Mapping,
        geometry: &RxGeometry,
        extras: Extras,
        malformed: Arc<AtomicU64>,
    ) -> Self {
        match geometry.layout() {
            RingLayout::Blocks => {
                Self::Blocks(BlockRing::new(mapping, geometry.block_size(), extras, malformed))
            }
            RingLayout::Frames => Self::Frames(FrameRing::new(
                mapping,
                geometry.slots(),
                extras,
                BATCH_FRAMES,
                malformed,
            )),
        }
    }

    /// The next batch, if there is one: no system call.
    #[inline]
    pub(super) fn take(&mut self) -> Option<PacketBatch> {
        match self {
            Self::Blocks(ring) => ring.take().map(PacketBatch::from_block),
            Self::Frames(ring) => ring.take().map(PacketBatch::from_frames),
        }
    }

    /// Whether [`take`](Self::take) would find something.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Blocks(ring) => ring.is_ready(),
            Self::Frames(ring) => ring.is_ready(),
        }
    }

    pub(super) fn has_leases(&self) -> bool {
        match self {
            Self::Blocks(ring) => ring.has_leases(),
            Self::Frames(ring) => ring.has_leases(),
        }
    }

    /// Bytes of the ring.
    pub(super) fn ring_len(&self) -> usize {
        match self {
            Self::Blocks(ring) => ring.ring_len(),
            Self::Frames(ring) => ring.ring_len(),
        }
    }
}
