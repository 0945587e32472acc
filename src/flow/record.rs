//! Ended flows as records.

mod writer;

use std::collections::VecDeque;

use flowscope::{EndReason, FlowExtractor, KeyFields, L4Proto, Orientation};

pub use self::writer::{RecordFormat, RecordWriter};
use super::bytes::Lend;
use super::event::{FlowEvent, FlowHistory, FlowStats};
use super::pump::{BatchConsumer, FlowSource};
use super::stream::{FlowStream, Flows};
use super::table::FlowTable;
use crate::packet::{Packet, Timestamp};

/// Counters of one direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowDirection {
    /// Packets in this direction.
    pub packets: u64,
    /// Bytes of IP including its header, by the total length, without the bytes of the link layer. For packets
    /// other than IP, all bytes.
    pub octets: u64,
    /// Bytes as on the wire, with the link-layer header that the packets had, and padding.
    pub bytes: u64,
    /// Traffic class of the first packet (RFC 8200; of IPv4, its type of service); 0 if there was none.
    pub class: u8,
}

/// The record of a flow.
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
    /// Id of the outermost VLAN tag of the first packet.
    pub vlan: Option<u16>,
    /// History of the TCP connection, in Zeek's letters.
    pub history: FlowHistory,
    /// Time of the first packet.
    pub start: Timestamp,
    /// Time of the last packet.
    pub end: Timestamp,
    /// Reason for the end of the flow; `None` if it goes on and this is a report
    /// ([`FlowConfig::active_timeout`](super::FlowConfig::active_timeout)).
    pub reason: Option<EndReason>,
}

impl<K> FlowRecord<K> {
    fn new(
        key: K,
        l4: Option<L4Proto>,
        stats: &FlowStats,
        history: FlowHistory,
        reason: Option<EndReason>,
    ) -> Self {
        let time = |time: flowscope::Timestamp| Timestamp { secs: time.sec, nanos: time.nsec };
        Self {
            key,
            l4,
            initiator: stats.initiator_orientation,
            sent: FlowDirection {
                packets: stats.packets_initiator,
                octets: stats.octets_initiator,
                bytes: stats.bytes_initiator,
                class: stats.class_initiator,
            },
            received: FlowDirection {
                packets: stats.packets_responder,
                octets: stats.octets_responder,
                bytes: stats.bytes_responder,
                class: stats.class_responder,
            },
            vlan: stats.vlan,
            history,
            start: time(stats.started),
            end: time(stats.last_seen),
            reason,
        }
    }

    /// Returns the record that an event is of: the end of a flow, or a report.
    pub fn of(event: FlowEvent<K>) -> Option<Self> {
        match event {
            FlowEvent::Ended { key, reason, stats, history, l4 } => {
                Some(Self::new(key, l4, &stats, history, Some(reason)))
            }
            FlowEvent::Report { key, stats, history, l4, .. } => {
                Some(Self::new(key, l4, &stats, history, None))
            }
            _ => None,
        }
    }
}

/// Turns events into records.
#[expect(missing_debug_implementations, reason = "users name it only by aliases")]
pub struct Recorder<E: FlowExtractor, S> {
    table: FlowTable<E, S>,
}

impl<E: FlowExtractor, S: Send + 'static> Recorder<E, S> {
    fn new(mut table: FlowTable<E, S>) -> Self {
        table.tell_ends();
        Self { table }
    }
}

impl<E: FlowExtractor, S: Send + 'static> BatchConsumer for Recorder<E, S> {
    type Extractor = E;
    type State = S;
    type Event = FlowRecord<E::Key>;

    fn table(&self) -> &FlowTable<E, S> {
        &self.table
    }

    fn table_mut(&mut self) -> &mut FlowTable<E, S> {
        &mut self.table
    }

    fn packet(&mut self, packet: &Packet<'_>, _: Lend<'_>, events: &mut VecDeque<Self::Event>) {
        self.table.take_next(packet, &mut |_, event| events.extend(FlowRecord::of(event)));
    }

    fn advance(&mut self, now: u64, most: usize, events: &mut VecDeque<Self::Event>) -> bool {
        self.table.go_to(now, most, &mut |_, event| events.extend(FlowRecord::of(event)))
    }

    fn finish(&mut self, most: usize, events: &mut VecDeque<Self::Event>) -> bool {
        self.table.end_some(most, &mut |_, event| events.extend(FlowRecord::of(event)))
    }
}

/// A stream of flow records, each delivered when its flow ends; from [`FlowStream::into_records`].
pub type FlowRecords<St, E, S = ()> = Flows<St, Recorder<E, S>>;

impl<St, E, S> FlowStream<St, E, S>
where
    St: FlowSource,
    E: FlowExtractor,
    E::Key: KeyFields,
    S: Send + 'static,
{
    /// Turns the stream into one of records of ended flows, with their IP bytes. Options and the states of
    /// flows are kept.
    pub fn into_records(self) -> FlowRecords<St, E, S> {
        self.into_flows(Recorder::new)
    }
}
