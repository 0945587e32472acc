//! Keys, records, events and messages for `serde`: flat objects, with the same names everywhere.

#[cfg(feature = "flow-dns")]
mod dns;
#[cfg(feature = "flow-http")]
mod http;
#[cfg(feature = "flow-tls")]
mod tls;

use std::fmt;
use std::net::IpAddr;

use flowscope::{KeyFields, L4Proto, Orientation, ParserKind, Timestamp as FlowTime};
use serde::ser::{Serialize, Serializer};

use super::event::l4_of;
use super::extract::FiveTupleKey;
#[cfg(feature = "flow-records")]
use super::record::FlowRecord;
use super::sessions::SessionEvent;
use crate::packet::{Iso, Timestamp};

/// Writes a value as its text.
fn text<S: Serializer>(value: &impl fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// Writes bytes as hexadecimal digits.
#[cfg(feature = "flow-tls")]
fn hex<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    struct Hex<'a>(&'a [u8]);
    impl fmt::Display for Hex<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        }
    }
    to.collect_str(&Hex(bytes))
}

/// A time of day and date, as records have it.
fn iso(time: FlowTime) -> Iso {
    Iso(Timestamp { secs: time.sec, nanos: time.nsec }, 9, "Z")
}

/// The endpoints of a flow, from one to the other.
#[derive(serde::Serialize)]
struct Ends {
    proto: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst_port: Option<u16>,
    #[cfg(feature = "flow-records")]
    #[serde(skip_serializing_if = "Option::is_none")]
    community_id: Option<String>,
}

impl Ends {
    fn new(key: &impl KeyFields, orientation: Orientation, proto: String) -> Self {
        let (a, b) = ((key.src_ip(), key.src_port()), (key.dest_ip(), key.dest_port()));
        let ((src_ip, src_port), (dst_ip, dst_port)) = match orientation {
            Orientation::Forward => (a, b),
            Orientation::Reverse => (b, a),
        };
        Self {
            proto,
            src_ip,
            src_port,
            dst_ip,
            dst_port,
            #[cfg(feature = "flow-records")]
            community_id: key.community_id(),
        }
    }

    /// From the key alone.
    fn of_key(key: &impl KeyFields, orientation: Orientation) -> Self {
        let l4 = key.protocol_identifier().map(l4_of);
        Self::new(key, orientation, name(l4))
    }
}

/// The name of a protocol in records.
fn name(l4: Option<L4Proto>) -> String {
    match l4 {
        Some(L4Proto::Other(number)) => number.to_string(),
        Some(l4) => l4.canonical_name().to_owned(),
        None => "other".to_owned(),
    }
}

/// Writes the endpoints, and what else tells flows apart.
impl Serialize for FiveTupleKey {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Fields {
            #[serde(flatten)]
            ends: Ends,
            #[serde(skip_serializing_if = "Option::is_none")]
            icmp_id: Option<u16>,
            #[serde(skip_serializing_if = "Option::is_none")]
            spi: Option<u32>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            vlan_ids: Vec<u16>,
            #[serde(skip_serializing_if = "Option::is_none")]
            tunnel_id: Option<u32>,
        }
        let (outer, inner) = self.vlan_ids();
        let fields = Fields {
            ends: Ends::of_key(self, Orientation::Forward),
            icmp_id: self.icmp_id(),
            spi: self.spi(),
            vlan_ids: [outer, inner].into_iter().flatten().collect(),
            tunnel_id: self.tunnel_id(),
        };
        fields.serialize(to)
    }
}

/// Writes what [`RecordFormat::Ndjson`](super::RecordFormat::Ndjson) has.
#[cfg(feature = "flow-records")]
impl<K: KeyFields> Serialize for FlowRecord<K> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Fields {
            #[serde(serialize_with = "text")]
            start: Iso,
            #[serde(serialize_with = "text")]
            end: Iso,
            #[serde(flatten)]
            ends: Ends,
            packets_sent: u64,
            packets_received: u64,
            octets_sent: u64,
            octets_received: u64,
            bytes_sent: u64,
            bytes_received: u64,
            class_sent: u8,
            class_received: u8,
            #[serde(skip_serializing_if = "Option::is_none")]
            vlan: Option<u16>,
            history: String,
            reason: &'static str,
        }
        let fields = Fields {
            start: Iso(self.start, 9, "Z"),
            end: Iso(self.end, 9, "Z"),
            ends: Ends::new(&self.key, self.initiator, name(self.l4)),
            packets_sent: self.sent.packets,
            packets_received: self.received.packets,
            octets_sent: self.sent.octets,
            octets_received: self.received.octets,
            bytes_sent: self.sent.bytes,
            bytes_received: self.received.bytes,
            class_sent: self.sent.class,
            class_received: self.received.class,
            vlan: self.vlan,
            history: self.history.to_string(),
            reason: self.reason.as_ref().map_or("active", flowscope::EndReason::as_str),
        };
        fields.serialize(to)
    }
}

/// Writes the time, the endpoints from the sender to the receiver, and the fields of the message, or the event.
/// Messages that are objects have their fields beside those of the flow.
impl<K: KeyFields, M: Serialize> Serialize for SessionEvent<K, M> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Line<T> {
            #[serde(serialize_with = "text")]
            time: Iso,
            #[serde(flatten)]
            ends: Ends,
            #[serde(flatten)]
            rest: T,
        }
        #[derive(serde::Serialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        enum Told {
            Started {},
            Gap { bytes: u64 },
            Error { protocol: &'static str, error: String },
            Closed { reason: &'static str },
        }
        let told = |ts: &FlowTime, orientation: Orientation, rest: Told| Line {
            time: iso(*ts),
            ends: Ends::of_key(self.key(), orientation),
            rest,
        };
        match self {
            Self::Application { key, orientation, message, ts, .. } => {
                let ends = Ends::of_key(key, *orientation);
                Line { time: iso(*ts), ends, rest: message }.serialize(to)
            }
            Self::Started { ts, orientation, .. } => {
                told(ts, *orientation, Told::Started {}).serialize(to)
            }
            Self::Gap { bytes, orientation, ts, .. } => {
                told(ts, *orientation, Told::Gap { bytes: *bytes }).serialize(to)
            }
            Self::ParserError { parser_kind, fault, ts, .. } => {
                let protocol = match parser_kind {
                    ParserKind::DnsTcp | ParserKind::DnsUdp => "dns",
                    ParserKind::Http1 => "http",
                    other => other.as_str(),
                };
                let error = fault.to_string();
                told(ts, Orientation::Forward, Told::Error { protocol, error }).serialize(to)
            }
            Self::Closed { reason, stats, .. } => {
                let closed = Told::Closed { reason: reason.as_str() };
                told(&stats.last_seen, stats.initiator_orientation, closed).serialize(to)
            }
            #[cfg(feature = "flow-records")]
            Self::Record(record) => {
                #[derive(serde::Serialize)]
                #[serde(tag = "type", rename = "record")]
                struct Tagged<'a, R> {
                    #[serde(flatten)]
                    record: &'a R,
                }
                Tagged { record }.serialize(to)
            }
        }
    }
}

#[cfg(all(feature = "flow-dns", feature = "flow-http", feature = "flow-tls"))]
impl Serialize for super::app::AppMessage {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Dns(message) => message.serialize(to),
            Self::Http(message) => message.serialize(to),
            Self::Tls(message) => message.serialize(to),
        }
    }
}
