//! The parsers of datagrams and of streams.

use std::time::Duration;

use flowscope::{DatagramParser, FlowSide, ParserKind, SessionParser, Timestamp as FlowTime};

use super::message::DnsMessage;
use super::pending::Pending;
use super::read;
use crate::flow::aside::{message_refused, parser_holds};

/// How queries and responses are brought together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DnsConfig {
    /// How long a query waits for its response. Default: 30 s.
    pub query_timeout: Duration,
    /// Most queries of a flow that wait; beyond that, the oldest is forgotten. Default: 1024.
    pub max_pending: usize,
    /// Whether queries without a response are told. Their contents are kept until then. Default: no.
    pub tell_unanswered: bool,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self { query_timeout: Duration::from_secs(30), max_pending: 1024, tell_unanswered: false }
    }
}

/// A message without a whole header.
const SHORT: &str = "a message shorter than the header of DNS";

#[derive(Debug, Clone, Default)]
struct Exchange {
    config: DnsConfig,
    pending: Pending,
}

impl Exchange {
    /// Reads a message. Returns whether it has a whole header.
    fn message(&mut self, bytes: &[u8], ts: FlowTime, out: &mut Vec<DnsMessage>) -> bool {
        let Some(mut content) = read::message(bytes) else {
            message_refused(SHORT);
            return false;
        };
        let id = content.transaction_id;
        self.expire(ts, out);
        if content.flags.is_response() {
            let asked = self.pending.answer(id);
            content.elapsed = asked.map(|asked| ts.saturating_sub(asked));
            out.push(DnsMessage::Response(content));
        } else {
            let kept = self.config.tell_unanswered.then(|| Box::new(content.clone()));
            self.pending.ask(id, ts, kept, self.config.max_pending);
            out.push(DnsMessage::Query(content));
        }
        true
    }

    fn expire(&mut self, now: FlowTime, out: &mut Vec<DnsMessage>) {
        let timeout = self.config.query_timeout;
        self.pending.expire(now, timeout, |query| out.push(DnsMessage::Unanswered(*query)));
    }
}

/// A parser of DNS over UDP.
#[derive(Debug, Clone, Default)]
pub struct DnsUdpParser(Exchange);

impl DnsUdpParser {
    /// Creates a parser with the given configuration.
    pub fn with_config(config: DnsConfig) -> Self {
        Self(Exchange { config, pending: Pending::default() })
    }
}

impl DatagramParser for DnsUdpParser {
    type Message = DnsMessage;

    fn parse(&mut self, payload: &[u8], _: FlowSide, ts: FlowTime, out: &mut Vec<DnsMessage>) {
        self.0.message(payload, ts, out);
        parser_holds(self.0.pending.held());
    }

    fn on_tick(&mut self, now: FlowTime, out: &mut Vec<DnsMessage>) {
        self.0.expire(now, out);
        parser_holds(self.0.pending.held());
    }

    fn parser_kind(&self) -> ParserKind {
        ParserKind::DnsUdp
    }
}

/// A parser of DNS over TCP, where each message is behind its length
/// ([RFC 1035 §4.2.2](https://www.rfc-editor.org/rfc/rfc1035#section-4.2.2)).
#[derive(Debug, Clone, Default)]
pub struct DnsTcpParser {
    exchange: Exchange,
    /// Of each side, the bytes of a message that is not complete.
    buffers: [Vec<u8>; 2],
    is_poisoned: bool,
}

impl DnsTcpParser {
    /// Creates a parser with the given configuration.
    pub fn with_config(config: DnsConfig) -> Self {
        Self { exchange: Exchange { config, pending: Pending::default() }, ..Self::default() }
    }

    fn feed(&mut self, side: usize, mut bytes: &[u8], ts: FlowTime, out: &mut Vec<DnsMessage>) {
        let Self { exchange, buffers, is_poisoned } = self;
        let buffer = &mut buffers[side];
        while !bytes.is_empty() && !*is_poisoned {
            if buffer.is_empty()
                && let Some((message, rest)) = framed(bytes)
            {
                *is_poisoned = !exchange.message(message, ts, out);
                bytes = rest;
                continue;
            }
            let length = match (&**buffer, bytes) {
                ([high, low, ..], _) | ([high], [low, ..]) => 2 + length(*high, *low),
                _ => 2,
            };
            let (part, rest) = bytes.split_at(bytes.len().min(length - buffer.len().min(length)));
            buffer.extend_from_slice(part);
            bytes = rest;
            if let Some((message, _)) = framed(buffer) {
                *is_poisoned = !exchange.message(message, ts, out);
                buffer.clear();
            }
        }
        self.weigh();
    }

    fn fin(&mut self, side: usize) {
        if !self.buffers[side].is_empty() {
            self.buffers[side] = Vec::new();
            message_refused("a message that its connection cut off");
        }
        self.weigh();
    }

    fn weigh(&self) {
        let buffers = self.buffers.iter().map(Vec::capacity).sum::<usize>();
        parser_holds(buffers + self.exchange.pending.held());
    }
}

fn length(high: u8, low: u8) -> usize {
    usize::from(u16::from_be_bytes([high, low]))
}

/// Returns the first message and the bytes behind it, if it is complete.
fn framed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let [high, low, rest @ ..] = bytes else { return None };
    rest.split_at_checked(length(*high, *low))
}

impl SessionParser for DnsTcpParser {
    type Message = DnsMessage;

    fn feed_initiator(&mut self, bytes: &[u8], ts: FlowTime, out: &mut Vec<DnsMessage>) {
        self.feed(0, bytes, ts, out);
    }

    fn feed_responder(&mut self, bytes: &[u8], ts: FlowTime, out: &mut Vec<DnsMessage>) {
        self.feed(1, bytes, ts, out);
    }

    fn fin_initiator(&mut self, _: &mut Vec<DnsMessage>) {
        self.fin(0);
    }

    fn fin_responder(&mut self, _: &mut Vec<DnsMessage>) {
        self.fin(1);
    }

    fn on_tick(&mut self, now: FlowTime, out: &mut Vec<DnsMessage>) {
        self.exchange.expire(now, out);
        self.weigh();
    }

    fn is_poisoned(&self) -> bool {
        self.is_poisoned
    }

    fn poison_reason(&self) -> Option<&str> {
        self.is_poisoned.then_some(SHORT)
    }

    fn parser_kind(&self) -> ParserKind {
        ParserKind::DnsTcp
    }
}
