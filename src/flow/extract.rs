//! Extractors, which assign packets to flows: the one of this crate, and flowscope's.
//!
//! [`FiveTuple`] is the fastest, as it shares what was read of a packet with the rest of the flow table. Any other
//! type that implements [`FlowExtractor`] is given each packet as a frame of Ethernet.

#[cfg(feature = "flow-records")]
mod community_id;
mod ours;

use std::fmt;

pub use flowscope::extract::*;
use flowscope::{Extracted, FlowExtractor, PacketView, extract as theirs};

pub use self::ours::{FiveTuple, FiveTupleKey};
use crate::packet::{Family, Layers, LinkType, TunnelKind, Tunnels, dissect};

/// Extracts the flows of packets inside GTP-U tunnels, with the inner `extractor`.
///
/// It works like flowscope's, except that a packet whose header is too short for what it announces belongs to
/// no flow; flowscope's extractor panics.
#[derive(Clone)]
pub struct InnerGtpU<E>(theirs::InnerGtpU<E>);

impl<E> InnerGtpU<E> {
    /// Creates an extractor for the standard port, 2152.
    pub fn new(extractor: E) -> Self {
        Self(theirs::InnerGtpU::new(extractor))
    }

    /// Creates an extractor for another port.
    pub fn with_port(extractor: E, udp_port: u16) -> Self {
        Self(theirs::InnerGtpU::with_port(extractor, udp_port))
    }
}

impl<E: FlowExtractor> FlowExtractor for InnerGtpU<E> {
    type Key = E::Key;

    fn extract(&self, view: PacketView<'_>) -> Option<Extracted<E::Key>> {
        if has_short_header(view.frame) { None } else { self.0.extract(view) }
    }
}

/// Returns whether a datagram may be GTP-U with extensions that it has no room for.
fn has_short_header(frame: &[u8]) -> bool {
    let layers = dissect(LinkType::ETHERNET, frame, frame.len(), 0, Tunnels::Outer);
    let payload = layers.and_then(|layers| frame.get(layers.payload()));
    payload.is_some_and(|payload| (8..12).contains(&payload.len()) && payload[0] & 4 != 0)
}

/// Looks into every kind of tunnel, tag and label, however many are nested, and gives the innermost IP packet to
/// `extractor`.
///
/// [`FiveTuple::tunnels`] does the same without copying the packet.
#[derive(Debug, Clone)]
pub struct AutoDetectEncap<E> {
    extractor: E,
    variants: AutoEncapVariants,
}

impl<E> AutoDetectEncap<E> {
    /// Creates an extractor for every kind of tunnel.
    pub fn new(extractor: E) -> Self {
        Self::with_variants(extractor, AutoEncapVariants::all())
    }

    /// Creates an extractor for the given kinds of tunnels. Kinds that have no variant of their own are always
    /// looked into.
    pub fn with_variants(extractor: E, variants: AutoEncapVariants) -> Self {
        Self { extractor, variants }
    }

    fn may_enter(&self, layers: &Layers) -> bool {
        let wants = &self.variants;
        match layers.tunnel().map(|tunnel| tunnel.kind) {
            Some(TunnelKind::Vxlan) => wants.vxlan,
            Some(TunnelKind::GtpU) => wants.gtp_u,
            Some(TunnelKind::Gre) => wants.gre,
            Some(TunnelKind::Mpls) => wants.mpls,
            _ => wants.vlan || layers.vlan_ids() == (None, None),
        }
    }
}

impl<E: FlowExtractor> FlowExtractor for AutoDetectEncap<E> {
    type Key = E::Key;

    fn extract(&self, view: PacketView<'_>) -> Option<Extracted<E::Key>> {
        let layers =
            dissect(LinkType::ETHERNET, view.frame, view.frame.len(), 0, Tunnels::Innermost);
        match layers {
            Some(layers) if layers.network_offset() != 14 && self.may_enter(&layers) => {
                let end = (layers.network_offset() + layers.ip_len()).min(view.frame.len());
                let packet = &view.frame[layers.network_offset()..end];
                let frame = ethernet(layers.family, packet);
                self.extractor.extract(PacketView::new(&frame, view.timestamp))
            }
            _ => self.extractor.extract(view),
        }
    }
}

/// Puts an Ethernet header before an IP packet.
pub(super) fn ethernet(family: Family, packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + packet.len());
    frame.extend_from_slice(&[0; 12]);
    frame.extend_from_slice(if family == Family::V6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
    frame.extend_from_slice(packet);
    frame
}

impl<E: fmt::Debug> fmt::Debug for InnerGtpU<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
