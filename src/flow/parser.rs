//! A common trait for flowscope's parsers of streams and datagrams, for one protocol or several.

use std::borrow::Cow;
use std::fmt;

use flowscope::{
    DatagramParser, DatagramParserFactory, FlowSide, L4Proto, ParserKind, SessionParser,
    SessionParserFactory, Timestamp as FlowTime,
};

use super::aside;
use super::consumer::Data;

/// What a flow's parser could not read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParserFault {
    /// The parser can no longer follow the stream; contains its reason, if it gives one.
    Poisoned(Option<String>),
    /// The parser panicked; contains the panic message.
    Panicked(String),
    /// The parser refused a message, for this reason, and goes on.
    Refused(Cow<'static, str>),
}

impl fmt::Display for ParserFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poisoned(None) => f.write_str("the parser can no longer follow the stream"),
            Self::Poisoned(Some(reason)) => {
                write!(f, "the parser can no longer follow the stream: {reason}")
            }
            Self::Refused(reason) => write!(f, "a message was refused: {reason}"),
            Self::Panicked(message) => write!(f, "the parser has panicked: {message}"),
        }
    }
}

/// A parser of a flow.
pub(super) trait Parse<M> {
    fn data(&mut self, side: FlowSide, ts: FlowTime, data: &Data<'_>, out: &mut Vec<M>);

    /// Tells the parser that the flow was reset.
    fn reset(&mut self);

    fn tick(&mut self, now: FlowTime, out: &mut Vec<M>);

    /// Tells the parser the time once more, at the end of the flow.
    fn over(&mut self, now: FlowTime, out: &mut Vec<M>) {
        aside::over(|| self.tick(now, out));
    }

    fn is_done(&self) -> bool;

    /// Returns the parser's reason if the parser can no longer follow the stream.
    fn poison(&self) -> Option<Option<String>>;

    fn kind(&self) -> ParserKind;
}

/// A parser of streams, and how many bytes are missing before the next ones of each side.
pub(super) struct OfStream<P> {
    parser: P,
    missing: [u64; 2],
}

impl<P> OfStream<P> {
    pub(super) fn new(parser: P) -> Self {
        Self { parser, missing: [0; 2] }
    }
}

impl<P: SessionParser> Parse<P::Message> for OfStream<P> {
    fn data(&mut self, side: FlowSide, ts: FlowTime, data: &Data<'_>, out: &mut Vec<P::Message>) {
        let parser = &mut self.parser;
        let missing = match side {
            FlowSide::Initiator => &mut self.missing[0],
            FlowSide::Responder => &mut self.missing[1],
        };
        match (data, side) {
            (Data::Bytes(bytes), side) => {
                let (missing, bytes) = (std::mem::take(missing), bytes.as_slice());
                aside::behind_gap(missing, || match side {
                    FlowSide::Initiator => parser.feed_initiator(bytes, ts, out),
                    FlowSide::Responder => parser.feed_responder(bytes, ts, out),
                });
            }
            (Data::Fin, FlowSide::Initiator) => parser.fin_initiator(out),
            (Data::Fin, FlowSide::Responder) => parser.fin_responder(out),
            (Data::Gap(bytes), _) => *missing += bytes,
        }
    }

    fn reset(&mut self) {
        self.parser.rst_initiator();
        self.parser.rst_responder();
    }

    fn tick(&mut self, now: FlowTime, out: &mut Vec<P::Message>) {
        self.parser.on_tick(now, out);
    }

    fn is_done(&self) -> bool {
        self.parser.is_done()
    }

    fn poison(&self) -> Option<Option<String>> {
        self.parser.is_poisoned().then(|| self.parser.poison_reason().map(str::to_owned))
    }

    fn kind(&self) -> ParserKind {
        self.parser.parser_kind()
    }
}

/// A parser of datagrams.
pub(super) struct OfDatagrams<D>(pub(super) D);

impl<D: DatagramParser> Parse<D::Message> for OfDatagrams<D> {
    fn data(&mut self, side: FlowSide, ts: FlowTime, data: &Data<'_>, out: &mut Vec<D::Message>) {
        if let Data::Bytes(bytes) = data {
            self.0.parse(bytes.as_slice(), side, ts, out);
        }
    }

    fn reset(&mut self) {}

    fn tick(&mut self, now: FlowTime, out: &mut Vec<D::Message>) {
        self.0.on_tick(now, out);
    }

    fn is_done(&self) -> bool {
        self.0.is_done()
    }

    fn poison(&self) -> Option<Option<String>> {
        self.0.is_poisoned().then(|| self.0.poison_reason().map(str::to_owned))
    }

    fn kind(&self) -> ParserKind {
        self.0.parser_kind()
    }
}

/// The parser chosen for a flow.
pub(super) enum Choice<M> {
    None,
    Parser(Box<dyn Parse<M>>),
    /// The first bytes of the flow decide.
    ByBytes,
}

/// A source of parsers for flows.
pub(super) trait Source<K, M> {
    fn choose(&mut self, key: &K, l4: Option<L4Proto>) -> Choice<M>;

    fn by_bytes(
        &mut self,
        _key: &K,
        _l4: Option<L4Proto>,
        _side: FlowSide,
        _bytes: &[u8],
    ) -> Option<Box<dyn Parse<M>>> {
        None
    }
}

/// Uses the same parser for every TCP connection.
pub(super) struct EveryStream<F>(pub(super) F);

impl<K, F: SessionParserFactory<K>> Source<K, <F::Parser as SessionParser>::Message>
    for EveryStream<F>
{
    fn choose(
        &mut self,
        key: &K,
        l4: Option<L4Proto>,
    ) -> Choice<<F::Parser as SessionParser>::Message> {
        match l4 {
            Some(L4Proto::Tcp) => Choice::Parser(Box::new(OfStream::new(self.0.new_parser(key)))),
            _ => Choice::None,
        }
    }
}

/// Uses the same parser for every UDP flow, or, if it is an ICMP parser, for every ICMP flow.
pub(super) struct EveryDatagram<F>(pub(super) F);

impl<K, F: DatagramParserFactory<K>> Source<K, <F::Parser as DatagramParser>::Message>
    for EveryDatagram<F>
{
    fn choose(
        &mut self,
        key: &K,
        l4: Option<L4Proto>,
    ) -> Choice<<F::Parser as DatagramParser>::Message> {
        if !matches!(l4, Some(L4Proto::Udp | L4Proto::Icmp | L4Proto::IcmpV6)) {
            return Choice::None;
        }
        let parser = self.0.new_parser(key);
        match (parser.parser_kind() == ParserKind::Icmp) == (l4 != Some(L4Proto::Udp)) {
            true => Choice::Parser(Box::new(OfDatagrams(parser))),
            false => Choice::None,
        }
    }
}
