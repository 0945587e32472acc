//! The parser of a connection: both sides, and which response is to which request.

use std::collections::VecDeque;

use flowscope::{ParserKind, SessionParser, Timestamp as FlowTime};

use super::body::{self, Body};
use super::chunked::{Chunked, Step};
use super::head::{self, First, Head, is_http};
use super::message::{HttpMessage, Partial};
use crate::flow::aside::{
    bytes_missing, message_refused, nothing_more_wanted, parser_holds, stream_is_cut_off,
};

/// Limits of an [`HttpParser`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpConfig {
    /// Most bytes of a head, and of a trailer section. A connection with a longer one is given up. Default: 64 KiB.
    pub max_head: usize,
    /// Most bytes of a body that are kept; the rest is counted. Default: 64 KiB.
    pub max_body: usize,
    /// Whether messages that end early, because their connection ends or bytes are missing, are delivered; their
    /// [`is_complete`](super::HttpRequest::is_complete) is `false`. Default: no, they are
    /// [refused](crate::flow::ParserFault::Refused).
    pub tell_incomplete: bool,
    /// Whether messages are delivered when their head is complete, without their body and trailers, of which nothing is
    /// kept: also those whose body takes long, never ends or has a gap. Their
    /// [`is_complete`](super::HttpRequest::is_complete) is `false` if they have a body. Default: no, they are
    /// delivered with it.
    pub heads_only: bool,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { max_head: 64 * 1024, max_body: 64 * 1024, tell_incomplete: false, heads_only: false }
    }
}

/// Most requests whose method is remembered until their response.
const MOST_ASKED: usize = 1024;

/// A parser of the messages of an HTTP/1 connection.
///
/// Which side asks is seen by what it sends, so that connections captured from their middle, or in one direction,
/// are read as well. A message is told when it is complete, or when its head is
/// ([`heads_only`](HttpConfig::heads_only)). After a response that switches protocols (101, or
/// a successful CONNECT), the connection's bytes are skipped.
#[derive(Debug, Clone, Default)]
pub struct HttpParser {
    config: HttpConfig,
    sides: [Side; 2],
    asked: VecDeque<Asked>,
    fault: Option<&'static str>,
}

/// A request, as far as it decides on the body of its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Head,
    Connect,
    Other,
}

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Head,
    /// Without a message that has been told already.
    Body(Box<(Option<Partial>, Body)>),
    /// What follows is another protocol.
    Switched,
    /// Bytes are missing, and the next segment that begins with a message is waited for.
    Lost,
}

#[derive(Debug, Clone, Default)]
struct Side {
    state: State,
    /// Bytes of a head or trailer section that is not complete.
    buffer: Vec<u8>,
    /// Whether the first line of the head is in the buffer.
    has_line: bool,
}

impl Side {
    fn held(&self) -> usize {
        let body = match &self.state {
            State::Body(body) => body.0.as_ref().map_or(0, Partial::held) + size_of::<Body>(),
            State::Head | State::Switched | State::Lost => 0,
        };
        self.buffer.capacity() + body
    }

    /// Leaves out bytes that are missing. Returns whether it is known what follows them.
    fn skip(&mut self, missing: u64) -> bool {
        let State::Body(body) = &mut self.state else { return false };
        let (message, body) = &mut **body;
        match body {
            Body::Length(left) | Body::Chunked(Chunked::Data(left)) if *left > missing => {
                *left -= missing;
            }
            Body::UntilClose => {}
            Body::Length(_) | Body::Chunked(_) => return false,
        }
        if let Some(message) = message {
            message.skip(missing);
        }
        true
    }

    /// Adds bytes up to an empty line to the buffer. Returns the bytes behind it, or `None` if it did not come.
    fn gather<'a>(
        &mut self,
        bytes: &'a [u8],
        most: usize,
    ) -> Result<Option<&'a [u8]>, &'static str> {
        let before = self.buffer.len();
        let room = bytes.len().min(most.saturating_sub(before));
        self.buffer.extend_from_slice(&bytes[..room]);
        if let Some(end) = head::end(&self.buffer, before) {
            self.buffer.truncate(end);
            return Ok(Some(&bytes[end - before..]));
        }
        if room < bytes.len() { Err("a head longer than the limit") } else { Ok(None) }
    }

    /// Takes in bytes of a body. Returns the bytes behind it and the message, if it is complete.
    fn body<'a>(
        &mut self,
        mut bytes: &'a [u8],
        config: &HttpConfig,
    ) -> Result<(&'a [u8], Option<Partial>), &'static str> {
        let State::Body(body) = &mut self.state else { return Ok((bytes, None)) };
        let (message, body) = &mut **body;
        let mut add = |data: &[u8]| {
            if let Some(message) = message {
                message.add(data, config.max_body);
            }
        };
        match body {
            Body::UntilClose => {
                add(bytes);
                return Ok((&[], None));
            }
            Body::Length(left) => {
                let len = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                let (data, rest) = bytes.split_at(len);
                add(data);
                *left -= len as u64;
                bytes = rest;
                if *left > 0 {
                    return Ok((bytes, None));
                }
            }
            Body::Chunked(chunked) => loop {
                match chunked.step(bytes)? {
                    Step::Data(data, rest) => {
                        add(data);
                        bytes = rest;
                    }
                    Step::More => return Ok((&[], None)),
                    Step::Trailers(rest) => match self.trailers(rest, config.max_head)? {
                        Some(rest) => {
                            bytes = rest;
                            break;
                        }
                        None => return Ok((&[], None)),
                    },
                }
            },
        }
        match std::mem::take(&mut self.state) {
            State::Body(body) => Ok((bytes, body.0)),
            State::Head | State::Switched | State::Lost => Ok((bytes, None)),
        }
    }

    /// Takes in bytes of a trailer section, and returns those behind it.
    fn trailers<'a>(
        &mut self,
        bytes: &'a [u8],
        most: usize,
    ) -> Result<Option<&'a [u8]>, &'static str> {
        if self.buffer.is_empty() {
            // So that a section without fields ends with an empty line, too.
            self.buffer.push(b'\n');
        }
        let Some(rest) = self.gather(bytes, most)? else { return Ok(None) };
        let trailers = head::trailers(&self.buffer[1..])?;
        self.buffer.clear();
        if let State::Body(body) = &mut self.state
            && let Some(message) = &mut body.0
        {
            message.trailers(trailers);
        }
        Ok(Some(rest))
    }
}

impl HttpParser {
    /// Creates a parser with the given limits.
    pub fn with_config(config: HttpConfig) -> Self {
        Self { config, ..Self::default() }
    }

    fn feed(&mut self, side: usize, mut bytes: &[u8], out: &mut Vec<HttpMessage>) {
        self.look_behind_gap(side, bytes, out);
        while !bytes.is_empty() && self.fault.is_none() {
            let done = match self.sides[side].state {
                State::Switched | State::Lost => break,
                State::Head => self.head(side, bytes, out),
                State::Body(_) => {
                    let done = self.sides[side].body(bytes, &self.config);
                    done.map(|(rest, message)| {
                        let config = &self.config;
                        message.into_iter().for_each(|message| tell(message, true, config, out));
                        rest
                    })
                }
            };
            match done {
                Ok(rest) => bytes = rest,
                Err(fault) => self.give_up(fault, out),
            }
        }
        self.weigh();
        if self.sides.iter().all(|side| matches!(side.state, State::Switched)) {
            nothing_more_wanted();
        }
    }

    /// Finds the way behind bytes that are missing before these.
    fn look_behind_gap(&mut self, number: usize, bytes: &[u8], out: &mut Vec<HttpMessage>) {
        let missing = bytes_missing();
        let side = &mut self.sides[number];
        if missing > 0 && !matches!(side.state, State::Switched) && !side.skip(missing) {
            side.end(false, &self.config, out);
            side.state = State::Lost;
            // Nobody knows how many requests and responses were among them.
            self.asked.clear();
        }
        if matches!(side.state, State::Lost) && is_http(bytes) {
            side.state = State::Head;
        }
    }

    fn weigh(&self) {
        // A few requests that wait for their responses are no burden.
        let asked = if self.asked.len() > 64 { self.asked.capacity() } else { 0 };
        parser_holds(self.sides[0].held() + self.sides[1].held() + asked);
    }

    /// Takes in bytes of a head, and returns those behind it.
    fn head<'a>(
        &mut self,
        number: usize,
        bytes: &'a [u8],
        out: &mut Vec<HttpMessage>,
    ) -> Result<&'a [u8], &'static str> {
        let side = &mut self.sides[number];
        if !side.buffer.is_empty() {
            return self.gathered_head(number, bytes, out);
        }
        // Empty lines before a message are ignored (RFC 9112 §2.2).
        let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let bytes = &bytes[blank..];
        if bytes.is_empty() {
            return Ok(bytes);
        }
        match head::read(bytes) {
            Ok(Some((_, len))) if len > self.config.max_head => Err("a head longer than the limit"),
            Ok(Some((head, len))) => {
                self.begin(number, head, out)?;
                Ok(&bytes[len..])
            }
            // A fault counts when the line or the head is complete, however the bytes are cut.
            Ok(None) | Err(_) => self.gathered_head(number, bytes, out),
        }
    }

    /// Adds bytes to the part of a head that has come before, and reads it if it is complete.
    fn gathered_head<'a>(
        &mut self,
        number: usize,
        bytes: &'a [u8],
        out: &mut Vec<HttpMessage>,
    ) -> Result<&'a [u8], &'static str> {
        let side = &mut self.sides[number];
        let Some(rest) = side.gather(bytes, self.config.max_head)? else {
            // What is not HTTP is refused with its first line, not only with an empty one.
            if !side.has_line && bytes.contains(&b'\n') {
                side.has_line = true;
                head::check_line(&side.buffer)?;
            }
            return Ok(&[]);
        };
        side.has_line = false;
        let buffer = std::mem::take(&mut side.buffer);
        let (head, _) = head::read(&buffer)?.ok_or("a head without an end")?;
        self.begin(number, head, out)?;
        Ok(rest)
    }

    /// Begins the body of a message whose head was read.
    fn begin(
        &mut self,
        number: usize,
        head: Head,
        out: &mut Vec<HttpMessage>,
    ) -> Result<(), &'static str> {
        let mut is_switch = false;
        let body = match head.first {
            First::Request { method, .. } => {
                if self.asked.len() == MOST_ASKED {
                    self.asked.pop_front();
                }
                self.asked.push_back(match head.fields.part(method) {
                    b"HEAD" => Asked::Head,
                    b"CONNECT" => Asked::Connect,
                    _ => Asked::Other,
                });
                body::of_request(&head.fields)?
            }
            First::Response { status, .. } => {
                let is_interim = matches!(status, 100 | 102..=199);
                let asked = if is_interim { None } else { self.asked.pop_front() };
                let is_tunnel = asked == Some(Asked::Connect) && (200..300).contains(&status);
                is_switch = is_tunnel || status == 101;
                match asked {
                    Some(Asked::Head) => Body::Length(0),
                    _ if is_switch => Body::Length(0),
                    _ => body::of_response(status, &head.fields)?,
                }
            }
        };
        let message = Partial::new(head);
        match body {
            Body::Length(0) => out.push(message.done(true)),
            body => {
                let message = match self.config.heads_only {
                    true => {
                        out.push(message.done(false));
                        None
                    }
                    false => Some(message),
                };
                self.sides[number].state = State::Body(Box::new((message, body)));
            }
        }
        if is_switch {
            for side in &mut self.sides {
                side.end(false, &self.config, out);
                side.state = State::Switched;
            }
        }
        Ok(())
    }

    fn give_up(&mut self, fault: &'static str, out: &mut Vec<HttpMessage>) {
        self.fault = Some(fault);
        self.sides.iter_mut().for_each(|side| side.end(false, &self.config, out));
    }

    fn fin(&mut self, side: usize, out: &mut Vec<HttpMessage>) {
        if let Side { state: State::Head, buffer, .. } = &self.sides[side]
            && !buffer.is_empty()
        {
            match head::read(buffer) {
                Err(fault) => self.fault = Some(fault),
                Ok(_) => message_refused("a head that its connection cut off"),
            }
        }
        self.sides[side].end(!stream_is_cut_off(), &self.config, out);
        self.weigh();
    }
}

impl Side {
    /// Tells the message that has begun, and forgets what was gathered. A body that lasts until its connection ends is
    /// complete if `is_closed`.
    fn end(&mut self, is_closed: bool, config: &HttpConfig, out: &mut Vec<HttpMessage>) {
        self.buffer = Vec::new();
        match std::mem::take(&mut self.state) {
            State::Body(body) => {
                let (message, body) = *body;
                let is_ended = is_closed && matches!(body, Body::UntilClose);
                message.into_iter().for_each(|message| tell(message, is_ended, config, out));
            }
            State::Switched => self.state = State::Switched,
            State::Head | State::Lost => {}
        }
    }
}

/// Tells a message that has ended, or refuses it if it is not complete.
fn tell(message: Partial, is_ended: bool, config: &HttpConfig, out: &mut Vec<HttpMessage>) {
    let is_complete = is_ended && !message.has_gap();
    if is_complete || config.tell_incomplete {
        out.push(message.done(is_complete));
    } else {
        let why = if is_ended { "with a gap in" } else { "cut off within" };
        message_refused(format!("a message {why} its body: {message}"));
    }
}

impl SessionParser for HttpParser {
    type Message = HttpMessage;

    fn feed_initiator(&mut self, bytes: &[u8], _: FlowTime, out: &mut Vec<HttpMessage>) {
        self.feed(0, bytes, out);
    }

    fn feed_responder(&mut self, bytes: &[u8], _: FlowTime, out: &mut Vec<HttpMessage>) {
        self.feed(1, bytes, out);
    }

    fn fin_initiator(&mut self, out: &mut Vec<HttpMessage>) {
        self.fin(0, out);
    }

    fn fin_responder(&mut self, out: &mut Vec<HttpMessage>) {
        self.fin(1, out);
    }

    fn is_poisoned(&self) -> bool {
        self.fault.is_some()
    }

    fn poison_reason(&self) -> Option<&str> {
        self.fault
    }

    fn parser_kind(&self) -> ParserKind {
        ParserKind::Http1
    }
}
