//! The kinds of link-layer header that frames begin with.

/// A link type, by its number in capture files (<https://www.tcpdump.org/linktypes.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkType(pub u16);

impl LinkType {
    /// BSD loopback: an address family, then the packet.
    pub const NULL: Self = Self(0);
    /// Ethernet.
    pub const ETHERNET: Self = Self(1);
    /// PPP, with address and control (`ff 03`) or without.
    pub const PPP: Self = Self(9);
    /// IPv4 or IPv6 without a link header, by BSD's number for it.
    pub const RAW_BSD: Self = Self(12);
    /// IPv4 or IPv6 without a link header, by OpenBSD's number for it.
    pub const RAW_OPENBSD: Self = Self(14);
    /// PPP in the framing of HDLC.
    pub const PPP_HDLC: Self = Self(50);
    /// The session stage of PPPoE, without Ethernet.
    pub const PPP_ETHER: Self = Self(51);
    /// IPv4 or IPv6 without a link header.
    pub const RAW: Self = Self(101);
    /// Cisco HDLC, or PPP in the framing of HDLC.
    pub const C_HDLC: Self = Self(104);
    /// 802.11, without a header about the radio.
    pub const IEEE802_11: Self = Self(105);
    /// OpenBSD loopback: an address family in network byte order, then the packet.
    pub const LOOP: Self = Self(108);
    /// Linux cooked capture.
    pub const LINUX_SLL: Self = Self(113);
    /// 802.11 behind a radiotap header.
    pub const IEEE802_11_RADIOTAP: Self = Self(127);
    /// IPv4 without a link header.
    pub const IPV4: Self = Self(228);
    /// IPv6 without a link header.
    pub const IPV6: Self = Self(229);
    /// Linux cooked capture, version 2.
    pub const LINUX_SLL2: Self = Self(276);
    /// Stands for an unknown link type: a number that is reserved for private use.
    pub const UNKNOWN: Self = Self(162);
    /// The link types that filters can be compiled for in full, and the unknown one.
    pub(crate) const COMPILED: [Self; 11] = [
        Self::ETHERNET,
        Self::RAW,
        Self::NULL,
        Self::LOOP,
        Self::PPP,
        Self::C_HDLC,
        Self::LINUX_SLL,
        Self::LINUX_SLL2,
        Self::IEEE802_11,
        Self::IEEE802_11_RADIOTAP,
        Self::UNKNOWN,
    ];

    /// Returns the one among [`COMPILED`](Self::COMPILED) that frames of this type are filtered as.
    pub(crate) fn compiled(self) -> Self {
        match self {
            Self::RAW_BSD | Self::RAW_OPENBSD | Self::IPV4 | Self::IPV6 => Self::RAW,
            Self::PPP_HDLC => Self::PPP,
            known if Self::COMPILED.contains(&known) => known,
            _ => Self::UNKNOWN,
        }
    }

    /// Returns the link type of an interface's packets as a packet socket delivers them, given the kernel's
    /// hardware type (`ARPHRD_*`, linux/if_arp.h); `None` if it is not known.
    #[inline]
    pub fn of_hardware(kind: u16) -> Option<Self> {
        // From include/uapi/linux/if_arp.h, so that this compiles everywhere.
        const ETHER: u16 = 1;
        const TUNNEL: u16 = 768;
        const TUNNEL6: u16 = 769;
        const LOOPBACK: u16 = 772;
        const SIT: u16 = 776;
        const IEEE80211: u16 = 801;
        const IEEE80211_PRISM: u16 = 802;
        const IEEE80211_RADIOTAP: u16 = 803;
        const RAWIP: u16 = 519;
        const NONE: u16 = 0xfffe;
        Some(match kind {
            ETHER | LOOPBACK => Self::ETHERNET,
            // Tunnels remove their outer headers before anyone sees a packet. ARPHRD_PPP is left out, because
            // there it depends on the driver, and so is ARPHRD_CAN, whose bytes files store in another order.
            NONE | RAWIP => Self::RAW,
            TUNNEL | TUNNEL6 | SIT => Self::RAW,
            IEEE80211 => Self::IEEE802_11,
            IEEE80211_PRISM => Self(119),
            IEEE80211_RADIOTAP => Self::IEEE802_11_RADIOTAP,
            _ => return None,
        })
    }
}
