//! What is sent: a flow that has ended, or the counts of an interval.
//!
//! In the spool each is [`LEN`] bytes, big endian, and what an application said, in JSON:
//!
//! ```text
//!   kind 1 | protocol 1 | reason 1 | family 1 | ports 2+2 | addresses 16+16 | history 12
//!          | packets, octets, bytes sent 8+8+8 | received 8+8+8 | start, end 8+8 (ns since the epoch)
//!          | traffic classes 1+1 | VLAN 2 (ffff: none) | type and code of ICMP 1+1 | length of JSON 2    a flow
//!   kind 1 | six counters of 8                                            | zeros              counts
//! ```

mod app;
mod names;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ringtap::flow::extract::FiveTupleKey;
use ringtap::flow::{EndReason, FlowDirection, FlowRecord, Orientation};
use ringtap::packet::Timestamp;
use serde::{Deserialize, Serialize};

/// No VLAN id is that high.
const NO_VLAN: u16 = u16::MAX;

pub(crate) use self::app::{App, Heard};
pub(crate) use self::names::{Names, Which};

/// Bytes of one in the spool, without what an application said.
pub(crate) const LEN: usize = 124;

/// A flow that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flow {
    /// IANA's number of its protocol.
    pub(crate) protocol: u8,
    pub(crate) reason: Reason,
    pub(crate) initiator: SocketAddr,
    pub(crate) responder: SocketAddr,
    pub(crate) sent: FlowDirection,
    pub(crate) received: FlowDirection,
    /// The id of the outermost VLAN tag of its first packet.
    pub(crate) vlan: Option<u16>,
    /// The type and the code of its first message, of ICMP.
    pub(crate) icmp: Option<(u8, u8)>,
    /// What TCP said since the record before, in Zeek's letters; zeros behind them.
    pub(crate) history: [u8; 12],
    /// Nanoseconds since the epoch.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// What an application said in it.
    pub(crate) app: Option<Box<App>>,
}

/// What was already told of flows that go on: a record has what came since the one before it, so that the sums of all are the
/// flow's.
#[derive(Debug, Default)]
pub(crate) struct Told(HashMap<FiveTupleKey, Flow>);

impl Told {
    /// The record of a flow, without what was told before; `None` if it goes on and nothing has come since.
    pub(crate) fn since(&mut self, record: &FlowRecord<FiveTupleKey>) -> Option<Flow> {
        let whole = Flow::new(record);
        let before = match record.reason {
            None => self.0.insert(record.key, whole.clone()),
            // Most flows end before anything was told of them.
            Some(_) if self.0.is_empty() => None,
            Some(_) => self.0.remove(&record.key),
        };
        let Some(before) = before else { return Some(whole) };
        let less = |all: FlowDirection, told: FlowDirection| FlowDirection {
            packets: all.packets.saturating_sub(told.packets),
            octets: all.octets.saturating_sub(told.octets),
            bytes: all.bytes.saturating_sub(told.bytes),
            class: all.class,
        };
        let (sent, received) =
            (less(whole.sent, before.sent), less(whole.received, before.received));
        let is_silent = record.reason.is_none() && sent.packets + received.packets == 0;
        let history = whole.history_since(&before);
        (!is_silent).then_some(Flow { sent, received, history, start: before.end, ..whole })
    }
}

/// Why a flow ended; the numbers are IPFIX's `flowEndReason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    Idle = 1,
    Active = 2,
    Ended = 3,
    Forced = 4,
    NoRoom = 5,
}

/// A shard's totals when the record was made, so that a receiver can prove that it has everything: it has `flows`
/// records of flows with lesser sequence numbers, and the others that there were are counted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Flows that were numbered.
    pub(crate) flows: u64,
    /// Flows for which the shard's queue had no room.
    pub(crate) overflowed: u64,
    /// Flows for which the spool had no room.
    pub(crate) refused: u64,
    /// Flows that had not been handed to the spool when the sensor was killed.
    pub(crate) lost: u64,
    /// Packets that the capture delivered, of this run.
    pub(crate) packets: u64,
    /// Packets that the kernel dropped, of this run.
    pub(crate) drops: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    Flow(Flow),
    Counts(Counts),
}

/// One of a shard's records. Numbers begin at 0 and leave none out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) shard: u16,
    pub(crate) sequence: u64,
    pub(crate) body: Body,
}

impl Flow {
    /// One that nobody has seen.
    pub(crate) fn sample(number: u64) -> Self {
        let address = |last: u8, port| match number % 2 {
            0 => SocketAddr::from(([10, 0, 0, last], port)),
            _ => SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, last.into()], port)),
        };
        let start = 1_700_000_000_000_000_001 + number;
        Self {
            protocol: 6,
            reason: Reason::Ended,
            initiator: address(1, number as u16),
            responder: address(2, 443),
            sent: FlowDirection { packets: 8, octets: 1200, bytes: 1312, class: 0xb8 },
            received: FlowDirection { packets: 2, octets: 3, bytes: 31, class: 0 },
            vlan: Some(5),
            icmp: None,
            history: *b"ShAad\0\0\0\0\0\0\0",
            start,
            end: start + 1_000_000_000,
            app: None,
        }
    }

    pub(crate) fn new(record: &FlowRecord<FiveTupleKey>) -> Self {
        let FlowRecord { key, sent, received, start, end, .. } = record;
        let (initiator, responder) = match record.initiator {
            Orientation::Forward => (key.a(), key.b()),
            Orientation::Reverse => (key.b(), key.a()),
        };
        let mut history = [0; 12];
        history
            .iter_mut()
            .zip(record.history.letters())
            .for_each(|(to, letter)| *to = letter as u8);
        Self {
            protocol: record.l4.map_or(255, |l4| l4.as_u8()),
            reason: record.reason.map_or(Reason::Active, Reason::of),
            initiator,
            responder,
            sent: *sent,
            received: *received,
            vlan: record.vlan,
            icmp: key.icmp_message(),
            history,
            start: nanos(*start),
            end: nanos(*end),
            app: None,
        }
    }

    /// Whether its protocol has ports.
    fn has_ports(&self) -> bool {
        matches!(self.protocol, 6 | 17 | 33 | 132 | 136)
    }

    /// The type and the code of ICMP of one side; of who answers it is known for an echo alone.
    pub(crate) fn icmp_of(&self, is_answer: bool) -> Option<(u8, u8)> {
        match self.icmp? {
            message if !is_answer => Some(message),
            (8, 0) => Some((0, 0)),
            (128, 0) => Some((129, 0)),
            _ => None,
        }
    }

    pub(crate) fn history(&self) -> &str {
        let len = self.history.iter().position(|&letter| letter == 0).unwrap_or(12);
        std::str::from_utf8(&self.history[..len]).unwrap_or_default()
    }

    /// The letters that were added to those of an earlier record of the same flow.
    fn history_since(&self, before: &Self) -> [u8; 12] {
        let mut since = self.history;
        let told = before.history().len().min(since.len());
        since.rotate_left(told);
        let left = since.len() - told;
        since[left..].fill(0);
        since
    }

    /// The flags of TCP (`tcpControlBits`) that one side has sent, as far as the history tells them. A side of which it tells
    /// nothing new has sent segments like those before.
    pub(crate) fn tcp_flags(&self, is_answer: bool) -> u16 {
        const FIN: u16 = 1;
        const SYN: u16 = 2;
        const RST: u16 = 4;
        const ACK: u16 = 16;
        // Zeek has the initiator's in capitals.
        let of_side = |letter: &&u8| letter.is_ascii_lowercase() == is_answer;
        let told = self.history.iter().filter(of_side).fold(0, |flags, letter| {
            flags
                | match letter.to_ascii_lowercase() {
                    b's' => SYN,
                    b'h' => SYN | ACK,
                    b'a' | b'd' => ACK,
                    b'f' => FIN | ACK,
                    b'r' => RST,
                    _ => 0,
                }
        });
        let is_tcp = self.protocol == 6;
        if told == 0 && is_tcp { ACK } else { told }
    }
}

fn nanos(time: Timestamp) -> u64 {
    time.as_nanos()
}

impl Reason {
    fn of(reason: EndReason) -> Self {
        match reason {
            EndReason::IdleTimeout => Self::Idle,
            EndReason::Fin | EndReason::Rst => Self::Ended,
            EndReason::Evicted => Self::NoRoom,
            _ => Self::Forced,
        }
    }

    /// As records have it.
    fn text(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::Ended => "ended",
            Self::Forced => "forced",
            Self::NoRoom => "no_room",
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::Idle, Self::Active, Self::Ended, Self::Forced, Self::NoRoom]
            .into_iter()
            .find(|reason| *reason as u8 == number)
    }
}

impl Body {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        match self {
            Self::Flow(flow) => {
                let is_v6 = flow.initiator.is_ipv6();
                out.extend([0, flow.protocol, flow.reason as u8, if is_v6 { 6 } else { 4 }]);
                out.extend(flow.initiator.port().to_be_bytes());
                out.extend(flow.responder.port().to_be_bytes());
                out.extend(wide(flow.initiator.ip()));
                out.extend(wide(flow.responder.ip()));
                out.extend(flow.history);
                for FlowDirection { packets, octets, bytes, .. } in [flow.sent, flow.received] {
                    for number in [packets, octets, bytes] {
                        out.extend(number.to_be_bytes());
                    }
                }
                out.extend(flow.start.to_be_bytes());
                out.extend(flow.end.to_be_bytes());
                out.extend([flow.sent.class, flow.received.class]);
                out.extend(flow.vlan.unwrap_or(NO_VLAN).to_be_bytes());
                let (kind, code) = flow.icmp.unwrap_or_default();
                out.extend([kind, code]);
                if let Some(app) = &flow.app {
                    let json = serde_json::to_vec(app).expect("text is JSON");
                    // Texts are cut to far less; what was too long would be read as something else.
                    if let Ok(len) = u16::try_from(json.len()) {
                        out.extend(len.to_be_bytes());
                        out.extend(json);
                        return;
                    }
                }
            }
            Self::Counts(counts) => {
                out.push(1);
                let Counts { flows, overflowed, refused, lost, packets, drops } = *counts;
                for number in [flows, overflowed, refused, lost, packets, drops] {
                    out.extend(number.to_be_bytes());
                }
            }
        }
        out.resize(start + LEN, 0);
    }

    /// Returns the first one of some, and the bytes behind it; `None` where it makes no sense.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (bytes, rest) = bytes.split_first_chunk::<LEN>()?;
        let len = usize::from(u16::from_be_bytes([bytes[LEN - 2], bytes[LEN - 1]]));
        let (json, rest) = rest.split_at_checked(len)?;
        let mut body = Self::decode_fixed(bytes)?;
        if let (Self::Flow(flow), false) = (&mut body, json.is_empty()) {
            flow.app = Some(Box::new(serde_json::from_slice(json).ok()?));
        }
        Some((body, rest))
    }

    /// Decodes a record of the format before this one, which has nothing of applications.
    pub(crate) fn decode_older(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (bytes, rest) = bytes.split_at_checked(LEN - 2)?;
        let mut fixed = [0; LEN];
        fixed[..LEN - 2].copy_from_slice(bytes);
        Some((Self::decode_fixed(&fixed)?, rest))
    }

    fn decode_fixed(bytes: &[u8; LEN]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_be_bytes(*bytes[at..].first_chunk()?));
        match bytes[0] {
            0 => {
                let port = |at: usize| Some(u16::from_be_bytes(*bytes[at..].first_chunk()?));
                let address = |at: usize| narrow(*bytes[at..].first_chunk()?, bytes[3] == 6);
                let direction = |at, class: usize| {
                    let (packets, octets) = (number(at)?, number(at + 8)?);
                    Some(FlowDirection {
                        packets,
                        octets,
                        bytes: number(at + 16)?,
                        class: bytes[class],
                    })
                };
                let is_icmp = matches!(bytes[1], 1 | 58);
                Some(Self::Flow(Flow {
                    protocol: bytes[1],
                    reason: Reason::from_number(bytes[2])?,
                    initiator: SocketAddr::new(address(8)?, port(4)?),
                    responder: SocketAddr::new(address(24)?, port(6)?),
                    history: *bytes[40..].first_chunk()?,
                    sent: direction(52, 116)?,
                    received: direction(76, 117)?,
                    vlan: port(118).filter(|id| *id != NO_VLAN),
                    icmp: is_icmp.then_some((bytes[120], bytes[121])),
                    start: number(100)?,
                    end: number(108)?,
                    app: None,
                }))
            }
            1 => Some(Self::Counts(Counts {
                flows: number(1)?,
                overflowed: number(9)?,
                refused: number(17)?,
                lost: number(25)?,
                packets: number(33)?,
                drops: number(41)?,
            })),
            _ => None,
        }
    }
}

fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn narrow(octets: [u8; 16], is_v6: bool) -> Option<IpAddr> {
    let v6 = Ipv6Addr::from(octets);
    if is_v6 { Some(v6.into()) } else { v6.to_ipv4_mapped().map(IpAddr::from) }
}

/// A record as JSON has it.
#[derive(Serialize)]
struct Line<'a> {
    sensor: &'a str,
    shard: u16,
    sequence: u64,
    kind: &'static str,
    #[serde(flatten)]
    flow: Option<FlowLine<'a>>,
    #[serde(flatten)]
    counts: Option<Counts>,
}

#[derive(Serialize)]
struct FlowLine<'a> {
    start_ns: u64,
    end_ns: u64,
    protocol: u8,
    source: IpAddr,
    source_port: u16,
    destination: IpAddr,
    destination_port: u16,
    packets_sent: u64,
    octets_sent: u64,
    bytes_sent: u64,
    packets_received: u64,
    octets_received: u64,
    bytes_received: u64,
    class_sent: u8,
    class_received: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    vlan: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_code: Option<u8>,
    history: &'a str,
    reason: Reason,
    #[serde(flatten)]
    app: Option<&'a App>,
}

impl Record {
    /// Writes it as one JSON object, without an end of line.
    pub(crate) fn write_json(&self, sensor: &str, names: Names, out: &mut Vec<u8>) {
        let value = match names {
            Names::Plain => return self.write_plain(sensor, out),
            Names::Ecs => self.as_ecs(sensor),
            Names::Ocsf => self.as_ocsf(sensor),
            Names::Otel => self.as_otel(sensor),
        };
        serde_json::to_writer(out, &value).expect("a value is JSON, and a Vec takes all");
    }

    fn write_plain(&self, sensor: &str, out: &mut Vec<u8>) {
        let Self { shard, sequence, body } = self;
        let (kind, flow, counts) = match body {
            Body::Flow(flow) => ("flow", Some(FlowLine::new(flow)), None),
            Body::Counts(counts) => ("counts", None, Some(*counts)),
        };
        let line = Line { sensor, shard: *shard, sequence: *sequence, kind, flow, counts };
        serde_json::to_writer(out, &line).expect("numbers and text are JSON, and a Vec takes all");
    }
}

impl<'a> FlowLine<'a> {
    fn new(flow: &'a Flow) -> Self {
        Self {
            start_ns: flow.start,
            end_ns: flow.end,
            protocol: flow.protocol,
            source: flow.initiator.ip(),
            source_port: flow.initiator.port(),
            destination: flow.responder.ip(),
            destination_port: flow.responder.port(),
            packets_sent: flow.sent.packets,
            octets_sent: flow.sent.octets,
            bytes_sent: flow.sent.bytes,
            packets_received: flow.received.packets,
            octets_received: flow.received.octets,
            bytes_received: flow.received.bytes,
            class_sent: flow.sent.class,
            class_received: flow.received.class,
            vlan: flow.vlan,
            icmp_type: flow.icmp.map(|(kind, _)| kind),
            icmp_code: flow.icmp.map(|(_, code)| code),
            history: flow.history(),
            reason: flow.reason,
            app: flow.app.as_deref(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn flow(number: u64) -> Flow {
        let sent = FlowDirection { packets: number, octets: 1 << 40, bytes: 2 << 40, class: 1 };
        Flow { sent, end: u64::MAX, ..Flow::sample(number) }
    }

    /// A flow in which an application has said something.
    pub(crate) fn said() -> Flow {
        let text = |text: &str| Some(text.to_owned());
        let app = App::Tls(app::Tls {
            sni: text("a.example"),
            alpn: text("h2,http/1.1"),
            ja4: text("t13d1516h2_8daaf6152771_e5627efa2ab1"),
            version: text("TLS 1.3"),
        });
        Flow { app: Some(Box::new(app)), ..flow(4) }
    }

    #[test]
    fn what_is_written_is_read() {
        let counts = Counts { flows: 1, overflowed: 2, refused: 3, lost: 4, packets: 5, drops: 6 };
        let ping = Flow { protocol: 58, icmp: Some((128, 3)), vlan: None, ..flow(5) };
        let bodies = [
            Body::Flow(flow(2)),
            Body::Flow(flow(3)),
            Body::Flow(ping),
            Body::Flow(said()),
            Body::Counts(counts),
        ];
        for body in bodies {
            let mut bytes = Vec::new();
            body.encode(&mut bytes);
            let len = bytes.len();
            assert!(len == LEN || body == Body::Flow(said()));
            for cut in 0..len {
                assert_eq!(Body::decode(&bytes[..cut]), None, "{cut}");
            }
            bytes.extend([1, 2]);
            assert_eq!(Body::decode(&bytes), Some((body, &[1, 2][..])));
            bytes[0] = 7;
            assert_eq!(Body::decode(&bytes), None);
        }
    }

    #[test]
    fn texts_are_kept_up_to_their_limit_and_what_is_too_long_costs_no_other_record() {
        let text = |len: usize| Some("\u{1}".repeat(len));
        let of = |len| {
            let tls =
                app::Tls { sni: text(len), alpn: text(len), ja4: text(len), version: text(len) };
            Flow { app: Some(Box::new(App::Tls(tls))), ..flow(4) }
        };
        let none = Flow { app: Some(Box::new(App::Dns(app::Dns::default()))), ..flow(5) };
        for (flow, kept) in [
            (of(255), of(255)),
            (of(2700), of(2700)),
            (of(2800), Flow { app: None, ..flow(4) }),
            (none.clone(), none),
        ] {
            let mut bytes = Vec::new();
            Body::Flow(flow).encode(&mut bytes);
            bytes.push(9);
            assert_eq!(Body::decode(&bytes), Some((Body::Flow(kept), &[9][..])));
        }
        // A text that is longer than what is there.
        let mut bytes = Vec::new();
        Body::Flow(said()).encode(&mut bytes);
        bytes[LEN - 2..LEN].copy_from_slice(&u16::MAX.to_be_bytes());
        assert_eq!(Body::decode(&bytes), None);
    }

    #[test]
    fn json_has_what_makes_it_one_of_a_kind() {
        let mut text = Vec::new();
        Record { shard: 3, sequence: 9, body: Body::Flow(flow(2)) }.write_json(
            "s\"1",
            Names::Plain,
            &mut text,
        );
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((&value["sensor"], &value["sequence"]), (&"s\"1".into(), &9.into()));
        assert_eq!((&value["source"], &value["history"]), (&"10.0.0.1".into(), &"ShAad".into()));
    }
}
