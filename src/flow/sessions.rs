//! Parsed flows: the messages of application protocols.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use flowscope::{
    DatagramParser, DatagramParserFactory, EndReason, FlowExtractor, FlowSide, KeyFields, L4Proto,
    Orientation, ParserKind, SessionParser, SessionParserFactory, Timestamp as FlowTime,
};

use super::aside;
use super::connections::Connections;
use super::consumer::{Consumer, Data, End, Of, Wanted};
#[cfg(feature = "flow-records")]
use super::event::FlowEvent;
use super::event::{FlowHistory, FlowStats, side_orientation};
use super::parser::{Choice, EveryDatagram, EveryStream, Parse, ParserFault, Source};
use super::protocols::Protocols;
use super::pump::FlowSource;
#[cfg(feature = "flow-records")]
use super::record::FlowRecord;
use super::stream::{FlowStream, Flows};

/// An event of a flow whose bytes are parsed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SessionEvent<K, M> {
    /// A flow began that has a parser, or may get one by its first bytes.
    Started {
        /// Key of the flow.
        key: K,
        /// Whether the initiator is the first endpoint of the key (`Forward`) or the second.
        orientation: Orientation,
        /// Transport protocol of the flow.
        l4: Option<L4Proto>,
        /// Time of the event.
        ts: FlowTime,
    },
    /// A parsed message.
    Application {
        /// Key of the flow.
        key: K,
        /// Side that sent the message.
        side: FlowSide,
        /// Whether that side is the first endpoint of the key (`Forward`) or the second.
        orientation: Orientation,
        /// The message.
        message: M,
        /// Kind of the parser that produced the message.
        parser_kind: ParserKind,
        /// Time of the packet that completed the message.
        ts: FlowTime,
    },
    /// Bytes of a stream are missing here: they were lost, or given up.
    Gap {
        /// Key of the flow.
        key: K,
        /// Side whose bytes are missing.
        side: FlowSide,
        /// Whether that side is the first endpoint of the key (`Forward`) or the second.
        orientation: Orientation,
        /// Number of missing bytes.
        bytes: u64,
        /// Time at which the bytes were given up.
        ts: FlowTime,
    },
    /// A parser failed: the end of its flow follows, unless it only
    /// [refused](ParserFault::Refused) a message.
    ParserError {
        /// Key of the flow.
        key: K,
        /// Kind of the parser.
        parser_kind: ParserKind,
        /// The fault of the parser.
        fault: ParserFault,
        /// Time of the failure.
        ts: FlowTime,
    },
    /// A flow ended, or its parser is done with it. This is the last event of a flow, but for its record.
    Closed {
        /// Key of the flow.
        key: K,
        /// Reason for the end.
        reason: EndReason,
        /// Statistics of the flow up to this point.
        stats: FlowStats,
        /// TCP history of the flow, in letters.
        history: FlowHistory,
        /// Transport protocol of the flow.
        l4: Option<L4Proto>,
    },
    /// The record of a flow that ended, or that goes on for longer than the active timeout; of every flow, also of those that
    /// have no parser. Told if it is asked for (`with_records`).
    #[cfg(feature = "flow-records")]
    Record(FlowRecord<K>),
}

impl<K, M> SessionEvent<K, M> {
    /// Returns the key of the flow.
    pub fn key(&self) -> &K {
        match self {
            Self::Started { key, .. }
            | Self::Application { key, .. }
            | Self::Gap { key, .. }
            | Self::ParserError { key, .. }
            | Self::Closed { key, .. } => key,
            #[cfg(feature = "flow-records")]
            Self::Record(record) => &record.key,
        }
    }
}

/// A flow and its parser.
#[expect(missing_debug_implementations, reason = "users cannot name it")]
pub struct Session<M> {
    l4: Option<L4Proto>,
    parser: Option<Box<dyn Parse<M>>>,
    /// Whether the protocol is identified by first bytes.
    by_bytes: bool,
    /// For each side, whether its first bytes identified no protocol.
    is_strange: [bool; 2],
    /// For each side, whether bytes were lost, so that its bytes are ignored until they identify a protocol
    /// again.
    is_lost: [bool; 2],
    has_ended: [bool; 2],
    /// Whether the initiator is the key's first endpoint.
    initiator: Orientation,
    /// The memory that the parser holds, as far as it is known, and whether the parser has said it.
    held: usize,
    has_said: bool,
    /// Whether the parser finds its way behind a gap by itself.
    heeds_gaps: bool,
}

impl<M> Session<M> {
    /// Takes into account what the parser said, or else the bytes that it was given and whether messages came.
    fn weigh(&mut self, said: Option<usize>, given: usize, has_told: bool) {
        self.has_said |= said.is_some();
        self.held = match said {
            Some(held) => held,
            None if self.has_said => self.held,
            None if has_told => 0,
            None => (self.held + given).min(MOST_ASSUMED),
        };
    }
}

/// The most bytes that a parser is assumed to hold which does not say it.
const MOST_ASSUMED: usize = 256 * 1024;

/// The consumer that passes flows to parsers.
#[expect(missing_debug_implementations, reason = "users name it only by aliases")]
pub struct Sessions<K, M> {
    source: Box<dyn Source<K, M>>,
    messages: Vec<M>,
    #[cfg(feature = "flow-records")]
    tells_records: bool,
}

impl<K: Clone, M> Sessions<K, M> {
    /// Runs a parser and turns its messages into events, including the messages that it produced before a
    /// panic.
    fn run(
        &mut self,
        of: Of<'_, K>,
        flow: &mut Session<M>,
        given: usize,
        events: &mut VecDeque<SessionEvent<K, M>>,
        work: impl FnOnce(&mut dyn Parse<M>, &mut Vec<M>),
    ) -> Wanted {
        let Some(parser) = &mut flow.parser else { return Wanted::More };
        let messages = &mut self.messages;
        aside::listen();
        let done = catch_unwind(AssertUnwindSafe(|| {
            work(&mut **parser, messages);
            let kind = parser.kind();
            (kind, parser.poison(), parser.is_done())
        }));
        let parser_kind = done.as_ref().map_or(ParserKind::Unspecified, |(kind, ..)| *kind);
        let Of { key, side, ts } = of;
        let orientation = side_orientation(flow.initiator, side);
        flow.weigh(aside::held(), given, !messages.is_empty());
        flow.heeds_gaps |= aside::heeds_gaps();
        events.extend(messages.drain(..).map(|message| {
            let key = key.clone();
            SessionEvent::Application { key, side, orientation, message, parser_kind, ts }
        }));
        let mut fault = |fault| {
            events.push_back(SessionEvent::ParserError {
                key: key.clone(),
                parser_kind,
                fault,
                ts,
            });
        };
        aside::refused(|reason| fault(ParserFault::Refused(reason)));
        match done {
            Ok((_, None, false)) if aside::is_content() => return Wanted::Nothing,
            Ok((_, None, false)) => return Wanted::More,
            Ok((_, None, true)) => return Wanted::Over(EndReason::ParserDone),
            Ok((_, Some(reason), _)) => fault(ParserFault::Poisoned(reason)),
            Err(panic) => fault(ParserFault::Panicked(text(&*panic))),
        }
        Wanted::Over(EndReason::ParseError)
    }
}

impl<K: Clone, M> Sessions<K, M> {
    /// Tells the flow's parser that nothing more comes of the sides that have not ended.
    fn finish(
        &mut self,
        of: Of<'_, K>,
        flow: &mut Session<M>,
        events: &mut VecDeque<SessionEvent<K, M>>,
    ) {
        for side in [FlowSide::Initiator, FlowSide::Responder] {
            if flow.has_ended[number(side)] {
                continue;
            }
            let of = Of { side, ..of };
            let fin = |parser: &mut dyn Parse<M>, out: &mut Vec<M>| {
                aside::cutting_off(|| parser.data(side, of.ts, &Data::Fin, out));
            };
            if matches!(self.run(of, flow, 0, events, fin), Wanted::Over(_)) {
                return;
            }
        }
        self.run(of, flow, 0, events, |parser, out| parser.over(of.ts, out));
    }
}

/// Returns the message of a panic.
fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?").to_owned()
}

fn number(side: FlowSide) -> usize {
    match side {
        FlowSide::Initiator => 0,
        FlowSide::Responder => 1,
    }
}

impl<K: Clone, M> Consumer<K> for Sessions<K, M> {
    type Event = SessionEvent<K, M>;
    type Flow = Session<M>;
    const TICKS: bool = true;

    fn begin(
        &mut self,
        of: Of<'_, K>,
        initiator: Orientation,
        l4: Option<L4Proto>,
        events: &mut VecDeque<Self::Event>,
    ) -> Option<Session<M>> {
        let (parser, by_bytes) = match self.source.choose(of.key, l4) {
            Choice::None => return None,
            Choice::Parser(parser) => (Some(parser), false),
            Choice::ByBytes => (None, true),
        };
        let (key, orientation) = (of.key.clone(), initiator);
        events.push_back(SessionEvent::Started { key, orientation, l4, ts: of.ts });
        let (is_strange, is_lost, has_ended) = ([false; 2], [false; 2], [false; 2]);
        let (held, has_said, heeds_gaps) = (0, false, false);
        Some(Session {
            l4,
            parser,
            by_bytes,
            is_strange,
            is_lost,
            has_ended,
            initiator,
            held,
            has_said,
            heeds_gaps,
        })
    }

    fn data(
        &mut self,
        of: Of<'_, K>,
        flow: &mut Session<M>,
        data: Data<'_>,
        events: &mut VecDeque<Self::Event>,
    ) -> Wanted {
        let side = number(of.side);
        match &data {
            Data::Bytes(bytes) if flow.parser.is_none() && !flow.is_strange[side] => {
                flow.parser = self.source.by_bytes(of.key, flow.l4, of.side, bytes.as_slice());
                flow.is_lost[side] = false;
                flow.is_strange[side] = flow.parser.is_none();
                if flow.is_strange == [true; 2] {
                    return Wanted::Nothing;
                }
            }
            Data::Bytes(bytes) if flow.is_lost[side] => {
                let anew = self.source.by_bytes(of.key, flow.l4, of.side, bytes.as_slice());
                let Some(parser) = anew else { return Wanted::More };
                flow.parser = Some(parser);
                (flow.held, flow.has_said) = (0, false);
                flow.is_lost[side] = false;
            }
            Data::Gap(bytes) => {
                flow.is_lost[side] = flow.by_bytes && !flow.heeds_gaps;
                let (key, side, bytes, ts) = (of.key.clone(), of.side, *bytes, of.ts);
                let orientation = side_orientation(flow.initiator, side);
                events.push_back(SessionEvent::Gap { key, side, orientation, bytes, ts });
            }
            Data::Fin => flow.has_ended[side] = true,
            Data::Bytes(_) => {}
        }
        let given = match &data {
            Data::Bytes(bytes) => bytes.as_slice().len(),
            Data::Gap(_) | Data::Fin => 0,
        };
        let work = |parser: &mut dyn Parse<M>, out: &mut Vec<M>| {
            parser.data(of.side, of.ts, &data, out);
        };
        self.run(of, flow, given, events, work)
    }

    fn end(&mut self, key: &K, mut flow: Session<M>, end: End, events: &mut VecDeque<Self::Event>) {
        let End { reason, stats, history, l4, ts } = end;
        // In these cases the parser itself ended the flow, and need not be told.
        let is_broken = matches!(reason, EndReason::ParseError | EndReason::ParserDone);
        if !is_broken {
            let is_reset =
                !matches!(reason, EndReason::Fin | EndReason::IdleTimeout | EndReason::ForceClosed);
            if is_reset {
                let of = Of { key, side: FlowSide::Initiator, ts };
                if matches!(
                    self.run(of, &mut flow, 0, events, |parser, _| parser.reset()),
                    Wanted::Over(_)
                ) {
                    flow.parser = None;
                }
            }
            // A message that is cut off is told by parsers that tell those.
            self.finish(Of { key, side: FlowSide::Initiator, ts }, &mut flow, events);
        }
        let key = key.clone();
        events.push_back(SessionEvent::Closed { key, reason, stats, history, l4 });
    }

    fn tick(
        &mut self,
        of: Of<'_, K>,
        flow: &mut Session<M>,
        events: &mut VecDeque<Self::Event>,
    ) -> Wanted {
        self.run(of, flow, 0, events, |parser, out| parser.tick(of.ts, out))
    }

    fn held(&self, flow: &Session<M>) -> usize {
        flow.held
    }

    #[cfg(feature = "flow-records")]
    fn handled(&mut self, event: FlowEvent<K>, events: &mut VecDeque<Self::Event>) {
        if self.tells_records {
            events.extend(FlowRecord::of(event).map(SessionEvent::Record));
        }
    }
}

/// A stream of the messages in flows; from [`FlowStream::session_stream`],
/// [`datagram_stream`](FlowStream::datagram_stream) and [`protocol_stream`](FlowStream::protocol_stream).
///
/// TCP streams are reassembled first ([`with_reassembly`](Self::with_reassembly)); missing bytes are reported
/// as a [`Gap`](SessionEvent::Gap). The parser continues after a gap; if the protocol is identified by first
/// bytes ([`Protocols::tcp_bytes`]), a new parser takes over at the next segment whose bytes identify it. A
/// parser that panics or can no longer follow its stream ends only its own flow. Each parser is told the time
/// about once a second.
pub type SessionStream<St, E, S, M> =
    Flows<St, Connections<E, S, Sessions<<E as FlowExtractor>::Key, M>>>;

/// The message type of a factory's stream parsers.
type StreamMessage<F, K> = <<F as SessionParserFactory<K>>::Parser as SessionParser>::Message;
/// The message type of a factory's datagram parsers.
type DatagramMessage<F, K> = <<F as DatagramParserFactory<K>>::Parser as DatagramParser>::Message;

impl<St: FlowSource, E: FlowExtractor, S: Send + 'static> FlowStream<St, E, S> {
    /// Gives each TCP connection a parser, and delivers the messages. Options and the states of flows are kept.
    pub fn session_stream<F: SessionParserFactory<E::Key>>(
        self,
        factory: F,
    ) -> SessionStream<St, E, S, StreamMessage<F, E::Key>> {
        self.sessions(Box::new(EveryStream(factory)))
    }

    /// Gives each UDP flow a parser, and delivers the messages; an ICMP parser is given the ICMP flows.
    /// Fragmented datagrams are reassembled first.
    pub fn datagram_stream<F: DatagramParserFactory<E::Key>>(
        self,
        factory: F,
    ) -> SessionStream<St, E, S, DatagramMessage<F, E::Key>> {
        self.sessions(Box::new(EveryDatagram(factory)))
    }

    /// Gives each flow the parser of its protocol, from a set of several protocols.
    pub fn protocol_stream<M: 'static>(
        self,
        protocols: Protocols<E::Key, M>,
    ) -> SessionStream<St, E, S, M>
    where
        E::Key: KeyFields,
    {
        self.sessions(Box::new(protocols))
    }

    fn sessions<M>(self, source: Box<dyn Source<E::Key, M>>) -> SessionStream<St, E, S, M> {
        let sessions = Sessions {
            source,
            messages: Vec::new(),
            #[cfg(feature = "flow-records")]
            tells_records: false,
        };
        self.into_flows(|table| Connections::new(table, sessions))
    }
}

#[cfg(feature = "flow-records")]
impl<St: FlowSource, E: FlowExtractor, S: Send + 'static, M> SessionStream<St, E, S, M> {
    /// Tells the [record](SessionEvent::Record) of every flow as well, behind its other events: what
    /// [`into_records`](FlowStream::into_records) tells, in the same pass.
    #[must_use]
    pub fn with_records(mut self) -> Self {
        self.pump.intake.consumer.tells_records = true;
        self
    }
}
