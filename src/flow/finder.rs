//! Finds the flow of a packet.

mod foreign;

use std::any::Any;

use flowscope::{Extracted, FlowExtractor, L4Proto, Orientation, PacketView};

use super::extract::{FiveTuple, FiveTupleKey};
use super::fragments::{FragmentStats, Fragments, Taken};
use crate::packet::{Layers, Packet, TcpHeader, Tunnels, dissect_ip};

/// Maximum bytes of fragments that wait for others.
const FRAGMENTS: usize = 4 << 20;

/// A packet of a flow.
#[derive(Debug, Clone)]
pub(super) struct Found<K> {
    pub(super) key: K,
    /// Hash of the key, by the table.
    pub(super) hash: u64,
    pub(super) orientation: Orientation,
    pub(super) l4: Option<L4Proto>,
    pub(super) tcp: Option<TcpHeader>,
    /// Place of the payload as the headers announce it.
    pub(super) payload: u32,
    pub(super) payload_end: u32,
    /// Bytes that are in memory.
    pub(super) captured: u32,
    /// Bytes of the packet on the wire, and of IP in it.
    pub(super) wire: u32,
    pub(super) octets: u32,
    /// Place of the IP header.
    pub(super) network: u32,
    /// Whether the payload is in the packet's own memory.
    pub(super) is_own: bool,
}

/// Why a packet belongs to no flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoFlow {
    /// The extractor knows none.
    Unmatched,
    /// It is a fragment that waits for others.
    Waits,
}

impl NoFlow {
    pub(super) fn is_unmatched(self) -> bool {
        self == Self::Unmatched
    }
}

/// An extractor, and what it needs besides the packet.
#[derive(Debug)]
pub(super) struct Finder<E> {
    pub(super) extractor: E,
    fragments: Fragments,
    /// The packet that was made from fragments, or a frame for the extractor.
    made: Vec<u8>,
}

impl<E: FlowExtractor> Finder<E> {
    pub(super) fn new(extractor: E) -> Self {
        Self { extractor, fragments: Fragments::new(FRAGMENTS), made: Vec::new() }
    }

    pub(super) fn fragment_stats(&self) -> FragmentStats {
        self.fragments.stats()
    }

    pub(super) fn made(&self) -> &[u8] {
        &self.made
    }

    /// Returns the traffic class of a packet, or the type of service; 0 if it has none.
    pub(super) fn class(&self, packet: &Packet<'_>, found: &Found<E::Key>) -> u8 {
        let bytes = if found.is_own { packet.data() } else { &self.made };
        match bytes.get(found.network as usize..) {
            Some([first, class, ..]) if first >> 4 == 4 => *class,
            Some([first, second, ..]) if first >> 4 == 6 => first << 4 | second >> 4,
            _ => 0,
        }
    }

    /// Whether the extractor is the one that reads no frame.
    #[inline]
    pub(super) fn is_fast(&self) -> bool {
        FiveTuple::of(&self.extractor).is_some()
    }

    /// Finds the flow of a packet that is not a fragment, for the extractor of this crate.
    #[inline]
    pub(super) fn plain(&self, packet: &Packet<'_>) -> Option<Found<E::Key>> {
        let five = FiveTuple::of(&self.extractor)?;
        let layers = packet.dissected(five.depth())?;
        if layers.fragment.is_some() {
            return None;
        }
        let place = (packet.len(), packet.original_len(), true);
        found(five, &layers, place)
    }

    /// Finds the flow of any packet.
    #[cold]
    pub(super) fn find(&mut self, packet: &Packet<'_>, now: u64) -> Result<Found<E::Key>, NoFlow> {
        let Some(five) = FiveTuple::of(&self.extractor).copied() else {
            return self.find_theirs(packet, now);
        };
        let layers = packet.layers(five.depth()).ok_or(NoFlow::Unmatched)?;
        if layers.fragment.is_none() {
            let place = (packet.len(), packet.original_len(), true);
            return found(&five, &layers, place).ok_or(NoFlow::Unmatched);
        }
        self.join(packet, &layers, now)?;
        let whole = dissect_ip(&self.made, &layers, five.depth()).ok_or(NoFlow::Unmatched)?;
        let wire = layers.network as usize + self.made.len();
        found(&five, &whole, (self.made.len(), wire, false)).ok_or(NoFlow::Unmatched)
    }

    /// Takes in a fragment. The whole packet is then in `made`.
    #[cold]
    fn join(&mut self, packet: &Packet<'_>, layers: &Layers, now: u64) -> Result<(), NoFlow> {
        match self.fragments.take(packet.data(), layers, now) {
            Taken::Unsound => Err(NoFlow::Unmatched),
            Taken::Waits => Err(NoFlow::Waits),
            Taken::Made(whole) => {
                self.made = whole;
                Ok(())
            }
        }
    }

    /// Finds the flow of a packet with an extractor that takes frames of Ethernet.
    fn find_theirs(&mut self, packet: &Packet<'_>, now: u64) -> Result<Found<E::Key>, NoFlow> {
        let layers = packet.layers(Tunnels::Outer);
        let is_fragment = layers.is_some_and(|layers| layers.fragment.is_some());
        if let Some(layers) = layers.filter(|_| is_fragment) {
            self.join(packet, &layers, now)?;
            self.made = super::extract::ethernet(layers.family, &self.made);
        }
        let frame = match is_fragment {
            true => foreign::Frame { bytes: &self.made, captured: self.made.len(), is_own: false },
            false => foreign::frame(packet, layers.as_ref(), &mut self.made),
        };
        let time = packet.timestamp();
        let view = PacketView::new(frame.bytes, flowscope::Timestamp::new(time.secs, time.nanos));
        let extracted = self.extractor.extract(view).ok_or(NoFlow::Unmatched)?;
        let place = foreign::place(frame.bytes, &extracted);
        let Extracted { key, orientation, l4, tcp, .. } = extracted;
        let (network, octets) = foreign::network(frame.bytes).unzip();
        let octets = octets.unwrap_or(frame.bytes.len());
        let wire = if is_fragment { frame.bytes.len() } else { packet.original_len() };
        Ok(Found {
            key,
            hash: 0,
            orientation,
            l4,
            tcp: tcp.map(|tcp| TcpHeader {
                seq: tcp.seq,
                ack: tcp.ack,
                window: tcp.window,
                flags: tcp.flags.bits(),
            }),
            payload: place.start as u32,
            payload_end: place.end as u32,
            captured: frame.captured as u32,
            wire: wire as u32,
            octets: octets as u32,
            network: network.unwrap_or(u32::MAX),
            is_own: frame.is_own,
        })
    }
}

/// Describes a packet whose headers were read. `place` is the number of bytes in memory and on the wire, and
/// whether they are the packet's own.
#[inline]
fn found<K: 'static>(
    five: &FiveTuple,
    layers: &Layers,
    (captured, wire, is_own): (usize, usize, bool),
) -> Option<Found<K>> {
    let (key, orientation) = five.key(layers);
    Some(Found {
        l4: Some(key.proto()),
        key: same(key)?,
        hash: 0,
        orientation,
        tcp: layers.tcp,
        payload: layers.payload,
        payload_end: layers.payload_end,
        captured: captured as u32,
        wire: wire as u32,
        octets: layers.network_end - layers.network,
        network: layers.network,
        is_own,
    })
}

/// Returns the key, if it is of the type that is asked for; decided when the program is compiled.
#[inline]
fn same<K: 'static>(key: FiveTupleKey) -> Option<K> {
    let mut key = Some(key);
    (&mut key as &mut dyn Any).downcast_mut::<Option<K>>().and_then(Option::take)
}
