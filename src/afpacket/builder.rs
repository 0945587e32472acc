//! Options of a capture, with the names and defaults that netring users know.

use super::capture::Capture;
use super::fanout::{FanoutFlags, FanoutMode, Membership};
use super::geometry::{RingLayout, RingProfile, Sizes};
use super::netns::NetNs;
use crate::error::Result;
use crate::filter::BpfFilter;
use crate::options::BusyPoll;

/// Whose clock stamps packets (`PACKET_TIMESTAMP`, packet(7)).
///
/// A card that was not told to stamp (`SIOCSHWTSTAMP`, `hwstamp_ctl`) stamps nothing; the kernel's
/// clock fills in, and [`Packet::clock`](crate::Packet::clock) says so for each packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TimestampSource {
    /// The kernel's clock.
    #[default]
    Software,
    /// The card's clock, untransformed. Opening fails with
    /// [`Error::NoHardwareClock`](crate::Error::NoHardwareClock) if the interface has none. Stamping must be switched on
    /// (`hwstamp_ctl -i eth0 -r 1`); until then packets carry the kernel's clock.
    RawHardware,
}

impl Capture {
    /// Opens a capture with the default options on an interface of this network namespace.
    ///
    /// # Errors
    /// As [`CaptureBuilder::build`].
    pub fn open(interface: &str) -> Result<Self> {
        Self::builder().interface(interface).build()
    }

    /// Options first.
    pub fn builder() -> CaptureBuilder {
        CaptureBuilder::new()
    }
}

/// Builds a [`Capture`]: `Capture::builder().interface("eth0").build()?`.
///
/// Methods only note what is wanted; [`build`](Self::build) checks it and does the system calls.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct CaptureBuilder {
    pub(super) interface: Option<String>,
    pub(super) sizes: Sizes,
    pub(super) fill_rxhash: bool,
    pub(super) snap_len: Option<u32>,
    pub(super) filter: Option<BpfFilter>,
    pub(super) promiscuous: bool,
    pub(super) ignore_outgoing: bool,
    pub(super) offloads: bool,
    pub(super) vlan_reinsert: bool,
    pub(super) netns: Option<NetNs>,
    pub(super) busy_poll: BusyPoll,
    pub(super) rcvbuf: Option<usize>,
    pub(super) timestamp_source: TimestampSource,
    pub(super) membership: Option<Membership>,
    pub(super) fanout_flags: FanoutFlags,
}

impl CaptureBuilder {
    pub(super) fn new() -> Self {
        Self {
            interface: None,
            sizes: RingProfile::Default.sizes(),
            fill_rxhash: true,
            snap_len: None,
            filter: None,
            promiscuous: false,
            ignore_outgoing: false,
            offloads: false,
            vlan_reinsert: false,
            netns: None,
            busy_poll: BusyPoll::default(),
            rcvbuf: None,
            timestamp_source: TimestampSource::default(),
            membership: None,
            fanout_flags: FanoutFlags::empty(),
        }
    }

    /// The interface to capture on. Required.
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.interface = Some(name.into());
        self
    }

    /// Sets all ring sizes at once; sizes set afterwards win. Default: [`RingProfile::Default`].
    pub fn profile(mut self, profile: RingProfile) -> Self {
        self.sizes = profile.sizes();
        self
    }

    /// Blocks for throughput, frames for latency. Default blocks.
    pub fn layout(mut self, layout: RingLayout) -> Self {
        self.sizes.layout = layout;
        self
    }

    /// Bytes of a block: a multiple of the page size, best a power of two. Default 1 MiB.
    ///
    /// A packet larger than a block is cut to it.
    pub fn block_size(mut self, bytes: usize) -> Self {
        self.sizes.block_size = bytes;
        self
    }

    /// Blocks of the ring. Default 32.
    pub fn block_count(mut self, blocks: usize) -> Self {
        self.sizes.block_count = blocks;
        self
    }

    /// Bytes of a frame: a multiple of 16. By default 2048 in blocks; in [`RingLayout::Frames`] as long as the
    /// interface's longest packet. A longer packet is cut there (about 80 bytes of a frame are header).
    pub fn frame_size(mut self, bytes: usize) -> Self {
        self.sizes.frame_size = Some(bytes);
        self
    }

    /// Milliseconds after which a block that is not full is handed over. Default 60. Frames are
    /// handed over at once.
    ///
    /// The latency of a lone packet is anything up to twice this. Kernels before 6.18 round it up
    /// to a timer tick (4 to 10 ms).
    pub fn block_timeout_ms(mut self, ms: u32) -> Self {
        self.sizes.block_timeout_ms = ms;
        self
    }

    /// Whether [`Packet::rxhash`](crate::Packet::rxhash) is filled. Default true; frames have none.
    pub fn fill_rxhash(mut self, fill: bool) -> Self {
        self.fill_rxhash = fill;
        self
    }

    /// Bytes kept of each packet, at least 1; the default keeps all.
    pub fn snap_len(mut self, bytes: u32) -> Self {
        self.snap_len = Some(bytes);
        self
    }

    /// Which packets are taken: the kernel drops all others before they are copied, or counted. From the first
    /// packet on. Default all.
    pub fn filter(mut self, filter: BpfFilter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Whether the interface takes in packets for other hosts, while this socket lives. Default
    /// false.
    pub fn promiscuous(mut self, on: bool) -> Self {
        self.promiscuous = on;
        self
    }

    /// Whether packets that this host sends are left out. Default false.
    ///
    /// On loopback every packet is seen twice without this. In a fanout group it becomes
    /// [`FanoutFlags::IGNORE_OUTGOING`], which all members must then set.
    pub fn ignore_outgoing(mut self, on: bool) -> Self {
        self.ignore_outgoing = on;
        self
    }

    /// Whether each packet says what its sender left to the card ([`Packet::offload`]), as who sends it
    /// on must know (`PACKET_VNET_HDR`). Default false.
    ///
    /// It needs [`RingLayout::Blocks`]. A packet whose offload the kernel cannot express is dropped and
    /// counted; of a tunnel's packet it may say what is true of the inner one only. (In a ring of frames it
    /// would keep the slot of such a packet and never fill another: `tpacket_rcv`, net/packet/af_packet.c.)
    ///
    /// [`Packet::offload`]: crate::Packet::offload
    pub fn offloads(mut self, on: bool) -> Self {
        self.offloads = on;
        self
    }

    /// Whether tags that the kernel took out of frames are put back, so that [`Packet::data`] is what was on the
    /// wire. Default false: nothing is moved, and [`Packet::vlan`] has the tag either way.
    ///
    /// Then a tagged packet's lengths count the 4 bytes of the tag, which a snap length does not.
    ///
    /// [`Packet::data`]: crate::Packet::data
    /// [`Packet::vlan`]: crate::Packet::vlan
    pub fn vlan_reinsert(mut self, on: bool) -> Self {
        self.vlan_reinsert = on;
        self
    }

    /// The network namespace that the interface is in. Default this thread's own.
    ///
    /// Another is entered by a thread that makes the socket and ends (`setns(2)`, which needs `CAP_SYS_ADMIN`); this
    /// thread stays where it is.
    pub fn netns(mut self, netns: NetNs) -> Self {
        self.netns = Some(netns);
        self
    }

    /// Microseconds to busy-poll the device before sleeping (`SO_BUSY_POLL`, socket(7)): latency for CPU. Needs a driver with
    /// NAPI, and `CAP_NET_ADMIN` above the system's default. Default the system's.
    pub fn busy_poll_us(mut self, us: u32) -> Self {
        self.busy_poll.us = Some(us);
        self
    }

    /// Whether busy polling is preferred to interrupts (`SO_PREFER_BUSY_POLL`, Linux 5.11). Default the system's.
    pub fn prefer_busy_poll(mut self, on: bool) -> Self {
        self.busy_poll.prefer = Some(on);
        self
    }

    /// Packets that one busy poll may process (`SO_BUSY_POLL_BUDGET`, Linux 5.11). Default the system's.
    pub fn busy_poll_budget(mut self, packets: u16) -> Self {
        self.busy_poll.budget = Some(packets);
        self
    }

    /// Bytes of the socket's receive buffer (`SO_RCVBUFFORCE`, else `SO_RCVBUF`, which the system
    /// limits). The ring does not use it; some drivers and kernels do.
    pub fn rcvbuf(mut self, bytes: usize) -> Self {
        self.rcvbuf = Some(bytes);
        self
    }

    /// Whose clock stamps packets. Default software.
    pub fn timestamp_source(mut self, source: TimestampSource) -> Self {
        self.timestamp_source = source;
        self
    }

    /// Joins fanout group `group` of this network namespace, or creates it.
    ///
    /// All members must ask for the same mode, flags and interface.
    pub fn fanout(mut self, mode: FanoutMode, group: u16) -> Self {
        self.membership =
            Some(Membership { mode, group: Some(group), flags: FanoutFlags::empty() });
        self
    }

    /// Creates a fanout group whose id the kernel chooses, so that it meets no other program's
    /// (Linux 4.10). [`Capture::fanout_group`] is the id that further members join.
    pub fn fanout_auto(mut self, mode: FanoutMode) -> Self {
        self.membership = Some(Membership { mode, group: None, flags: FanoutFlags::empty() });
        self
    }

    /// Flags of the fanout group; without a group they mean nothing. Default none.
    pub fn fanout_flags(mut self, flags: FanoutFlags) -> Self {
        self.fanout_flags = flags;
        self
    }

    #[cfg(feature = "flow")]
    pub(crate) fn add_fanout_flags(self, flags: FanoutFlags) -> Self {
        let flags = self.fanout_flags | flags;
        self.fanout_flags(flags)
    }

    /// Certainly in a fanout group: in this mode, or else in the one asked for, or else by hash.
    pub(crate) fn with_fanout_mode(mut self, mode: Option<FanoutMode>) -> Self {
        let membership = self.membership.get_or_insert(Membership {
            mode: FanoutMode::Hash,
            group: None,
            flags: FanoutFlags::empty(),
        });
        if let Some(mode) = mode {
            membership.mode = mode;
        }
        self
    }

    /// The group to join, with all that concerns it put together.
    pub(crate) fn effective_membership(&self) -> Option<Membership> {
        let mut membership = self.membership.clone()?;
        membership.flags = self.fanout_flags;
        if self.ignore_outgoing {
            membership.flags.insert(FanoutFlags::IGNORE_OUTGOING);
        }
        if membership.flags.contains(FanoutFlags::UNIQUE_ID) {
            membership.group = None;
        }
        Some(membership)
    }
}
