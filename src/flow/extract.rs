//! Extractors, which assign packets to flows: flowscope's extractors, two of them made safe, and a fast one.

mod plain;

use std::fmt;

use etherparse::{SlicedPacket, TransportSlice};
pub use flowscope::extract::*;
use flowscope::{Extracted, FlowExtractor, PacketView, extract as theirs};

pub use self::plain::FiveTuple;

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

/// Tries the packet as it is, then looks into each tunnel that is enabled. The first result of `extractor` is
/// used. As most UDP datagrams give a result without looking inside, use the dedicated extractors for VXLAN and
/// GTP-U.
///
/// It works like flowscope's, with the safe [`InnerGtpU`].
#[derive(Clone)]
pub struct AutoDetectEncap<E>(theirs::AutoDetectEncap<E>);

impl<E> AutoDetectEncap<E> {
    /// Creates an extractor for every kind of tunnel.
    pub fn new(extractor: E) -> Self {
        Self(theirs::AutoDetectEncap::new(extractor))
    }

    /// Creates an extractor for the given kinds of tunnels.
    pub fn with_variants(extractor: E, variants: AutoEncapVariants) -> Self {
        let mut auto = theirs::AutoDetectEncap::new(extractor);
        auto.variants = variants;
        Self(auto)
    }
}

impl<E: FlowExtractor + Clone> FlowExtractor for AutoDetectEncap<E> {
    type Key = E::Key;

    fn extract(&self, view: PacketView<'_>) -> Option<Extracted<E::Key>> {
        match has_short_header(view.frame) {
            true => self.0.extractor.extract(view),
            false => self.0.extract(view),
        }
    }
}

/// Returns whether a datagram may be GTP-U with extensions that it has no room for.
fn has_short_header(frame: &[u8]) -> bool {
    let Ok(SlicedPacket { transport: Some(TransportSlice::Udp(udp)), .. }) =
        SlicedPacket::from_ethernet(frame)
    else {
        return false;
    };
    let payload = udp.payload();
    (8..12).contains(&payload.len()) && payload[0] & 4 != 0
}

impl<E: fmt::Debug> fmt::Debug for InnerGtpU<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<E: fmt::Debug> fmt::Debug for AutoDetectEncap<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
