//! Sizes that do not form a ring: one variant per rule of the kernel, and one for this crate's limit.

use std::fmt;

/// A rule of the ring layout that the requested sizes break.
///
/// The rules are those of `packet_set_ring` in the kernel's `net/packet/af_packet.c`, which would answer all of
/// them with the same `EINVAL`, and this crate's own limit [`MAX_RING_BYTES`](crate::capture::MAX_RING_BYTES).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GeometryError {
    /// A size or count that must be positive is zero.
    Zero(&'static str),
    /// The block size is not a multiple of the page size.
    BlockNotPageAligned {
        /// Requested size in bytes.
        block_size: usize,
        /// The page size of this machine.
        page_size: usize,
    },
    /// The frame size is not a multiple of `TPACKET_ALIGNMENT`, 16.
    FrameNotAligned {
        /// Requested size in bytes.
        frame_size: usize,
    },
    /// The frame size cannot hold a packet's header.
    FrameTooSmall {
        /// Requested size in bytes.
        frame_size: usize,
        /// The least size that works.
        least: usize,
    },
    /// A frame does not fit into a block.
    FrameLargerThanBlock {
        /// Bytes of a frame.
        frame_size: usize,
        /// Bytes of a block.
        block_size: usize,
    },
    /// The ring is larger than [`MAX_RING_BYTES`](crate::capture::MAX_RING_BYTES), or its size overflows.
    TooLarge {
        /// Bytes of a block.
        block_size: usize,
        /// Requested number of blocks.
        block_count: usize,
        /// The largest size that this crate asks the kernel for.
        most: usize,
    },
    /// The block timeout is zero, which the kernel would replace by its own estimate.
    NoBlockTimeout,
    /// The block timeout does not fit into the 16 bits that kernels before 6.18 keep of it.
    BlockTimeoutTooLong {
        /// Requested timeout in milliseconds.
        block_timeout_ms: u32,
    },
    /// The snap length is zero, which would drop every packet.
    NoSnapLen,
    /// The frame size of a UMEM is neither 2048 nor 4096 bytes.
    ChunkSize {
        /// Requested size in bytes.
        frame_size: usize,
    },
    /// The frame count of a UMEM is not a power of two from 64 to 65,536.
    ChunkCount {
        /// Requested number of frames per socket.
        frame_count: usize,
        /// Number of sockets that share the UMEM.
        shares: usize,
    },
    /// A socket with both halves has no frames for one of them.
    EmptyHalf,
    /// The headroom leaves no room for a packet.
    Headroom {
        /// Requested headroom in bytes.
        headroom: usize,
        /// Bytes of a frame.
        frame_size: usize,
    },
    /// A socket that shares another's UMEM does not have as many frames as one share of it.
    ShareMismatch {
        /// Requested number of frames.
        frame_count: usize,
        /// Number of frames in a share.
        share: usize,
    },
    /// A UMEM has no share left.
    NoShareLeft,
    /// The socket whose UMEM was to be shared is closed.
    NoSharedSocket,
    /// Offloads were requested for a ring of frames. The kernel would stop filling such a ring for good at the
    /// first packet whose offload it cannot express.
    OffloadsNeedBlocks,
}

impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero(what) => write!(f, "{what} is 0; it must be at least 1"),
            Self::BlockNotPageAligned { block_size, page_size } => write!(
                f,
                "block_size {block_size} is not a multiple of the page size {page_size}; round it \
                 up to {}",
                block_size.saturating_add(page_size - 1) / page_size * page_size
            ),
            Self::FrameNotAligned { frame_size } => write!(
                f,
                "frame_size {frame_size} is not a multiple of 16; round it up to {}",
                frame_size.saturating_add(15) / 16 * 16
            ),
            Self::FrameTooSmall { frame_size, least } => write!(
                f,
                "frame_size {frame_size} cannot hold a packet's header; use at least {least}"
            ),
            Self::FrameLargerThanBlock { frame_size, block_size } => write!(
                f,
                "frame_size {frame_size} is larger than block_size {block_size}; use larger blocks"
            ),
            Self::TooLarge { block_size, block_count, most } => write!(
                f,
                "{block_count} blocks of {block_size} bytes are more than the {most} bytes a ring \
                 may take; use fewer or smaller blocks, or more shards"
            ),
            Self::NoBlockTimeout => f.write_str(
                "block_timeout_ms is 0; use at least 1 (the kernel would choose for you)",
            ),
            Self::BlockTimeoutTooLong { block_timeout_ms } => {
                write!(f, "block_timeout_ms {block_timeout_ms} is too long; use at most 65535")
            }
            Self::ChunkSize { frame_size } => {
                write!(f, "frames of a UMEM have 2048 or 4096 bytes, not {frame_size}")
            }
            Self::ChunkCount { frame_count, shares } => write!(
                f,
                "a UMEM's frame count, over all of its sockets, is a power of two from 64 to 65536, not \
                 {frame_count} for each of {shares}"
            ),
            Self::EmptyHalf => f.write_str(
                "a socket that receives and sends has frames for both; open one half with `build_receiver` or \
                 `build_sender`",
            ),
            Self::Headroom { headroom, frame_size } => write!(
                f,
                "headroom {headroom} leaves nothing of a frame of {frame_size} bytes; use less than {}",
                frame_size.saturating_sub(1023)
            ),
            Self::ShareMismatch { frame_count, share } => write!(
                f,
                "{frame_count} frames were requested of a UMEM whose shares have {share}; request {share}"
            ),
            Self::NoSharedSocket => f.write_str(
                "the socket whose UMEM is to be shared is closed; keep it open until this one is built",
            ),
            Self::NoShareLeft => f.write_str(
                "the UMEM's shares are all taken; build its first socket with more `umem_shares`",
            ),
            Self::OffloadsNeedBlocks => f.write_str(
                "offloads need `RingLayout::Blocks`: a ring of frames stops for good at the first \
                 packet whose offload the kernel cannot express",
            ),
            Self::NoSnapLen => f.write_str("snap_len is 0; use at least 1, or leave it unset"),
        }
    }
}

impl std::error::Error for GeometryError {}
