//! The classic format: a file header followed by packets.

use super::buffer::{Buffer, half, word};
use super::{Found, FoundPacket, meta};
use crate::error::{FileError, FileFault};
use crate::packet::{LinkType, Timestamp};
use crate::pcap::layout::{
    FileFormat, FileInterface, MAX_BLOCK, MICROSECONDS, MODIFIED, MODIFIED_HEADER, NANOSECONDS,
    RECORD_HEADER,
};

#[derive(Debug)]
pub(super) struct Classic {
    is_swapped: bool,
    has_nanos: bool,
    record_header: usize,
    /// The minor version, which determines the order of the length fields.
    minor: u16,
}

impl Classic {
    /// Reads the file header, or as much of it as there is.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, FileInterface), FileError> {
        let magic: [u8; 4] = std::array::from_fn(|at| bytes[at]);
        let known = |is_swapped| {
            let (has_nanos, record_header) = match word(bytes, 0, is_swapped) {
                MICROSECONDS => (false, RECORD_HEADER),
                NANOSECONDS => (true, RECORD_HEADER),
                MODIFIED => (false, MODIFIED_HEADER),
                _ => return None,
            };
            Some((is_swapped, has_nanos, record_header))
        };
        let Some((is_swapped, has_nanos, record_header)) = known(false).or_else(|| known(true))
        else {
            return Err(FileError::new(0, FileFault::NotACapture { magic }));
        };
        if bytes.len() < 24 {
            return Err(FileError::new(0, FileFault::CutShort));
        }
        let (major, minor) = (half(bytes, 4, is_swapped), half(bytes, 6, is_swapped));
        // 543.0 is that of DG/UX. libpcap refuses minor versions above 4, which differ in nothing; tshark reads them.
        if major != 2 && (major, minor) != (543, 0) {
            return Err(FileError::new(4, FileFault::Version { major, minor }));
        }
        // The upper bits hold the length of the frame check sequence, and flags.
        let mut interface = FileInterface::new(LinkType(word(bytes, 20, is_swapped) as u16));
        interface.snap_len = word(bytes, 16, is_swapped);
        Ok((Self { is_swapped, has_nanos, record_header, minor }, interface))
    }

    /// Returns whether the file is in this machine's byte order and in the standard layout.
    pub(super) fn is_plain(&self) -> bool {
        !self.is_swapped && self.record_header == RECORD_HEADER && self.minor == 4
    }

    /// Returns the length of the first packet in `bytes`, headers included, as far as it can be determined.
    pub(super) fn len_of(&self, bytes: &[u8]) -> Option<usize> {
        if bytes.len() < self.record_header {
            return None;
        }
        let lens = [8, 12].map(|at| word(bytes, at, self.is_swapped) as usize);
        Some(self.record_header + if self.minor == 4 { lens[0] } else { lens[0].max(lens[1]) })
    }

    pub(super) fn format(&self) -> FileFormat {
        if self.has_nanos { FileFormat::PcapNanos } else { FileFormat::PcapMicros }
    }

    pub(super) fn next(
        &mut self,
        buffer: &mut Buffer,
        interface: &FileInterface,
    ) -> Result<Option<Found>, FileError> {
        if !buffer.fill_or_end(self.record_header)? {
            return Ok(None);
        }
        let field = |at| buffer.word(at, self.is_swapped);
        let (secs, fraction, mut len, mut wire_len) = (field(0), field(4), field(8), field(12));
        // Before version 2.3, and in version 2.3 of some programs, the two lengths are in the opposite order.
        if self.minor < 3 || (self.minor == 3 && len > wire_len) {
            std::mem::swap(&mut len, &mut wire_len);
        }
        if len > MAX_BLOCK {
            return Err(buffer.fault(FileFault::TooLong { len }));
        }
        let data = self.record_header..self.record_header + len as usize;
        buffer.need(data.end)?;
        let nanos = u64::from(fraction) * if self.has_nanos { 1 } else { 1000 };
        // A fraction of more than one second carries over into the seconds.
        let timestamp = Timestamp {
            secs: secs.saturating_add((nanos / 1_000_000_000) as u32),
            nanos: (nanos % 1_000_000_000) as u32,
        };
        let bytes = &buffer.bytes()[data.clone()];
        let meta = meta(bytes, wire_len, timestamp, (0, interface.link_type), None);
        buffer.hold(data.end);
        let (interface, has_time, options) = (0, true, (0..0, false));
        Ok(Some(Found::Packet(FoundPacket { data, meta, interface, has_time, options })))
    }
}
