//! Constants and types of the file formats (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng).

use crate::interface::InterfaceCounters;
use crate::packet::LinkType;
use crate::stats::CaptureStats;

/// The longest packet or block that is read; anything longer is treated as damage.
pub(super) const MAX_BLOCK: u32 = 16 << 20;

/// Maximum number of bytes per packet that other readers accept (`MAXIMUM_SNAPLEN` of libpcap).
pub const MAX_SNAP_LEN: u32 = 262_144;

/// The first word of a pcap file, in the byte order of its writer.
pub(super) const MICROSECONDS: u32 = 0xa1b2_c3d4;
pub(super) const NANOSECONDS: u32 = 0xa1b2_3c4d;
/// Like [`MICROSECONDS`], with 8 more bytes in each packet's header; written by some Linux distributions of the
/// nineties.
pub(super) const MODIFIED: u32 = 0xa1b2_cd34;
pub(super) const FILE_HEADER: usize = 24;
pub(super) const RECORD_HEADER: usize = 16;
pub(super) const MODIFIED_HEADER: usize = 24;

/// The byte-order magic of a section header, in the byte order of its writer.
pub(super) const BYTE_ORDER: u32 = 0x1a2b_3c4d;

/// Block types.
pub(super) mod block {
    pub(in crate::pcap) const INTERFACE: u32 = 1;
    pub(in crate::pcap) const OLD_PACKET: u32 = 2;
    pub(in crate::pcap) const SIMPLE_PACKET: u32 = 3;
    pub(in crate::pcap) const STATISTICS: u32 = 5;
    pub(in crate::pcap) const PACKET: u32 = 6;
    pub(in crate::pcap) const SECTION: u32 = 0x0a0d_0d0a;
}

/// Option codes.
pub(super) mod option {
    pub(in crate::pcap) const END: u16 = 0;
    pub(in crate::pcap) const COMMENT: u16 = 1;
    pub(in crate::pcap) const SECTION_HARDWARE: u16 = 2;
    pub(in crate::pcap) const SECTION_SYSTEM: u16 = 3;
    pub(in crate::pcap) const SECTION_APPLICATION: u16 = 4;
    pub(in crate::pcap) const INTERFACE_NAME: u16 = 2;
    pub(in crate::pcap) const INTERFACE_DESCRIPTION: u16 = 3;
    pub(in crate::pcap) const INTERFACE_RESOLUTION: u16 = 9;
    pub(in crate::pcap) const INTERFACE_FILTER: u16 = 11;
    pub(in crate::pcap) const INTERFACE_OFFSET: u16 = 14;
    pub(in crate::pcap) const PACKET_FLAGS: u16 = 2;
    pub(in crate::pcap) const PACKET_HASH: u16 = 3;
    pub(in crate::pcap) const STATISTICS_RECEIVED: u16 = 4;
    pub(in crate::pcap) const STATISTICS_DROPPED: u16 = 5;
    pub(in crate::pcap) const STATISTICS_FILTERED: u16 = 6;
    pub(in crate::pcap) const STATISTICS_DROPPED_BY_SYSTEM: u16 = 7;
}

/// Format of a capture file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum FileFormat {
    /// pcapng: several interfaces, directions, comments, drop counts; nanoseconds.
    #[default]
    Pcapng,
    /// The classic format, with nanoseconds.
    PcapNanos,
    /// The classic format, with microseconds, which every tool reads.
    PcapMicros,
}

/// An interface of a capture file. A file of the classic format has one, without a name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileInterface {
    /// The link type, by its number in capture files.
    pub link_type: LinkType,
    /// Maximum number of bytes kept per packet; 0 in a file without a limit. A writer given 0 keeps
    /// [`MAX_SNAP_LEN`] bytes and records that in the file: libpcap, and therefore tcpdump and Wireshark,
    /// reject a longer packet and everything after it.
    pub snap_len: u32,
    /// Name of the interface.
    pub name: Option<String>,
    /// Description of the interface.
    pub description: Option<String>,
    /// Text of the filter that packets had to pass.
    pub filter: Option<String>,
    /// The latest statistics of the interface read so far.
    pub statistics: InterfaceStatistics,
}

impl FileInterface {
    /// Creates an interface of the given link type.
    pub fn new(link_type: LinkType) -> Self {
        let statistics = InterfaceStatistics::default();
        Self { link_type, snap_len: 0, name: None, description: None, filter: None, statistics }
    }

    /// Returns the maximum number of bytes per packet that a writer keeps.
    pub(crate) fn kept_len(&self) -> u32 {
        if self.snap_len == 0 { MAX_SNAP_LEN } else { self.snap_len }
    }

    /// Creates an Ethernet interface with a name.
    pub fn ethernet(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..Self::new(LinkType::ETHERNET) }
    }
}

/// Counters of an interface; `None` if the file does not have the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct InterfaceStatistics {
    /// Packets received by the interface.
    pub received: Option<u64>,
    /// Packets dropped by the interface for lack of room (`isb_ifdrop`); what a socket dropped too, if the writer did not
    /// tell these apart.
    pub dropped: Option<u64>,
    /// Packets that the interface passed on and the operating system dropped (`isb_osdrop`).
    pub dropped_by_system: Option<u64>,
    /// Packets that passed the filter.
    pub accepted: Option<u64>,
}

impl From<CaptureStats> for InterfaceStatistics {
    /// Converts socket statistics. A socket counts only packets that passed its filter.
    fn from(stats: CaptureStats) -> Self {
        let (received, dropped, dropped_by_system) = (Some(stats.packets), Some(stats.drops), None);
        let accepted = Some(stats.packets - stats.drops.min(stats.packets));
        Self { received, dropped, dropped_by_system, accepted }
    }
}

impl InterfaceStatistics {
    /// Tells the drops of the interface, counted over the same time as those of the socket, apart from the socket's.
    #[must_use]
    pub fn with_interface(mut self, counters: &InterfaceCounters) -> Self {
        self.dropped_by_system = self.dropped;
        self.dropped = Some(counters.card_drops());
        self
    }
}
