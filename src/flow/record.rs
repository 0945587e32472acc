//! Flows that have ended, as one line each.

mod writer;

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::task::{Context, Poll};

use ahash::RandomState;
use flowscope::{
    EndReason, FlowEvent, FlowExtractor, FlowSide, HistoryString, KeyFields, L4Proto, Orientation,
};
use futures_core::Stream;

pub use self::writer::{RecordFormat, RecordWriter};
use super::bytes::Lend;
use super::frames::{self, Frame};
use super::look::Noted;
use super::pump::{FlowSource, Intake, Pump};
use super::stream::FlowStream;
use super::table::FlowTable;
use crate::{Packet, Result, Timestamp};

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowDirection {
    /// Packets.
    pub packets: u64,
    /// Bytes of IP, with its header: as the total length says, without what a link adds. Of packets that are not of IP,
    /// all bytes; of those in a tunnel, the outer packet's.
    pub octets: u64,
}

/// A flow that has ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FlowRecord<K> {
    /// Which.
    pub key: K,
    /// Its protocol.
    pub l4: Option<L4Proto>,
    /// Whether the initiator is the key's first address (`Forward`) or its second.
    pub initiator: Orientation,
    /// What the initiator has sent.
    pub sent: FlowDirection,
    /// What was answered.
    pub received: FlowDirection,
    /// The flags of TCP as they came, in Zeek's letters: the initiator's in capitals.
    pub history: HistoryString,
    /// When the first packet came.
    pub start: Timestamp,
    /// When the last packet came.
    pub end: Timestamp,
    /// Why it ended.
    pub reason: EndReason,
}

/// Counts bytes of IP for each flow.
pub(super) struct Recorder<E: FlowExtractor, S> {
    table: FlowTable<E, S>,
    flows: HashMap<E::Key, Counted, RandomState>,
    told: VecDeque<FlowEvent<E::Key>>,
}

/// A flow's bytes of IP.
#[derive(Debug, Clone, Copy)]
struct Counted {
    initiator: Orientation,
    octets: [u64; 2],
}

/// Whose packet it is.
enum Whose {
    Side(FlowSide),
    Oriented(Orientation),
}

impl<E: FlowExtractor, S: Send + 'static> Recorder<E, S> {
    fn new(mut table: FlowTable<E, S>) -> Self {
        table.tell_ends();
        Self { table, flows: HashMap::default(), told: VecDeque::new() }
    }

    fn go_on(
        &mut self,
        packet: Option<(E::Key, Whose, u64)>,
        records: &mut VecDeque<FlowRecord<E::Key>>,
    ) {
        let mut packet = packet;
        while let Some(event) = self.told.pop_front() {
            match event {
                FlowEvent::Started { key, side, orientation, .. } => {
                    let initiator = match side {
                        FlowSide::Initiator => orientation,
                        FlowSide::Responder => orientation.flipped(),
                    };
                    self.flows.insert(key, Counted { initiator, octets: [0; 2] });
                }
                FlowEvent::Ended { key, reason, stats, history, l4 } => {
                    if let Some(packet) = packet.take_if(|(of, ..)| *of == key) {
                        self.count(packet);
                    }
                    let counted = self.flows.remove(&key);
                    let [sent, received] = counted.map_or([0; 2], |counted| counted.octets);
                    let time =
                        |time: flowscope::Timestamp| Timestamp { secs: time.sec, nanos: time.nsec };
                    records.push_back(FlowRecord {
                        key,
                        l4,
                        initiator: stats.initiator_orientation,
                        sent: FlowDirection { packets: stats.packets_initiator, octets: sent },
                        received: FlowDirection {
                            packets: stats.packets_responder,
                            octets: received,
                        },
                        history,
                        start: time(stats.started),
                        end: time(stats.last_seen),
                        reason,
                    });
                }
                _ => {}
            }
        }
        if let Some(packet) = packet {
            self.count(packet);
        }
    }

    fn count(&mut self, (key, whose, octets): (E::Key, Whose, u64)) {
        let Some(counted) = self.flows.get_mut(&key) else { return };
        let is_initiators = match whose {
            Whose::Side(side) => side == FlowSide::Initiator,
            Whose::Oriented(orientation) => orientation == counted.initiator,
        };
        counted.octets[usize::from(!is_initiators)] += octets;
    }
}

impl<E: FlowExtractor, S: Send + 'static> Intake for Recorder<E, S> {
    type Event = FlowRecord<E::Key>;

    fn packet(&mut self, packet: &Packet<'_>, _: Lend<'_>, events: &mut VecDeque<Self::Event>) {
        let mut seen = None;
        let look = |extractor: &E, frame: Frame<'_>, time, noted: Option<Noted<E::Key>>| {
            let octets = frames::layer_3(frame.bytes).map_or(frame.bytes.len(), |ip| ip.len());
            seen = match noted {
                Some(noted) => Some((noted.key, Whose::Side(noted.side), octets as u64)),
                None => extractor.extract(flowscope::PacketView::new(frame.bytes, time)).map(
                    |extracted| {
                        let whose = Whose::Oriented(extracted.orientation);
                        (extracted.key, whose, octets as u64)
                    },
                ),
            };
        };
        self.table.take(packet, &mut self.told, Some(look));
        self.go_on(seen, events);
    }

    fn advance(&mut self, now: u64, most: usize, events: &mut VecDeque<Self::Event>) -> bool {
        let has_more = self.table.advance(now, most, &mut self.told);
        self.go_on(None, events);
        has_more
    }

    fn next_due(&self) -> Option<u64> {
        self.table.next_due()
    }

    fn finish(&mut self, most: usize, events: &mut VecDeque<Self::Event>) -> bool {
        let has_more = self.table.finish(most, &mut self.told);
        self.go_on(None, events);
        has_more
    }

    fn wants_time(&self) -> bool {
        self.table.may_be_asked()
    }
}

/// Flows as they end; from [`FlowStream::into_records`].
pub struct FlowRecords<St, B, E, S>
where
    B: FlowSource,
    E: FlowExtractor,
    E::Key: KeyFields,
    S: Send + 'static,
{
    pump: Pump<St, B, Recorder<E, S>>,
}

impl<St, B, E, S> FlowStream<St, B, E, S>
where
    B: FlowSource,
    E: FlowExtractor,
    E::Key: KeyFields,
    S: Send + 'static,
{
    /// Tells of flows when they have ended, with the bytes of IP that they had. Options and states of flows stay.
    pub fn into_records(self) -> FlowRecords<St, B, E, S> {
        FlowRecords { pump: self.pump.into(Recorder::new) }
    }
}

super::accessors!(FlowRecords<St, B, E, S>, pump.intake.table, KeyFields);

impl<St, B, E, S> Stream for FlowRecords<St, B, E, S>
where
    St: Stream<Item = Result<B>> + Unpin,
    B: FlowSource,
    E: FlowExtractor,
    E::Key: KeyFields,
    S: Send + 'static,
    Self: Unpin,
{
    type Item = Result<FlowRecord<E::Key>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().pump.poll_event(cx)
    }
}
