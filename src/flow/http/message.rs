//! Requests and responses.

use std::fmt;

use super::head::{First, Head, HttpFields, HttpVersion};

/// A message of HTTP/1.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpMessage {
    /// A request.
    Request(HttpRequest),
    /// A response.
    Response(HttpResponse),
}

/// What requests and responses have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    head: Head,
    trailers: HttpFields,
    body: Vec<u8>,
    body_len: u64,
    is_complete: bool,
    has_gap: bool,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest(Content);

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse(Content);

macro_rules! content {
    ($name:ident) => {
        impl $name {
            /// Returns the version of the message.
            pub fn version(&self) -> HttpVersion {
                self.0.head.version
            }

            /// Returns the fields of the head.
            pub fn fields(&self) -> &HttpFields {
                &self.0.head.fields
            }

            /// Returns the value of the first field of that name; case is ignored.
            pub fn header(&self, name: &str) -> Option<&[u8]> {
                self.fields().get(name)
            }

            /// Returns the values of all fields of that name; case is ignored.
            pub fn headers_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
                self.fields().get_all(name)
            }

            /// Returns the media type of the body, as the message gives it.
            pub fn content_type(&self) -> Option<&str> {
                self.text("content-type")
            }

            /// Returns the fields behind a chunked body.
            pub fn trailers(&self) -> &HttpFields {
                &self.0.trailers
            }

            /// Returns the body without its transfer coding: at most
            /// [`max_body`](super::HttpConfig::max_body) bytes of it.
            pub fn body(&self) -> &[u8] {
                &self.0.body
            }

            /// Returns the length of the whole body in bytes, without its transfer coding.
            pub fn body_len(&self) -> u64 {
                self.0.body_len
            }

            /// Returns whether the message was seen up to its end; others are told only if
            /// [`tell_incomplete`](super::HttpConfig::tell_incomplete) or
            /// [`heads_only`](super::HttpConfig::heads_only) is set.
            pub fn is_complete(&self) -> bool {
                self.0.is_complete
            }

            fn text(&self, name: &str) -> Option<&str> {
                self.header(name).and_then(|value| str::from_utf8(value).ok())
            }
        }
    };
}

content!(HttpRequest);
content!(HttpResponse);

impl HttpRequest {
    /// Returns the method, such as `GET`: any token.
    pub fn method(&self) -> &str {
        let First::Request { method, .. } = self.0.head.first else { return "" };
        str::from_utf8(self.0.head.fields.part(method)).unwrap_or_default()
    }

    /// Returns the request target, such as `/index.html`.
    pub fn path(&self) -> &[u8] {
        let First::Request { path, .. } = self.0.head.first else { return &[] };
        self.0.head.fields.part(path)
    }

    /// Returns the request target if it is UTF-8.
    pub fn path_str(&self) -> Option<&str> {
        str::from_utf8(self.path()).ok()
    }

    /// Returns the host that is asked.
    pub fn host(&self) -> Option<&str> {
        self.text("host")
    }

    /// Returns the program that asks, as it calls itself.
    pub fn user_agent(&self) -> Option<&str> {
        self.text("user-agent")
    }

    /// Returns the resource from which this one was reached.
    pub fn referer(&self) -> Option<&str> {
        self.text("referer")
    }

    /// Returns the cookies.
    pub fn cookie(&self) -> Option<&str> {
        self.text("cookie")
    }
}

impl HttpResponse {
    /// Returns the status, such as 200.
    pub fn status(&self) -> u16 {
        match self.0.head.first {
            First::Response { status, .. } => status,
            First::Request { .. } => 0,
        }
    }

    /// Returns the reason behind the status.
    pub fn reason(&self) -> &str {
        let First::Response { reason, .. } = self.0.head.first else { return "" };
        str::from_utf8(self.0.head.fields.part(reason)).unwrap_or_default()
    }

    /// Returns the cookies that are set.
    pub fn set_cookie(&self) -> impl Iterator<Item = &str> {
        self.headers_all("set-cookie").filter_map(|value| str::from_utf8(value).ok())
    }
}

/// A message of which the head was read.
#[derive(Debug, Clone)]
pub(super) struct Partial(Content);

impl fmt::Display for Partial {
    /// Writes the first line, in short.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Head { first, fields, .. } = &self.0.head;
        match *first {
            First::Request { method, path } => {
                let [method, path] = [method, path].map(|part| fields.part(part).escape_ascii());
                write!(f, "{method} {path}")
            }
            First::Response { status, .. } => write!(f, "{status}"),
        }
    }
}

impl Partial {
    pub(super) fn new(head: Head) -> Self {
        let (trailers, body) = (HttpFields::default(), Vec::new());
        Self(Content { head, trailers, body, body_len: 0, is_complete: false, has_gap: false })
    }

    /// Adds bytes to the body, of which `most` are kept.
    pub(super) fn add(&mut self, bytes: &[u8], most: usize) {
        let Content { body, body_len, has_gap, .. } = &mut self.0;
        *body_len += bytes.len() as u64;
        let room = if *has_gap { 0 } else { most.saturating_sub(body.len()) };
        body.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Leaves out bytes of the body. What comes behind them is counted, but not kept.
    pub(super) fn skip(&mut self, missing: u64) {
        self.0.body_len += missing;
        self.0.has_gap = true;
    }

    pub(super) fn has_gap(&self) -> bool {
        self.0.has_gap
    }

    pub(super) fn trailers(&mut self, trailers: HttpFields) {
        self.0.trailers = trailers;
    }

    /// Returns the bytes of memory behind the message.
    pub(super) fn held(&self) -> usize {
        size_of::<Self>() + self.0.head.fields.held() + self.0.body.capacity()
    }

    pub(super) fn done(mut self, is_complete: bool) -> HttpMessage {
        self.0.is_complete = is_complete;
        match self.0.head.first {
            First::Request { .. } => HttpMessage::Request(HttpRequest(self.0)),
            First::Response { .. } => HttpMessage::Response(HttpResponse(self.0)),
        }
    }
}
