//! Reads a message's bytes.

use std::fmt::Display;

use domain::base::iana::Rtype;
use domain::base::message::RecordSection;
use domain::base::name::ParsedName;
use domain::base::rdata::{ParseRecordData, UnknownRecordData};
use domain::base::wire::ParseError;
use domain::base::{Message, ParsedRecord};
use domain::rdata::{A, Aaaa, Cname, Mx, Ns, Ptr, Soa, Srv, Txt};

use super::message::{DnsContent, DnsEdns, DnsFault, DnsFlags, DnsQuestion, DnsRdata, DnsRecord};

/// Reads a message, as far as it can be read. Returns `None` if it has no whole header.
pub(super) fn message(bytes: &[u8]) -> Option<DnsContent> {
    let message = Message::from_slice(bytes).ok()?;
    let flags = DnsFlags(u16::from_be_bytes([bytes[2], bytes[3]]));
    let mut content = DnsContent {
        transaction_id: message.header().id(),
        flags,
        rcode: flags.0 & 0x0f,
        questions: Vec::new(),
        answers: Vec::new(),
        authorities: Vec::new(),
        additionals: Vec::new(),
        edns: None,
        fault: None,
        elapsed: None,
    };
    content.fault = sections(message, &mut content).err();
    Some(content)
}

impl From<ParseError> for DnsFault {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::ShortInput => Self::Cut,
            ParseError::Form(_) => Self::Malformed,
        }
    }
}

/// Most bytes of memory of a message's records.
const MOST_HELD: usize = 1 << 20;

fn sections(message: &Message<[u8]>, content: &mut DnsContent) -> Result<(), DnsFault> {
    let mut questions = message.question();
    for question in &mut questions {
        let question = question?;
        content.questions.push(DnsQuestion {
            name: text(question.qname()),
            qtype: question.qtype().to_int(),
            qclass: question.qclass().to_int(),
        });
    }
    let mut section = Some(questions.next_section()?);
    let mut held = 0;
    for number in 0..3 {
        let Some(records) = &mut section else { break };
        records_of(records, number, content, &mut held)?;
        section = section.map_or(Ok(None), RecordSection::next_section)?;
    }
    Ok(())
}

fn records_of(
    records: &mut RecordSection<'_, [u8]>,
    section: u8,
    content: &mut DnsContent,
    held: &mut usize,
) -> Result<(), DnsFault> {
    for record in records {
        let record = record?;
        let ttl = record.ttl().as_secs();
        if record.rtype() == Rtype::OPT && section == 2 {
            content.rcode |= (ttl >> 20) as u16 & 0x0ff0;
            content.edns = Some(DnsEdns {
                version: (ttl >> 16) as u8,
                udp_size: record.class().to_int(),
                is_dnssec_ok: ttl & 0x8000 != 0,
            });
            continue;
        }
        let data = data(&record);
        let rtype = record.rtype().to_int();
        let rclass = record.class().to_int();
        let record = DnsRecord { name: text(record.owner()), rtype, rclass, ttl, data };
        *held += record.held();
        if *held > MOST_HELD {
            return Err(DnsFault::TooLong);
        }
        match section {
            0 => content.answers.push(record),
            1 => content.authorities.push(record),
            _ => content.additionals.push(record),
        }
    }
    Ok(())
}

/// Writes a name; that of the root is otherwise empty.
fn text(name: impl Display) -> String {
    let text = name.to_string();
    if text.is_empty() { ".".to_owned() } else { text }
}

type Name<'a> = ParsedName<&'a [u8]>;

/// Reads a record's data by its type, or as bytes.
fn data(record: &ParsedRecord<'_, [u8]>) -> DnsRdata {
    let data = match record.rtype() {
        Rtype::A => by_type(record, |data: A| DnsRdata::A(data.addr())),
        Rtype::AAAA => by_type(record, |data: Aaaa| DnsRdata::Aaaa(data.addr())),
        Rtype::CNAME => {
            by_type(record, |data: Cname<Name<'_>>| DnsRdata::Cname(text(data.cname())))
        }
        Rtype::NS => by_type(record, |data: Ns<Name<'_>>| DnsRdata::Ns(text(data.nsdname()))),
        Rtype::PTR => by_type(record, |data: Ptr<Name<'_>>| DnsRdata::Ptr(text(data.ptrdname()))),
        Rtype::MX => by_type(record, |data: Mx<Name<'_>>| DnsRdata::Mx {
            preference: data.preference(),
            exchange: text(data.exchange()),
        }),
        Rtype::TXT => by_type(record, |data: Txt<&[u8]>| {
            DnsRdata::Txt(data.iter().map(<[u8]>::to_vec).collect())
        }),
        Rtype::SRV => by_type(record, |data: Srv<Name<'_>>| DnsRdata::Srv {
            priority: data.priority(),
            weight: data.weight(),
            port: data.port(),
            target: text(data.target()),
        }),
        Rtype::SOA => by_type(record, |data: Soa<Name<'_>>| DnsRdata::Soa {
            mname: text(data.mname()),
            rname: text(data.rname()),
            serial: data.serial().into_int(),
        }),
        _ => None,
    };
    let raw = |data: UnknownRecordData<&[u8]>| DnsRdata::Other(data.data().to_vec());
    data.or_else(|| by_type(record, raw)).unwrap_or(DnsRdata::Other(Vec::new()))
}

fn by_type<'a, D: ParseRecordData<'a, [u8]>>(
    record: &ParsedRecord<'a, [u8]>,
    data: impl FnOnce(D) -> DnsRdata,
) -> Option<DnsRdata> {
    record.to_record::<D>().ok().flatten().map(|record| data(record.into_data()))
}
