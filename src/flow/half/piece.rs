//! What goes into a direction of a connection, and what comes out of it.

/// Whose bytes stand where two segments that both wait for an earlier one have different ones for the same place.
///
/// What has been passed on stays so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlap {
    /// Those of the segment that came first.
    #[default]
    First,
    /// Those of the segment that came last.
    Last,
}

/// What comes out of a [`HalfStream`](super::HalfStream).
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The next bytes, of the segment that was just given: without a copy.
    Fresh {
        /// Where in its payload they begin.
        at: usize,
        /// They.
        bytes: &'a [u8],
    },
    /// The next bytes, of a segment that came earlier.
    Kept(Vec<u8>),
    /// So many bytes are missing here, and will not come.
    Gap(u64),
    /// The sender has ended the stream, and all before was passed on.
    Fin,
}

/// What became of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HalfStats {
    /// Segments with bytes.
    pub segments: u64,
    /// Of them, those that came before an earlier one.
    pub out_of_order: u64,
    /// Of them, those with nothing new.
    pub retransmits: u64,
    /// Overlaps whose bytes differ; told where both still waited.
    pub inconsistencies: u64,
    /// Gaps.
    pub gaps: u64,
    /// Bytes that they are of.
    pub gap_bytes: u64,
    /// Bytes that were passed on.
    pub bytes: u64,
    /// The most bytes that waited at a time, with what keeping them costs.
    pub high_watermark: u64,
}

/// A segment, as a header of TCP has it.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// The sequence number.
    pub seq: u32,
    /// Whether it begins the stream.
    pub syn: bool,
    /// Whether it ends the stream.
    pub fin: bool,
    /// How many bytes it has. More than there are here where the frame was cut.
    pub len: usize,
    /// Its bytes.
    pub payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// One with bytes, that is not cut.
    pub fn new(seq: u32, payload: &'a [u8]) -> Self {
        Self { seq, syn: false, fin: false, len: payload.len(), payload }
    }
}
