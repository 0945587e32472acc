//! Flows that have ended, as one line each.

mod writer;

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;
use flowscope::extractor::TcpFlags;
use flowscope::{EndReason, FlowEvent, FlowExtractor, FlowSide, KeyFields, L4Proto, Orientation};

pub use self::writer::{RecordFormat, RecordWriter};
use super::bytes::Lend;
use super::dissect::Noted;
use super::frames::{self, Frame};
use super::pump::{FlowSource, Intake, Pump};
use super::stream::FlowStream;
use super::table::FlowTable;
use crate::packet::{Packet, Timestamp};

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
    /// What TCP said, each for the first time, in Zeek's letters: `s` a SYN, `h` one that acknowledges, `a` an
    /// acknowledgement alone, `d` data, `f` a FIN, `r` a reset; the initiator's in capitals.
    pub history: String,
    /// When the first packet came.
    pub start: Timestamp,
    /// When the last packet came.
    pub end: Timestamp,
    /// Why it ended.
    pub reason: EndReason,
}

/// So many flows may be here that the tracker has forgotten behind our back, until it is seen to.
const SLACK: usize = 1024;

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
    /// Letters of TCP's history, and how many.
    history: [u8; 12],
    letters: u8,
}

/// Whose packet it is.
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
    /// Of TCP: its flags, and whether it has bytes.
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
            // There are twelve of them.
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
        // What the tracker has forgotten behind our back.
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

impl<E: FlowExtractor, S: Send + 'static> Intake for Recorder<E, S> {
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

super::yields!(FlowRecords<St, B, E, S>, FlowRecord<E::Key>, KeyFields);
