//! Messages of HTTP.

use serde::ser::{Serialize, SerializeSeq, Serializer};

use crate::flow::http::{HttpFields, HttpMessage, HttpRequest, HttpResponse};

/// Writes pairs of name and value, in their order.
impl Serialize for HttpFields {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut pairs = to.serialize_seq(Some(self.len()))?;
        for (name, value) in self.iter() {
            pairs.serialize_element(&(name, String::from_utf8_lossy(value)))?;
        }
        pairs.end()
    }
}

#[derive(serde::Serialize)]
struct Rest<'a> {
    version: &'static str,
    headers: &'a HttpFields,
    #[serde(skip_serializing_if = "HttpFields::is_empty")]
    trailers: &'a HttpFields,
    body_len: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    body: &'a str,
    is_complete: bool,
}

macro_rules! rest {
    ($message:expr, $body:expr) => {
        Rest {
            version: $message.version().as_str(),
            headers: $message.fields(),
            trailers: $message.trailers(),
            body_len: $message.body_len(),
            body: $body,
            is_complete: $message.is_complete(),
        }
    };
}

impl Serialize for HttpRequest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Request<'a> {
            protocol: &'static str,
            r#type: &'static str,
            method: &'a str,
            path: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            host: Option<&'a str>,
            #[serde(flatten)]
            rest: Rest<'a>,
        }
        let path = String::from_utf8_lossy(self.path());
        let body = String::from_utf8_lossy(self.body());
        let (protocol, r#type, method) = ("http", "request", self.method());
        let rest = rest!(self, &body);
        Request { protocol, r#type, method, path: &path, host: self.host(), rest }.serialize(to)
    }
}

impl Serialize for HttpResponse {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Response<'a> {
            protocol: &'static str,
            r#type: &'static str,
            status: u16,
            reason: &'a str,
            #[serde(flatten)]
            rest: Rest<'a>,
        }
        let body = String::from_utf8_lossy(self.body());
        let (protocol, r#type, status) = ("http", "response", self.status());
        let rest = rest!(self, &body);
        Response { protocol, r#type, status, reason: self.reason(), rest }.serialize(to)
    }
}

impl Serialize for HttpMessage {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Request(request) => request.serialize(to),
            Self::Response(response) => response.serialize(to),
        }
    }
}
