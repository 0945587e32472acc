//! Sizes of a ring, parsed once: a [`BlockGeometry`] that exists is one the kernel takes.

use crate::GeometryError;
use crate::sys::mmap::page_size;

/// The most bytes we ask for in one ring: 4 GiB.
///
/// The kernel does not charge ring memory to the memory cgroup, so nothing else would stop a typing
/// error from taking the machine down.
pub const MAX_RING_BYTES: usize = (4_u64 << 30) as usize;

/// `TPACKET_ALIGNMENT`.
const ALIGNMENT: usize = 16;

/// Ring sizes for a purpose; single sizes set afterwards win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RingProfile {
    /// 64 blocks of 4 MiB, handed over after 60 ms at the latest: 256 MiB.
    #[default]
    Default,
    /// 256 blocks of 4 MiB, 60 ms: 1 GiB, for bursts at line rate.
    HighThroughput,
    /// 16 blocks of 1 MiB, 100 ms: 16 MiB.
    LowMemory,
    /// As the default, with 64 KiB frames, for large MTUs and offloaded segments.
    JumboFrames,
}

/// Sizes as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) block_size: usize,
    pub(super) block_count: usize,
    pub(super) frame_size: usize,
    pub(super) block_timeout_ms: u32,
}

impl RingProfile {
    pub(super) fn sizes(self) -> Sizes {
        let (block_size, block_count, frame_size, block_timeout_ms) = match self {
            Self::Default => (4 << 20, 64, 2048, 60),
            Self::HighThroughput => (4 << 20, 256, 2048, 60),
            Self::LowMemory => (1 << 20, 16, 2048, 100),
            Self::JumboFrames => (4 << 20, 64, 65_536, 60),
        };
        Sizes { block_size, block_count, frame_size, block_timeout_ms }
    }
}

/// A legal TPACKET_V3 receive ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockGeometry {
    sizes: Sizes,
}

impl BlockGeometry {
    /// Checks every rule of `packet_set_ring` (net/packet/af_packet.c), and our cap.
    pub(super) fn new(sizes: Sizes) -> Result<Self, GeometryError> {
        let Sizes { block_size, block_count, frame_size, block_timeout_ms } = sizes;
        for (what, value) in
            [("block_size", block_size), ("block_count", block_count), ("frame_size", frame_size)]
        {
            if value == 0 {
                return Err(GeometryError::Zero(what));
            }
        }
        let page_size = page_size();
        if !block_size.is_multiple_of(page_size) {
            return Err(GeometryError::BlockNotPageAligned { block_size, page_size });
        }
        if !frame_size.is_multiple_of(ALIGNMENT) {
            return Err(GeometryError::FrameNotAligned { frame_size });
        }
        let least = libc::TPACKET3_HDRLEN.next_multiple_of(ALIGNMENT);
        if frame_size < least {
            return Err(GeometryError::FrameTooSmall { frame_size, least });
        }
        if frame_size > block_size {
            return Err(GeometryError::FrameLargerThanBlock { frame_size, block_size });
        }
        match block_size.checked_mul(block_count) {
            Some(bytes) if bytes <= MAX_RING_BYTES && block_size <= i32::MAX as usize => {}
            _ => {
                let most = MAX_RING_BYTES;
                return Err(GeometryError::TooLarge { block_size, block_count, most });
            }
        }
        if block_timeout_ms == 0 {
            return Err(GeometryError::NoBlockTimeout);
        }
        if block_timeout_ms > u32::from(u16::MAX) {
            return Err(GeometryError::BlockTimeoutTooLong { block_timeout_ms });
        }
        Ok(Self { sizes })
    }

    pub(super) fn block_size(&self) -> usize {
        self.sizes.block_size
    }

    pub(super) fn ring_bytes(&self) -> usize {
        self.sizes.block_size * self.sizes.block_count
    }

    pub(super) fn block_timeout_ms(&self) -> u32 {
        self.sizes.block_timeout_ms
    }

    /// The kernel's form of it.
    pub(super) fn request(&self, fill_rxhash: bool) -> libc::tpacket_req3 {
        let Sizes { block_size, block_count, frame_size, block_timeout_ms } = self.sizes;
        // Nothing overflows: the ring has at most 2^32 bytes and a frame at least 80.
        libc::tpacket_req3 {
            tp_block_size: block_size as u32,
            tp_block_nr: block_count as u32,
            tp_frame_size: frame_size as u32,
            tp_frame_nr: (block_size / frame_size * block_count) as u32,
            tp_retire_blk_tov: block_timeout_ms,
            tp_sizeof_priv: 0,
            tp_feature_req_word: if fill_rxhash { libc::TP_FT_REQ_FILL_RXHASH } else { 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Sizes =
        Sizes { block_size: 1 << 16, block_count: 4, frame_size: 2048, block_timeout_ms: 10 };

    #[test]
    fn every_profile_is_legal() {
        for profile in [
            RingProfile::Default,
            RingProfile::HighThroughput,
            RingProfile::LowMemory,
            RingProfile::JumboFrames,
        ] {
            BlockGeometry::new(profile.sizes()).unwrap();
        }
    }

    #[test]
    fn every_rule_has_its_error() {
        type Break = fn(&mut Sizes);
        let cases: [(Break, GeometryError); 11] = [
            (|sizes| sizes.block_size = 0, GeometryError::Zero("block_size")),
            (|sizes| sizes.block_count = 0, GeometryError::Zero("block_count")),
            (|sizes| sizes.frame_size = 0, GeometryError::Zero("frame_size")),
            (
                |sizes| sizes.block_size = 5000,
                GeometryError::BlockNotPageAligned { block_size: 5000, page_size: page_size() },
            ),
            (|sizes| sizes.frame_size = 100, GeometryError::FrameNotAligned { frame_size: 100 }),
            (
                |sizes| sizes.frame_size = 64,
                GeometryError::FrameTooSmall { frame_size: 64, least: 80 },
            ),
            (
                |sizes| sizes.frame_size = 1 << 17,
                GeometryError::FrameLargerThanBlock { frame_size: 1 << 17, block_size: 1 << 16 },
            ),
            (
                |sizes| sizes.block_count = 1 << 20,
                GeometryError::TooLarge {
                    block_size: 1 << 16,
                    block_count: 1 << 20,
                    most: MAX_RING_BYTES,
                },
            ),
            (
                |sizes| sizes.block_count = usize::MAX,
                GeometryError::TooLarge {
                    block_size: 1 << 16,
                    block_count: usize::MAX,
                    most: MAX_RING_BYTES,
                },
            ),
            (|sizes| sizes.block_timeout_ms = 0, GeometryError::NoBlockTimeout),
            (
                |sizes| sizes.block_timeout_ms = 65_536,
                GeometryError::BlockTimeoutTooLong { block_timeout_ms: 65_536 },
            ),
        ];
        assert!(BlockGeometry::new(GOOD).is_ok());
        for (spoil, expected) in cases {
            let mut sizes = GOOD;
            spoil(&mut sizes);
            assert_eq!(BlockGeometry::new(sizes), Err(expected));
            assert!(!expected.to_string().is_empty());
        }
    }

    #[test]
    fn the_request_counts_whole_frames_a_block() {
        let sizes = Sizes { frame_size: 48 * 16, ..GOOD };
        let request = BlockGeometry::new(sizes).unwrap().request(true);
        assert_eq!(request.tp_frame_nr, (1 << 16) / (48 * 16) * 4);
        assert_eq!(request.tp_feature_req_word, libc::TP_FT_REQ_FILL_RXHASH);
    }
}
