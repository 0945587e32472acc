//! What applications said in a flow: names and codes of the first messages of each side.

use std::collections::HashMap;

use domain::base::Rtype;
use domain::base::iana::OptRcode;
use ringtap::flow::dns::{DnsContent, DnsMessage};
use ringtap::flow::extract::FiveTupleKey;
use ringtap::flow::http::HttpMessage;
use ringtap::flow::tls::TlsMessage;
use ringtap::flow::{AppMessage, FlowRecord};
use serde::{Deserialize, Serialize};

/// Bytes of a text that records have; names of DNS and of hosts are no longer.
const MOST: usize = 255;

/// What an application said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum App {
    Dns(Dns),
    Http(Http),
    Tls(Tls),
}

/// The first question, and the first answer's code.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Dns {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// The type of records that is asked for, such as `AAAA`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    /// Such as `NXDOMAIN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
}

/// The first request, and the first response's status.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Http {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
}

/// The hellos, of TCP or of QUIC.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Tls {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sni: Option<String>,
    /// What the server has chosen, if that is not encrypted; else what the client offers, with commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) alpn: Option<String>,
    /// The fingerprint of the client's hello.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ja4: Option<String>,
    /// Such as `TLS 1.3`, which the server has chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
}

impl App {
    /// Its name, where it is over UDP, and where it is not.
    pub(crate) fn name(&self, is_udp: bool) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::Http(_) => "http",
            Self::Tls(_) if is_udp => "quic",
            Self::Tls(_) => "tls",
        }
    }

    /// One that has heard nothing yet; `None` for messages that records have nothing of.
    fn of(message: &AppMessage) -> Option<Self> {
        Some(match message {
            AppMessage::Dns(_) => Self::Dns(Dns::default()),
            AppMessage::Http(_) => Self::Http(Http::default()),
            AppMessage::Tls(TlsMessage::ClientHello(_) | TlsMessage::ServerHello(_)) => {
                Self::Tls(Tls::default())
            }
            _ => return None,
        })
    }

    /// Takes what a message tells, where no earlier one has told it.
    fn hear(&mut self, message: &AppMessage) {
        match (self, message) {
            (Self::Dns(dns), AppMessage::Dns(message)) => dns.hear(message),
            (Self::Http(http), AppMessage::Http(message)) => http.hear(message),
            (Self::Tls(tls), AppMessage::Tls(message)) => tls.hear(message),
            _ => {}
        }
    }
}

impl Dns {
    fn hear(&mut self, message: &DnsMessage) {
        let (content, is_response) = match message {
            DnsMessage::Query(content) => (content, false),
            DnsMessage::Response(content) => (content, true),
            _ => return,
        };
        if self.name.is_none() {
            self.ask(content);
        }
        let is_its = content
            .questions
            .first()
            .is_none_or(|question| self.name.as_deref() == Some(short(&question.name).as_str()));
        if is_response && is_its && self.code.is_none() {
            self.code = Some(OptRcode::masked_from_int(content.rcode).to_string());
        }
    }

    fn ask(&mut self, content: &DnsContent) {
        if let Some(question) = content.questions.first() {
            self.name = Some(short(&question.name));
            self.kind = Some(Rtype::from_int(question.qtype).to_string());
        }
    }
}

impl Http {
    fn hear(&mut self, message: &HttpMessage) {
        match message {
            HttpMessage::Request(request) if self.method.is_none() => {
                self.method = Some(short(request.method()));
                self.host = request.host().map(short);
            }
            HttpMessage::Response(response) => {
                self.status.get_or_insert(response.status());
            }
            _ => {}
        }
    }
}

impl Tls {
    fn hear(&mut self, message: &TlsMessage) {
        match message {
            TlsMessage::ClientHello(hello) if self.ja4.is_none() => {
                self.ja4 = Some(hello.ja4());
                self.sni = hello.sni().map(short);
                if self.alpn.is_none() && !hello.alpn.is_empty() {
                    self.alpn = Some(short(&hello.alpn.join(",")));
                }
            }
            TlsMessage::ServerHello(hello) if !hello.is_retry_request && self.version.is_none() => {
                self.version = Some(hello.version().to_string());
                if let Some(chosen) = &hello.alpn {
                    self.alpn = Some(short(chosen));
                }
            }
            _ => {}
        }
    }
}

fn short(text: &str) -> String {
    let end = (0..=text.len().min(MOST)).rev().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].to_owned()
}

/// What was heard in flows that have no record yet, or go on.
#[derive(Debug, Default)]
pub(crate) struct Heard(HashMap<FiveTupleKey, App>);

impl Heard {
    pub(crate) fn hear(&mut self, key: FiveTupleKey, message: &AppMessage) {
        if let Some(new) = App::of(message) {
            self.0.entry(key).or_insert(new).hear(message);
        }
    }

    /// What belongs to a record. The records of a flow that goes on all have it.
    pub(crate) fn of(&mut self, record: &FlowRecord<FiveTupleKey>) -> Option<Box<App>> {
        if self.0.is_empty() {
            return None;
        }
        let app = match record.reason {
            None => self.0.get(&record.key).cloned(),
            Some(_) => self.0.remove(&record.key),
        };
        app.map(Box::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_letters() {
        let long = "é".repeat(200);
        assert_eq!(short(&long), "é".repeat(127));
        assert_eq!(short("a.example"), "a.example");
    }

    #[test]
    fn what_is_not_known_is_not_written() {
        let text = |app: &App| serde_json::to_string(app).unwrap();
        assert_eq!(text(&App::Http(Http::default())), r#"{"http":{}}"#);
        let dns = Dns { name: Some("a.example".into()), kind: Some("A".into()), code: None };
        assert_eq!(text(&App::Dns(dns)), r#"{"dns":{"name":"a.example","type":"A"}}"#);
    }
}
