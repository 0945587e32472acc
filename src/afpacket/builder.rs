//! Options of a capture, with the names and defaults of netring.

use std::os::fd::OwnedFd;

use ringtap_filter::BpfFilter;

use super::capture::Capture;
use super::fanout::{FanoutFlags, FanoutMode, Membership};
use super::geometry::{RingLayout, RingProfile, Sizes};
use super::netns::NetNs;
use crate::error::Result;
use crate::interface::Interface;
use crate::options::BusyPoll;

/// The clock that timestamps packets (`PACKET_TIMESTAMP`, packet(7)).
///
/// A card timestamps only after it has been told to (`SIOCSHWTSTAMP`, `hwstamp_ctl`). Otherwise the kernel's clock
/// is used, and [`Packet::clock`](crate::Packet::clock) reports this for each packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TimestampSource {
    /// The kernel's clock.
    #[default]
    Software,
    /// The card's clock, unconverted.
    ///
    /// Opening fails with [`Error::NoHardwareClock`](crate::Error::NoHardwareClock) if the interface has none.
    /// Timestamping must be switched on (`hwstamp_ctl -i eth0 -r 1`); until then packets carry the kernel's clock.
    RawHardware,
}

/// Interfaces that a capture of all interfaces leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Excluded {
    Name(String),
    Hardware(u16),
}

impl Capture {
    /// Opens a capture with the default options on an interface of this network namespace, or on `any`.
    ///
    /// # Errors
    /// The errors of [`CaptureBuilder::build`].
    pub fn open(interface: &str) -> Result<Self> {
        Self::builder().interface(interface).build()
    }

    /// Opens a capture with the default options on a socket that was opened before; see [`CaptureBuilder::build_on`].
    ///
    /// # Errors
    /// The errors of [`CaptureBuilder::build_on`].
    pub fn from_owned_fd(socket: OwnedFd, interface: impl Into<Interface>) -> Result<Self> {
        Self::builder().interface(interface).build_on(socket)
    }

    /// Returns a builder for a capture with custom options.
    pub fn builder() -> CaptureBuilder {
        CaptureBuilder::new()
    }
}

/// Builds a [`Capture`]: `Capture::builder().interface("eth0").build()?`.
///
/// The methods only record options; [`build`](Self::build) checks them and makes the system calls.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct CaptureBuilder {
    pub(super) interface: Option<Interface>,
    pub(super) excluded: Vec<Excluded>,
    pub(super) sizes: Sizes,
    pub(super) fill_rxhash: bool,
    pub(super) snap_len: Option<u32>,
    pub(super) filter: Option<BpfFilter>,
    pub(super) promiscuous: bool,
    pub(super) ignore_outgoing: bool,
    pub(super) offloads: bool,
    pub(super) vlan_reinsert: bool,
    #[cfg(feature = "record")]
    pub(super) for_recording: bool,
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
            excluded: Vec::new(),
            sizes: RingProfile::Default.sizes(),
            fill_rxhash: true,
            snap_len: None,
            filter: None,
            promiscuous: false,
            ignore_outgoing: false,
            offloads: false,
            vlan_reinsert: false,
            #[cfg(feature = "record")]
            for_recording: false,
            netns: None,
            busy_poll: BusyPoll::default(),
            rcvbuf: None,
            timestamp_source: TimestampSource::default(),
            membership: None,
            fanout_flags: FanoutFlags::empty(),
        }
    }

    /// Sets the interface to capture on: a name, or [`Interface::Any`] for all of them, which is also called `any`.
    /// Required.
    ///
    /// An interface whose link-layer headers are of an unknown kind (PPP, GRE, CAN …) is captured as cooked, like
    /// `any`.
    pub fn interface(mut self, interface: impl Into<Interface>) -> Self {
        self.interface = Some(interface.into());
        self
    }

    /// Leaves out an interface from a capture of all interfaces.
    ///
    /// The interface must exist when the capture is opened; one of the same name that appears later is captured.
    pub fn exclude(mut self, interface: impl Into<String>) -> Self {
        self.excluded.push(Excluded::Name(interface.into()));
        self
    }

    /// Leaves out all interfaces of a hardware type (`ARPHRD_*`, linux/if_arp.h) from a capture of all interfaces, also
    /// those that appear later: 772 for the loopback, which shows every packet twice.
    pub fn exclude_hardware(mut self, hardware: u16) -> Self {
        self.excluded.push(Excluded::Hardware(hardware));
        self
    }

    /// Sets all ring sizes at once; later calls override single sizes. Default: [`RingProfile::Default`].
    pub fn profile(mut self, profile: RingProfile) -> Self {
        self.sizes = profile.sizes();
        self
    }

    /// Sets the ring layout: blocks for throughput, frames for latency. Default: blocks.
    pub fn layout(mut self, layout: RingLayout) -> Self {
        self.sizes.layout = layout;
        self
    }

    /// Sets the bytes of a block: a multiple of the page size, preferably a power of two. Default: 1 MiB.
    ///
    /// A packet larger than a block is truncated to fit.
    pub fn block_size(mut self, bytes: usize) -> Self {
        self.sizes.block_size = bytes;
        self
    }

    /// Sets the number of blocks of the ring. Default: 32.
    pub fn block_count(mut self, blocks: usize) -> Self {
        self.sizes.block_count = blocks;
        self
    }

    /// Sets the bytes of a frame: a multiple of 16.
    ///
    /// With [`RingLayout::Frames`], longer packets are truncated (about 80 bytes of a frame are header); the default is
    /// enough for the interface's longest packet. In blocks, packets lie one after the other, and this limits nothing.
    pub fn frame_size(mut self, bytes: usize) -> Self {
        self.sizes.frame_size = Some(bytes);
        self
    }

    /// Sets the milliseconds after which a block that is not full is handed over. Default: 60.
    ///
    /// Frames are handed over at once. The latency of a lone packet is up to twice this timeout. Kernels before
    /// 6.18 round it up to a timer tick (4 to 10 ms).
    pub fn block_timeout_ms(mut self, ms: u32) -> Self {
        self.sizes.block_timeout_ms = ms;
        self
    }

    /// Sets whether [`Packet::rxhash`](crate::Packet::rxhash) is filled. Default: true. Frame rings have no hash.
    ///
    /// Without a hash of the card's (on veth, for example) the kernel dissects each packet for it (`skb_get_hash`,
    /// net/core/flow_dissector.c), unless a fanout group has done so: some 140 ns of its time.
    pub fn fill_rxhash(mut self, fill: bool) -> Self {
        self.fill_rxhash = fill;
        self
    }

    /// Sets the bytes kept of each packet, at least 1 and, of [cooked](crate::packet::LinkType::LINUX_SLL2) packets, at
    /// least 21, their header included. Default: all bytes.
    pub fn snap_len(mut self, bytes: u32) -> Self {
        self.snap_len = Some(bytes);
        self
    }

    /// Sets the filter that packets must pass. Default: all packets pass.
    ///
    /// The kernel drops all other packets before they are copied or counted. The filter applies from the first
    /// packet on.
    pub fn filter(mut self, filter: BpfFilter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Sets the filter: [`filter`](Self::filter) by netring's name.
    pub fn bpf_filter(self, filter: BpfFilter) -> Self {
        self.filter(filter)
    }

    /// Sets whether the interface accepts packets for other hosts while this socket is open. Default: false.
    ///
    /// For a capture of all interfaces, it applies to those that exist when it is opened.
    pub fn promiscuous(mut self, on: bool) -> Self {
        self.promiscuous = on;
        self
    }

    /// Sets whether packets that this host sends are left out. Default: false.
    ///
    /// Without this option, every packet on loopback is seen twice. In a fanout group it becomes
    /// [`FanoutFlags::IGNORE_OUTGOING`], which all members must then set.
    pub fn ignore_outgoing(mut self, on: bool) -> Self {
        self.ignore_outgoing = on;
        self
    }

    /// Sets whether each packet reports the work that its sender left to the card ([`Packet::offload`],
    /// `PACKET_VNET_HDR`). Default: false.
    ///
    /// A forwarder needs this information. The option requires [`RingLayout::Blocks`]. A packet whose offload the
    /// kernel cannot express is dropped and counted; for a packet of a tunnel, the report may cover only the inner
    /// packet. (In a ring of frames, the kernel would keep the slot of such a packet and never fill another:
    /// `tpacket_rcv`, net/packet/af_packet.c.)
    ///
    /// [`Packet::offload`]: crate::Packet::offload
    pub fn offloads(mut self, on: bool) -> Self {
        self.offloads = on;
        self
    }

    /// Sets whether VLAN tags that the kernel removed are put back, so that [`Packet::data`] matches the wire.
    /// Default: false.
    ///
    /// By default no bytes are moved. [`Packet::vlan`] has the tag either way. With this option, the lengths of a
    /// tagged packet include the 4 bytes of the tag; a snap length does not.
    ///
    /// [`Packet::data`]: crate::Packet::data
    /// [`Packet::vlan`]: crate::Packet::vlan
    pub fn vlan_reinsert(mut self, on: bool) -> Self {
        self.vlan_reinsert = on;
        self
    }

    /// Sets whether packets are placed so that a [`Recorder`](crate::record::Recorder) need not move them (`PACKET_RESERVE`,
    /// packet(7)): at multiples of 4 bytes. Default: false, where IP headers are at multiples of 16 bytes.
    #[cfg(feature = "record")]
    pub fn for_recording(mut self, on: bool) -> Self {
        self.for_recording = on;
        self
    }

    /// Sets the network namespace of the interface. Default: the namespace of the calling thread.
    ///
    /// Another namespace is entered by a short-lived thread that creates the socket (`setns(2)`, which needs
    /// `CAP_SYS_ADMIN`); the calling thread stays where it is.
    pub fn netns(mut self, netns: NetNs) -> Self {
        self.netns = Some(netns);
        self
    }

    /// Sets the microseconds to busy-poll the device before sleeping (`SO_BUSY_POLL`, socket(7)). Default: the
    /// system's value.
    ///
    /// Busy polling lowers latency at the cost of CPU time. It needs a driver with NAPI; a value above the system's
    /// default needs `CAP_NET_ADMIN`.
    pub fn busy_poll_us(mut self, us: u32) -> Self {
        self.busy_poll.us = Some(us);
        self
    }

    /// Sets whether busy polling is preferred to interrupts (`SO_PREFER_BUSY_POLL`, Linux 5.11). Default: the
    /// system's value.
    pub fn prefer_busy_poll(mut self, on: bool) -> Self {
        self.busy_poll.prefer = Some(on);
        self
    }

    /// Sets the packets that one busy poll may process (`SO_BUSY_POLL_BUDGET`, Linux 5.11). Default: the system's
    /// value.
    pub fn busy_poll_budget(mut self, packets: u16) -> Self {
        self.busy_poll.budget = Some(packets);
        self
    }

    /// Sets the bytes of the socket's receive buffer (`SO_RCVBUFFORCE`, or else `SO_RCVBUF`, which the system
    /// limits).
    ///
    /// The ring does not use this buffer; some drivers and kernels do.
    pub fn rcvbuf(mut self, bytes: usize) -> Self {
        self.rcvbuf = Some(bytes);
        self
    }

    /// Sets the clock that timestamps packets. Default: software.
    pub fn timestamp_source(mut self, source: TimestampSource) -> Self {
        self.timestamp_source = source;
        self
    }

    /// Joins fanout group `group` of this network namespace, or creates it.
    ///
    /// All members must use the same mode, flags and interface.
    pub fn fanout(mut self, mode: FanoutMode, group: u16) -> Self {
        self.membership =
            Some(Membership { mode, group: Some(group), flags: FanoutFlags::empty() });
        self
    }

    /// Creates a fanout group whose id the kernel chooses, so that it cannot collide with another program's group
    /// (Linux 4.10).
    ///
    /// [`Capture::fanout_group`] returns the id, which further members join.
    pub fn fanout_auto(mut self, mode: FanoutMode) -> Self {
        self.membership = Some(Membership { mode, group: None, flags: FanoutFlags::empty() });
        self
    }

    /// Sets the flags of the fanout group; they have no effect without a group. Default: none.
    pub fn fanout_flags(mut self, flags: FanoutFlags) -> Self {
        self.fanout_flags = flags;
        self
    }

    #[cfg(feature = "flow")]
    pub(crate) fn add_fanout_flags(self, flags: FanoutFlags) -> Self {
        let flags = self.fanout_flags | flags;
        self.fanout_flags(flags)
    }

    /// Ensures membership in a fanout group: in this mode if given, else in the mode already set, else by hash.
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

    /// Returns the group to join, with all options that affect it.
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
