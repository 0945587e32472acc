//! Sizes of a ring, validated once: the kernel accepts every geometry that exists.

use std::time::Duration;

use crate::error::GeometryError;
use crate::ring::slot::SlotLayout;
use crate::sys::mmap::page_size;

/// The largest ring that this crate requests: 4 GiB.
///
/// The kernel does not charge ring memory to the memory cgroup, so nothing else would stop a typo from taking the
/// machine down.
pub const MAX_RING_BYTES: usize = (4_u64 << 30) as usize;

/// `TPACKET_ALIGNMENT`.
const ALIGNMENT: usize = 16;

/// Ring sizes for a purpose; single sizes set afterwards override them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RingProfile {
    /// 32 blocks of 1 MiB, handed over after at most 60 ms: 32 MiB, for 20,000 frames of 1,500 bytes, or 25 ms at
    /// 10 Gbit/s.
    #[default]
    Default,
    /// 256 blocks of 4 MiB, 60 ms: 1 GiB, for bursts at line rate.
    HighThroughput,
    /// 16 blocks of 1 MiB, 100 ms: 16 MiB.
    LowMemory,
    /// 64 blocks of 4 MiB, 60 ms: 256 MiB, for large MTUs and offloaded segments.
    JumboFrames,
    /// [`RingLayout::Frames`], 32 MiB: 16,384 frames of 2048 bytes, or about 480 frames of 64 KiB if an offload
    /// (GRO, LRO, TSO, GSO) is on.
    ///
    /// Each packet wakes its reader within microseconds, instead of after a block timeout.
    LowLatency,
}

/// The layout of a receive ring, which decides when its reader is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RingLayout {
    /// TPACKET_V3 blocks, for throughput: each holds many packets, and is handed over when it is full or its
    /// timeout expires.
    #[default]
    Blocks,
    /// TPACKET_V2 frames, for latency: each holds one packet and is handed over at once. Packets have no hash.
    ///
    /// By default, frames have room for the longest packet that the interface may deliver, given its MTU and its
    /// offloads (GRO, LRO, TSO, GSO). With [`frame_size`](crate::capture::CaptureBuilder::frame_size), a longer
    /// packet is truncated (about 80 bytes of a frame are header).
    Frames,
}

/// Sizes as requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) layout: RingLayout,
    pub(super) block_size: usize,
    pub(super) block_count: usize,
    /// `None`: frames as long as the interface's packets.
    pub(super) frame_size: Option<usize>,
    pub(super) block_timeout_ms: u32,
}

/// Bytes of a frame if nothing is known about the packets.
const FRAME: usize = 2048;
/// Upper bound of the bytes before the packet in a received frame (`tpacket_rcv`): the aligned header, link-layer address
/// and 16 bytes, and room for a restored tag.
const FRAME_HEADER: usize = 96;

impl Sizes {
    /// Returns the sizes with frames as long as the longest packet, but not longer than a block, unless a frame
    /// size was set.
    pub(super) fn for_packets_of(self, longest: usize) -> Self {
        match (self.layout, self.frame_size) {
            (RingLayout::Frames, None) => {
                let wanted = (FRAME_HEADER + longest).next_multiple_of(ALIGNMENT).max(FRAME);
                let most = self.block_size / ALIGNMENT * ALIGNMENT;
                Self { frame_size: Some(wanted.min(most)), ..self }
            }
            _ => self,
        }
    }

    fn frame_size(self) -> usize {
        self.frame_size.unwrap_or(FRAME)
    }
}

impl RingProfile {
    pub(super) fn sizes(self) -> Sizes {
        let layout = match self {
            Self::LowLatency => RingLayout::Frames,
            _ => RingLayout::Blocks,
        };
        let (block_size, block_count, frame_size, block_timeout_ms) = match self {
            Self::Default => (1 << 20, 32, None, 60),
            Self::HighThroughput => (4 << 20, 256, None, 60),
            Self::LowMemory => (1 << 20, 16, None, 100),
            Self::JumboFrames => (4 << 20, 64, Some(65_536), 60),
            Self::LowLatency => (1 << 20, 32, None, 60),
        };
        Sizes { layout, block_size, block_count, frame_size, block_timeout_ms }
    }
}

/// The smallest frame in a ring of frames: header, alignment, and an Ethernet header.
const LEAST_FRAME: usize = 96;

/// A valid receive ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RxGeometry {
    sizes: Sizes,
}

impl RxGeometry {
    /// Checks every rule of `packet_set_ring` (net/packet/af_packet.c), and the limit of this crate.
    pub(super) fn new(sizes: Sizes) -> Result<Self, GeometryError> {
        let Sizes { layout, block_size, block_count, block_timeout_ms, .. } = sizes;
        let frame_size = sizes.frame_size();
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
        let least = match layout {
            RingLayout::Blocks => libc::TPACKET3_HDRLEN.next_multiple_of(ALIGNMENT),
            RingLayout::Frames => LEAST_FRAME,
        };
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

    pub(super) fn layout(&self) -> RingLayout {
        self.sizes.layout
    }

    /// How long the kernel may keep a packet before handing it over.
    pub(super) fn block_timeout(&self) -> Duration {
        match self.sizes.layout {
            RingLayout::Blocks => Duration::from_millis(self.sizes.block_timeout_ms.into()),
            RingLayout::Frames => Duration::ZERO,
        }
    }

    /// Returns the positions of the slots of a ring of frames.
    pub(super) fn slots(&self) -> SlotLayout {
        let Sizes { block_size, block_count, .. } = self.sizes;
        let frame_size = self.sizes.frame_size();
        SlotLayout { block_size, frame_size, frame_count: block_size / frame_size * block_count }
    }

    /// Returns the kernel's request for a ring of frames.
    pub(super) fn frame_request(&self) -> libc::tpacket_req {
        request_of(self.slots(), self.sizes.block_count)
    }

    /// Returns the kernel's request for a ring of blocks.
    pub(super) fn block_request(&self, fill_rxhash: bool) -> libc::tpacket_req3 {
        let Sizes { block_size, block_count, block_timeout_ms, .. } = self.sizes;
        let frame_size = self.sizes.frame_size();
        // No overflow: the ring has at most 2^32 bytes and a frame at least 80.
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

fn request_of(slots: SlotLayout, block_count: usize) -> libc::tpacket_req {
    // No overflow: the ring has at most 2^32 bytes and a frame at least 80.
    libc::tpacket_req {
        tp_block_size: slots.block_size as u32,
        tp_block_nr: block_count as u32,
        tp_frame_size: slots.frame_size as u32,
        tp_frame_nr: slots.frame_count as u32,
    }
}

/// A valid transmit ring of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TxGeometry {
    slots: SlotLayout,
    block_count: usize,
}

impl TxGeometry {
    /// Checks the rules of a receive ring; the frame count is rounded up to whole blocks.
    pub(super) fn new(frame_size: usize, frame_count: usize) -> Result<Self, GeometryError> {
        if frame_count == 0 {
            return Err(GeometryError::Zero("frame_count"));
        }
        let block_size = tx_block_size(frame_size);
        let frames = (block_size / frame_size.max(1)).max(1);
        let block_count = frame_count.div_ceil(frames);
        let (layout, frame_size) = (RingLayout::Frames, Some(frame_size));
        let sizes = Sizes { layout, block_size, block_count, frame_size, block_timeout_ms: 1 };
        let slots = RxGeometry::new(sizes)?.slots();
        Ok(Self { slots, block_count })
    }

    pub(super) fn slots(&self) -> SlotLayout {
        self.slots
    }

    pub(super) fn ring_bytes(&self) -> usize {
        self.slots.block_size * self.block_count
    }

    pub(super) fn request(&self) -> libc::tpacket_req {
        request_of(self.slots, self.block_count)
    }
}

/// Returns the smallest power of two of which slots of `frame_size` waste at most an eighth. If that is so large
/// that the kernel might find no contiguous block, returns the smallest power of two that holds one slot.
fn tx_block_size(frame_size: usize) -> usize {
    const LARGE: usize = 1 << 20;
    let Some(least) = frame_size.checked_next_power_of_two() else {
        return usize::MAX / page_size() * page_size();
    };
    let least = least.max(page_size());
    let sizes = std::iter::successors(Some(least), |size| size.checked_mul(2));
    let mut sizes = sizes.take_while(|&size| size <= LARGE);
    sizes.find(|size| frame_size != 0 && size % frame_size <= size / 8).unwrap_or(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Sizes = Sizes {
        layout: RingLayout::Blocks,
        block_size: 1 << 16,
        block_count: 4,
        frame_size: Some(2048),
        block_timeout_ms: 10,
    };

    #[test]
    fn a_transmit_ring_has_at_least_the_frames_asked_for() {
        for (frame_size, count) in [(2048, 256), (2048, 1), (1360, 100), (96, 7), (65_536, 3)] {
            let geometry = TxGeometry::new(frame_size, count).unwrap();
            let slots = geometry.slots();
            assert!(slots.frame_count >= count && slots.frame_size == frame_size);
            assert!(slots.frame_count * frame_size <= geometry.ring_bytes());
        }
        assert_eq!(TxGeometry::new(68 << 10, 7).unwrap().ring_bytes(), 512 << 10);
        let refused = [(0, 1), (2048, 0), (100, 1), (80, 1), (usize::MAX, 1), (2048, usize::MAX)];
        for (frame_size, count) in refused {
            assert!(TxGeometry::new(frame_size, count).is_err(), "{frame_size} {count}");
        }
    }

    #[test]
    fn every_profile_is_legal() {
        for profile in [
            RingProfile::Default,
            RingProfile::HighThroughput,
            RingProfile::LowMemory,
            RingProfile::JumboFrames,
            RingProfile::LowLatency,
        ] {
            RxGeometry::new(profile.sizes()).unwrap();
        }
    }

    #[test]
    fn every_rule_has_its_error() {
        type Break = fn(&mut Sizes);
        let cases: [(Break, GeometryError); 11] = [
            (|sizes| sizes.block_size = 0, GeometryError::Zero("block_size")),
            (|sizes| sizes.block_count = 0, GeometryError::Zero("block_count")),
            (|sizes| sizes.frame_size = Some(0), GeometryError::Zero("frame_size")),
            (
                |sizes| sizes.block_size = 5000,
                GeometryError::BlockNotPageAligned { block_size: 5000, page_size: page_size() },
            ),
            (
                |sizes| sizes.frame_size = Some(100),
                GeometryError::FrameNotAligned { frame_size: 100 },
            ),
            (
                |sizes| sizes.frame_size = Some(64),
                GeometryError::FrameTooSmall { frame_size: 64, least: 80 },
            ),
            (
                |sizes| sizes.frame_size = Some(1 << 17),
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
        assert!(RxGeometry::new(GOOD).is_ok());
        for (spoil, expected) in cases {
            let mut sizes = GOOD;
            spoil(&mut sizes);
            assert_eq!(RxGeometry::new(sizes), Err(expected));
            assert!(!expected.to_string().is_empty());
        }
    }

    #[test]
    fn frames_are_for_the_longest_packet_where_nobody_says_otherwise() {
        let sizes = |profile: RingProfile| profile.sizes();
        let slots = |sizes: Sizes| RxGeometry::new(sizes).unwrap().slots();
        let low = sizes(RingProfile::LowLatency);
        assert_eq!(slots(low.for_packets_of(1518)).frame_size, 2048);
        assert_eq!(slots(low.for_packets_of(9018)).frame_size, 9120);
        let long = slots(low.for_packets_of(65_553));
        assert!(long.frame_size > 65_553 + 80 && long.frame_count >= 400, "{long:?}");
        let small = Sizes { block_size: 4096, ..low };
        assert_eq!(slots(small.for_packets_of(65_553)).frame_size, 4096, "no more than a block");
        let asked = Sizes { frame_size: Some(256), ..low };
        assert_eq!(slots(asked.for_packets_of(65_553)).frame_size, 256);
        let blocks = sizes(RingProfile::Default);
        assert_eq!(blocks.for_packets_of(65_553), blocks, "packets are packed there");
    }

    #[test]
    fn the_request_counts_whole_frames_a_block() {
        let sizes = Sizes { frame_size: Some(48 * 16), ..GOOD };
        let request = RxGeometry::new(sizes).unwrap().block_request(true);
        assert_eq!(request.tp_frame_nr, (1 << 16) / (48 * 16) * 4);
        assert_eq!(request.tp_feature_req_word, libc::TP_FT_REQ_FILL_RXHASH);
    }
}
