//! pcapng: blocks in sections, each section with its own interfaces.

use std::ops::Range;

use super::buffer::{Buffer, half, word};
use super::options::{Options, text};
use super::time::Unit;
use super::{Found, FoundPacket, is_swapped, meta};
use crate::error::{FileError, FileFault};
use crate::packet::{LinkType, Timestamp};
use crate::pcap::layout::{FileInterface, MAX_BLOCK, block, option};

/// Bytes of a block besides its body: its type, and its length twice.
const FRAME: usize = 12;
/// Offset of the body within a block.
const BODY: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Pcapng {
    is_swapped: bool,
    /// Index of this section's first interface among the interfaces of all sections.
    first: usize,
    /// The time unit of each interface.
    units: Vec<Unit>,
    /// Bytes of interface texts that are held in memory.
    text: usize,
}

/// A packet block of any type.
struct PacketBlock {
    interface: u32,
    count: Option<u64>,
    wire_len: u32,
    data: Range<usize>,
    options: usize,
}

/// Maximum number of interfaces held in memory.
const MAX_INTERFACES: usize = 1 << 16;
/// Maximum total bytes of interface texts: each interface might have three of 64 KiB.
const MAX_TEXT: usize = 16 << 20;

impl Pcapng {
    /// Returns the length of the first block in `bytes`, as far as it can be determined.
    pub(super) fn len_of(&self, bytes: &[u8]) -> Option<usize> {
        if bytes.len() < FRAME {
            return None;
        }
        let order = (word(bytes, 0, false) == block::SECTION).then(|| word(bytes, BODY, false));
        let is_swapped = order.map_or(Some(self.is_swapped), is_swapped)?;
        Some(word(bytes, 4, is_swapped) as usize)
    }

    pub(super) fn next(
        &mut self,
        buffer: &mut Buffer,
        interfaces: &mut Vec<FileInterface>,
    ) -> Result<Option<Found>, FileError> {
        if !buffer.fill_or_end(FRAME)? {
            return Ok(None);
        }
        let is_section = buffer.word(0, false) == block::SECTION;
        if is_section {
            let order = buffer.word(BODY, false);
            let magic = std::array::from_fn(|at| buffer.bytes()[BODY + at]);
            self.is_swapped =
                is_swapped(order).ok_or_else(|| buffer.fault(FileFault::NotACapture { magic }))?;
        }
        let (kind, len) = (buffer.word(0, self.is_swapped), buffer.word(4, self.is_swapped));
        if len > MAX_BLOCK {
            return Err(buffer.fault(FileFault::TooLong { len }));
        }
        let size = len as usize;
        if size < FRAME || !size.is_multiple_of(4) {
            return Err(buffer.fault(FileFault::BlockLength { kind, len }));
        }
        buffer.need(size)?;
        if buffer.word(size - 4, self.is_swapped) != len {
            return Err(buffer.fault(FileFault::BlockLength { kind, len }));
        }
        buffer.hold(size);
        let found = self.block(&buffer.bytes()[..size], kind, interfaces);
        found.map(Some).map_err(|fault| buffer.fault(fault))
    }

    fn block(
        &mut self,
        bytes: &[u8],
        kind: u32,
        interfaces: &mut Vec<FileInterface>,
    ) -> Result<Found, FileFault> {
        let body = BODY..bytes.len() - 4;
        let least = |len: usize| match body.len() >= len {
            true => Ok(()),
            false => Err(FileFault::BlockLength { kind, len: bytes.len() as u32 }),
        };
        match kind {
            block::SECTION => {
                least(16)?;
                self.section(bytes, body)?;
                self.first = interfaces.len();
                Ok(Found::Section)
            }
            block::INTERFACE => {
                least(8)?;
                if interfaces.len() >= MAX_INTERFACES {
                    return Err(FileFault::TooManyInterfaces);
                }
                interfaces.push(self.interface(bytes, body)?);
                Ok(Found::Interface(interfaces.len() - 1))
            }
            block::PACKET | block::OLD_PACKET => {
                least(20)?;
                self.packet(bytes, self.packet_block(bytes, kind)?, kind, interfaces)
            }
            block::SIMPLE_PACKET => {
                least(4)?;
                let packet = self.simple_packet(bytes, body, interfaces)?;
                self.packet(bytes, packet, kind, interfaces)
            }
            block::STATISTICS => {
                least(12)?;
                let number = self.number(word(bytes, BODY, self.is_swapped), interfaces)?;
                self.statistics(bytes, body.start + 12..body.end, &mut interfaces[number])?;
                Ok(Found::Statistics(number))
            }
            _ => Ok(Found::Other { kind, body }),
        }
    }

    fn section(&self, bytes: &[u8], body: Range<usize>) -> Result<(), FileFault> {
        let version = |at| half(bytes, body.start + at, self.is_swapped);
        let (major, minor) = (version(4), version(6));
        if major != 1 || !matches!(minor, 0 | 2) {
            return Err(FileFault::Version { major, minor });
        }
        self.each_option(bytes, body.start + 16..body.end, block::SECTION, |_, _| {})
    }

    fn interface(&mut self, bytes: &[u8], body: Range<usize>) -> Result<FileInterface, FileFault> {
        let mut interface = FileInterface::new(LinkType(half(bytes, body.start, self.is_swapped)));
        interface.snap_len = word(bytes, body.start + 4, self.is_swapped);
        let mut unit = Unit::default();
        let text = |value| Some(text(value).into_owned());
        let is_swapped = self.is_swapped;
        self.each_option(bytes, body.start + 8..body.end, block::INTERFACE, |code, value| {
            match (code, &bytes[value]) {
                (option::INTERFACE_NAME, value) => interface.name = text(value),
                (option::INTERFACE_DESCRIPTION, value) => interface.description = text(value),
                (option::INTERFACE_RESOLUTION, &[resolution, ..]) => {
                    unit.set_resolution(resolution);
                }
                (option::INTERFACE_OFFSET, value) if value.len() == 8 => {
                    unit.offset = double(value, is_swapped) as i64;
                }
                // The first byte tells whether the filter is text or a program.
                (option::INTERFACE_FILTER, [0, filter @ ..]) => interface.filter = text(filter),
                _ => {}
            }
        })?;
        let texts = [&interface.name, &interface.description, &interface.filter];
        self.text += texts.into_iter().flatten().map(String::len).sum::<usize>();
        if self.text > MAX_TEXT {
            return Err(FileFault::TooMuchText);
        }
        self.units.push(unit);
        Ok(interface)
    }

    fn packet_block(&self, bytes: &[u8], kind: u32) -> Result<PacketBlock, FileFault> {
        let field = |at| word(bytes, BODY + at, self.is_swapped);
        let interface = match kind {
            block::PACKET => field(0),
            // The other half of the word is a drop count.
            _ => half(bytes, BODY, self.is_swapped).into(),
        };
        let data = BODY + 20..(BODY + 20).saturating_add(field(12) as usize);
        if data.end > bytes.len() - 4 {
            return Err(FileFault::BlockLength { kind, len: bytes.len() as u32 });
        }
        let count = Some(u64::from(field(4)) << 32 | u64::from(field(8)));
        let options = data.end.next_multiple_of(4).min(bytes.len() - 4);
        Ok(PacketBlock { interface, count, wire_len: field(16), data, options })
    }

    /// Reads a simple packet, which has only its length on the wire and belongs to the section's first
    /// interface.
    fn simple_packet(
        &self,
        bytes: &[u8],
        body: Range<usize>,
        interfaces: &[FileInterface],
    ) -> Result<PacketBlock, FileFault> {
        let wire_len = word(bytes, BODY, self.is_swapped);
        let snap_len = interfaces[self.number(0, interfaces)?].snap_len;
        let most = if snap_len == 0 { u32::MAX } else { snap_len };
        let len = wire_len.min(most) as usize;
        let data = body.start + 4..(body.start + 4).saturating_add(len);
        if data.end > body.end {
            let len = bytes.len() as u32;
            return Err(FileFault::BlockLength { kind: block::SIMPLE_PACKET, len });
        }
        Ok(PacketBlock { interface: 0, count: None, wire_len, data, options: body.end })
    }

    fn packet(
        &self,
        bytes: &[u8],
        packet: PacketBlock,
        kind: u32,
        interfaces: &[FileInterface],
    ) -> Result<Found, FileFault> {
        let PacketBlock { interface, count, wire_len, data, options } = packet;
        let interface = self.number(interface, interfaces)?;
        let (mut flags, mut has_comment) = (0, false);
        self.each_option(bytes, options..bytes.len() - 4, kind, |code, value| match code {
            option::PACKET_FLAGS if value.len() == 4 => {
                flags = word(bytes, value.start, self.is_swapped);
            }
            option::COMMENT => has_comment = true,
            _ => {}
        })?;
        let timestamp =
            count.map_or_else(Timestamp::default, |count| self.units[interface].timestamp(count));
        let link = (interface, interfaces[interface].link_type);
        let meta = meta(&bytes[data.clone()], wire_len, timestamp, link, pkttype(flags));
        let has_time = count.is_some();
        let options = if has_comment { options..bytes.len() - 4 } else { 0..0 };
        let options = (options, self.is_swapped);
        Ok(Found::Packet(FoundPacket { data, meta, interface, has_time, options }))
    }

    fn statistics(
        &self,
        bytes: &[u8],
        options: Range<usize>,
        interface: &mut FileInterface,
    ) -> Result<(), FileFault> {
        let statistics = &mut interface.statistics;
        self.each_option(bytes, options, block::STATISTICS, |code, value| {
            let of = match code {
                option::STATISTICS_RECEIVED => &mut statistics.received,
                option::STATISTICS_DROPPED => &mut statistics.dropped,
                option::STATISTICS_FILTERED => &mut statistics.accepted,
                option::STATISTICS_DROPPED_BY_SYSTEM => &mut statistics.dropped_by_system,
                _ => return,
            };
            if value.len() == 8 {
                *of = Some(double(&bytes[value], self.is_swapped));
            }
        })
    }

    /// Converts an interface id of this section into an index among all interfaces.
    fn number(&self, id: u32, interfaces: &[FileInterface]) -> Result<usize, FileFault> {
        let number = self.first.saturating_add(id as usize);
        if number < interfaces.len() { Ok(number) } else { Err(FileFault::NoInterface { id }) }
    }

    fn each_option(
        &self,
        bytes: &[u8],
        range: Range<usize>,
        kind: u32,
        mut each: impl FnMut(u16, Range<usize>),
    ) -> Result<(), FileFault> {
        let is_swapped = self.is_swapped;
        let start = range.start;
        let mut options = Options::new(&bytes[range], is_swapped);
        while let Some((code, value)) =
            options.next().map_err(|code| FileFault::Option { kind, code })?
        {
            each(code, value.start + start..value.end + start);
        }
        Ok(())
    }
}

fn double(bytes: &[u8], is_swapped: bool) -> u64 {
    let double = u64::from_ne_bytes(std::array::from_fn(|at| bytes[at]));
    if is_swapped { double.swap_bytes() } else { double }
}

/// Returns the kernel's value for the direction of a packet, from its flags.
fn pkttype(flags: u32) -> Option<u8> {
    match (flags & 3, flags >> 2 & 7) {
        (2, _) => Some(libc::PACKET_OUTGOING),
        (_, 2) => Some(libc::PACKET_MULTICAST),
        (_, 3) => Some(libc::PACKET_BROADCAST),
        (_, 4) => Some(libc::PACKET_OTHERHOST),
        (1, _) | (_, 1) => Some(libc::PACKET_HOST),
        _ => None,
    }
}
