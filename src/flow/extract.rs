//! What tells flows apart: flowscope's extractors, two of them made safe, and one fast.

mod plain;

use std::fmt;

use etherparse::{SlicedPacket, TransportSlice};
pub use flowscope::extract::*;
use flowscope::{Extracted, FlowExtractor, PacketView, extract as theirs};

pub use self::plain::FiveTuple;

/// Looks into GTP-U: flows of the packets within, as `extractor` tells them.
///
/// As flowscope's, but that a header too short for what it announces is of no flow; there it is a panic.
#[derive(Clone)]
pub struct InnerGtpU<E>(theirs::InnerGtpU<E>);

impl<E> InnerGtpU<E> {
    /// With the standard's port, 2152.
    pub fn new(extractor: E) -> Self {
        Self(theirs::InnerGtpU::new(extractor))
    }

    /// With another port.
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

/// Tries the packet as it is, then looks into each tunnel that is enabled; the first that makes sense to `extractor` is
/// it. Datagrams of UDP make sense to most: behind VXLAN and GTP-U, use the extractor for these.
///
/// As flowscope's, with the safe [`InnerGtpU`].
#[derive(Clone)]
pub struct AutoDetectEncap<E>(theirs::AutoDetectEncap<E>);

impl<E> AutoDetectEncap<E> {
    /// Of every kind of tunnel.
    pub fn new(extractor: E) -> Self {
        Self(theirs::AutoDetectEncap::new(extractor))
    }

    /// Of these kinds.
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

/// Whether a datagram might be GTP-U with extensions that it has no room for.
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
