//! A [`HalfStream`] as a reassembler of flowscope's drivers.

use std::fmt;

use flowscope::{Reassembler, Timestamp as FlowTime};

use super::{HalfStream, Piece, Segment};

/// A [`HalfStream`] as a [`flowscope::Reassembler`], for code that drives flowscope directly. The output is
/// passed to a function.
///
/// flowscope passes on neither SYNs nor acknowledgements. Therefore the first segment begins the stream, and
/// missing bytes are given up only if too many bytes wait, or at the end.
///
/// ```
/// use std::sync::mpsc;
///
/// use flowscope::{Reassembler, Timestamp};
/// use ringtap::flow::{HalfReassembler, HalfStream, Piece};
///
/// let (said, heard) = mpsc::channel();
/// let mut half = HalfReassembler::new(HalfStream::new(), move |piece: Piece<'_>| {
///     let text = match piece {
///         Piece::Fresh { bytes, .. } => bytes.escape_ascii().to_string(),
///         Piece::Kept(bytes) => bytes.escape_ascii().to_string(),
///         Piece::Gap(bytes) => format!("[{bytes}]"),
///         Piece::Fin => ".".to_owned(),
///     };
///     said.send(text).unwrap();
/// });
/// half.segment(1, b"one ", Timestamp::default());
/// half.segment(9, b"three ", Timestamp::default());
/// half.segment(5, b"two ", Timestamp::default());
/// half.segment(25, b"five", Timestamp::default());
/// half.fin();
/// drop(half);
/// assert_eq!(heard.iter().collect::<String>(), "one two three [10]five.");
/// ```
pub struct HalfReassembler<F> {
    half: HalfStream,
    out: F,
}

impl<F: FnMut(Piece<'_>)> HalfReassembler<F> {
    /// Creates a reassembler that passes the output of `half` to `out`.
    pub fn new(half: HalfStream, out: F) -> Self {
        Self { half, out }
    }

    /// Returns the stream, for its counters.
    pub fn half(&self) -> &HalfStream {
        &self.half
    }
}

impl<F: FnMut(Piece<'_>) + Send + 'static> Reassembler for HalfReassembler<F> {
    fn segment(&mut self, seq: u32, payload: &[u8], _: FlowTime) {
        self.half.segment(Segment::new(seq, payload), &mut self.out);
    }

    fn fin(&mut self) {
        self.half.flush(&mut self.out);
        (self.out)(Piece::Fin);
    }

    fn rst(&mut self) {
        self.half.flush(&mut self.out);
    }

    fn dropped_segments(&self) -> u64 {
        0 // segments out of order wait instead
    }

    fn high_watermark(&self) -> u64 {
        self.half.stats().high_watermark
    }

    fn bytes_in_flight(&self) -> u64 {
        self.half.held() as u64
    }

    fn current_bytes(&self) -> u64 {
        self.half.held() as u64
    }

    fn retransmits(&self) -> u64 {
        self.half.stats().retransmits
    }

    fn rexmit_inconsistencies(&self) -> u64 {
        self.half.stats().inconsistencies
    }
}

impl<F> fmt::Debug for HalfReassembler<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HalfReassembler").field("half", &self.half).finish_non_exhaustive()
    }
}
