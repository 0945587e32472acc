//! The head of a message: its first line and its fields.

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Range;

use httparse::{ParserConfig, Status};

/// Version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HttpVersion {
    /// HTTP/1.0.
    Http1_0,
    /// HTTP/1.1.
    Http1_1,
}

impl HttpVersion {
    /// Returns the version as it stands in a message, such as `HTTP/1.1`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http1_0 => "HTTP/1.0",
            Self::Http1_1 => "HTTP/1.1",
        }
    }
}

impl fmt::Display for HttpVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Part of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Part {
    start: u32,
    len: u32,
}

impl Part {
    /// Returns where `part` lies in `all`.
    fn of(part: &[u8], all: &[u8]) -> Self {
        let start = part.as_ptr().addr().saturating_sub(all.as_ptr().addr());
        Self { start: start as u32, len: part.len() as u32 }
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

/// Fields of a head or of a trailer section, in their order.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct HttpFields {
    text: Box<[u8]>,
    fields: Box<[(Part, Part)]>,
}

impl HttpFields {
    /// Returns the names and values, in their order. Values are bytes without the whitespace around them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> + Clone {
        self.fields.iter().map(|(name, value)| {
            let name = str::from_utf8(self.part(*name)).unwrap_or_default();
            (name, self.part(*value))
        })
    }

    /// Returns the number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Returns whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Returns the value of the first field of that name; case is ignored.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.iter();
        fields.find(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Returns the values of all fields of that name; case is ignored.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(super) fn part(&self, part: Part) -> &[u8] {
        self.text.get(part.range()).unwrap_or_default()
    }

    /// Returns the bytes of memory behind the fields.
    pub(super) fn held(&self) -> usize {
        self.text.len() + size_of_val(&*self.fields)
    }

    /// The fields of a head, from which lines that are no fields were left out. If one of those would have said where
    /// the message ends, the message is refused.
    fn checked(text: &[u8], fields: &[httparse::Header<'_>]) -> Result<Self, &'static str> {
        let lines = text.split(|byte| *byte == b'\n').skip(1);
        let lines = lines.filter(|line| !line.trim_ascii().is_empty());
        if lines.clone().count() != fields.len() {
            let of = |name: &[u8]| FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing));
            let names = lines.map(|line| line.split(|byte| *byte == b':').next().unwrap_or(line));
            let told = fields.iter().filter(|field| of(field.name.as_bytes())).count();
            if names.filter(|name| of(name.trim_ascii())).count() != told {
                return Err("a field about the length of the body that is not well-formed");
            }
        }
        Ok(Self::new(text, fields))
    }

    fn new(text: &[u8], fields: &[httparse::Header<'_>]) -> Self {
        let of = |part: &[u8]| Part::of(part, text);
        let fields = fields.iter().map(|field| (of(field.name.as_bytes()), of(field.value)));
        Self { fields: fields.collect(), text: text.into() }
    }
}

impl fmt::Debug for HttpFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value)));
        f.debug_map().entries(fields).finish()
    }
}

/// The first line of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    Request { method: Part, path: Part },
    Response { status: u16, reason: Part },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) first: First,
    pub(super) version: HttpVersion,
    pub(super) fields: HttpFields,
}

/// The fields that say where a message ends.
const FRAMING: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];
/// Most fields of a head.
const MOST_FIELDS: usize = 256;
const RESPONSE: &[u8] = b"HTTP/";

/// Reads the head that `bytes` begin with. Returns it and its length, or `None` if more bytes are needed.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Head, usize)>, &'static str> {
    match unfolded(bytes) {
        Some(bytes) => read_lines(&bytes),
        None => read_lines(bytes),
    }
}

/// Returns the head with the lines that continue a field put on one line, as spaces take the place of the line's end
/// (RFC 9112 §5.2). Returns `None` if there are no such lines.
fn unfolded(bytes: &[u8]) -> Option<Vec<u8>> {
    let is_fold = |at: usize| matches!(bytes[at..], [b'\n', b' ' | b'\t', ..]);
    let first = bytes.iter().position(|byte| *byte == b'\n')?;
    // Whitespace behind the first line continues nothing: what it begins is no field.
    let mut at = first + 1;
    let mut text = None;
    while let Some(newline) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let line = at..at + newline;
        at = line.end + 1;
        if matches!(bytes[line.clone()], [] | [b'\r']) {
            break;
        }
        if is_fold(line.end) {
            let text = text.get_or_insert_with(|| bytes.to_vec());
            text[line.end] = b' ';
            if bytes[..line.end].ends_with(b"\r") {
                text[line.end - 1] = b' ';
            }
        }
    }
    text
}

fn read_lines(bytes: &[u8]) -> Result<Option<(Head, usize)>, &'static str> {
    // A method has no slash, so this decides.
    let begins = bytes.len().min(RESPONSE.len());
    if bytes[..begins] == RESPONSE[..begins] {
        if begins < RESPONSE.len() { Ok(None) } else { response(bytes) }
    } else {
        request(bytes)
    }
}

/// Returns whether the first bytes of a side may be those of HTTP/1: the first line of a message, or the beginning of
/// one.
///
/// A method that is not common is known only by its whole line.
pub fn is_http(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_whole = line.len() < bytes.len();
    let fits = |start: &[u8]| {
        let len = start.len().min(line.len());
        len > 0 && line[..len] == start[..len] && (len == start.len() || !is_whole)
    };
    if fits(RESPONSE) || METHODS.iter().any(|method| fits(method)) {
        return true;
    }
    let line = line.trim_ascii_end();
    let is_request = line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0");
    is_request && is_whole && read(bytes).is_ok()
}

/// Common methods (RFC 9110, 5789, 4918, 3253, and UPnP's).
const METHODS: [&[u8]; 20] = [
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"OPTIONS ",
    b"DELETE ",
    b"CONNECT ",
    b"PATCH ",
    b"TRACE ",
    b"PROPFIND ",
    b"PROPPATCH ",
    b"MKCOL ",
    b"COPY ",
    b"MOVE ",
    b"LOCK ",
    b"UNLOCK ",
    b"REPORT ",
    b"NOTIFY ",
    b"SUBSCRIBE ",
    b"M-SEARCH ",
];

/// Refuses a first line that is not one of HTTP, if it is complete.
pub(super) fn check_line(bytes: &[u8]) -> Result<(), &'static str> {
    let Some(newline) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(()) };
    read(&bytes[..=newline]).map(|_| ())
}

/// Accepts what servers and clients in the field accept.
fn config() -> ParserConfig {
    let mut config = ParserConfig::default();
    config
        .allow_multiple_spaces_in_request_line_delimiters(true)
        .allow_multiple_spaces_in_response_status_delimiters(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_requests(true)
        .ignore_invalid_headers_in_responses(true);
    config
}

fn request(bytes: &[u8]) -> Result<Option<(Head, usize)>, &'static str> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let read = config().parse_request_with_uninit_headers(&mut request, bytes, &mut fields);
    let len = match read {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(error) => return spaced_request(bytes).ok_or_else(|| why(error)),
    };
    let of = |part: Option<&str>| Part::of(part.unwrap_or_default().as_bytes(), bytes);
    let first = First::Request { method: of(request.method), path: of(request.path) };
    let fields = HttpFields::checked(&bytes[..len], request.headers)?;
    Ok(Some((Head { first, version: version(request.version), fields }, len)))
}

/// Reads a request with spaces in its target, which are not allowed but sent. Returns `None` if it is none.
fn spaced_request(bytes: &[u8]) -> Option<Option<(Head, usize)>> {
    let newline = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = bytes[..newline].trim_ascii_end();
    let (rest, minor) = match line {
        [rest @ .., b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ (b'0' | b'1')] => {
            (rest, minor - b'0')
        }
        _ => return None,
    };
    let space = rest.iter().position(|byte| *byte == b' ')?;
    let (method, path) = (&rest[..space], rest[space..].trim_ascii());
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if method.is_empty() || !method.iter().all(is_token) || path.iter().any(u8::is_ascii_control) {
        return None;
    }
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let behind = &bytes[newline + 1..];
    let (len, fields) = match httparse::parse_headers(behind, &mut fields) {
        Ok(Status::Complete(found)) => found,
        Ok(Status::Partial) => return Some(None),
        Err(_) => return None,
    };
    let of = |part: &[u8]| Part::of(part, bytes);
    let first = First::Request { method: of(method), path: of(path) };
    let len = newline + 1 + len;
    let fields = HttpFields::new(&bytes[..len], fields);
    Some(Some((Head { first, version: version(Some(minor)), fields }, len)))
}

fn response(bytes: &[u8]) -> Result<Option<(Head, usize)>, &'static str> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let read = config().parse_response_with_uninit_headers(&mut response, bytes, &mut fields);
    let Status::Complete(len) = read.map_err(why)? else { return Ok(None) };
    // A reason that is not ASCII is given as an empty text that lies elsewhere.
    let reason = response.reason.filter(|reason| !reason.is_empty());
    let reason = reason.map_or(Part::default(), |reason| Part::of(reason.as_bytes(), bytes));
    let first = First::Response { status: response.code.unwrap_or(0), reason };
    let fields = HttpFields::checked(&bytes[..len], response.headers)?;
    Ok(Some((Head { first, version: version(response.version), fields }, len)))
}

/// Reads a trailer section, which ends with an empty line.
pub(super) fn trailers(bytes: &[u8]) -> Result<HttpFields, &'static str> {
    if matches!(bytes, b"\r\n" | b"\n") {
        return Ok(HttpFields::default());
    }
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    match httparse::parse_headers(bytes, &mut fields) {
        Ok(Status::Complete((_, fields))) => Ok(HttpFields::new(bytes, fields)),
        Ok(Status::Partial) => Err("a trailer section without an end"),
        Err(error) => Err(why(error)),
    }
}

fn version(minor: Option<u8>) -> HttpVersion {
    if minor == Some(0) { HttpVersion::Http1_0 } else { HttpVersion::Http1_1 }
}

fn why(error: httparse::Error) -> &'static str {
    use httparse::Error;
    match error {
        Error::HeaderName => "a field name with a byte that may not be in it",
        Error::HeaderValue => "a field value with a byte that may not be in it",
        Error::NewLine => "a line with a byte that may not be in it",
        Error::Status => "a status line with a byte that may not be in it",
        Error::Token => "bytes that are not a line of HTTP",
        Error::TooManyHeaders => "more than 256 fields",
        Error::Version => "a version other than HTTP/1.0 and HTTP/1.1",
    }
}

/// Returns the end of the head in `bytes`, which is behind an empty line; what is before `from` was searched already.
pub(super) fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from.saturating_sub(3);
    while let Some(newline) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        at += newline + 1;
        match bytes[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}
