//! What a table tells of its flows.

use std::fmt;
use std::time::Duration;

use flowscope::{EndReason, FlowSide, FlowState, L4Proto, Orientation, Timestamp as FlowTime};

/// An event of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlowEvent<K> {
    /// A flow began.
    Started {
        /// Key of the flow.
        key: K,
        /// Side that sent the first packet; the responder if that packet is a SYN-ACK.
        side: FlowSide,
        /// Whether the first packet goes from the first endpoint of the key to the second.
        orientation: Orientation,
        /// Time of the packet.
        ts: FlowTime,
        /// Transport protocol of the flow.
        l4: Option<L4Proto>,
    },
    /// A packet of a flow. Not reported unless the options ask for it.
    Packet {
        /// Key of the flow.
        key: K,
        /// Side that sent the packet.
        side: FlowSide,
        /// Whether the packet goes from the first endpoint of the key to the second.
        orientation: Orientation,
        /// Length of the packet on the wire, in bytes.
        len: usize,
        /// Time of the packet.
        ts: FlowTime,
    },
    /// The handshake of a TCP connection is complete.
    Established {
        /// Key of the flow.
        key: K,
        /// Time of the packet.
        ts: FlowTime,
        /// Transport protocol of the flow.
        l4: Option<L4Proto>,
    },
    /// The state of a TCP connection changed.
    StateChange {
        /// Key of the flow.
        key: K,
        /// The state before.
        from: FlowState,
        /// The state now.
        to: FlowState,
        /// Time of the packet.
        ts: FlowTime,
    },
    /// A flow goes on for longer than the active timeout, or for as long again since the last report. The
    /// counters are those since the beginning of the flow.
    Report {
        /// Key of the flow.
        key: K,
        /// Counters of the flow so far.
        stats: FlowStats,
        /// History of the TCP connection so far.
        history: FlowHistory,
        /// Transport protocol of the flow.
        l4: Option<L4Proto>,
        /// Time of the report.
        ts: FlowTime,
    },
    /// A flow ended. This is its last event.
    Ended {
        /// Key of the flow.
        key: K,
        /// Reason for the end.
        reason: EndReason,
        /// Counters of the flow.
        stats: FlowStats,
        /// History of the TCP connection.
        history: FlowHistory,
        /// Transport protocol of the flow.
        l4: Option<L4Proto>,
    },
}

impl<K> FlowEvent<K> {
    /// Returns the key of the flow.
    pub fn key(&self) -> &K {
        match self {
            Self::Started { key, .. }
            | Self::Packet { key, .. }
            | Self::Established { key, .. }
            | Self::StateChange { key, .. }
            | Self::Report { key, .. }
            | Self::Ended { key, .. } => key,
        }
    }
}

/// Returns the protocol that has this number above IP.
#[inline]
pub(super) fn l4_of(number: u8) -> L4Proto {
    match number {
        1 => L4Proto::Icmp,
        6 => L4Proto::Tcp,
        17 => L4Proto::Udp,
        58 => L4Proto::IcmpV6,
        132 => L4Proto::Sctp,
        other => L4Proto::Other(other),
    }
}

/// Returns the orientation of a packet of `side` if that of the initiator's packets is given, and the other way round.
pub(super) fn side_orientation(orientation: Orientation, side: FlowSide) -> Orientation {
    match (orientation, side) {
        (orientation, FlowSide::Initiator) => orientation,
        (Orientation::Forward, FlowSide::Responder) => Orientation::Reverse,
        (Orientation::Reverse, FlowSide::Responder) => Orientation::Forward,
    }
}

/// Counters of a flow, for each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FlowStats {
    /// Packets sent by the initiator.
    pub packets_initiator: u64,
    /// Packets sent by the responder.
    pub packets_responder: u64,
    /// Bytes sent by the initiator, as on the wire: with the link-layer header that the packets had, and padding.
    pub bytes_initiator: u64,
    /// Bytes sent by the responder, as on the wire.
    pub bytes_responder: u64,
    /// Bytes of IP sent by the initiator, with the IP header, without the link layer and padding. For packets
    /// that are not IP, all bytes.
    pub octets_initiator: u64,
    /// Bytes of IP sent by the responder.
    pub octets_responder: u64,
    /// Time of the first packet.
    pub started: FlowTime,
    /// Time of the latest packet.
    pub last_seen: FlowTime,
    /// Whether the initiator is the first endpoint of the key (`Forward`) or the second.
    pub initiator_orientation: Orientation,
    /// Traffic class of the initiator's first packet (RFC 8200; of IPv4, its type of service): the differentiated services
    /// code point, and two bits of ECN. 0 if there was none, or no IP in it.
    pub class_initiator: u8,
    /// Traffic class of the responder's first packet.
    pub class_responder: u8,
    /// Id of the outermost VLAN tag of the flow's first packet, in its bytes or beside them. A tag of id 0, which has a priority
    /// alone, is none.
    pub vlan: Option<u16>,
}

impl FlowStats {
    /// Returns the packets of both sides.
    pub fn total_packets(&self) -> u64 {
        self.packets_initiator + self.packets_responder
    }

    /// Returns the bytes of both sides, as on the wire.
    pub fn total_bytes(&self) -> u64 {
        self.bytes_initiator + self.bytes_responder
    }

    /// Returns the bytes of IP of both sides.
    pub fn total_octets(&self) -> u64 {
        self.octets_initiator + self.octets_responder
    }

    /// Returns the time between the first packet and the latest.
    pub fn duration(&self) -> Duration {
        self.last_seen.saturating_sub(self.started)
    }
}

/// The history of a TCP connection, in Zeek's letters: each the first time that it occurs, in upper case for the
/// initiator and in lower case for the responder.
///
/// `s` a SYN, `h` a SYN-ACK, `a` a segment that only acknowledges, `d` data, `f` a FIN, `r` a reset, `t` data sent
/// again, `w` a receive window of 0, `q` a SYN together with a FIN or a reset, and `^` if the connection was turned
/// around because its first segment was a SYN-ACK.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FlowHistory(u64);

/// Bits of a letter: one for the side, four for the letter, which is never 0.
const LETTER_BITS: u32 = 5;
const MOST_LETTERS: u32 = 64 / LETTER_BITS;
const LETTERS: &[u8; 10] = b" shadfrtwq";
const FLIPPED: u64 = 10;

impl FlowHistory {
    /// Notes a letter of a side, if it is new and there is room.
    #[inline]
    pub(super) fn note(&mut self, letter: u8, is_responder: bool) {
        let number = LETTERS.iter().position(|of| *of == letter).unwrap_or(0) as u64;
        self.put(number << 1 | u64::from(is_responder));
    }

    pub(super) fn flip(&mut self) {
        self.put(FLIPPED << 1);
    }

    #[inline]
    fn put(&mut self, code: u64) {
        let mut place = 0;
        while place < MOST_LETTERS {
            match self.0 >> (place * LETTER_BITS) & 0x1f {
                0 => {
                    self.0 |= code << (place * LETTER_BITS);
                    return;
                }
                known if known == code => return,
                _ => place += 1,
            }
        }
    }

    /// Returns the letters in the order in which they first occurred.
    pub fn letters(&self) -> impl Iterator<Item = char> + use<> {
        let all = self.0;
        (0..MOST_LETTERS).map_while(move |place| {
            let code = all >> (place * LETTER_BITS) & 0x1f;
            Some(match (code >> 1, code & 1) {
                (0, _) => return None,
                (FLIPPED, _) => '^',
                (number, 0) => char::from(LETTERS[number as usize]).to_ascii_uppercase(),
                (number, _) => char::from(LETTERS[number as usize]),
            })
        })
    }

    /// Returns whether a letter has occurred.
    pub fn contains(&self, letter: char) -> bool {
        self.letters().any(|of| of == letter)
    }
}

impl fmt::Display for FlowHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.letters().collect::<String>())
    }
}

impl fmt::Debug for FlowHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FlowHistory({self})")
    }
}
