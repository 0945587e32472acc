//! Flow records as text: NDJSON, CSV, Suricata's EVE, Zeek's `conn.log`.

use std::fmt;
use std::io::{self, Write};
use std::net::IpAddr;

use flowscope::{EndReason, KeyFields, L4Proto, Orientation};

use super::FlowRecord;
use crate::packet::Iso;

/// Format of flow records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordFormat {
    /// One JSON object per line.
    Ndjson,
    /// Comma-separated values after a header line.
    Csv,
    /// `flow` events as Suricata writes them (`eve.json`).
    Eve,
    /// Lines as Zeek writes them (`conn.log`), after its header.
    Zeek,
}

/// Writes flow records, one per line; see [`RecordFormat`].
#[derive(Debug)]
pub struct RecordWriter<W> {
    out: W,
    format: RecordFormat,
    count: u64,
}

const CSV: &str = "start,end,proto,src_ip,src_port,dst_ip,dst_port,packets_sent,packets_received,octets_sent,octets_received,bytes_sent,bytes_received,history,reason,community_id";
const ZEEK: [(&str, &str); 15] = [
    ("ts", "time"),
    ("uid", "string"),
    ("id.orig_h", "addr"),
    ("id.orig_p", "port"),
    ("id.resp_h", "addr"),
    ("id.resp_p", "port"),
    ("proto", "enum"),
    ("duration", "interval"),
    ("conn_state", "string"),
    ("history", "string"),
    ("orig_pkts", "count"),
    ("orig_ip_bytes", "count"),
    ("resp_pkts", "count"),
    ("resp_ip_bytes", "count"),
    ("community_id", "string"),
];

impl<W: Write> RecordWriter<W> {
    /// Creates a writer, and writes the header if the format has one.
    ///
    /// # Errors
    /// The errors of `out`.
    pub fn new(mut out: W, format: RecordFormat) -> io::Result<Self> {
        match format {
            RecordFormat::Ndjson | RecordFormat::Eve => {}
            RecordFormat::Csv => writeln!(out, "{CSV}")?,
            RecordFormat::Zeek => {
                let names = ZEEK.map(|(name, _)| name).join("\t");
                let types = ZEEK.map(|(_, kind)| kind).join("\t");
                writeln!(
                    out,
                    "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n\
                     #fields\t{names}\n#types\t{types}"
                )?;
            }
        }
        Ok(Self { out, format, count: 0 })
    }

    /// Writes a record.
    ///
    /// # Errors
    /// The errors of the output.
    pub fn write<K: KeyFields>(&mut self, record: &FlowRecord<K>) -> io::Result<()> {
        let line = Line::new(record);
        match self.format {
            RecordFormat::Ndjson => line.ndjson(&mut self.out)?,
            RecordFormat::Csv => line.csv(&mut self.out)?,
            RecordFormat::Eve => line.eve(&mut self.out)?,
            RecordFormat::Zeek => line.zeek(&mut self.out, self.count + 1)?,
        }
        self.count += 1;
        Ok(())
    }

    /// Returns the number of records written.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Flushes the output.
    ///
    /// # Errors
    /// The errors of the output.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Flushes the output and returns it.
    ///
    /// # Errors
    /// The errors of the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// A record with its endpoints in the order initiator, responder.
struct Line<'a, K> {
    record: &'a FlowRecord<K>,
    from: (Option<IpAddr>, Option<u16>),
    to: (Option<IpAddr>, Option<u16>),
    proto: String,
    community_id: Option<String>,
}

/// Displays a value, or a placeholder if there is none.
struct Or<T>(Option<T>, &'static str);

impl<T: fmt::Display> fmt::Display for Or<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str(self.1),
        }
    }
}

impl<'a, K: KeyFields> Line<'a, K> {
    fn new(record: &'a FlowRecord<K>) -> Self {
        let key = &record.key;
        let (a, b) = ((key.src_ip(), key.src_port()), (key.dest_ip(), key.dest_port()));
        let (from, to) = match record.initiator {
            Orientation::Forward => (a, b),
            Orientation::Reverse => (b, a),
        };
        let proto = match record.l4 {
            Some(L4Proto::Other(number)) => number.to_string(),
            Some(l4) => l4.canonical_name().to_owned(),
            None => "other".to_owned(),
        };
        Self { record, from, to, proto, community_id: key.community_id() }
    }

    /// Writes the JSON fields of both endpoints, with the given names.
    fn ends(&self, out: &mut impl Write, names: [&str; 4]) -> io::Result<()> {
        let ends = [(self.from, names[0], names[1]), (self.to, names[2], names[3])];
        for ((ip, port), ip_name, port_name) in ends {
            if let Some(ip) = ip {
                write!(out, ",\"{ip_name}\":\"{ip}\"")?;
            }
            if let Some(port) = port {
                write!(out, ",\"{port_name}\":{port}")?;
            }
        }
        Ok(())
    }

    fn ndjson(&self, out: &mut impl Write) -> io::Result<()> {
        let FlowRecord { sent, received, history, start, end, .. } = self.record;
        write!(out, "{{\"start\":\"{}\",\"end\":\"{}\"", Iso(*start, 9, "Z"), Iso(*end, 9, "Z"))?;
        write!(out, ",\"proto\":\"{}\"", self.proto)?;
        self.ends(out, ["src_ip", "src_port", "dst_ip", "dst_port"])?;
        write!(
            out,
            ",\"packets_sent\":{},\"packets_received\":{},\"octets_sent\":{},\"octets_received\":{}",
            sent.packets, received.packets, sent.octets, received.octets
        )?;
        write!(out, ",\"bytes_sent\":{},\"bytes_received\":{}", sent.bytes, received.bytes)?;
        write!(out, ",\"class_sent\":{},\"class_received\":{}", sent.class, received.class)?;
        if let Some(vlan) = self.record.vlan {
            write!(out, ",\"vlan\":{vlan}")?;
        }
        write!(out, ",\"history\":\"{history}\",\"reason\":\"{}\"", self.reason())?;
        if let Some(id) = &self.community_id {
            write!(out, ",\"community_id\":\"{id}\"")?;
        }
        out.write_all(b"}\n")
    }

    fn csv(&self, out: &mut impl Write) -> io::Result<()> {
        let FlowRecord { sent, received, history, start, end, .. } = self.record;
        write!(out, "{},{},{}", Iso(*start, 9, "Z"), Iso(*end, 9, "Z"), self.proto)?;
        for (ip, port) in [self.from, self.to] {
            write!(out, ",{},{}", Or(ip, ""), Or(port, ""))?;
        }
        writeln!(
            out,
            ",{},{},{},{},{},{},{},{},{}",
            sent.packets,
            received.packets,
            sent.octets,
            received.octets,
            sent.bytes,
            received.bytes,
            history,
            self.reason(),
            Or(self.community_id.as_ref(), "")
        )
    }

    /// Follows Suricata's `output-json-flow.c`, but the byte counts are those of IP.
    fn eve(&self, out: &mut impl Write) -> io::Result<()> {
        let FlowRecord { sent, received, start, end, reason, .. } = self.record;
        write!(out, "{{\"timestamp\":\"{}\",\"event_type\":\"flow\"", Iso(*end, 6, "+0000"))?;
        if let Some(vlan) = self.record.vlan {
            write!(out, ",\"vlan\":[{vlan}]")?;
        }
        self.ends(out, ["src_ip", "src_port", "dest_ip", "dest_port"])?;
        write!(out, ",\"proto\":\"{}\"", self.suricatas())?;
        if let Some(id) = &self.community_id {
            write!(out, ",\"community_id\":\"{id}\"")?;
        }
        let age = end.as_nanos().saturating_sub(start.as_nanos()) / 1_000_000_000;
        let state = match reason {
            Some(EndReason::Fin | EndReason::Rst | EndReason::ParserDone) => "closed",
            _ if received.packets > 0 => "established",
            _ => "new",
        };
        let why = match reason {
            Some(EndReason::IdleTimeout) => "timeout",
            Some(EndReason::Fin | EndReason::Rst) | None => "unknown",
            _ => "forced",
        };
        writeln!(
            out,
            ",\"flow\":{{\"pkts_toserver\":{},\"pkts_toclient\":{},\"bytes_toserver\":{},\"bytes_toclient\":{},\
             \"start\":\"{}\",\"end\":\"{}\",\"age\":{age},\"state\":\"{state}\",\"reason\":\"{why}\"}}}}",
            sent.packets,
            received.packets,
            sent.octets,
            received.octets,
            Iso(*start, 6, "+0000"),
            Iso(*end, 6, "+0000"),
        )
    }

    fn zeek(&self, out: &mut impl Write, number: u64) -> io::Result<()> {
        let FlowRecord { sent, received, history, start, end, .. } = self.record;
        let duration = end.as_nanos().saturating_sub(start.as_nanos());
        write!(out, "{}.{:06}\tC{number:016x}", start.secs, start.nanos / 1000)?;
        for (ip, port) in [self.from, self.to] {
            write!(out, "\t{}\t{}", Or(ip, "-"), Or(port, "-"))?;
        }
        let history = Some(history).filter(|history| history.letters().next().is_some());
        writeln!(
            out,
            "\t{}\t{}.{:06}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
            self.zeeks(),
            duration / 1_000_000_000,
            duration % 1_000_000_000 / 1000,
            self.state(),
            Or(history, "-"),
            sent.packets,
            sent.octets,
            received.packets,
            received.octets,
            Or(self.community_id.as_ref(), "-")
        )
    }

    /// Returns Zeek's state of the connection, derived from the history (`conn_state` of `conn.log`).
    fn state(&self) -> &'static str {
        let FlowRecord { history, sent, received, l4, .. } = self.record;
        if *l4 != Some(L4Proto::Tcp) {
            return match (sent.packets, received.packets) {
                _ if *l4 != Some(L4Proto::Udp) => "OTH",
                (0, _) => "SHR",
                (_, 0) => "S0",
                _ => "SF",
            };
        }
        let has = |letter: char| history.contains(letter);
        let (opened, answered) = (has('S'), has('h'));
        match (has('R'), has('r'), has('F'), has('f')) {
            (_, true, ..) if opened && !answered => "REJ",
            (true, ..) if opened && !answered => "RSTOS0",
            (_, true, ..) if answered && !opened => "RSTRH",
            (true, ..) => "RSTO",
            (_, true, ..) => "RSTR",
            (.., true, _) if opened && !answered => "SH",
            (.., true) if answered && !opened => "SHR",
            _ if opened && !answered => "S0",
            _ if !(opened && answered) => "OTH",
            (.., true, true) => "SF",
            (.., true, false) => "S2",
            (.., false, true) => "S3",
            _ => "S1",
        }
    }

    /// Returns why the flow ended, or `active` if it goes on.
    fn reason(&self) -> &'static str {
        self.record.reason.as_ref().map_or("active", EndReason::as_str)
    }

    /// Returns Suricata's name of the protocol.
    fn suricatas(&self) -> String {
        match self.record.l4 {
            Some(L4Proto::IcmpV6) => "IPv6-ICMP".to_owned(),
            Some(L4Proto::Other(number)) => format!("{number:03}"),
            _ => self.proto.to_uppercase(),
        }
    }

    /// Returns Zeek's name of the protocol.
    fn zeeks(&self) -> &'static str {
        match self.record.l4 {
            Some(L4Proto::Tcp) => "tcp",
            Some(L4Proto::Udp) => "udp",
            Some(L4Proto::Icmp | L4Proto::IcmpV6) => "icmp",
            _ => "unknown_transport",
        }
    }
}
