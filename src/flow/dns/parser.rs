//! The parsers of datagrams and of streams.

use std::time::Duration;

use flowscope::{DatagramParser, FlowSide, ParserKind, SessionParser, Timestamp as FlowTime};

use super::message::{DnsContent, DnsMessage, DnsQuestion};
use super::pending::{Name, Pending};
use super::read;
use crate::flow::aside::{bytes_missing, flow_is_over, message_refused, parser_holds};

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
    hasher: ahash::RandomState,
}

impl Exchange {
    /// Reads a message of a side. Returns whether it has a whole header.
    fn message(
        &mut self,
        side: usize,
        bytes: &[u8],
        ts: FlowTime,
        out: &mut Vec<DnsMessage>,
    ) -> bool {
        let Some(mut content) = read::message(bytes) else {
            message_refused(SHORT);
            return false;
        };
        let (id, is_response) = (content.transaction_id, content.flags.is_response());
        let name = Name { id, is_responders: (side == 1) != is_response };
        let question = content.questions.first().map(|question| self.hash(question));
        self.expire(ts, out);
        if is_response {
            let asked = self.pending.answer(name, question);
            content.elapsed = asked.map(|asked| ts.saturating_sub(asked));
            out.push(DnsMessage::Response(content));
        } else {
            let kept = self.config.tell_unanswered.then(|| Box::new(content.clone()));
            self.pending.ask(name, question, ts, kept, self.config.max_pending);
            out.push(DnsMessage::Query(content));
        }
        true
    }

    fn hash(&self, question: &DnsQuestion) -> u64 {
        let DnsQuestion { name, qtype, qclass } = question;
        self.hasher.hash_one((name.to_ascii_lowercase(), qtype, qclass))
    }

    fn expire(&mut self, now: FlowTime, out: &mut Vec<DnsMessage>) {
        let timeout = self.config.query_timeout;
        let tell = |query: Box<DnsContent>| out.push(DnsMessage::Unanswered(*query));
        match flow_is_over() {
            true => self.pending.end(tell),
            false => self.pending.expire(now, timeout, tell),
        }
    }
}

/// A parser of DNS over UDP.
#[derive(Debug, Clone, Default)]
pub struct DnsUdpParser(Exchange);

impl DnsUdpParser {
    /// Creates a parser with the given configuration.
    pub fn with_config(config: DnsConfig) -> Self {
        Self(Exchange { config, ..Exchange::default() })
    }
}

impl DatagramParser for DnsUdpParser {
    type Message = DnsMessage;

    fn parse(&mut self, payload: &[u8], side: FlowSide, ts: FlowTime, out: &mut Vec<DnsMessage>) {
        self.0.message(usize::from(side == FlowSide::Responder), payload, ts, out);
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
///
/// If bytes are missing within a message, the next one is read again. If the length of a message is among them, the
/// next segment is taken to begin with one.
#[derive(Debug, Clone, Default)]
pub struct DnsTcpParser {
    exchange: Exchange,
    sides: [Side; 2],
    is_poisoned: bool,
}

#[derive(Debug, Clone, Default)]
struct Side {
    /// The bytes of a message that is not complete.
    buffer: Vec<u8>,
    /// How many bytes belong to a message that was given up.
    skip: usize,
}

impl Side {
    /// Finds the way behind bytes that are missing.
    fn look_behind_gap(&mut self, missing: u64) {
        let missing = usize::try_from(missing).unwrap_or(usize::MAX);
        let left = match self.buffer[..] {
            [] => self.skip,
            [high, low, ..] => 2 + length(high, low) - self.buffer.len(),
            [_] => 0,
        };
        if !self.buffer.is_empty() {
            message_refused("a message with a gap");
        }
        self.buffer = Vec::new();
        self.skip = left.saturating_sub(missing);
    }
}

impl DnsTcpParser {
    /// Creates a parser with the given configuration.
    pub fn with_config(config: DnsConfig) -> Self {
        let exchange = Exchange { config, ..Exchange::default() };
        Self { exchange, ..Self::default() }
    }

    fn feed(&mut self, number: usize, mut bytes: &[u8], ts: FlowTime, out: &mut Vec<DnsMessage>) {
        let Self { exchange, sides, is_poisoned } = self;
        let side = &mut sides[number];
        let missing = bytes_missing();
        if missing > 0 {
            side.look_behind_gap(missing);
        }
        while !bytes.is_empty() && !*is_poisoned {
            if side.skip > 0 {
                let skipped = side.skip.min(bytes.len());
                side.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let buffer = &mut side.buffer;
            if buffer.is_empty()
                && let Some((message, rest)) = framed(bytes)
            {
                *is_poisoned = !exchange.message(number, message, ts, out);
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
                *is_poisoned = !exchange.message(number, message, ts, out);
                *buffer = Vec::new();
            }
        }
        self.weigh();
    }

    fn fin(&mut self, side: usize) {
        if !std::mem::take(&mut self.sides[side]).buffer.is_empty() {
            message_refused("a message that its connection cut off");
        }
        self.weigh();
    }

    fn weigh(&self) {
        let buffers = self.sides.iter().map(|side| side.buffer.capacity()).sum::<usize>();
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
