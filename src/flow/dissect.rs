//! Finds the flow of a packet and its payload.

use std::ops::Range;

use flowscope::{
    Extracted, FlowExtractor, FlowSide, KeyFields, L4Proto, Orientation, PacketView,
    Timestamp as FlowTime,
};

use super::frames::{self, Frame, TcpHeader};

/// A packet of a flow.
pub(super) struct Look<K> {
    pub(super) key: K,
    side: Side,
    pub(super) tcp: Option<TcpHeader>,
    pub(super) payload: Range<usize>,
    /// Number of payload bytes that the headers announce but that were not captured.
    pub(super) cut: usize,
    /// Whether the payload lies in the packet's own memory.
    pub(super) is_own: bool,
}

enum Side {
    Known(FlowSide),
    Oriented(Orientation),
}

/// The tracker's notes about a segment with payload, taken while it processes the segment.
pub(super) struct Noted<K> {
    pub(super) key: K,
    pub(super) side: FlowSide,
    pub(super) seq: u32,
    pub(super) payload: Range<usize>,
}

impl<K: KeyFields> Look<K> {
    /// Uses what the tracker has noted, if it is consistent with the frame; otherwise asks the extractor again.
    /// Without `acks`, a pure acknowledgement belongs to no flow.
    pub(super) fn at<E: FlowExtractor<Key = K>>(
        extractor: &E,
        frame: Frame<'_>,
        time: FlowTime,
        noted: Option<Noted<K>>,
        acks: bool,
    ) -> Option<Self> {
        let Some(noted) = noted else {
            if !acks && frames::only_acknowledges(frame.bytes) {
                return None;
            }
            return Self::extracted(extractor, frame, time);
        };
        let Some(header) = frames::tcp_header(frame.bytes, noted.payload.start, noted.seq) else {
            return Self::extracted(extractor, frame, time);
        };
        let (payload, cut) = captured(frame, noted.payload);
        let (key, side, tcp) = (noted.key, Side::Known(noted.side), Some(header));
        Some(Self { key, side, tcp, payload, cut, is_own: frame.is_own })
    }

    fn extracted<E: FlowExtractor<Key = K>>(
        extractor: &E,
        frame: Frame<'_>,
        time: FlowTime,
    ) -> Option<Self> {
        let Extracted { key, orientation, l4, tcp, .. } =
            extractor.extract(PacketView::new(frame.bytes, time))?;
        let whole = match (&tcp, l4) {
            (Some(tcp), _) => frames::tcp_payload(frame.bytes, tcp),
            (None, Some(L4Proto::Udp)) => {
                frames::udp_payload(frame.bytes, key.src_port().zip(key.dest_port()))
            }
            (None, Some(L4Proto::Icmp | L4Proto::IcmpV6)) => frames::icmp_message(frame.bytes),
            _ => None,
        }?;
        let (payload, cut) = captured(frame, whole);
        let tcp = tcp.map(|tcp| TcpHeader { seq: tcp.seq, ack: tcp.ack, flags: tcp.flags });
        let side = Side::Oriented(orientation);
        Some(Self { key, side, tcp, payload, cut, is_own: frame.is_own })
    }

    /// Returns the side that sent the packet, given the initiator of the flow.
    pub(super) fn side(&self, initiator: Orientation) -> FlowSide {
        match self.side {
            Side::Known(side) => side,
            Side::Oriented(orientation) if orientation == initiator => FlowSide::Initiator,
            Side::Oriented(_) => FlowSide::Responder,
        }
    }
}

/// Returns the captured part of a range, and the number of bytes that were not captured.
fn captured(frame: Frame<'_>, whole: Range<usize>) -> (Range<usize>, usize) {
    let (start, end) = (whole.start.min(frame.captured), whole.end.min(frame.captured));
    (start..end, whole.len() - (end - start))
}
