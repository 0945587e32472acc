//! Messages, and what they contain.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// A message of DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DnsMessage {
    /// A query.
    Query(DnsContent),
    /// A response.
    Response(DnsContent),
    /// A query that had no response within [`query_timeout`](super::DnsConfig::query_timeout); told if
    /// [`tell_unanswered`](super::DnsConfig::tell_unanswered) is set.
    Unanswered(DnsContent),
}

/// The content of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DnsContent {
    /// Number by which a response names its query.
    pub transaction_id: u16,
    /// Flags of the header.
    pub flags: DnsFlags,
    /// Response code, with the upper bits that EDNS adds.
    pub rcode: u16,
    /// Questions: names, and the types of records that are asked for.
    pub questions: Vec<DnsQuestion>,
    /// Records of the answer section.
    pub answers: Vec<DnsRecord>,
    /// Records of the authority section.
    pub authorities: Vec<DnsRecord>,
    /// Records of the additional section, without that of EDNS.
    pub additionals: Vec<DnsRecord>,
    /// What EDNS adds to the header ([RFC 6891](https://www.rfc-editor.org/rfc/rfc6891)).
    pub edns: Option<DnsEdns>,
    /// Why reading stopped before the end of the message.
    pub fault: Option<DnsFault>,
    /// For a response whose query was seen, the time in between.
    pub elapsed: Option<Duration>,
}

impl DnsContent {
    /// Returns the bytes of memory behind the content, about.
    pub(super) fn held(&self) -> usize {
        let questions = self.questions.iter().map(|question| question.name.len());
        let records = [&self.answers, &self.authorities, &self.additionals];
        let records = records.into_iter().flatten();
        size_of::<Self>()
            + self.questions.len() * size_of::<DnsQuestion>()
            + questions.sum::<usize>()
            + records.map(DnsRecord::held).sum::<usize>()
    }
}

/// Why a message could not be read up to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DnsFault {
    /// It is shorter than its header says.
    Cut,
    /// A name or record in it is not well-formed.
    Malformed,
    /// Its records would take more than a mebibyte of memory, by pointing to long names again and again.
    TooLong,
}

impl DnsFault {
    /// Returns the fault in a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Malformed => "malformed",
            Self::TooLong => "too long",
        }
    }
}

impl fmt::Display for DnsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Flags of a header, with opcode and response code: its third and fourth octet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DnsFlags(pub u16);

impl DnsFlags {
    /// Returns whether the message is a response (QR).
    pub const fn is_response(self) -> bool {
        self.0 & 0x8000 != 0
    }

    /// Returns the kind of query, such as 0 for a standard query and 5 for an update.
    pub const fn opcode(self) -> u8 {
        (self.0 >> 11) as u8 & 0x0f
    }

    /// Returns whether the server is an authority for the name (AA).
    pub const fn is_authoritative(self) -> bool {
        self.0 & 0x0400 != 0
    }

    /// Returns whether the server says that the message is truncated (TC).
    pub const fn is_truncated(self) -> bool {
        self.0 & 0x0200 != 0
    }

    /// Returns whether recursion is asked for (RD).
    pub const fn is_recursion_desired(self) -> bool {
        self.0 & 0x0100 != 0
    }

    /// Returns whether recursion is available (RA).
    pub const fn is_recursion_available(self) -> bool {
        self.0 & 0x0080 != 0
    }
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DnsQuestion {
    /// The name that is asked for, without a dot at its end; `.` is the root. Bytes that are not printable
    /// are written as `\DDD`, as in zone files.
    pub name: String,
    /// Type of the records that are asked for, such as 1 for A.
    pub qtype: u16,
    /// Class, 1 for the Internet.
    pub qclass: u16,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DnsRecord {
    /// Name of the owner, as that of a [question](DnsQuestion::name).
    pub name: String,
    /// Type, such as 1 for A.
    pub rtype: u16,
    /// Class, 1 for the Internet.
    pub rclass: u16,
    /// Time to live in seconds.
    pub ttl: u32,
    /// The data.
    pub data: DnsRdata,
}

impl DnsRecord {
    /// Returns the bytes of memory of the record, about.
    pub(super) fn held(&self) -> usize {
        let data = match &self.data {
            DnsRdata::A(_) | DnsRdata::Aaaa(_) => 0,
            DnsRdata::Cname(name) | DnsRdata::Ns(name) | DnsRdata::Ptr(name) => name.len(),
            DnsRdata::Mx { exchange, .. } => exchange.len(),
            DnsRdata::Txt(texts) => texts.iter().map(|text| text.len() + 24).sum(),
            DnsRdata::Srv { target, .. } => target.len(),
            DnsRdata::Soa { mname, rname, .. } => mname.len() + rname.len(),
            DnsRdata::Other(data) => data.len(),
        };
        size_of::<Self>() + self.name.len() + data
    }
}

/// Data of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DnsRdata {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The canonical name of an alias.
    Cname(String),
    /// A name server.
    Ns(String),
    /// The name that the owner points to.
    Ptr(String),
    /// A mail exchange.
    Mx {
        /// Rank; the lowest is asked first.
        preference: u16,
        /// Name of the host.
        exchange: String,
    },
    /// Texts, each of at most 255 bytes.
    Txt(Vec<Vec<u8>>),
    /// Where a service is.
    Srv {
        /// Rank; the lowest is asked first.
        priority: u16,
        /// Share among those of one rank.
        weight: u16,
        /// Port of the service.
        port: u16,
        /// Name of the host.
        target: String,
    },
    /// The beginning of a zone.
    Soa {
        /// Name server of the zone.
        mname: String,
        /// Mailbox of who is responsible for the zone.
        rname: String,
        /// Version of the zone.
        serial: u32,
    },
    /// Data of any other type, or that is not what its type says.
    Other(Vec<u8>),
}

impl fmt::Display for DnsRdata {
    /// Writes the data about as in zone files; that of other types as in
    /// [RFC 3597 §5](https://www.rfc-editor.org/rfc/rfc3597#section-5).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::A(address) => address.fmt(f),
            Self::Aaaa(address) => address.fmt(f),
            Self::Cname(name) | Self::Ns(name) | Self::Ptr(name) => f.write_str(name),
            Self::Mx { preference, exchange } => write!(f, "{preference} {exchange}"),
            Self::Txt(texts) => {
                for (number, text) in texts.iter().enumerate() {
                    let space = if number > 0 { " " } else { "" };
                    write!(f, "{space}\"{}\"", text.escape_ascii())?;
                }
                Ok(())
            }
            Self::Srv { priority, weight, port, target } => {
                write!(f, "{priority} {weight} {port} {target}")
            }
            Self::Soa { mname, rname, serial } => write!(f, "{mname} {rname} {serial}"),
            Self::Other(data) => {
                write!(f, "\\# {}", data.len())?;
                let space = if data.is_empty() { "" } else { " " };
                f.write_str(space)?;
                data.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// What EDNS adds to a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DnsEdns {
    /// Version, 0 so far.
    pub version: u8,
    /// Largest UDP payload that the sender takes, in bytes.
    pub udp_size: u16,
    /// Whether the sender asks for DNSSEC records (DO).
    pub is_dnssec_ok: bool,
}
