//! The input and output types of one direction of a TCP connection.

/// Policy for two waiting segments that contain different bytes for the same position.
///
/// Bytes that were already passed on are never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlap {
    /// Keeps the bytes of the segment that arrived first.
    #[default]
    First,
    /// Keeps the bytes of the segment that arrived last.
    Last,
}

/// A piece of the output of a [`HalfStream`](super::HalfStream).
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The next bytes, from the segment just processed, without a copy.
    Fresh {
        /// Offset of the bytes in the segment's payload.
        at: usize,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The next bytes, from a segment that arrived earlier.
    Kept(Vec<u8>),
    /// Number of bytes that are missing here and will not come.
    Gap(u64),
    /// The sender has ended the stream, and everything before was passed on.
    Fin,
}

/// Counters of the segments of a [`HalfStream`](super::HalfStream).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HalfStats {
    /// Segments with payload.
    pub segments: u64,
    /// Segments with payload that arrived out of order.
    pub out_of_order: u64,
    /// Segments with payload that contained nothing new.
    pub retransmits: u64,
    /// Overlaps with differing bytes, detected if both segments were still waiting.
    pub inconsistencies: u64,
    /// Number of gaps.
    pub gaps: u64,
    /// Total bytes in gaps.
    pub gap_bytes: u64,
    /// Bytes passed on.
    pub bytes: u64,
    /// Maximum number of bytes waiting at a time, including overhead.
    pub high_watermark: u64,
}

/// A TCP segment.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// The sequence number.
    pub seq: u32,
    /// Whether the segment has the SYN flag, which begins the stream.
    pub syn: bool,
    /// Whether the segment has the FIN flag, which ends the stream.
    pub fin: bool,
    /// Length of the payload on the wire; more than `payload` has if the frame was cut.
    pub len: usize,
    /// Captured bytes of the payload.
    pub payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Creates a segment with a complete payload.
    pub fn new(seq: u32, payload: &'a [u8]) -> Self {
        Self { seq, syn: false, fin: false, len: payload.len(), payload }
    }
}
