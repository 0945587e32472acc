//! A flow in its table.

use std::time::Duration;

use flowscope::{EndReason, FlowSide, FlowState, L4Proto, Orientation, Timestamp as FlowTime};

use super::wheel::Links;
use crate::flow::config::FlowConfig;
use crate::flow::event::{FlowHistory, FlowStats, l4_of};

/// How long retransmissions may come after both sides have ended, or the connection has (RFC 9293, 3.4.2: twice
/// the maximum segment lifetime, with the value that systems use).
const CLOSED_LINGER: u64 = 60_000_000_000;

/// Bits of [`Entry::flags`]. Those of a side are for the initiator; shifted left by one, for the responder.
pub(super) mod flag {
    /// The initiator is the second endpoint of the key.
    pub(in crate::flow::table) const REVERSED: u16 = 1;
    /// A SYN was seen.
    pub(in crate::flow::table) const SYN: u16 = 1 << 2;
    /// A segment was seen.
    pub(in crate::flow::table) const SEEN: u16 = 1 << 4;
    /// A FIN was seen.
    pub(in crate::flow::table) const FIN: u16 = 1 << 6;
    /// The FIN was acknowledged.
    pub(in crate::flow::table) const ACKED: u16 = 1 << 8;
    /// A reset was seen.
    pub(in crate::flow::table) const RESET: u16 = 1 << 10;
    /// The handshake is complete.
    pub(in crate::flow::table) const ESTABLISHED: u16 = 1 << 12;
    /// The end was told; the entry remains for packets that come late.
    pub(in crate::flow::table) const CLOSED: u16 = 1 << 13;
    /// The transport protocol is known.
    pub(in crate::flow::table) const HAS_L4: u16 = 1 << 14;
    /// Both sides.
    pub(in crate::flow::table) const BOTH: u16 = 3;
}

/// What packets touch of a flow: two cache lines, with the key of [`FiveTuple`](crate::flow::extract::FiveTuple).
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Entry<K> {
    /// `None` if the place is free.
    pub(super) key: Option<K>,
    /// Time of the latest packet, in nanoseconds.
    pub(super) last: u64,
    /// Counters of the initiator and the responder.
    pub(super) packets: [u64; 2],
    pub(super) bytes: [u64; 2],
    pub(super) octets: [u64; 2],
    pub(super) history: FlowHistory,
    /// Sequence numbers after the last byte, including a FIN.
    pub(super) next: [u32; 2],
    /// An idle timeout of its own, if it has one.
    pub(super) timeout: Timeout,
    /// Traffic classes of the first packets of the initiator and the responder.
    pub(super) class: [u8; 2],
    pub(super) flags: u16,
    pub(super) state: FlowState,
    pub(super) protocol: u8,
}

/// What packets do not touch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cold {
    pub(super) links: Links,
    /// Time of the first packet: seconds and nanoseconds.
    pub(super) started: [u32; 2],
    /// Of a flow, the outermost VLAN id of its first packet, or 0, and above it the seconds from its beginning to the last
    /// report, as far as they fit; of a free slot, the next free one.
    pub(super) word: u32,
}

/// Bits of the VLAN id in [`Cold::word`], and of the seconds above it.
const VLAN_BITS: u32 = 12;
const SECONDS: u64 = (1 << (32 - VLAN_BITS)) - 1;
/// The longest interval of reports: half of the seconds that can be told apart, which are twelve days.
pub(super) const LONGEST_INTERVAL: u64 = (SECONDS / 2) * 1_000_000_000;

impl Cold {
    /// Returns the seconds from the beginning to the last report, where `since` is those to now.
    pub(super) fn reported(&self, since: u64) -> u64 {
        let ago = since.wrapping_sub(u64::from(self.word >> VLAN_BITS)) & SECONDS;
        since.saturating_sub(ago)
    }

    pub(super) fn set_reported(&mut self, seconds: u64) {
        let vlan = self.word & ((1 << VLAN_BITS) - 1);
        self.word = ((seconds & SECONDS) as u32) << VLAN_BITS | vlan;
    }

    /// Returns the VLAN id. That of a tag with a priority alone, which is 0, is none.
    fn vlan(&self) -> Option<u16> {
        let id = (self.word & ((1 << VLAN_BITS) - 1)) as u16;
        (id != 0).then_some(id)
    }

    /// Notes the VLAN id of a flow that begins.
    pub(super) fn set_vlan(&mut self, id: u16) {
        self.word |= u32::from(id) & ((1 << VLAN_BITS) - 1);
    }
}

/// A time in two bytes: a multiple of a power of two of milliseconds, which is exact up to two seconds and to a
/// thousandth beyond. 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Timeout(u16);

impl Timeout {
    const FACTOR_BITS: u32 = 11;

    /// Returns the least that is not shorter than a time, and not none.
    pub(super) fn at_least(time: Duration) -> Self {
        let millis = u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        let shift = (u64::BITS - millis.leading_zeros()).saturating_sub(Self::FACTOR_BITS);
        let rounded = millis.saturating_add((1 << shift) - 1) >> shift;
        let is_carried = rounded >> Self::FACTOR_BITS > 0;
        let (factor, shift) = if is_carried { (rounded >> 1, shift + 1) } else { (rounded, shift) };
        match shift {
            0..32 => Self((shift << Self::FACTOR_BITS) as u16 | factor as u16),
            _ => Self(u16::MAX),
        }
    }

    /// Returns it in nanoseconds, if there is one.
    fn nanos(self) -> Option<u64> {
        let shift = u32::from(self.0) >> Self::FACTOR_BITS;
        let factor = u64::from(self.0) & ((1 << Self::FACTOR_BITS) - 1);
        (self.0 != 0).then(|| (factor << shift).saturating_mul(1_000_000))
    }
}

impl<K> Entry<K> {
    pub(super) fn new(key: K, l4: Option<L4Proto>, is_reversed: bool, now: u64) -> Self {
        let mut flags = if is_reversed { flag::REVERSED } else { 0 };
        flags |= if l4.is_some() { flag::HAS_L4 } else { 0 };
        Self {
            key: Some(key),
            last: now,
            packets: [0; 2],
            bytes: [0; 2],
            octets: [0; 2],
            history: FlowHistory::default(),
            next: [0; 2],
            timeout: Timeout::default(),
            class: [0; 2],
            flags,
            state: FlowState::Active,
            protocol: l4.map_or(0, |l4| l4.as_u8()),
        }
    }

    #[inline]
    pub(super) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Whether the flag of both sides is set.
    #[inline]
    pub(super) fn have_both(&self, flag: u16) -> bool {
        self.flags & (flag * flag::BOTH) == flag * flag::BOTH
    }

    #[inline]
    pub(super) fn is_tcp(&self) -> bool {
        self.protocol == 6 && self.has(flag::HAS_L4)
    }

    pub(super) fn l4(&self) -> Option<L4Proto> {
        self.has(flag::HAS_L4).then(|| l4_of(self.protocol))
    }

    /// Returns which side sends in this orientation: 0 for the initiator.
    #[inline]
    pub(super) fn side(&self, orientation: Orientation) -> usize {
        usize::from(self.has(flag::REVERSED) != (orientation == Orientation::Reverse))
    }

    fn initiator(&self) -> Orientation {
        if self.has(flag::REVERSED) { Orientation::Reverse } else { Orientation::Forward }
    }

    /// Returns when the flow ends if no more packets come.
    pub(super) fn due(&self, config: &FlowConfig) -> u64 {
        self.last.saturating_add(self.patience(config))
    }

    fn patience(&self, config: &FlowConfig) -> u64 {
        if self.has(flag::CLOSED) {
            return CLOSED_LINGER;
        }
        if self.is_closing() {
            return nanos(config.close_delay);
        }
        if self.have_both(flag::FIN) {
            return CLOSED_LINGER;
        }
        if let Some(timeout) = self.timeout.nanos() {
            return timeout;
        }
        let is_half_open = !self.have_both(flag::SEEN) || self.has(flag::FIN * flag::BOTH);
        nanos(match self.protocol {
            _ if !self.has(flag::HAS_L4) => config.idle_timeout_other,
            6 if is_half_open || self.is_opening() => config.idle_timeout_tcp,
            6 => config.idle_timeout_established,
            17 => config.idle_timeout_udp,
            _ => config.idle_timeout_other,
        })
    }

    /// Whether both sides have closed the connection, or one has reset it.
    pub(super) fn is_closing(&self) -> bool {
        self.has(flag::RESET * flag::BOTH) || self.have_both(flag::ACKED)
    }

    /// Whether a handshake was seen that is not complete.
    pub(super) fn is_opening(&self) -> bool {
        self.has(flag::SYN * flag::BOTH) && !self.has(flag::ESTABLISHED)
    }

    /// Whether this is a connection of which only one side was seen.
    pub(super) fn is_unanswered(&self) -> bool {
        self.is_tcp() && !self.have_both(flag::SEEN)
    }

    /// Returns why the flow ends if no more packets come.
    pub(super) fn reason(&self) -> EndReason {
        if self.has(flag::RESET * flag::BOTH) {
            EndReason::Rst
        } else if self.have_both(flag::FIN) {
            EndReason::Fin
        } else {
            EndReason::IdleTimeout
        }
    }

    pub(super) fn stats(&self, cold: &Cold) -> FlowStats {
        FlowStats {
            packets_initiator: self.packets[0],
            packets_responder: self.packets[1],
            bytes_initiator: self.bytes[0],
            bytes_responder: self.bytes[1],
            octets_initiator: self.octets[0],
            octets_responder: self.octets[1],
            started: FlowTime::new(cold.started[0], cold.started[1]),
            last_seen: time(self.last),
            initiator_orientation: self.initiator(),
            class_initiator: self.class[0],
            class_responder: self.class[1],
            vlan: cold.vlan(),
        }
    }
}

/// Returns the side of this number.
#[inline]
pub(super) fn side_of(number: usize) -> FlowSide {
    if number == 0 { FlowSide::Initiator } else { FlowSide::Responder }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns a time in nanoseconds since the epoch in the form that events have.
pub(super) fn time(nanos: u64) -> FlowTime {
    FlowTime::new((nanos / 1_000_000_000) as u32, (nanos % 1_000_000_000) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::extract::FiveTupleKey;

    #[test]
    fn a_flow_takes_two_cache_lines_and_a_bit() {
        assert_eq!(size_of::<Entry<FiveTupleKey>>(), 128);
        assert_eq!(size_of::<Cold>(), 20);
    }

    #[test]
    fn a_timeout_in_two_bytes_is_not_shorter_and_hardly_longer() {
        let nanos = |time: Duration| Timeout::at_least(time).nanos().unwrap();
        let millis = Duration::from_millis;
        for exact in [1, 100, 2047, 2048, 30_000].map(millis) {
            assert_eq!(u128::from(nanos(exact)), exact.as_nanos());
        }
        assert_eq!(nanos(Duration::ZERO), 1_000_000);
        for time in (0..40).flat_map(|bit| [(1 << bit) - 1, (1 << bit) + 1, 5 << bit]).map(millis) {
            let kept = u128::from(nanos(time));
            let least = time.as_nanos().max(1_000_000);
            assert!(least <= kept && kept <= least + least / 1000, "{time:?}: {kept}");
        }
        assert_eq!(nanos(Duration::MAX), 2047 * (1 << 31) * 1_000_000);
    }

    #[test]
    fn reports_are_told_apart_for_days_and_the_vlan_stays() {
        let mut cold = Cold { links: Links::NONE, started: [0; 2], word: 0 };
        cold.set_vlan(4095);
        for seconds in [0, 60, 1_000_000, 2_000_000, 40_000_000] {
            cold.set_reported(seconds);
            for later in [0, 1, 500_000] {
                assert_eq!(cold.reported(seconds + later), seconds);
            }
            assert_eq!(cold.vlan(), Some(4095));
        }
        // The clock went back: it may be reported anew.
        assert!(cold.reported(1000) <= 1000);
    }
}
