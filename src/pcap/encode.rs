//! Encoding of headers and blocks in the machine's byte order.

use std::io::Write;

use super::layout::{
    BYTE_ORDER, FileFormat, FileInterface, InterfaceStatistics, MICROSECONDS, NANOSECONDS, block,
    option,
};
use crate::packet::{Packet, SLL2_HEADER_LEN, Timestamp, VlanTag};

/// Additional data to write with a packet; in pcapng only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PacketNote<'a> {
    /// Number of the packet's interface in the file, counted from 0. Default: the interface that the packet was seen on,
    /// in a file that describes each ([`each_interface`](super::CaptureWriterBuilder::each_interface)), otherwise 0.
    pub interface: Option<u32>,
    /// A comment.
    pub comment: Option<&'a str>,
    /// A hash: the number of its algorithm and its bytes (`epb_hash`: 2 is CRC32, 3 MD5, 4 SHA-1).
    pub hash: Option<(u8, &'a [u8])>,
}

/// Maximum length of an option.
const MAX_OPTION: usize = u16::MAX as usize;
/// Length of the addresses of an Ethernet frame, which precede a tag.
const ADDRESSES: usize = 12;

/// Writes the header of a pcap file.
pub(super) fn file_header(out: &mut Vec<u8>, format: FileFormat, interface: &FileInterface) {
    let magic = if format == FileFormat::PcapMicros { MICROSECONDS } else { NANOSECONDS };
    out.extend(magic.to_ne_bytes());
    out.extend([2_u16, 4].map(u16::to_ne_bytes).as_flattened());
    words(out, &[0, 0, interface.kept_len(), interface.link_type.0.into()]);
}

/// Descriptive texts of a section.
#[derive(Debug, Clone, Default)]
pub(super) struct About {
    pub(super) hardware: Option<String>,
    pub(super) system: Option<String>,
    pub(super) application: Option<String>,
    pub(super) comment: Option<String>,
}

/// Writes a section header.
pub(super) fn section(out: &mut Vec<u8>, about: &About) {
    framed(out, block::SECTION, |out| {
        words(out, &[BYTE_ORDER]);
        out.extend([1_u16, 0].map(u16::to_ne_bytes).as_flattened());
        out.extend(u64::MAX.to_ne_bytes()); // the length is not known yet
        let texts = [
            (option::COMMENT, &about.comment),
            (option::SECTION_HARDWARE, &about.hardware),
            (option::SECTION_SYSTEM, &about.system),
            (option::SECTION_APPLICATION, &about.application),
        ];
        for (code, text) in texts {
            if let Some(text) = text {
                put_text(out, code, text);
            }
        }
        put(out, option::END, &[]);
    });
}

/// Writes the description of an interface.
pub(super) fn interface(out: &mut Vec<u8>, interface: &FileInterface) {
    framed(out, block::INTERFACE, |out| {
        out.extend([interface.link_type.0, 0].map(u16::to_ne_bytes).as_flattened());
        words(out, &[interface.kept_len()]);
        let texts = [
            (option::INTERFACE_NAME, &interface.name),
            (option::INTERFACE_DESCRIPTION, &interface.description),
        ];
        for (code, text) in texts {
            if let Some(text) = text {
                put_text(out, code, text);
            }
        }
        put(out, option::INTERFACE_RESOLUTION, &[9]);
        if let Some(filter) = &interface.filter {
            put(out, option::INTERFACE_FILTER, &[&[0], filter.as_bytes()].concat());
        }
        put(out, option::END, &[]);
    });
}

/// Writes the statistics of an interface so far.
pub(super) fn statistics(
    out: &mut Vec<u8>,
    interface: u32,
    now: Timestamp,
    statistics: &InterfaceStatistics,
) {
    framed(out, block::STATISTICS, |out| {
        let [high, low] = halves(now.as_nanos());
        words(out, &[interface, high, low]);
        let counts = [
            (option::STATISTICS_RECEIVED, statistics.received),
            (option::STATISTICS_DROPPED, statistics.dropped),
            (option::STATISTICS_FILTERED, statistics.accepted),
            (option::STATISTICS_DROPPED_BY_SYSTEM, statistics.dropped_by_system),
        ];
        for (code, count) in counts {
            if let Some(count) = count {
                put(out, code, &count.to_ne_bytes());
            }
        }
        put(out, option::END, &[]);
    });
}

/// Writes a block of any type with the given body.
pub(super) fn raw(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    framed(out, kind, |out| {
        out.extend_from_slice(body);
        pad(out, body.len());
    });
}

/// The bytes of a packet as they were on the wire, limited to a length, with a stripped tag put back.
pub(super) struct Bytes<'a> {
    head: &'a [u8],
    /// Bytes that the packet does not contain: a tag that was stripped from it, behind a new header if it is cooked.
    made: [u8; SLL2_HEADER_LEN + VlanTag::LEN],
    /// The length of `made`.
    made_len: usize,
    tail: &'a [u8],
    pub(super) wire_len: u32,
}

impl<'a> Bytes<'a> {
    #[inline]
    pub(super) fn of(packet: &Packet<'a>, most: usize) -> Self {
        let (data, wire_len) = (packet.data(), packet.original_len() as u32);
        match packet.stripped_vlan() {
            Some(tag) => Self::tagged(packet, tag, most),
            None => Self {
                head: &data[..data.len().min(most)],
                made: [0; SLL2_HEADER_LEN + VlanTag::LEN],
                made_len: 0,
                tail: &[],
                wire_len,
            },
        }
    }

    fn tagged(packet: &Packet<'a>, tag: VlanTag, most: usize) -> Self {
        let (data, mut made) = (packet.data(), [0; SLL2_HEADER_LEN + VlanTag::LEN]);
        // The tag was on the wire and counts in its length, also if the packet was cut before it.
        let wire_len = (packet.original_len() as u32).saturating_add(VlanTag::LEN as u32);
        let (head, made_len, tail) = match data.split_first_chunk::<SLL2_HEADER_LEN>() {
            Some((header, tail)) if packet.is_cooked() => {
                made[..SLL2_HEADER_LEN].copy_from_slice(header);
                made[..2].copy_from_slice(&tag.tpid.to_be_bytes());
                made[SLL2_HEADER_LEN..][..2].copy_from_slice(&tag.tci.to_be_bytes());
                made[SLL2_HEADER_LEN + 2..].copy_from_slice(&header[..2]);
                (&data[..0], made.len(), tail)
            }
            // A frame cut within its addresses has no place for the tag.
            _ if data.len() < ADDRESSES => (data, 0, &data[..0]),
            _ => {
                made[..VlanTag::LEN].copy_from_slice(&tag.to_bytes());
                (&data[..ADDRESSES], VlanTag::LEN, &data[ADDRESSES..])
            }
        };
        let head = &head[..head.len().min(most)];
        let made_len = made_len.min(most - head.len());
        let tail = &tail[..tail.len().min(most - head.len() - made_len)];
        Self { head, made, made_len, tail, wire_len }
    }

    #[inline]
    fn len(&self) -> usize {
        self.head.len() + self.made_len + self.tail.len()
    }

    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.head);
        out.extend_from_slice(&self.made[..self.made_len]);
        out.extend_from_slice(self.tail);
    }
}

/// Writes a packet of a pcap file.
#[inline]
pub(super) fn record(out: &mut Vec<u8>, format: FileFormat, time: Timestamp, bytes: &Bytes<'_>) {
    let fraction = if format == FileFormat::PcapMicros { time.nanos / 1000 } else { time.nanos };
    words(out, &[time.secs, fraction, bytes.len() as u32, bytes.wire_len]);
    bytes.put(out);
}

/// Writes a packet of a pcapng file.
#[inline]
pub(super) fn packet(
    out: &mut Vec<u8>,
    packet: &Packet<'_>,
    bytes: &Bytes<'_>,
    (interface, note): (u32, &PacketNote<'_>),
    has_direction: bool,
) {
    framed(out, block::PACKET, |out| {
        let [high, low] = halves(packet.timestamp().as_nanos());
        words(out, &[interface, high, low, bytes.len() as u32, bytes.wire_len]);
        bytes.put(out);
        pad(out, bytes.len());
        let flags = if has_direction { packet.pcapng_flags() } else { 0 };
        if flags == 0 && note.comment.is_none() && note.hash.is_none() {
            return;
        }
        if let Some(comment) = note.comment {
            put_text(out, option::COMMENT, comment);
        }
        if flags != 0 {
            put(out, option::PACKET_FLAGS, &flags.to_ne_bytes());
        }
        if let Some((algorithm, hash)) = note.hash {
            put(out, option::PACKET_HASH, &[&[algorithm], hash].concat());
        }
        put(out, option::END, &[]);
    });
}

/// Writes a block: its type, its length, the output of `body`, and its length again.
#[inline]
fn framed(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    words(out, &[kind, 0]);
    body(out);
    let len = (out.len() - start + 4) as u32;
    out[start + 4..start + 8].copy_from_slice(&len.to_ne_bytes());
    words(out, &[len]);
}

/// Writes a text option, truncated to the maximum length of an option.
fn put_text(out: &mut Vec<u8>, code: u16, text: &str) {
    let most = (0..=text.len().min(MAX_OPTION)).rev().find(|end| text.is_char_boundary(*end));
    put(out, code, &text.as_bytes()[..most.unwrap_or(0)]);
}

/// Writes an option, truncated to the maximum length of an option.
fn put(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(MAX_OPTION)];
    out.extend([code, value.len() as u16].map(u16::to_ne_bytes).as_flattened());
    out.extend_from_slice(value);
    pad(out, value.len());
}

/// Pads `len` bytes to a multiple of four.
#[inline]
fn pad(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&[0; 3][..len.next_multiple_of(4) - len]);
}

#[inline]
fn words(out: &mut Vec<u8>, words: &[u32]) {
    for word in words {
        out.extend_from_slice(&word.to_ne_bytes());
    }
}

fn halves(double: u64) -> [u32; 2] {
    [(double >> 32) as u32, double as u32]
}

/// Writes as much as `to` accepts; the rest stays in the buffer. The next call continues where this one
/// stopped.
pub(super) fn drain(buffer: &mut Vec<u8>, to: &mut impl Write) -> std::io::Result<()> {
    let mut written = 0;
    let outcome = loop {
        if written == buffer.len() {
            break Ok(());
        }
        match to.write(&buffer[written..]) {
            Ok(0) => break Err(std::io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    buffer.drain(..written);
    outcome
}
