//! Ended flows as records.

mod writer;

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;
use flowscope::extractor::TcpFlags;
use flowscope::{EndReason, FlowEvent, FlowExtractor, FlowSide, KeyFields, L4Proto, Orientation};

pub use self::writer::{RecordFormat, RecordWriter};
use super::bytes::Lend;
use super::dissect::Noted;
use super::frames::{self, Frame};
use super::pump::{BatchConsumer, FlowSource, Pump};
use super::stream::FlowStream;
use super::table::FlowTable;
use crate::packet::{Packet, Timestamp};

/// Counters of one direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowDirection {
    /// Packets in this direction.
    pub packets: u64,
    /// Bytes of IP including its header, by the total length, without the bytes of the link layer. For packets
    /// other than IP, all bytes; for tunneled packets, the bytes of the outer packet.
    pub octets: u64,
}

/// The record of an ended flow.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FlowRecord<K> {
    /// Key of the flow.
    pub key: K,
    /// Transport protocol of the flow.
    pub l4: Option<L4Proto>,
    /// Whether the initiator is the key's first address (`Forward`) or its second.
    pub initiator: Orientation,
    /// Packets and bytes sent by the initiator.
    pub sent: FlowDirection,
    /// Packets and bytes sent by the responder.
    pub received: FlowDirection,
    /// TCP events in Zeek's letters, each when it first occurs: `s` a SYN, `h` a SYN-ACK, `a` a pure
    /// acknowledgement, `d` data, `f` a FIN, `r` a reset. Letters of the initiator are uppercase.
    pub history: String,
    /// Time of the first packet.
    pub start: Timestamp,
    /// Time of the last packet.
    pub end: Timestamp,
    /// Reason for the end of the flow.
    pub reason: EndReason,
}

/// Number of flows kept here that the tracker has already forgotten, before they are cleaned up.
const SLACK: usize = 1024;

/// Counts the IP bytes of each flow.
pub(super) struct Recorder<E: FlowExtractor, S> {
    table: FlowTable<E, S>,
    flows: HashMap<E::Key, Counted, RandomState>,
    told: VecDeque<FlowEvent<E::Key>>,
}

/// The IP bytes and the TCP history of a flow.
#[derive(Debug, Clone, Copy)]
struct Counted {
    initiator: Orientation,
    octets: [u64; 2],
    /// Letters of the TCP history, and their number.
    history: [u8; 12],
    letters: u8,
}

/// The side that sent a packet.
#[derive(Clone, Copy)]
enum Whose {
    Side(FlowSide),
    Oriented(Orientation),
}

/// A packet of a flow.
struct Seen<K> {
    key: K,
    whose: Whose,
    octets: u64,
    /// For TCP, the flags, and whether there is a payload.
    tcp: Option<(TcpFlags, bool)>,
}

impl Counted {
    fn new(initiator: Orientation) -> Self {
        Self { initiator, octets: [0; 2], history: [0; 12], letters: 0 }
    }

    fn count<K>(&mut self, seen: &Seen<K>) {
        let is_initiators = match seen.whose {
            Whose::Side(side) => side == FlowSide::Initiator,
            Whose::Oriented(orientation) => orientation == self.initiator,
        };
        self.octets[usize::from(!is_initiators)] += seen.octets;
        let Some((flags, has_bytes)) = seen.tcp else { return };
        let (syn, ack) = (flags.contains(TcpFlags::SYN), flags.contains(TcpFlags::ACK));
        let (fin, rst) = (flags.contains(TcpFlags::FIN), flags.contains(TcpFlags::RST));
        let said = [
            (syn && !ack, b's'),
            (syn && ack, b'h'),
            (ack && !syn && !fin && !rst && !has_bytes, b'a'),
            (has_bytes, b'd'),
            (fin, b'f'),
            (rst, b'r'),
        ];
        for (_, letter) in said.into_iter().filter(|(said, _)| *said) {
            let letter = if is_initiators { letter.to_ascii_uppercase() } else { letter };
            let count = usize::from(self.letters);
            // There are only twelve distinct letters.
            if !self.history[..count].contains(&letter) && count < self.history.len() {
                self.history[count] = letter;
                self.letters += 1;
            }
        }
    }

    fn history(&self) -> String {
        String::from_utf8_lossy(&self.history[..usize::from(self.letters)]).into_owned()
    }
}

impl<E: FlowExtractor, S: Send + 'static> Recorder<E, S> {
    fn new(mut table: FlowTable<E, S>) -> Self {
        table.tell_ends();
        Self { table, flows: HashMap::default(), told: VecDeque::new() }
    }

    fn go_on(
        &mut self,
        mut seen: Option<Seen<E::Key>>,
        records: &mut VecDeque<FlowRecord<E::Key>>,
    ) {
        while let Some(event) = self.told.pop_front() {
            match event {
                FlowEvent::Started { key, side, orientation, .. } => {
                    let initiator = match side {
                        FlowSide::Initiator => orientation,
                        FlowSide::Responder => orientation.flipped(),
                    };
                    self.flows.insert(key, Counted::new(initiator));
                }
                FlowEvent::Ended { key, reason, stats, l4, .. } => {
                    if let Some(seen) = seen.take_if(|seen| seen.key == key) {
                        self.count(&seen);
                    }
                    let counted = self.flows.remove(&key);
                    let counted = counted.unwrap_or(Counted::new(stats.initiator_orientation));
                    let [sent, received] = counted.octets;
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
                        history: counted.history(),
                        start: time(stats.started),
                        end: time(stats.last_seen),
                        reason,
                    });
                }
                _ => {}
            }
        }
        if let Some(seen) = seen {
            self.count(&seen);
        }
        // Remove flows that the tracker has silently forgotten.
        if self.flows.len() > self.table.tracker().flow_count() + SLACK {
            self.flows.retain(|key, _| self.table.tracker().get(key).is_some());
        }
    }

    fn count(&mut self, seen: &Seen<E::Key>) {
        if let Some(counted) = self.flows.get_mut(&seen.key) {
            counted.count(seen);
        }
    }
}

impl<E: FlowExtractor, S: Send + 'static> BatchConsumer for Recorder<E, S> {
    type Event = FlowRecord<E::Key>;

    fn packet(&mut self, packet: &Packet<'_>, _: Lend<'_>, events: &mut VecDeque<Self::Event>) {
        self.table.catch_up(packet, &mut self.told);
        self.go_on(None, events);
        let mut seen = None;
        let look = |extractor: &E, frame: Frame<'_>, time, noted: Option<Noted<E::Key>>| {
            let octets = frames::layer_3(frame.bytes).map_or(frame.bytes.len(), |ip| ip.len());
            let octets = octets as u64;
            if let Some(noted) = noted
                && let Some(header) =
                    frames::tcp_header(frame.bytes, noted.payload.start, noted.seq)
            {
                let (whose, tcp) = (Whose::Side(noted.side), Some((header.flags, true)));
                seen = Some(Seen { key: noted.key, whose, octets, tcp });
                return;
            }
            let extracted = extractor.extract(flowscope::PacketView::new(frame.bytes, time));
            seen = extracted.map(|of| Seen {
                key: of.key,
                whose: Whose::Oriented(of.orientation),
                octets,
                tcp: of.tcp.map(|tcp| (tcp.flags, tcp.payload_len > 0)),
            });
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

/// A stream of flow records, each delivered when its flow ends; from [`FlowStream::into_records`].
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
    /// Turns the stream into one of records of ended flows, with their IP bytes. Options and the states of
    /// flows are kept.
    pub fn into_records(self) -> FlowRecords<St, B, E, S> {
        FlowRecords { pump: self.pump.into(Recorder::new) }
    }
}

super::accessors!(FlowRecords<St, B, E, S>, pump.intake.table, KeyFields);

super::yields!(FlowRecords<St, B, E, S>, FlowRecord<E::Key>, KeyFields);
