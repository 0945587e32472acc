//! Parsing several protocols in one pass.

use std::fmt;

use flowscope::{
    DatagramParser, DatagramParserFactory, FlowSide, KeyFields, L4Proto, ParserKind, SessionParser,
    SessionParserFactory, Timestamp as FlowTime,
};

use super::consumer::Data;
use super::parser::{Choice, OfDatagrams, OfStream, Parse, Source};

/// A parser that converts the messages of another.
struct Mapped<P, N, F> {
    parser: P,
    messages: Vec<N>,
    map: F,
}

impl<P, N, F> Mapped<P, N, F> {
    fn new(parser: P, map: F) -> Self {
        Self { parser, messages: Vec::new(), map }
    }
}

impl<M, N, P: Parse<N>, F: Fn(N) -> M> Parse<M> for Mapped<P, N, F> {
    fn data(&mut self, side: FlowSide, ts: FlowTime, data: &Data<'_>, out: &mut Vec<M>) {
        self.parser.data(side, ts, data, &mut self.messages);
        out.extend(self.messages.drain(..).map(&self.map));
    }

    fn reset(&mut self) {
        self.parser.reset();
    }

    fn tick(&mut self, now: FlowTime, out: &mut Vec<M>) {
        self.parser.tick(now, &mut self.messages);
        out.extend(self.messages.drain(..).map(&self.map));
    }

    fn is_done(&self) -> bool {
        self.parser.is_done()
    }

    fn poison(&self) -> Option<Option<String>> {
        self.parser.poison()
    }

    fn kind(&self) -> ParserKind {
        self.parser.kind()
    }
}

/// A parser of streams with initiator and responder exchanged. If a capture begins in the middle of a
/// connection, or contains only one direction, the side seen first may be the one that answered.
#[derive(Debug, Clone, Default)]
pub struct Swapped<P>(pub P);

impl<P: SessionParser> SessionParser for Swapped<P> {
    type Message = P::Message;

    fn feed_initiator(&mut self, bytes: &[u8], ts: FlowTime, out: &mut Vec<P::Message>) {
        self.0.feed_responder(bytes, ts, out);
    }

    fn feed_responder(&mut self, bytes: &[u8], ts: FlowTime, out: &mut Vec<P::Message>) {
        self.0.feed_initiator(bytes, ts, out);
    }

    fn fin_initiator(&mut self, out: &mut Vec<P::Message>) {
        self.0.fin_responder(out);
    }

    fn fin_responder(&mut self, out: &mut Vec<P::Message>) {
        self.0.fin_initiator(out);
    }

    fn rst_initiator(&mut self) {
        self.0.rst_responder();
    }

    fn rst_responder(&mut self) {
        self.0.rst_initiator();
    }

    fn on_tick(&mut self, now: FlowTime, out: &mut Vec<P::Message>) {
        self.0.on_tick(now, out);
    }

    fn is_poisoned(&self) -> bool {
        self.0.is_poisoned()
    }

    fn poison_reason(&self) -> Option<&str> {
        self.0.poison_reason()
    }

    fn is_done(&self) -> bool {
        self.0.is_done()
    }

    fn parser_kind(&self) -> ParserKind {
        self.0.parser_kind()
    }
}

type IsIt = Box<dyn Fn(FlowSide, &[u8]) -> bool>;
type MakeParser<K, M> = Box<dyn FnMut(&K) -> Box<dyn Parse<M>>>;

/// The criterion that identifies a protocol.
enum Sign {
    Ports(Vec<u16>),
    Bytes(IsIt),
    Always,
}

/// Several protocols parsed in one pass, identified by ports or by the first bytes of a flow. Each has its own
/// parser, whose messages are converted to the messages of the stream.
///
/// A flow uses the first rule that matches. Ports of either side are checked when the flow begins; bytes are
/// checked with the first bytes of each side.
pub struct Protocols<K, M> {
    rules: Vec<(L4Proto, Sign, MakeParser<K, M>)>,
}

impl<K: KeyFields + 'static, M: 'static> Protocols<K, M> {
    /// Creates an empty set of rules.
    #[must_use]
    pub fn new() -> Self {
        Self { rules: Vec::new() }
    }

    /// Adds a parser for TCP connections with one of the given ports.
    #[must_use]
    pub fn tcp_ports<F: SessionParserFactory<K>>(
        self,
        ports: impl IntoIterator<Item = u16>,
        factory: F,
        message: impl Fn(<F::Parser as SessionParser>::Message) -> M + Clone + 'static,
    ) -> Self {
        self.stream(Sign::Ports(ports.into_iter().collect()), factory, message)
    }

    /// Adds a parser for TCP connections for which `is_it` returns true, given a side and the first bytes sent
    /// by that side.
    #[must_use]
    pub fn tcp_bytes<F: SessionParserFactory<K>>(
        self,
        is_it: impl Fn(FlowSide, &[u8]) -> bool + 'static,
        factory: F,
        message: impl Fn(<F::Parser as SessionParser>::Message) -> M + Clone + 'static,
    ) -> Self {
        self.stream(Sign::Bytes(Box::new(is_it)), factory, message)
    }

    /// Adds a parser for UDP datagrams with one of the given ports.
    #[must_use]
    pub fn udp_ports<F: DatagramParserFactory<K>>(
        self,
        ports: impl IntoIterator<Item = u16>,
        factory: F,
        message: impl Fn(<F::Parser as DatagramParser>::Message) -> M + Clone + 'static,
    ) -> Self {
        self.datagrams(L4Proto::Udp, Sign::Ports(ports.into_iter().collect()), factory, message)
    }

    /// Adds a parser for UDP flows for which `is_it` returns true, given the first datagram of a side.
    #[must_use]
    pub fn udp_bytes<F: DatagramParserFactory<K>>(
        self,
        is_it: impl Fn(FlowSide, &[u8]) -> bool + 'static,
        factory: F,
        message: impl Fn(<F::Parser as DatagramParser>::Message) -> M + Clone + 'static,
    ) -> Self {
        self.datagrams(L4Proto::Udp, Sign::Bytes(Box::new(is_it)), factory, message)
    }

    /// Adds a parser for ICMP messages, of both versions.
    #[must_use]
    pub fn icmp<F: DatagramParserFactory<K> + Clone>(
        self,
        factory: F,
        message: impl Fn(<F::Parser as DatagramParser>::Message) -> M + Clone + 'static,
    ) -> Self {
        self.datagrams(L4Proto::Icmp, Sign::Always, factory.clone(), message.clone()).datagrams(
            L4Proto::IcmpV6,
            Sign::Always,
            factory,
            message,
        )
    }

    fn stream<F: SessionParserFactory<K>>(
        mut self,
        sign: Sign,
        mut factory: F,
        message: impl Fn(<F::Parser as SessionParser>::Message) -> M + Clone + 'static,
    ) -> Self {
        let make = move |key: &K| {
            let parser = OfStream::new(factory.new_parser(key));
            Box::new(Mapped::new(parser, message.clone())) as Box<dyn Parse<M>>
        };
        self.rules.push((L4Proto::Tcp, sign, Box::new(make)));
        self
    }

    fn datagrams<F: DatagramParserFactory<K>>(
        mut self,
        l4: L4Proto,
        sign: Sign,
        mut factory: F,
        message: impl Fn(<F::Parser as DatagramParser>::Message) -> M + Clone + 'static,
    ) -> Self {
        let make = move |key: &K| {
            let parser = OfDatagrams(factory.new_parser(key));
            Box::new(Mapped::new(parser, message.clone())) as Box<dyn Parse<M>>
        };
        self.rules.push((l4, sign, Box::new(make)));
        self
    }
}

impl<K: KeyFields, M> Source<K, M> for Protocols<K, M> {
    fn choose(&mut self, key: &K, l4: Option<L4Proto>) -> Choice<M> {
        let ports = [key.src_port(), key.dest_port()];
        let mut may_come = false;
        for (of, sign, make) in &mut self.rules {
            let fits = match sign {
                _ if Some(*of) != l4 => false,
                Sign::Ports(all) => ports.iter().flatten().any(|port| all.contains(port)),
                Sign::Always => true,
                Sign::Bytes(_) => {
                    may_come = true;
                    false
                }
            };
            if fits {
                return Choice::Parser(make(key));
            }
        }
        if may_come { Choice::ByBytes } else { Choice::None }
    }

    fn by_bytes(
        &mut self,
        key: &K,
        l4: Option<L4Proto>,
        side: FlowSide,
        bytes: &[u8],
    ) -> Option<Box<dyn Parse<M>>> {
        let (_, _, make) = self.rules.iter_mut().find(|(of, sign, _)| {
            Some(*of) == l4 && matches!(sign, Sign::Bytes(is_it) if is_it(side, bytes))
        })?;
        Some(make(key))
    }
}

impl<K: KeyFields + 'static, M: 'static> Default for Protocols<K, M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, M> fmt::Debug for Protocols<K, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protocols").field("rules", &self.rules.len()).finish()
    }
}
