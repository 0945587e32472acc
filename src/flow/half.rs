//! One direction of a TCP connection: takes segments and returns bytes in order.

mod piece;
mod reassembler;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

pub use self::piece::{HalfStats, Overlap, Piece, Segment};
pub use self::reassembler::HalfReassembler;

/// Memory used per buffered segment beyond its bytes: a node of the map and an allocation.
const OVERHEAD: usize = 64;

/// One direction of a TCP connection.
///
/// In-order bytes are passed on at once without a copy. Out-of-order bytes wait, sorted, up to the limit of
/// [`with_cap`](Self::with_cap). Missing bytes are given up as a [`Piece::Gap`] if the other side has
/// acknowledged them ([`acked`](Self::acked)), if too many bytes wait for them, or at the end
/// ([`flush`](Self::flush)). The cost per segment is logarithmic in the number of waiting segments, and
/// constant if none wait. Sequence numbers may wrap.
pub struct HalfStream {
    /// Position of the next byte, counted from the first. Its lower half plus `base` is the sequence number.
    next: u64,
    /// Sequence number of position 0; `None` if no segment was seen yet.
    base: Option<u32>,
    /// Waiting bytes by position.
    waiting: BTreeMap<u64, Vec<u8>>,
    held: usize,
    cap: usize,
    overlap: Overlap,
    fin: Option<u64>,
    has_ended: bool,
    /// First sequence number of a possible new connection on the same ports.
    other: Option<u32>,
    /// Consecutive segments too far ahead to be trusted immediately.
    far: Option<Far>,
    stats: HalfStats,
}

/// Consecutive segments, far ahead of the next expected byte.
#[derive(Debug, Clone, Copy)]
struct Far {
    first: u32,
    next: u32,
    count: u32,
}

/// Segments further ahead than this are not trusted at once: a single forged segment would otherwise cause
/// everything before it to be given up.
const FAR: i64 = 64 << 20;
/// Number of consecutive segments after which they are trusted: the first value applies if the other side
/// acknowledges them, the second if the other side is not seen.
const CREDIBLE: u32 = 3;
const CREDIBLE_ALONE: u32 = 32;

/// Makes overlapping bytes equal according to `overlap`, and returns whether they differed.
fn settle(overlap: Overlap, old: &mut [u8], new: &[u8]) -> bool {
    let differ = old != new;
    if differ && overlap == Overlap::Last {
        old.copy_from_slice(new);
    }
    differ
}

impl HalfStream {
    /// Creates an empty stream in which at most 1 MiB waits.
    pub fn new() -> Self {
        Self {
            next: 0,
            base: None,
            waiting: BTreeMap::new(),
            held: 0,
            cap: 1 << 20,
            overlap: Overlap::First,
            fin: None,
            has_ended: false,
            other: None,
            far: None,
            stats: HalfStats::default(),
        }
    }

    /// Sets how many bytes may wait, including an overhead of 64 bytes per segment.
    #[must_use]
    pub fn with_cap(mut self, cap: usize) -> Self {
        self.cap = cap;
        self
    }

    /// Sets which bytes are kept if segments overlap.
    #[must_use]
    pub fn with_overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }

    /// Returns the segment counters so far.
    pub fn stats(&self) -> HalfStats {
        self.stats
    }

    /// Returns the number of waiting bytes, including overhead.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Processes a segment. Everything that can be passed on is given to `out`, in order.
    pub fn segment(&mut self, segment: Segment<'_>, out: &mut impl FnMut(Piece<'_>)) {
        let first = segment.seq.wrapping_add(u32::from(segment.syn));
        let base = *self.base.get_or_insert(first);
        if segment.syn && base != first {
            match self.next == 0 && self.waiting.is_empty() {
                true => self.base = Some(first),
                // Another connection on the same ports, or a forgery; the following segments will show which.
                false => self.other = Some(first),
            }
        } else if self.other == Some(first) && segment.len > 0 {
            self.flush_waiting(out);
            (self.base, self.next, self.other) = (Some(first), 0, None);
            (self.fin, self.has_ended, self.far) = (None, false, None);
        }
        let Some(mut at) = self.place(first) else { return };
        if at > self.next as i64 + FAR {
            if !self.is_credible(first, segment.len) {
                return;
            }
            self.go_to(first, out);
            let Some(place) = self.place(first) else { return };
            at = place;
        }
        let end = at.saturating_add_unsigned(segment.len as u64);
        if segment.fin && end >= self.next as i64 {
            // A forged FIN further ahead must not replace the real one.
            self.fin = Some(self.fin.map_or(end as u64, |fin| fin.min(end as u64)));
        }
        if segment.len > 0 {
            self.stats.segments += 1;
            self.take(at, segment.len, segment.payload, out);
        }
        self.end(out);
    }

    /// Processes an acknowledgement of the other side. If it covers waiting bytes, the bytes missing before
    /// them were received there and lost only in the capture, so they are given up.
    pub fn acked(&mut self, ack: u32, out: &mut impl FnMut(Piece<'_>)) {
        if let Some(far) = self.far {
            let is_far = self.place(far.first).is_some_and(|at| at > self.next as i64 + FAR);
            let acked = ack.wrapping_sub(far.first);
            if !is_far {
                self.far = None;
            } else if far.count >= CREDIBLE
                && (1..=far.next.wrapping_sub(far.first)).contains(&acked)
            {
                // The bytes of these segments were not kept; the stream continues with the next one.
                self.go_to(far.next, out);
            }
        }
        while let Some((&first, _)) = self.waiting.first_key_value() {
            let Some(acked) = self.place(ack) else { return };
            if acked <= first as i64 {
                return;
            }
            self.skip(first, out);
        }
        // A FIN occupies the sequence number after the last byte.
        if let Some(fin) = self.fin
            && self.waiting.is_empty()
            && self.next < fin
            && self.place(ack).is_some_and(|acked| acked == fin as i64 + 1)
        {
            self.skip(fin, out);
        }
    }

    /// Returns whether a segment far ahead follows enough consecutive ones to be trusted.
    fn is_credible(&mut self, seq: u32, len: usize) -> bool {
        if len == 0 {
            return false;
        }
        let next = seq.wrapping_add(len as u32);
        let far = match self.far {
            Some(far) if far.next == seq => Far { next, count: far.count + 1, ..far },
            // A retransmission of one of them.
            Some(far) if next.wrapping_sub(far.first) <= far.next.wrapping_sub(far.first) => far,
            _ => Far { first: seq, next, count: 1 },
        };
        self.far = Some(far);
        far.count >= CREDIBLE_ALONE
    }

    /// Gives up everything before a sequence number, however far ahead it is.
    fn go_to(&mut self, seq: u32, out: &mut impl FnMut(Piece<'_>)) {
        self.flush_waiting(out);
        self.far = None;
        if let Some(place) = self.place(seq)
            && place > self.next as i64
        {
            self.skip(place as u64, out);
        }
    }

    /// Gives up the bytes missing before the first waiting segment. Returns false if no segment waits.
    pub fn skip_gap(&mut self, out: &mut impl FnMut(Piece<'_>)) -> bool {
        let Some((&first, _)) = self.waiting.first_key_value() else { return false };
        self.skip(first, out);
        true
    }

    /// Passes on all waiting bytes, with gaps for missing ones. Call this when no more segments will come.
    pub fn flush(&mut self, out: &mut impl FnMut(Piece<'_>)) {
        self.flush_waiting(out);
        if let Some(fin) = self.fin.filter(|fin| *fin > self.next) {
            self.skip(fin, out);
        }
    }

    /// Passes on all waiting bytes, with gaps for missing ones, while more segments may come.
    pub(super) fn flush_waiting(&mut self, out: &mut impl FnMut(Piece<'_>)) {
        while self.skip_gap(out) {}
    }

    /// Returns the position of a sequence number, counted from the first byte. It must be within 2 GiB of the
    /// next expected byte.
    fn place(&self, seq: u32) -> Option<i64> {
        let next = self.base?.wrapping_add(self.next as u32);
        Some(self.next as i64 + i64::from(seq.wrapping_sub(next) as i32))
    }

    fn take(&mut self, at: i64, len: usize, payload: &[u8], out: &mut impl FnMut(Piece<'_>)) {
        let next = self.next as i64;
        let end = at + len as i64;
        if end <= next {
            self.stats.retransmits += 1;
            return;
        }
        let known = (next - at).clamp(0, len as i64) as usize;
        let at = at.max(next) as u64;
        let end = end as u64;
        let cut = len - payload.len().min(len);
        let bytes = payload.get(known..len.min(payload.len())).unwrap_or_default();
        let is_next = at == self.next;
        self.stats.out_of_order += u64::from(!is_next);
        let is_clear = self.waiting.first_key_value().is_none_or(|(&first, _)| end <= first);
        if is_next && is_clear {
            self.pass(Piece::Fresh { at: known, bytes }, out);
            if cut > 0 {
                self.give_up(end, out);
            }
        } else {
            self.keep(at, bytes);
            if cut > 0 && is_next {
                self.drain(out);
                self.give_up(self.waiting.first_key_value().map_or(end, |(&f, _)| end.min(f)), out);
            }
        }
        self.drain(out);
        while self.held > self.cap && self.skip_gap(out) {}
    }

    /// Keeps out-of-order bytes. Waiting segments inside them are merged into them, so that no byte is examined
    /// twice.
    fn keep(&mut self, at: u64, bytes: &[u8]) {
        let end = at + bytes.len() as u64;
        let (mut low, mut high) = (at, end);
        if let Some((&start, kept)) = self.waiting.range_mut(..at).next_back()
            && start + kept.len() as u64 > at
        {
            low = end.min(start + kept.len() as u64);
            let old = &mut kept[(at - start) as usize..(low - start) as usize];
            let new = &bytes[..(low - at) as usize];
            self.stats.inconsistencies += u64::from(settle(self.overlap, old, new));
        }
        let mut merged = bytes.to_vec();
        let mut known = low - at;
        while let Some((&start, kept)) = self.waiting.range_mut(low..high).next_back() {
            let until = end.min(start + kept.len() as u64);
            let new = &mut merged[(start - at) as usize..(until - at) as usize];
            let old = &mut kept[..(until - start) as usize];
            self.stats.inconsistencies += u64::from(settle(self.overlap, old, new));
            known += until - start;
            new.copy_from_slice(old);
            if start + kept.len() as u64 > end {
                high = start; // the kept segment extends past the new one
                continue;
            }
            self.held -= kept.len() + OVERHEAD;
            self.waiting.remove(&start);
        }
        self.stats.retransmits += u64::from(known == bytes.len() as u64);
        if (low, high) != (at, end) {
            merged = merged[(low - at) as usize..(high - at) as usize].to_vec();
        }
        self.insert(low, merged);
    }

    fn insert(&mut self, at: u64, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        self.held += bytes.len() + OVERHEAD;
        self.stats.high_watermark = self.stats.high_watermark.max(self.held as u64);
        self.waiting.insert(at, bytes);
    }

    /// Passes on waiting bytes that are now in order.
    fn drain(&mut self, out: &mut impl FnMut(Piece<'_>)) {
        while let Some(entry) = self.waiting.first_entry()
            && *entry.key() <= self.next
        {
            let bytes = entry.remove();
            self.held -= bytes.len() + OVERHEAD;
            self.pass(Piece::Kept(bytes), out);
        }
    }

    fn skip(&mut self, to: u64, out: &mut impl FnMut(Piece<'_>)) {
        self.give_up(to, out);
        self.drain(out);
        self.end(out);
    }

    fn give_up(&mut self, to: u64, out: &mut impl FnMut(Piece<'_>)) {
        if to > self.next {
            let bytes = to - self.next;
            self.stats.gaps += 1;
            self.stats.gap_bytes += bytes;
            self.next = to;
            out(Piece::Gap(bytes));
        }
    }

    fn pass(&mut self, piece: Piece<'_>, out: &mut impl FnMut(Piece<'_>)) {
        let len = match &piece {
            Piece::Fresh { bytes, .. } => bytes.len() as u64,
            Piece::Kept(bytes) => bytes.len() as u64,
            Piece::Gap(_) | Piece::Fin => 0,
        };
        if len > 0 {
            self.next += len;
            self.stats.bytes += len;
            out(piece);
        }
    }

    fn end(&mut self, out: &mut impl FnMut(Piece<'_>)) {
        if !self.has_ended && self.fin.is_some_and(|fin| self.next >= fin) {
            self.has_ended = true;
            out(Piece::Fin);
        }
    }
}

impl Default for HalfStream {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for HalfStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HalfStream")
            .field("next", &self.next)
            .field("waiting", &self.waiting.len())
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}
