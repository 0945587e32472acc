//! What applications said in a flow: names and codes of the first messages of each side.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};

use domain::base::Rtype;
use domain::base::iana::OptRcode;
use ringtap::flow::dns::{DnsContent, DnsMessage, DnsQuestion};
use ringtap::flow::extract::FiveTupleKey;
use ringtap::flow::http::HttpMessage;
use ringtap::flow::tls::TlsMessage;
use ringtap::flow::{AppMessage, FlowRecord};
use serde::{Deserialize, Serialize};

/// Bytes of a text that records have: names that can be written as they are, are no longer.
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
    /// A hash of the first question, name and type: what its answer is known by.
    #[serde(skip)]
    asked: Option<u64>,
}

/// The first request, and the status of its response.
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
        if is_response && self.code.is_none() && self.is_answer(content) {
            self.code = Some(OptRcode::masked_from_int(content.rcode).to_string());
            self.asked = None;
        }
    }

    /// Whether it repeats the first question, or none. Letters may have another case (draft-vixie-dnsext-dns0x20).
    fn is_answer(&self, content: &DnsContent) -> bool {
        content.questions.first().zip(self.asked).is_none_or(|(of, asked)| hash(of) == asked)
    }

    fn ask(&mut self, content: &DnsContent) {
        if let Some(question) = content.questions.first() {
            self.asked = Some(hash(question));
            self.name = Some(short(&question.name));
            self.kind = Some(Rtype::from_int(question.qtype).to_string());
        }
    }
}

/// A hash of a question, in which the case of letters does not matter.
fn hash(question: &DnsQuestion) -> u64 {
    let mut hasher = DefaultHasher::new();
    question.name.bytes().for_each(|byte| hasher.write_u8(byte.to_ascii_lowercase()));
    hasher.write_u16(question.qtype);
    hasher.finish()
}

impl Http {
    fn hear(&mut self, message: &HttpMessage) {
        match message {
            HttpMessage::Request(request) if self.method.is_none() => {
                // What was answered before is not its.
                self.status = None;
                self.method = Some(short(request.method()));
                self.host = request.host().map(short);
            }
            // Interim ones come before the response, but for that which switches protocols.
            HttpMessage::Response(response) if !matches!(response.status(), 100 | 102..=199) => {
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
    use ringtap::flow::dns::DnsUdpParser;
    use ringtap::flow::http::{HttpConfig, HttpParser};
    use ringtap::flow::{DatagramParser, FlowSide, SessionParser};

    use super::*;

    #[test]
    fn texts_are_cut_between_letters() {
        let long = "é".repeat(200);
        assert_eq!(short(&long), "é".repeat(127));
        assert_eq!(short("a.example"), "a.example");
    }

    /// What a flow's parts make one hear of HTTP.
    fn http(parts: &[(bool, &str)]) -> Http {
        let mut config = HttpConfig::default();
        config.heads_only = true;
        let (mut parser, mut out) = (HttpParser::with_config(config), Vec::new());
        let mut http = Http::default();
        for &(is_answer, text) in parts {
            match is_answer {
                true => parser.feed_responder(text.as_bytes(), Default::default(), &mut out),
                false => parser.feed_initiator(text.as_bytes(), Default::default(), &mut out),
            }
            out.drain(..).for_each(|message| http.hear(&message));
        }
        http
    }

    #[test]
    fn a_request_and_the_status_of_its_own_response_are_heard() {
        let (get, post) = ("GET / HTTP/1.1\r\nHost: b\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\n");
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let upload = format!("{post}Content-Length: 9\r\n\r\nabc");
        let heard = |parts: &[(bool, &str)]| {
            let Http { host, method, status } = http(parts);
            (method.unwrap_or_default() + " " + &host.unwrap_or_default(), status)
        };
        assert_eq!(heard(&[(false, &upload)]), ("POST a".into(), None), "before its end");
        let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
        let created = "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";
        let parts = [(false, upload.as_str()), (true, go_on), (false, "defghi"), (true, created)];
        assert_eq!(heard(&parts), ("POST a".into(), Some(201)));
        assert_eq!(
            heard(&[(true, created), (false, get), (true, ok)]),
            ("GET b".into(), Some(200))
        );
        let switch = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
        assert_eq!(heard(&[(false, get), (true, switch)]).1, Some(101));
        assert_eq!(heard(&[(true, ok)]), (" ".into(), Some(200)), "one direction alone");
    }

    #[test]
    fn the_code_is_that_of_the_first_question_in_letters_of_any_case() {
        let message = |is_answer: u8, name: &[u8], kind: u8, code: u8| {
            let mut bytes = vec![0, 7, is_answer << 7, code, 0, 1, 0, 0, 0, 0, 0, 0];
            bytes.push(name.len() as u8);
            bytes.extend(name);
            bytes.extend([0, 0, kind, 0, 1]);
            let mut out = Vec::new();
            DnsUdpParser::default().parse(
                &bytes,
                FlowSide::Initiator,
                Default::default(),
                &mut out,
            );
            out
        };
        let mut dns = Dns::default();
        for message in [
            message(0, b"wWw", 1, 0),
            message(0, b"wWw", 28, 0),
            message(1, b"www", 28, 2),
            message(1, b"www", 1, 3),
        ] {
            message.iter().for_each(|message| dns.hear(message));
        }
        assert_eq!((dns.name.as_deref(), dns.kind.as_deref()), (Some("wWw"), Some("A")));
        assert_eq!(dns.code.as_deref(), Some("NXDOMAIN"));
    }

    #[test]
    fn what_is_not_known_is_not_written() {
        let text = |app: &App| serde_json::to_string(app).unwrap();
        assert_eq!(text(&App::Http(Http::default())), r#"{"http":{}}"#);
        let dns = Dns { name: Some("a.example".into()), kind: Some("A".into()), ..Dns::default() };
        assert_eq!(text(&App::Dns(dns)), r#"{"dns":{"name":"a.example","type":"A"}}"#);
    }
}
