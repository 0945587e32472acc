//! Requests of a frame to be sent, in the bytes before it (`struct xsk_tx_metadata`, linux/if_xdp.h).

use std::collections::VecDeque;

use crate::packet::{Timestamp, TxTimestamp};

/// Bytes of metadata before a frame: flags, then two fields of eight bytes that hold the request, and later the
/// answer.
pub(super) const LEN: usize = 24;
/// The position of the timestamp.
const STAMP: std::ops::Range<usize> = 8..16;

/// The requests that frames of a UMEM may make.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asks {
    /// Whether frames may request a checksum.
    pub(super) checksums: bool,
    /// Whether frames request a timestamp.
    pub(super) timestamps: bool,
}

impl Asks {
    /// Returns the bytes of each frame that this uses.
    pub(super) fn len(self) -> u32 {
        if self.checksums || self.timestamps { LEN as u32 } else { 0 }
    }
}

/// The frames of a sender that requested a timestamp, and the timestamps that have not been read.
#[derive(Debug)]
pub(super) struct Stamps {
    /// Number of the first chunk; `asked` has one entry per chunk.
    first: u32,
    asked: Box<[Option<Asked>]>,
    next: u32,
    unread: VecDeque<TxTimestamp>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    frame: u32,
    /// The bytes at the timestamp's position before sending: if they are unchanged, there is no timestamp.
    before: [u8; 8],
}

impl Stamps {
    pub(super) fn new(own: &std::ops::Range<u32>) -> Self {
        let (asked, unread) = (vec![None; own.len()].into(), VecDeque::with_capacity(own.len()));
        Self { first: own.start, asked, next: 0, unread }
    }

    /// Counts a frame that cannot request a timestamp.
    pub(super) fn pass(&mut self) {
        self.next = self.next.wrapping_add(1);
    }

    fn ask(&mut self, chunk: u32, metadata: &[u8]) {
        let before = metadata[STAMP].try_into().expect("eight bytes");
        let asked = Asked { frame: self.next, before };
        self.asked[(chunk - self.first) as usize] = Some(asked);
        self.pass();
    }

    /// Reads the timestamp of a chunk that has come back, if it requested one. If timestamps are not read, the
    /// oldest are dropped.
    pub(super) fn collect(&mut self, chunk: u32, metadata: &[u8]) {
        let asked = self.asked.get_mut(chunk.wrapping_sub(self.first) as usize);
        let Some(Asked { frame, before }) = asked.and_then(Option::take) else { return };
        let stamp: [u8; 8] = metadata[STAMP].try_into().expect("eight bytes");
        if stamp == before || stamp == [0; 8] {
            return; // the driver has no clock, or did not ask it
        }
        if self.unread.len() == self.asked.len() {
            self.unread.pop_front();
        }
        let timestamp = Timestamp::from_nanos(u64::from_ne_bytes(stamp));
        self.unread.push_back(TxTimestamp { frame, timestamp });
    }

    pub(super) fn read(&mut self) -> Option<TxTimestamp> {
        self.unread.pop_front()
    }
}

/// Writes the requests of a frame before it, and returns the options of its descriptor.
pub(super) fn write(
    metadata: &mut [u8],
    checksum: Option<Checksum>,
    stamps: Option<(&mut Stamps, u32)>,
) -> u32 {
    let mut flags = 0;
    metadata[STAMP].fill(0);
    if let Some(Checksum { start, offset }) = checksum {
        flags |= libc::XDP_TXMD_FLAGS_CHECKSUM;
        metadata[8..10].copy_from_slice(&start.to_ne_bytes());
        metadata[10..12].copy_from_slice(&offset.to_ne_bytes());
    }
    if let Some((stamps, chunk)) = stamps {
        flags |= libc::XDP_TXMD_FLAGS_TIMESTAMP;
        stamps.ask(chunk, metadata);
    }
    metadata[..8].copy_from_slice(&u64::from(flags).to_ne_bytes());
    if flags == 0 { 0 } else { libc::XDP_TX_METADATA }
}

/// A checksum that is left to the kernel or the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checksum {
    pub(super) start: u16,
    pub(super) offset: u16,
}

impl Checksum {
    /// Creates a checksum for the setter of the async slot.
    pub(crate) fn new(start: u16, offset: u16) -> Self {
        Self { start, offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_told_by_frame_and_the_oldest_go_where_nobody_reads() {
        let mut stamps = Stamps::new(&(4..6));
        let mut metadata = [0xff; LEN];
        for round in 0..3_u32 {
            for chunk in [4, 5] {
                let options = write(&mut metadata, None, Some((&mut stamps, chunk)));
                assert_eq!(options, libc::XDP_TX_METADATA);
                metadata[STAMP].copy_from_slice(&u64::from(round * 2 + chunk).to_ne_bytes());
                stamps.collect(chunk, &metadata);
            }
        }
        let read = |stamp: TxTimestamp| (stamp.frame, stamp.timestamp.as_nanos());
        assert_eq!(stamps.read().map(read), Some((4, 8)));
        assert_eq!(stamps.read().map(read), Some((5, 9)));
        assert_eq!(stamps.read(), None);
    }

    #[test]
    fn what_was_not_stamped_or_not_asked_for_is_not_told() {
        let mut stamps = Stamps::new(&(0..2));
        let mut metadata = [0; LEN];
        let checksum = Some(Checksum::new(34, 6));
        write(&mut metadata, checksum, Some((&mut stamps, 0)));
        let both = libc::XDP_TXMD_FLAGS_CHECKSUM | libc::XDP_TXMD_FLAGS_TIMESTAMP;
        assert_eq!(metadata[..8], u64::from(both).to_ne_bytes());
        stamps.collect(0, &metadata);
        write(&mut metadata, checksum, Some((&mut stamps, 0)));
        stamps.collect(0, &[0; LEN]);
        stamps.collect(1, &[1; LEN]);
        stamps.collect(7, &[1; LEN]);
        assert_eq!(stamps.read(), None);
        assert_eq!(write(&mut metadata, None, None), 0, "nothing is asked for");
    }
}
