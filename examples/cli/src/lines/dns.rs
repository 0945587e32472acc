//! A message of DNS behind a packet's ports, in the words of tcpdump (print-domain.c).

use std::fmt::{self, Write as _};

use domain::base::iana::Rtype;
use domain::base::message::RecordSection;
use domain::base::name::{ParsedName, ToName};
use domain::base::wire::ParseError;
use domain::base::{Message, ParsedRecord};
use domain::rdata::{A, Aaaa, Cname, Dname, Mx, Ns, Ptr, Srv, Txt};

const PORT: u16 = 53;
const MULTICAST_PORT: u16 = 5353;

/// Of multicast DNS: the answer may go to the asker alone, or the record takes the place of others (RFC 6762, 18.12 and 18.13).
const MARK: u16 = 1 << 15;

const HEADER_LEN: usize = 12;

const OPCODES: [&str; 7] = ["", " inv_q", " stat", " op3", " notify", " update", " op6"];
const RCODES: [&str; 11] = [
    "",
    " FormErr",
    " ServFail",
    " NXDomain",
    " NotImp",
    " Refused",
    " YXDomain",
    " YXRRSet",
    " NXRRSet",
    " NotAuth",
    " NotZone",
];

/// A UDP payload that is a message by its ports.
pub(super) struct Dns<'a> {
    payload: &'a [u8],
    /// Bytes of the payload before it was cut.
    len: usize,
    is_multicast: bool,
}

impl<'a> Dns<'a> {
    pub(super) fn of(payload: &'a [u8], len: usize, (from, to): (u16, u16)) -> Option<Self> {
        let is_multicast = from == MULTICAST_PORT || to == MULTICAST_PORT;
        let is_dns = is_multicast || from == PORT || to == PORT;
        is_dns.then_some(Self { payload, len, is_multicast })
    }
}

impl fmt::Display for Dns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(message) = Message::from_slice(self.payload) else {
            return match self.len {
                len @ 0..HEADER_LEN => write!(f, "domain [length {len} < {HEADER_LEN}] (invalid)"),
                _ => f.write_str("[|domain]"),
            };
        };
        let written = match message.header().qr() {
            true => self.answer(f, message),
            false => self.query(f, message),
        };
        match written {
            Ok(()) => write!(f, " ({})", self.len),
            Err(Stop::Damaged) => f.write_str(" [|domain]"),
            Err(Stop::Write(error)) => Err(error),
        }
    }
}

/// Why a message was not written to its end.
enum Stop {
    /// The message is cut, or makes no sense from here on.
    Damaged,
    Write(fmt::Error),
}

impl From<ParseError> for Stop {
    fn from(_: ParseError) -> Self {
        Self::Damaged
    }
}

impl From<fmt::Error> for Stop {
    fn from(error: fmt::Error) -> Self {
        Self::Write(error)
    }
}

impl Dns<'_> {
    fn query(&self, f: &mut fmt::Formatter<'_>, message: &Message<[u8]>) -> Result<(), Stop> {
        let (header, counts) = (message.header(), message.header_counts());
        let opcode = OPCODES.get(usize::from(header.opcode().to_int())).unwrap_or(&" op");
        write!(f, "{}{opcode}{}", header.id(), if header.rd() { "+" } else { "" })?;
        write!(f, "{}", if header.cd() { "%" } else { "" })?;
        // What has no meaning in a query.
        let odd = u16::from_be_bytes([self.payload[2], self.payload[3]]) & 0x6cf;
        if odd != 0 {
            write!(f, " [b2&3={odd:#x}]")?;
        }
        if counts.ancount() > 0 {
            write!(f, " [{}a]", counts.ancount())?;
        }
        if counts.qdcount() != 1 {
            write!(f, " [{}q]", counts.qdcount())?;
        }
        if counts.nscount() > 0 {
            write!(f, " [{}n]", counts.nscount())?;
        }
        if counts.arcount() > 0 {
            write!(f, " [{}au]", counts.arcount())?;
        }
        for question in message.question() {
            let question = question?;
            let class = question.qclass().to_int();
            write!(f, " {}", Type(question.qtype()))?;
            if self.is_multicast {
                f.write_str(if class & MARK != 0 { " (QU)" } else { " (QM)" })?;
            }
            self.class(f, class)?;
            write!(f, "? {}", Name(question.qname()))?;
        }
        Ok(())
    }

    fn answer(&self, f: &mut fmt::Formatter<'_>, message: &Message<[u8]>) -> Result<(), Stop> {
        let (header, counts) = (message.header(), message.header_counts());
        let opcode = OPCODES.get(usize::from(header.opcode().to_int())).unwrap_or(&" op");
        write!(f, "{}{opcode}", header.id())?;
        match RCODES.get(usize::from(header.rcode().to_int())) {
            Some(rcode) => f.write_str(rcode)?,
            None => write!(f, " Resp{}", header.rcode().to_int())?,
        }
        let marks =
            [(header.aa(), "*"), (!header.ra(), "-"), (header.tc(), "|"), (header.ad(), "$")];
        marks.iter().filter(|(is_set, _)| *is_set).try_for_each(|(_, mark)| f.write_str(mark))?;
        if counts.qdcount() != 1 {
            write!(f, " [{}q]", counts.qdcount())?;
        }
        write!(f, " {}/{}/{}", counts.ancount(), counts.nscount(), counts.arcount())?;
        self.records(f, message.answer()?)
    }

    fn records(
        &self,
        f: &mut fmt::Formatter<'_>,
        records: RecordSection<'_, [u8]>,
    ) -> Result<(), Stop> {
        for (at, record) in records.enumerate() {
            let record = record?;
            let class = record.class().to_int();
            f.write_str(if at > 0 { "," } else { "" })?;
            if self.is_multicast && class & MARK != 0 {
                f.write_str(" (Cache flush)")?;
            }
            self.class(f, class)?;
            write!(f, " {}", Type(record.rtype()))?;
            data(f, &record)?;
        }
        Ok(())
    }

    /// Writes a class, unless it is the Internet's.
    fn class(&self, f: &mut fmt::Formatter<'_>, class: u16) -> fmt::Result {
        match if self.is_multicast { class & !MARK } else { class } {
            1 => Ok(()),
            3 => f.write_str(" CHAOS"),
            4 => f.write_str(" HS"),
            255 => f.write_str(" ANY"),
            other => write!(f, " (Class {other})"),
        }
    }
}

type Parsed<'a> = ParsedName<&'a [u8]>;

/// Writes what a record holds, for the types whose data is short.
fn data(f: &mut fmt::Formatter<'_>, record: &ParsedRecord<'_, [u8]>) -> Result<(), Stop> {
    macro_rules! read {
        ($kind:ty) => {
            match record.to_record::<$kind>()? {
                Some(record) => record.into_data(),
                None => return Ok(()),
            }
        };
    }
    match record.rtype() {
        Rtype::A => write!(f, " {}", read!(A).addr())?,
        Rtype::AAAA => write!(f, " {}", read!(Aaaa).addr())?,
        Rtype::CNAME => write!(f, " {}", Name(read!(Cname<Parsed<'_>>).cname()))?,
        Rtype::DNAME => write!(f, " {}", Name(read!(Dname<Parsed<'_>>).dname()))?,
        Rtype::NS => write!(f, " {}", Name(read!(Ns<Parsed<'_>>).nsdname()))?,
        Rtype::PTR => write!(f, " {}", Name(read!(Ptr<Parsed<'_>>).ptrdname()))?,
        Rtype::MX => {
            let data = read!(Mx<Parsed<'_>>);
            write!(f, " {} {}", Name(data.exchange()), data.preference())?;
        }
        Rtype::SRV => {
            let data = read!(Srv<Parsed<'_>>);
            let (port, priority, weight) = (data.port(), data.priority(), data.weight());
            write!(f, " {}:{port} {priority} {weight}", Name(data.target()))?;
        }
        Rtype::TXT => {
            for text in read!(Txt<&[u8]>).iter() {
                f.write_str(" \"")?;
                printable(f, text)?;
                f.write_char('"')?;
            }
        }
        Rtype::OPT => {
            write!(f, " UDPsize={}", record.class().to_int())?;
            if record.ttl().as_secs() & 0x8000 != 0 {
                f.write_str(" DO")?;
            }
        }
        _ => {}
    }
    Ok(())
}

struct Type(Rtype);

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Rtype::ANY => f.write_str("ANY"),
            // Otherwise it would be `TYPE` and the number.
            kind if kind.to_mnemonic().is_none() => write!(f, "Type{}", kind.to_int()),
            kind => write!(f, "{kind}"),
        }
    }
}

struct Name<N>(N);

impl<N: ToName> fmt::Display for Name<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for label in self.0.iter_labels().filter(|label| !label.is_root()) {
            printable(f, label.as_slice())?;
            f.write_char('.')?;
        }
        if self.0.iter_labels().all(|label| label.is_root()) {
            f.write_char('.')?;
        }
        Ok(())
    }
}

/// Writes bytes of a packet, none of which a terminal would obey.
fn printable(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for &byte in bytes {
        if !byte.is_ascii() {
            f.write_str("M-")?;
        }
        match byte & 0x7f {
            control if control.is_ascii_control() => {
                f.write_char('^')?;
                f.write_char(char::from(control ^ 0x40))?;
            }
            letter => f.write_char(char::from(letter))?,
        }
    }
    Ok(())
}
