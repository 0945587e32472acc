//! The items passed on for each flow, and the trait of their consumers.

#![expect(missing_debug_implementations, reason = "users cannot name these types")]

use std::collections::VecDeque;
use std::task::{Context, Poll};

use flowscope::{EndReason, FlowSide, L4Proto, Orientation, TcpFlags, Timestamp as FlowTime};

use super::bytes::{Lend, StreamBytes};
use super::event::{FlowEvent, FlowHistory, FlowStats};
use super::half::{HalfStream, Piece, Segment};
use crate::packet::TcpHeader;

/// An item passed on for a flow.
pub enum Data<'a> {
    /// The next bytes of a stream, or a datagram.
    Bytes(Bytes<'a>),
    /// Bytes are missing.
    Gap(u64),
    /// The side has ended its stream.
    Fin,
}

/// Bytes, and the way to keep them.
pub enum Bytes<'a> {
    Borrowed { bytes: &'a [u8], lend: Option<(Lend<'a>, usize)> },
    Kept(Vec<u8>),
}

impl Bytes<'_> {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed { bytes, .. } => bytes,
            Self::Kept(bytes) => bytes,
        }
    }

    pub(super) fn keep(self) -> StreamBytes {
        match self {
            Self::Borrowed { bytes, lend: Some((lend, at)) } => lend(at..at + bytes.len()),
            Self::Borrowed { bytes, lend: None } => bytes.to_vec().into(),
            Self::Kept(bytes) => bytes.into(),
        }
    }
}

/// The flow, side and time of an item.
pub struct Of<'a, K> {
    pub(super) key: &'a K,
    pub(super) side: FlowSide,
    pub(super) ts: FlowTime,
}

impl<K> Clone for Of<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Of<'_, K> {}

/// The end of a flow.
#[derive(Clone)]
pub struct End {
    pub(super) reason: EndReason,
    pub(super) stats: FlowStats,
    pub(super) history: FlowHistory,
    pub(super) l4: Option<L4Proto>,
    pub(super) ts: FlowTime,
}

/// What the consumer still wants of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    More,
    /// Nothing more; for the consumer, the flow ends with this reason.
    Over(EndReason),
    /// Nothing more except its end.
    Nothing,
}

/// A consumer of the items passed on for flows.
pub trait Consumer<K> {
    type Event;
    /// The state that the consumer keeps for each flow.
    type Flow;
    /// Whether the consumer wants [`tick`](Self::tick) to be called.
    const TICKS: bool = false;

    /// Called at the beginning of a flow. `initiator` says whether the initiator is the key's first endpoint. Returns
    /// `None` if the flow is not wanted.
    fn begin(
        &mut self,
        of: Of<'_, K>,
        initiator: Orientation,
        l4: Option<L4Proto>,
        events: &mut VecDeque<Self::Event>,
    ) -> Option<Self::Flow>;

    fn data(
        &mut self,
        of: Of<'_, K>,
        flow: &mut Self::Flow,
        data: Data<'_>,
        events: &mut VecDeque<Self::Event>,
    ) -> Wanted;

    /// Called when a wanted flow has ended; nothing more of it follows.
    fn end(&mut self, key: &K, flow: Self::Flow, end: End, events: &mut VecDeque<Self::Event>);

    /// Tells the consumer the current time.
    fn tick(&mut self, _: Of<'_, K>, _: &mut Self::Flow, _: &mut VecDeque<Self::Event>) -> Wanted {
        Wanted::More
    }

    /// Returns the bytes of memory that the consumer holds for a flow beyond its state.
    fn held(&self, _: &Self::Flow) -> usize {
        0
    }

    /// Called for each event of the table, before it is handled.
    fn told(&mut self, _: &FlowEvent<K>, _: &mut VecDeque<Self::Event>) {}

    /// Called for each event of the table but the beginning of a flow, after it was handled.
    fn handled(&mut self, _: FlowEvent<K>, _: &mut VecDeque<Self::Event>) {}

    /// See [`BatchConsumer::batch_done`](super::pump::BatchConsumer::batch_done).
    fn batch_done(&mut self) {}

    /// See [`BatchConsumer::wants_turn`](super::pump::BatchConsumer::wants_turn).
    fn wants_turn(&self) -> bool {
        false
    }

    /// See [`BatchConsumer::poll_ready`](super::pump::BatchConsumer::poll_ready).
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// See [`BatchConsumer::poll_done`](super::pump::BatchConsumer::poll_done).
    fn poll_done(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

/// Passes pieces of a flow's streams on, as long as they are wanted.
pub(super) struct Passing<'a, K, C: Consumer<K>> {
    consumer: &'a mut C,
    flow: &'a mut C::Flow,
    events: &'a mut VecDeque<C::Event>,
    wanted: Wanted,
    bytes: u64,
    gaps: u64,
}

impl<'a, K, C: Consumer<K>> Passing<'a, K, C> {
    pub(super) fn new(
        consumer: &'a mut C,
        flow: &'a mut C::Flow,
        events: &'a mut VecDeque<C::Event>,
    ) -> Self {
        Self { consumer, flow, events, wanted: Wanted::More, bytes: 0, gaps: 0 }
    }

    /// Returns what is still wanted, the number of bytes passed on, and the number of bytes missing.
    pub(super) fn done(self) -> (Wanted, u64, u64) {
        (self.wanted, self.bytes, self.gaps)
    }

    /// Processes a TCP segment.
    pub(super) fn segment(
        &mut self,
        of: Of<'_, K>,
        halves: &mut [HalfStream; 2],
        tcp: &TcpHeader,
        payload: &[u8],
        cut: usize,
        lend: Option<(Lend<'_>, usize)>,
    ) {
        let [initiator, responder] = halves;
        let (own, other, other_side) = match of.side {
            FlowSide::Initiator => (initiator, responder, FlowSide::Responder),
            FlowSide::Responder => (responder, initiator, FlowSide::Initiator),
        };
        let flags = TcpFlags::from_bits_retain(tcp.flags);
        if flags.contains(TcpFlags::ACK) {
            let of = Of { side: other_side, ..of };
            other.acked(tcp.ack, &mut |piece| self.pass(of, piece, None));
        }
        if flags.contains(TcpFlags::RST) {
            return; // a payload of an RST is not part of the stream
        }
        let segment = Segment {
            seq: tcp.seq,
            syn: flags.contains(TcpFlags::SYN),
            fin: flags.contains(TcpFlags::FIN),
            len: payload.len() + cut,
            payload,
        };
        own.segment(segment, &mut |piece| self.pass(of, piece, lend));
    }

    pub(super) fn pass(
        &mut self,
        of: Of<'_, K>,
        piece: Piece<'_>,
        lend: Option<(Lend<'_>, usize)>,
    ) {
        if self.wanted != Wanted::More {
            return;
        }
        let data = match piece {
            Piece::Fresh { at, bytes } => {
                self.bytes += bytes.len() as u64;
                let lend = lend.map(|(lend, start)| (lend, start + at));
                Data::Bytes(Bytes::Borrowed { bytes, lend })
            }
            Piece::Kept(bytes) => {
                self.bytes += bytes.len() as u64;
                Data::Bytes(Bytes::Kept(bytes))
            }
            Piece::Gap(bytes) => {
                self.gaps += bytes;
                Data::Gap(bytes)
            }
            Piece::Fin => Data::Fin,
        };
        self.wanted = self.consumer.data(of, self.flow, data, self.events);
    }
}
