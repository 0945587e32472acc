//! Where packets come from.

/// The direction of a packet, and how it was addressed (`sll_pkttype`, packet(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PacketDirection {
    /// Addressed to this host.
    Host,
    /// Link-layer broadcast.
    Broadcast,
    /// Link-layer multicast.
    Multicast,
    /// Addressed to another host and seen in promiscuous mode.
    OtherHost,
    /// Sent by this host.
    Outgoing,
    /// A kind that this version does not know, with its number.
    Unknown(u8),
}

impl PacketDirection {
    /// Returns the direction that the kernel means by this number.
    #[inline]
    pub fn from_pkttype(pkttype: u8) -> Self {
        match pkttype {
            0 => Self::Host,
            1 => Self::Broadcast,
            2 => Self::Multicast,
            3 => Self::OtherHost,
            4 => Self::Outgoing,
            other => Self::Unknown(other),
        }
    }

    /// Returns the kernel's number.
    #[inline]
    pub fn to_pkttype(self) -> u8 {
        match self {
            Self::Host => 0,
            Self::Broadcast => 1,
            Self::Multicast => 2,
            Self::OtherHost => 3,
            Self::Outgoing => 4,
            Self::Unknown(other) => other,
        }
    }
}
