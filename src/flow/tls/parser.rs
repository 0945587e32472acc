//! The parser of a connection.

use flowscope::{ParserKind, SessionParser, Timestamp as FlowTime};

use super::message::{TlsAlert, TlsMessage};
use super::read;
use super::records::{Item, Records, is_tls};
use crate::flow::aside::{bytes_missing, message_refused, nothing_more_wanted, parser_holds};

/// Limits of a [`TlsParser`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsConfig {
    /// Most bytes of a handshake message; a longer one is refused and skipped. Default: 128 KiB.
    pub max_message: usize,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self { max_message: 128 * 1024 }
    }
}

/// A parser of the handshake of a TLS connection.
///
/// Once nothing more can be read, because everything is encrypted, the connection's bytes are skipped.
#[derive(Debug, Clone, Default)]
pub struct TlsParser {
    config: TlsConfig,
    sides: [Side; 2],
    /// Whether the connection is of TLS 1.3, where a change of the cipher spec means nothing; `None` before the
    /// server's hello.
    is_1_3: Option<bool>,
    fault: Option<&'static str>,
}

#[derive(Debug, Clone, Default)]
struct Side {
    records: Records,
    /// Whether the side has changed its cipher spec.
    has_changed: bool,
    has_data: bool,
    /// Whether bytes are missing, and the next segment that begins with a hello is waited for.
    is_lost: bool,
}

impl TlsParser {
    /// Creates a parser with the given limits.
    pub fn with_config(config: TlsConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Returns whether nothing more of a side can be read.
    fn is_over(&self, side: usize) -> bool {
        let [one, two] = &self.sides;
        one.has_data && two.has_data || self.is_1_3 == Some(false) && self.sides[side].has_changed
    }

    fn feed(&mut self, side: usize, mut bytes: &[u8], out: &mut Vec<TlsMessage>) {
        self.look_behind_gap(side, bytes);
        while !bytes.is_empty()
            && self.fault.is_none()
            && !self.sides[side].is_lost
            && !self.is_over(side)
        {
            let Self { config, sides, is_1_3, fault } = self;
            let Side { records, has_changed, has_data, .. } = &mut sides[side];
            // With a retry, TLS 1.3 has a second hello behind a change.
            let is_encrypted = *has_changed && *is_1_3 != Some(true);
            let mut each = |item: Item<'_>| match item {
                Item::Handshake(message) => {
                    let message = read::message(message);
                    if let Some(TlsMessage::ServerHello(hello)) = &message {
                        *is_1_3 = Some(hello.version().is_1_3());
                    }
                    out.extend(message);
                }
                Item::Alert { level, description } => {
                    out.push(TlsMessage::Alert(TlsAlert { level, description }));
                }
                Item::ChangeCipherSpec => *has_changed = true,
                Item::Data => *has_data = true,
                Item::TooLong => message_refused("a handshake message longer than the limit"),
            };
            match records.next(bytes, config.max_message, is_encrypted, read::is_told, &mut each) {
                Ok(rest) => bytes = rest,
                Err(reason) => *fault = Some(reason),
            }
        }
        if self.is_over(side) {
            self.sides[side].records = Records::default();
        }
        self.weigh();
        if self.is_over(0) && self.is_over(1) {
            nothing_more_wanted();
        }
    }

    /// Finds the way behind bytes that are missing before these.
    fn look_behind_gap(&mut self, number: usize, bytes: &[u8]) {
        let missing = bytes_missing();
        let is_over = self.is_over(number);
        let side = &mut self.sides[number];
        if missing > 0 && !is_over && !side.records.skip(missing) {
            if !side.is_lost {
                message_refused("a record with a gap");
            }
            side.records = Records::default();
            side.is_lost = true;
        }
        side.is_lost &= !is_tls(bytes);
    }

    fn fin(&mut self, side: usize) {
        let is_over = self.is_over(side);
        let records = std::mem::take(&mut self.sides[side].records);
        if !records.is_between() && !is_over {
            message_refused("a record that its connection cut off");
        }
        self.weigh();
    }

    fn weigh(&self) {
        parser_holds(self.sides.iter().map(|side| side.records.held()).sum());
    }
}

impl SessionParser for TlsParser {
    type Message = TlsMessage;

    fn feed_initiator(&mut self, bytes: &[u8], _: FlowTime, out: &mut Vec<TlsMessage>) {
        self.feed(0, bytes, out);
    }

    fn feed_responder(&mut self, bytes: &[u8], _: FlowTime, out: &mut Vec<TlsMessage>) {
        self.feed(1, bytes, out);
    }

    fn fin_initiator(&mut self, _: &mut Vec<TlsMessage>) {
        self.fin(0);
    }

    fn fin_responder(&mut self, _: &mut Vec<TlsMessage>) {
        self.fin(1);
    }

    fn is_poisoned(&self) -> bool {
        self.fault.is_some()
    }

    fn poison_reason(&self) -> Option<&str> {
        self.fault
    }

    fn parser_kind(&self) -> ParserKind {
        ParserKind::Tls
    }
}
