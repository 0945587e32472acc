//! A long part of a file in pieces: a group each, so that no more has to be read for a packet.

use super::Group;
use super::collector::{Collector, GROUP};

/// A piece of a part, which begins with the part or with a packet's block.
#[derive(Debug)]
pub(crate) struct Piece(Group);

impl Piece {
    /// Begins the first piece of a part.
    pub(crate) fn at(offset: u64) -> Self {
        Self(Group { offset, span: 0, packets: 0, times: (u64::MAX, 0) })
    }

    /// Comes to a packet whose block begins at `at`; it is seen by the collector next.
    #[inline]
    pub(crate) fn reach(
        &mut self,
        at: u64,
        nanos: u64,
        collector: &mut Collector,
        out: &mut Vec<u8>,
    ) {
        if at.saturating_sub(self.0.offset) >= GROUP {
            self.cut(at, collector, out);
        }
        let (earliest, latest) = self.0.times;
        self.0.times = (earliest.min(nanos), latest.max(nanos));
        self.0.packets += 1;
    }

    /// Ends a piece where the next one begins.
    #[cold]
    fn cut(&mut self, at: u64, collector: &mut Collector, out: &mut Vec<u8>) {
        let Self(piece) = std::mem::replace(self, Self::at(at));
        collector.note(Group { span: at - piece.offset, ..piece }, out);
    }

    /// Ends the last piece of a part, which has been found to be this. Of one that is shorter than its packets were, or must be
    /// read in any case, there is no entry.
    pub(crate) fn end(mut self, part: Option<Group>, collector: &mut Collector, out: &mut Vec<u8>) {
        match part.map(|part| part.end()).filter(|end| *end > self.0.offset) {
            Some(end) => self.cut(end, collector, out),
            None => {
                out.clear();
                collector.forget_group();
            }
        }
    }
}
