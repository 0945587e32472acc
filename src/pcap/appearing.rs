//! Interfaces of a capture file that are described when their first packet is written.

use super::layout::FileInterface;
use crate::interface::InterfaceNames;
use crate::packet::{LinkType, Packet};

/// The interfaces described so far, by index and link type; they are few, and packets come in runs.
#[derive(Debug)]
pub(super) struct Appearing {
    names: InterfaceNames,
    known: Vec<((u32, LinkType), u32)>,
    last: usize,
}

impl Appearing {
    pub(super) fn new(names: InterfaceNames) -> Self {
        Self { names, known: Vec::new(), last: 0 }
    }

    fn of(packet: &Packet<'_>) -> (u32, LinkType) {
        // Nothing says what the bytes are: as everywhere, they are Ethernet then.
        let link = match packet.has_ethernet_header() {
            true => LinkType::ETHERNET,
            false => packet.link_type().unwrap_or(LinkType::UNKNOWN),
        };
        (packet.interface_index().unwrap_or(0), link)
    }

    /// Returns the number of the packet's interface in the file, if it was described.
    #[inline]
    pub(super) fn number(&mut self, packet: &Packet<'_>) -> Option<u32> {
        let of = Self::of(packet);
        let is_last = self.known.get(self.last).is_some_and(|(known, _)| *known == of);
        if !is_last {
            self.last = self.known.iter().position(|(known, _)| *known == of)?;
        }
        Some(self.known[self.last].1)
    }

    /// Returns the description of the packet's interface.
    pub(super) fn describe(&mut self, packet: &Packet<'_>) -> FileInterface {
        let (index, link) = Self::of(packet);
        FileInterface { name: Some(self.names.of(index).to_owned()), ..FileInterface::new(link) }
    }

    /// Notes that the packet's interface was described with this number.
    pub(super) fn add(&mut self, packet: &Packet<'_>, number: u32) {
        self.known.push((Self::of(packet), number));
    }
}
