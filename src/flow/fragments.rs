//! Reassembly of IP datagrams from fragments.

use std::collections::{BTreeMap, HashMap, VecDeque};

use ahash::RandomState;

use crate::packet::{Family, Layers};

/// How long a datagram waits for missing fragments, in nanoseconds (as in Linux, `ipfrag_time` in ip-sysctl).
const PATIENCE: u64 = 30_000_000_000;
/// Memory used per fragment beyond its bytes.
const OVERHEAD: usize = 64;
/// Memory used per datagram beyond its fragments.
const DATAGRAM: usize = 256;

/// Counters of IP fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FragmentStats {
    /// Fragments seen.
    pub fragments: u64,
    /// Datagrams reassembled completely.
    pub datagrams: u64,
    /// Datagrams given up because of a timeout or for lack of room.
    pub given_up: u64,
    /// Datagrams dropped because their fragments contradicted each other (RFC 5722) or were too long.
    pub bad: u64,
}

/// The datagram to which a fragment belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Id {
    source: [u8; 16],
    destination: [u8; 16],
    protocol: u8,
    id: u32,
}

#[derive(Debug, Default)]
struct Datagram {
    serial: u64,
    /// The IP header of the first fragment.
    head: Vec<u8>,
    /// The fragments by offset.
    parts: BTreeMap<usize, Vec<u8>>,
    len: usize,
    total: Option<usize>,
}

/// Incomplete datagrams, limited in their total bytes.
#[derive(Debug)]
pub(super) struct Fragments {
    waiting: HashMap<Id, Datagram, RandomState>,
    /// Datagrams in the order in which they began: time, id and serial number.
    order: VecDeque<(u64, Id, u64)>,
    serial: u64,
    held: usize,
    cap: usize,
    stats: FragmentStats,
}

/// The result of processing a fragment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It cannot be a part of a datagram.
    Unsound,
    /// The datagram is still incomplete.
    Waits,
    /// It was the last missing fragment; this is the complete datagram, from the IP header on.
    Made(Vec<u8>),
}

/// A fragment.
struct Part<'a> {
    id: Id,
    at: usize,
    more: bool,
    payload: &'a [u8],
    /// The IP header without options and extensions.
    header: &'a [u8],
}

impl Fragments {
    pub(super) fn new(cap: usize) -> Self {
        Self {
            waiting: HashMap::default(),
            order: VecDeque::new(),
            serial: 0,
            held: 0,
            cap,
            stats: FragmentStats::default(),
        }
    }

    pub(super) fn stats(&self) -> FragmentStats {
        self.stats
    }

    /// Takes in a fragment: a packet whose headers were read as those of one.
    pub(super) fn take(&mut self, packet: &[u8], layers: &Layers, now: u64) -> Taken {
        let Some(part) = Part::of(packet, layers) else { return Taken::Unsound };
        self.stats.fragments += 1;
        self.forget(now);
        let serial = self.serial;
        let datagram = self.waiting.entry(part.id).or_insert_with(|| {
            self.order.push_back((now, part.id, serial));
            self.held += DATAGRAM;
            Datagram { serial, ..Datagram::default() }
        });
        self.serial += u64::from(datagram.serial == serial);
        match datagram.add(&part) {
            None => {
                self.stats.bad += 1;
                self.remove(part.id);
                return Taken::Waits;
            }
            Some(added) => self.held += added,
        }
        if datagram.total != Some(datagram.len) || datagram.head.is_empty() {
            while self.held > self.cap && self.give_up_oldest() {}
            return Taken::Waits;
        }
        self.stats.datagrams += 1;
        let datagram = self.remove(part.id).expect("it was just added to");
        Taken::Made(datagram.into_packet(part.id.protocol))
    }

    fn remove(&mut self, id: Id) -> Option<Datagram> {
        let datagram = self.waiting.remove(&id)?;
        self.held -= DATAGRAM + datagram.held();
        Some(datagram)
    }

    fn forget(&mut self, now: u64) {
        while let Some(&(began, ..)) = self.order.front()
            && (now.saturating_sub(began) > PATIENCE || self.order.len() > 2 * self.cap / DATAGRAM)
        {
            self.give_up_oldest();
        }
    }

    fn give_up_oldest(&mut self) -> bool {
        let Some((_, id, serial)) = self.order.pop_front() else { return false };
        if self.waiting.get(&id).is_some_and(|datagram| datagram.serial == serial) {
            self.stats.given_up += 1;
            self.remove(id);
        }
        true
    }
}

impl Datagram {
    fn held(&self) -> usize {
        self.head.len() + self.len + OVERHEAD * self.parts.len()
    }

    /// Adds a fragment and returns the additional memory used, or `None` if it contradicts the other fragments.
    fn add(&mut self, part: &Part<'_>) -> Option<usize> {
        let before = self.held();
        let end = part.at + part.payload.len();
        if let Some((&start, kept)) = self.parts.range(..end).next_back()
            && start + kept.len() > part.at
        {
            // An exact duplicate is not an error.
            return (start == part.at && kept == part.payload).then_some(0);
        }
        if !part.more && self.total.replace(end).is_some_and(|total| total != end) {
            return None;
        }
        let last = self.parts.last_key_value().map_or(0, |(start, kept)| start + kept.len());
        if end.max(last) > self.total.unwrap_or(usize::from(u16::MAX) - 20) {
            return None;
        }
        if part.at == 0 {
            self.head = part.header.to_vec();
        }
        self.len += part.payload.len();
        self.parts.insert(part.at, part.payload.to_vec());
        Some(self.held() - before)
    }

    fn into_packet(self, protocol: u8) -> Vec<u8> {
        let mut packet = self.head;
        let len = self.len as u16; // longer ones were not accepted
        if packet.len() == 40 {
            packet[4..6].copy_from_slice(&len.to_be_bytes());
            packet[6] = protocol;
        } else {
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&(len + 20).to_be_bytes());
            packet[6..8].fill(0);
        }
        packet.reserve(self.len);
        self.parts.into_values().for_each(|part| packet.extend_from_slice(&part));
        packet
    }
}

impl<'a> Part<'a> {
    fn of(packet: &'a [u8], layers: &Layers) -> Option<Self> {
        let fragment = layers.fragment?;
        let id = Id {
            source: layers.source,
            destination: layers.destination,
            protocol: layers.protocol,
            id: fragment.id,
        };
        let len = if layers.family == Family::V6 { 40 } else { 20 };
        let network = layers.network_offset();
        let part = Self {
            id,
            at: fragment.at as usize,
            more: fragment.more,
            // Nothing, if it was cut.
            payload: packet.get(layers.transport_offset()..network + layers.ip_len())?,
            header: packet.get(network..network + len)?,
        };
        part.is_sound().then_some(part)
    }

    /// Every fragment except the last must have a multiple of eight bytes, and none may be empty.
    fn is_sound(&self) -> bool {
        let len = self.payload.len();
        len > 0 && (!self.more || len.is_multiple_of(8))
    }
}
