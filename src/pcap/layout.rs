//! What the formats consist of (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng).

use crate::packet::LinkType;
use crate::stats::CaptureStats;

/// The longest packet or block that is read: what is longer is taken for damage.
pub(super) const MAX_BLOCK: u32 = 16 << 20;

/// The most bytes of a packet that other readers take (`MAXIMUM_SNAPLEN`, libpcap).
pub const MAX_SNAP_LEN: u32 = 262_144;

/// The first word of a pcap file, in the byte order of its writer.
pub(super) const MICROSECONDS: u32 = 0xa1b2_c3d4;
pub(super) const NANOSECONDS: u32 = 0xa1b2_3c4d;
/// The same with 8 bytes more in each packet's header, from some Linux distributions of the nineties.
pub(super) const MODIFIED: u32 = 0xa1b2_cd34;
pub(super) const FILE_HEADER: usize = 24;
pub(super) const RECORD_HEADER: usize = 16;
pub(super) const MODIFIED_HEADER: usize = 24;

/// In a section header, in the byte order of its writer.
pub(super) const BYTE_ORDER: u32 = 0x1a2b_3c4d;

/// Types of blocks.
pub(super) mod block {
    pub(in crate::pcap) const INTERFACE: u32 = 1;
    pub(in crate::pcap) const OLD_PACKET: u32 = 2;
    pub(in crate::pcap) const SIMPLE_PACKET: u32 = 3;
    pub(in crate::pcap) const STATISTICS: u32 = 5;
    pub(in crate::pcap) const PACKET: u32 = 6;
    pub(in crate::pcap) const SECTION: u32 = 0x0a0d_0d0a;
}

/// Codes of options.
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
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum FileFormat {
    /// pcapng: several interfaces, directions, comments, drop counts; nanoseconds.
    #[default]
    Pcapng,
    /// The classic format, with nanoseconds.
    PcapNanos,
    /// The classic format, with microseconds: what every tool reads.
    PcapMicros,
}

/// An interface of a capture file. A file of the classic format has one, without a name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileInterface {
    /// Its kind of link, by the number that files have for it.
    pub link_type: LinkType,
    /// The most bytes of a packet that were kept; 0 in a file without a bound. A writer given 0 keeps
    /// [`MAX_SNAP_LEN`] bytes and records that in the file: libpcap, and so tcpdump and Wireshark, refuse a longer packet and
    /// everything after it.
    pub snap_len: u32,
    /// Its name.
    pub name: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// The filter that packets had to pass, as text.
    pub filter: Option<String>,
    /// Its last statistics, of those that were read so far.
    pub statistics: InterfaceStatistics,
}

impl FileInterface {
    /// An interface of this kind.
    pub fn new(link_type: LinkType) -> Self {
        let statistics = InterfaceStatistics::default();
        Self { link_type, snap_len: 0, name: None, description: None, filter: None, statistics }
    }

    /// The most bytes of a packet that a writer keeps.
    pub(super) fn kept_len(&self) -> u32 {
        if self.snap_len == 0 { MAX_SNAP_LEN } else { self.snap_len }
    }

    /// Ethernet, under a name.
    pub fn ethernet(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..Self::new(LinkType::ETHERNET) }
    }
}

/// What an interface counted; `None` where the file does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct InterfaceStatistics {
    /// Packets it received.
    pub received: Option<u64>,
    /// Packets it dropped for want of room.
    pub dropped: Option<u64>,
    /// Packets that passed the filter.
    pub accepted: Option<u64>,
}

impl From<CaptureStats> for InterfaceStatistics {
    /// What passed the filter is all that a socket counts.
    fn from(stats: CaptureStats) -> Self {
        let (received, dropped) = (Some(stats.packets), Some(stats.drops));
        Self { received, dropped, accepted: Some(stats.packets - stats.drops.min(stats.packets)) }
    }
}
