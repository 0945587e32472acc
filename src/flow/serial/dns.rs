//! Messages of DNS.

use serde::ser::{Serialize, Serializer};

use super::text;
use crate::flow::dns::{DnsContent, DnsFault, DnsMessage, DnsQuestion, DnsRdata, DnsRecord};

impl Serialize for DnsQuestion {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Question<'a> {
            name: &'a str,
            qtype: u16,
            qclass: u16,
        }
        let Self { name, qtype, qclass } = self;
        Question { name, qtype: *qtype, qclass: *qclass }.serialize(to)
    }
}

/// Writes the data as text.
impl Serialize for DnsRecord {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Record<'a> {
            name: &'a str,
            rtype: u16,
            rclass: u16,
            ttl: u32,
            #[serde(serialize_with = "text")]
            data: &'a DnsRdata,
        }
        let Self { name, rtype, rclass, ttl, data } = self;
        Record { name, rtype: *rtype, rclass: *rclass, ttl: *ttl, data }.serialize(to)
    }
}

#[derive(serde::Serialize)]
struct Content<'a> {
    id: u16,
    opcode: u8,
    rcode: u16,
    is_authoritative: bool,
    is_truncated: bool,
    is_recursion_desired: bool,
    is_recursion_available: bool,
    questions: &'a [DnsQuestion],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    answers: &'a [DnsRecord],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    authorities: &'a [DnsRecord],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    additionals: &'a [DnsRecord],
    #[serde(skip_serializing_if = "Option::is_none")]
    edns_udp_size: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'static str>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    elapsed: Option<f64>,
}

impl<'a> Content<'a> {
    fn new(content: &'a DnsContent) -> Self {
        Self {
            id: content.transaction_id,
            opcode: content.flags.opcode(),
            rcode: content.rcode,
            is_authoritative: content.flags.is_authoritative(),
            is_truncated: content.flags.is_truncated(),
            is_recursion_desired: content.flags.is_recursion_desired(),
            is_recursion_available: content.flags.is_recursion_available(),
            questions: &content.questions,
            answers: &content.answers,
            authorities: &content.authorities,
            additionals: &content.additionals,
            edns_udp_size: content.edns.map(|edns| edns.udp_size),
            fault: content.fault.map(DnsFault::as_str),
            elapsed: content.elapsed.map(|elapsed| elapsed.as_secs_f64()),
        }
    }
}

impl Serialize for DnsContent {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Content::new(self).serialize(to)
    }
}

impl Serialize for DnsMessage {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Message<'a> {
            protocol: &'static str,
            r#type: &'static str,
            #[serde(flatten)]
            content: Content<'a>,
        }
        let (r#type, content) = match self {
            Self::Query(content) => ("query", content),
            Self::Response(content) => ("answer", content),
            Self::Unanswered(content) => ("unanswered", content),
        };
        Message { protocol: "dns", r#type, content: Content::new(content) }.serialize(to)
    }
}
