//! Reassembly of IP datagrams from fragments.

use std::collections::{BTreeMap, HashMap, VecDeque};

use ahash::RandomState;
use etherparse::{LaxNetSlice, LaxSlicedPacket};

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
    /// All bytes before the payload, from the first fragment.
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

/// The result of processing a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Not a fragment.
    Whole,
    /// A fragment of a datagram that is still incomplete.
    Waits,
    /// The last missing fragment; this is the complete datagram, as a frame.
    Made(Vec<u8>),
}

/// A fragment.
struct Part<'a> {
    id: Id,
    at: usize,
    more: bool,
    payload: &'a [u8],
    /// Offset of the IP header in the frame.
    network: usize,
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

    #[inline]
    pub(super) fn take(&mut self, frame: &[u8], now: u64) -> Taken {
        match may_be_fragment(frame) {
            true => self.take_part(frame, now),
            false => Taken::Whole,
        }
    }

    #[cold]
    fn take_part(&mut self, frame: &[u8], now: u64) -> Taken {
        let Some(part) = part(frame) else { return Taken::Whole };
        self.stats.fragments += 1;
        self.forget(now);
        let serial = self.serial;
        let datagram = self.waiting.entry(part.id).or_insert_with(|| {
            self.order.push_back((now, part.id, serial));
            self.held += DATAGRAM;
            Datagram { serial, ..Datagram::default() }
        });
        self.serial += u64::from(datagram.serial == serial);
        match datagram.add(&part, frame) {
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
        Taken::Made(datagram.into_frame(part.id.protocol))
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
    fn add(&mut self, part: &Part<'_>, frame: &[u8]) -> Option<usize> {
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
            self.head = frame[..part.network].to_vec();
            self.head.extend_from_slice(header(&frame[part.network..])?);
        }
        self.len += part.payload.len();
        self.parts.insert(part.at, part.payload.to_vec());
        Some(self.held() - before)
    }

    fn into_frame(self, protocol: u8) -> Vec<u8> {
        let mut frame = self.head;
        let is_v6 = frame.len() >= 40 && frame[frame.len() - 40] >> 4 == 6;
        let len = self.len as u16; // longer ones were not accepted
        if is_v6 {
            let at = frame.len() - 40;
            frame[at + 4..at + 6].copy_from_slice(&len.to_be_bytes());
            frame[at + 6] = protocol;
        } else {
            let at = frame.len() - 20;
            frame[at] = 0x45;
            frame[at + 2..at + 4].copy_from_slice(&(len + 20).to_be_bytes());
            frame[at + 6..at + 8].fill(0);
        }
        frame.reserve(self.len);
        self.parts.into_values().for_each(|part| frame.extend_from_slice(&part));
        frame
    }
}

/// Returns the IP header without options and extensions.
fn header(network: &[u8]) -> Option<&[u8]> {
    network.get(..if network.first()? >> 4 == 6 { 40 } else { 20 })
}

/// A quick test that is false for almost all frames that are not fragments.
#[inline]
fn may_be_fragment(frame: &[u8]) -> bool {
    let Some((protocol, at)) = network(frame) else { return false };
    match protocol {
        0x0800 => {
            frame.get(at + 6..at + 8).is_some_and(|bytes| bytes[0] & 0x3f != 0 || bytes[1] != 0)
        }
        // The fragment header, or an extension that may precede it.
        0x86dd => frame.get(at + 6).is_some_and(|next| matches!(next, 0 | 43 | 44 | 60)),
        _ => false,
    }
}

/// Returns the protocol of a frame after its VLAN tags, and the offset of its header.
#[inline]
pub(super) fn network(frame: &[u8]) -> Option<(u16, usize)> {
    let mut at = 12;
    loop {
        let protocol = u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]);
        at += 2;
        if !matches!(protocol, 0x8100 | 0x88a8 | 0x9100) || at > 26 {
            return Some((protocol, at));
        }
        at += 2;
    }
}

fn part(frame: &[u8]) -> Option<Part<'_>> {
    let (_, network) = network(frame)?;
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    match packet.net? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            let address = |bytes: [u8; 4]| {
                let mut wide = [0; 16];
                wide[..4].copy_from_slice(&bytes);
                wide
            };
            let id = Id {
                source: address(header.source()),
                destination: address(header.destination()),
                protocol: header.protocol().0,
                id: header.identification().into(),
            };
            let at = usize::from(header.fragments_offset().value()) * 8;
            let more = header.more_fragments();
            let part = Part { id, at, more, payload: ip.payload().payload, network };
            header.is_fragmenting_payload().then_some(part).filter(Part::is_sound)
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            let end = network + 40 + usize::from(header.payload_length());
            let (next, at, fields) = fragment_header(frame, network, header.next_header().0)?;
            let offset = u16::from_be_bytes([fields[2], fields[3]]);
            let id = Id {
                source: header.source(),
                destination: header.destination(),
                protocol: next,
                id: u32::from_be_bytes([fields[4], fields[5], fields[6], fields[7]]),
            };
            let payload = frame.get(at + 8..end.min(frame.len()))?;
            let (place, more) = (usize::from(offset & !7), offset & 1 != 0);
            let part = Part { id, at: place, more, payload, network };
            (place > 0 || more).then_some(part).filter(Part::is_sound)
        }
    }
}

/// Finds the IPv6 fragment header. Returns the protocol after it, its offset, and its bytes. Everything after
/// it belongs to the datagram, including further extensions.
fn fragment_header(frame: &[u8], network: usize, mut next: u8) -> Option<(u8, usize, &[u8; 8])> {
    let mut at = network + 40;
    for _ in 0..8 {
        let fields: &[u8; 8] = frame.get(at..)?.first_chunk()?;
        match next {
            44 => return Some((fields[0], at, fields)),
            0 | 43 | 60 => at += 8 + usize::from(fields[1]) * 8,
            _ => return None,
        }
        next = fields[0];
    }
    None
}

impl Part<'_> {
    /// Every fragment except the last must have a multiple of eight bytes, and none may be empty.
    fn is_sound(&self) -> bool {
        let len = self.payload.len();
        len > 0 && (!self.more || len.is_multiple_of(8))
    }
}
