//! IPFIX over UDP or TCP (RFC 7011): a record for each direction of a flow that had packets, with bytes of layer 3; or one for
//! both (RFC 5103).
//!
//! A collector acknowledges nothing: what was handed to the kernel counts as delivered. Numbers of records go into
//! message headers, by which a collector counts what it missed; totals go as options (RFC 7011, 4.3), in domain 0.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Held, Outcome, Sink};
use crate::config::{IpfixConfig, Transport};
use crate::record::{Body, Counts, Flow, Record};

/// The longest message: a datagram that no link on the way has to cut.
const MESSAGE: usize = 1400;
const HEADER: usize = 16;
/// Datagrams in a row; a collector reads its socket in between.
const BURST: u64 = 32;

const V4: u16 = 256;
const V6: u16 = 257;
const TOTALS: u16 = 258;
const SAMPLING: u16 = 259;
/// Both directions in one record.
const BOTH_V4: u16 = 260;
const BOTH_V6: u16 = 261;

/// Of an information element: it is the other direction's (RFC 5103), and its number is followed by this enterprise's.
const REVERSE: u16 = 1 << 15;
const REVERSE_ENTERPRISE: u32 = 29305;

/// An information element by its number (IANA's registry), and its length.
type Field = (u16, u16);

/// Ports, protocol, flowEndReason, ipVersion, flowDirection,
/// tcpControlBits, ipClassOfService, vlanId, ingress- and egressInterface, flowStart- and flowEndMilliseconds, octetDeltaCount,
/// packetDeltaCount.
const FLOW: [Field; 15] = [
    (7, 2),
    (11, 2),
    (4, 1),
    (136, 1),
    (60, 1),
    (61, 1),
    (6, 2),
    (5, 1),
    (58, 2),
    (10, 4),
    (14, 4),
    (152, 8),
    (153, 8),
    (1, 8),
    (2, 8),
];
/// Behind those of a record of both directions: biflowDirection, and what came back.
const BACK: [Field; 5] =
    [(239, 1), (REVERSE | 6, 2), (REVERSE | 5, 1), (REVERSE | 1, 8), (REVERSE | 2, 8)];
/// Of each template: before the others the addresses, behind them icmpTypeCodeIPv4 or -IPv6.
const OWN: [(u16, [Field; 3], bool); 4] = [
    (V4, [(8, 4), (12, 4), (32, 2)], false),
    (V6, [(27, 16), (28, 16), (139, 2)], false),
    (BOTH_V4, [(8, 4), (12, 4), (32, 2)], true),
    (BOTH_V6, [(27, 16), (28, 16), (139, 2)], true),
];
/// The most bytes that a flow takes: two records of IPv6.
const MOST: usize = 2 * (32 + 55);
/// By exportingProcessId, which is the shard: observedFlowTotalCount, notSentFlowTotalCount,
/// ignoredPacketTotalCount.
const SCOPE: Field = (144, 4);
const COUNTS: [Field; 3] = [(163, 8), (166, 8), (164, 8)];
/// By selectorId, the only one: samplingPacketInterval and samplingPacketSpace, which say that every packet was looked at.
/// Collectors that scale by a sampling rate refuse flows without one.
const SELECTOR: Field = (302, 8);
const RATE: [Field; 2] = [(305, 4), (306, 4)];

/// What a message is about: each kind has a domain of its own, and its records are counted by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    Flows,
    Process,
}

enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Link {
    fn to(address: SocketAddr, transport: Transport) -> io::Result<Self> {
        const PATIENCE: Duration = Duration::from_secs(5);
        match transport {
            Transport::Udp => {
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                Ok(Self::Udp(socket))
            }
            Transport::Tcp => {
                let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Self::Tcp(stream))
            }
        }
    }
}

pub(super) struct Ipfix {
    config: IpfixConfig,
    /// The index of the interface that is watched.
    interface: u32,
    link: Option<Link>,
    /// Whom the datagrams go to, and how often one was chosen.
    address: Option<SocketAddr>,
    attempts: usize,
    /// Data records sent in this session: of the domain's flows, and of the process.
    sequences: [u32; 2],
    templates: Option<Instant>,
    messages: u64,
}

impl Ipfix {
    pub(super) fn new(config: &IpfixConfig, interface: u32) -> Self {
        let config = config.clone();
        let (link, address, templates) = (None, None, None);
        let (attempts, sequences, messages) = (0, [0; 2], 0);
        Self { config, interface, link, address, attempts, sequences, templates, messages }
    }

    /// Opens a link to the address after the one before: not always to the first, as that nobody has its port open shows only
    /// when datagrams are sent.
    fn open_one_of(&mut self, addresses: &[SocketAddr]) -> io::Result<()> {
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for _ in addresses {
            let address = addresses[self.attempts % addresses.len()];
            self.attempts += 1;
            let is_udp = self.config.transport == Transport::Udp;
            if is_udp && self.link.is_some() && self.address == Some(address) {
                return Ok(()); // the numbers go on, so that it can tell what it missed
            }
            match Link::to(address, self.config.transport) {
                Ok(link) => {
                    (self.link, self.sequences) = (Some(link), [0; 2]);
                    self.address = Some(address);
                    return Ok(());
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Sends sets in one message; `records` of them are data.
    fn send(&mut self, of: About, sets: &[u8], records: u32) -> io::Result<()> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut message = Vec::with_capacity(HEADER + sets.len());
        message.extend(10_u16.to_be_bytes());
        message.extend(((HEADER + sets.len()) as u16).to_be_bytes());
        message.extend((seconds as u32).to_be_bytes());
        message.extend(self.sequences[of as usize].to_be_bytes());
        let domain = match of {
            About::Flows => self.config.domain,
            About::Process => 0, // RFC 7011, 3.1
        };
        message.extend(domain.to_be_bytes());
        message.extend(sets);
        match self.link.as_mut().ok_or(io::ErrorKind::NotConnected)? {
            Link::Udp(socket) => drop(socket.send(&message)?),
            Link::Tcp(stream) => {
                refuse_if_closed(stream)?;
                stream.write_all(&message)?;
            }
        }
        let sequence = &mut self.sequences[of as usize];
        *sequence = sequence.wrapping_add(records);
        self.messages += 1;
        if self.messages.is_multiple_of(BURST) && matches!(self.link, Some(Link::Udp(_))) {
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    }

    /// Sends flows, and totals in a message of their own: collectors that do not count records of options, nfcapd among them, would
    /// otherwise miss some that were not there.
    fn send_sets(&mut self, sets: &Sets) -> io::Result<()> {
        for (of, bytes, records) in [
            (About::Flows, sets.flows(), sets.records),
            (About::Process, sets.totals(), sets.totals),
        ] {
            if records > 0 {
                self.send(of, &bytes, records)?;
            }
        }
        Ok(())
    }

    /// Says how records look, where that has not been said for a while: a collector may have come since.
    fn tell_templates(&mut self) -> io::Result<()> {
        let again = Duration::from_secs(self.config.template_seconds);
        let is_known = self
            .templates
            .is_some_and(|when| matches!(self.link, Some(Link::Tcp(_))) || when.elapsed() < again);
        if is_known {
            return Ok(());
        }
        self.send(About::Flows, &templates(), 0)?;
        self.send(About::Process, &template_of_totals(), 0)?;
        self.send(About::Flows, &sampling(), 1)?;
        self.templates = Some(Instant::now());
        Ok(())
    }
}

impl Sink for Ipfix {
    fn open(&mut self) -> Outcome<()> {
        let to = self.config.to.clone();
        let name = |error: io::Error| format!("{to}: {error}");
        self.templates = None;
        // Asked for each time: a collector may move.
        let addresses: Vec<_> = to.to_socket_addrs().map_err(name)?.collect();
        Ok(self.open_one_of(&addresses).map_err(name)?)
    }

    fn held(&mut self, _first: &Record, _: bool) -> Outcome<Held> {
        Ok(Held::default()) // a collector tells nothing
    }

    fn deliver(&mut self, records: &[Record]) -> Outcome<usize> {
        let mut done = 0;
        while done < records.len() {
            let (interface, is_biflow) = (self.interface, self.config.biflow);
            let mut sets = Sets { interface, is_biflow, ..Sets::default() };
            let count = records[done..].iter().take_while(|record| sets.add(record)).count();
            match self.tell_templates().and_then(|()| self.send_sets(&sets)) {
                Ok(()) => done += count,
                Err(error) if done == 0 => return Err(error.into()),
                Err(_) => break, // the next delivery says so
            }
        }
        Ok(done)
    }

    fn appetite(&self) -> (usize, Duration) {
        (512, Duration::from_millis(20))
    }
}

fn templates() -> Vec<u8> {
    let mut bytes = Vec::new();
    for (template, [source, destination, icmp], is_both) in OWN {
        let back = if is_both { &BACK[..] } else { &[] };
        let fields = [&[source, destination][..], &FLOW, &[icmp], back].concat();
        bytes.extend(template.to_be_bytes());
        bytes.extend((fields.len() as u16).to_be_bytes());
        for (element, len) in fields {
            bytes.extend(element.to_be_bytes());
            bytes.extend(len.to_be_bytes());
            if element & REVERSE != 0 {
                bytes.extend(REVERSE_ENTERPRISE.to_be_bytes());
            }
        }
    }
    let mut sets = set(2, &bytes);
    sets.extend(template_of_options(SAMPLING, SELECTOR, &RATE));
    sets
}

fn template_of_totals() -> Vec<u8> {
    template_of_options(TOTALS, SCOPE, &COUNTS)
}

fn template_of_options(template: u16, scope: Field, fields: &[Field]) -> Vec<u8> {
    let mut options = vec![template, 1 + fields.len() as u16, 1];
    [scope].iter().chain(fields).for_each(|&(element, len)| options.extend([element, len]));
    set(3, &options.iter().flat_map(|field| field.to_be_bytes()).collect::<Vec<_>>())
}

/// The record of how packets were sampled: one of one.
fn sampling() -> Vec<u8> {
    let (selector, interval, space) = (0_u64, 1_u32, 0_u32);
    let mut record = selector.to_be_bytes().to_vec();
    record.extend(interval.to_be_bytes());
    record.extend(space.to_be_bytes());
    set(SAMPLING, &record)
}

fn set(id: u16, content: &[u8]) -> Vec<u8> {
    let mut set = id.to_be_bytes().to_vec();
    set.extend((4 + content.len() as u16).to_be_bytes());
    set.extend(content);
    set
}

/// A collector that has gone says so, and nothing else ever; what is written to it then would be taken and be gone.
fn refuse_if_closed(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    match peeked {
        Ok(0) => Err(io::ErrorKind::ConnectionAborted.into()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

/// The sets of one message, of a kind of record each.
#[derive(Default)]
struct Sets {
    /// Of IPv4, of IPv6, of totals.
    content: [Vec<u8>; 3],
    /// Records of flows, and of totals.
    records: u32,
    totals: u32,
    interface: u32,
    /// Whether a record has both directions.
    is_biflow: bool,
}

impl Sets {
    /// Adds a record; false where there is no room for it.
    fn add(&mut self, record: &Record) -> bool {
        let used: usize = self.content.iter().map(|set| 4 + set.len()).sum();
        if HEADER + used + MOST > MESSAGE {
            return false;
        }
        match &record.body {
            Body::Flow(flow) => self.add_flow(flow),
            Body::Counts(counts) => self.add_counts(record.shard, counts),
        }
        true
    }

    fn add_flow(&mut self, flow: &Flow) {
        if self.is_biflow {
            self.add_direction(flow, false);
            let out = &mut self.content[usize::from(flow.initiator.is_ipv6())];
            out.push(1); // from the initiator
            out.extend(flow.tcp_flags(true).to_be_bytes());
            out.push(flow.received.class);
            out.extend(flow.received.octets.to_be_bytes());
            out.extend(flow.received.packets.to_be_bytes());
            return;
        }
        for (is_answer, direction) in [(false, flow.sent), (true, flow.received)] {
            if direction.packets > 0 {
                self.add_direction(flow, is_answer);
            }
        }
    }

    fn add_direction(&mut self, flow: &Flow, is_answer: bool) {
        let (from, to, direction) = match is_answer {
            false => (flow.initiator, flow.responder, flow.sent),
            true => (flow.responder, flow.initiator, flow.received),
        };
        let out = &mut self.content[usize::from(from.is_ipv6())];
        for address in [from.ip(), to.ip()] {
            match address {
                IpAddr::V4(v4) => out.extend(v4.octets()),
                IpAddr::V6(v6) => out.extend(v6.octets()),
            }
        }
        out.extend(from.port().to_be_bytes());
        out.extend(to.port().to_be_bytes());
        let version = if from.is_ipv6() { 6 } else { 4 };
        // All of it came in through the interface that is watched: 0, which is ingress.
        out.extend([flow.protocol, flow.reason as u8, version, 0]);
        out.extend(flow.tcp_flags(is_answer).to_be_bytes());
        out.push(direction.class);
        out.extend(flow.vlan.unwrap_or(0).to_be_bytes());
        out.extend(self.interface.to_be_bytes());
        out.extend(0_u32.to_be_bytes()); // where it went is not known
        for number in
            [flow.start / 1_000_000, flow.end / 1_000_000, direction.octets, direction.packets]
        {
            out.extend(number.to_be_bytes());
        }
        let (kind, code) = flow.icmp_of(is_answer).unwrap_or_default();
        out.extend([kind, code]);
        self.records += 1;
    }

    fn add_counts(&mut self, shard: u16, counts: &Counts) {
        let out = &mut self.content[2];
        out.extend(u32::from(shard).to_be_bytes());
        let Counts { flows, overflowed, refused, lost, drops, .. } = counts;
        let missing = overflowed + refused + lost;
        for number in [flows + missing, missing, *drops] {
            out.extend(number.to_be_bytes());
        }
        self.totals += 1;
    }

    fn flows(&self) -> Vec<u8> {
        let ids = if self.is_biflow { [BOTH_V4, BOTH_V6] } else { [V4, V6] };
        let there = ids.iter().zip(&self.content).filter(|(_, content)| !content.is_empty());
        there.flat_map(|(id, content)| set(*id, content)).collect()
    }

    fn totals(&self) -> Vec<u8> {
        set(TOTALS, &self.content[2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_that_takes_datagrams_is_found() {
        let there = UdpSocket::bind("127.0.0.1:0").unwrap();
        there.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addresses = [nobody.local_addr().unwrap(), there.local_addr().unwrap()];
        drop(nobody);
        let config = IpfixConfig {
            to: "collector:4739".to_owned(),
            domain: 1,
            template_seconds: 60,
            biflow: false,
            transport: Transport::Udp,
        };
        let mut sink = Ipfix::new(&config, 1);
        let record = Record { shard: 0, sequence: 0, body: Body::Flow(Flow::sample(0)) };
        let mut refused = 0;
        // As the courier does: it opens anew after each error.
        loop {
            sink.templates = None;
            sink.open_one_of(&addresses).unwrap();
            match (0..10).try_for_each(|_| sink.deliver(std::slice::from_ref(&record)).map(drop)) {
                Ok(()) => break,
                Err(_) => refused += 1,
            }
            assert!(refused < 10, "nobody was found");
        }
        assert!(refused > 0, "the first was not tried");
        let mut message = [0; MESSAGE];
        assert!(there.recv(&mut message).unwrap() > HEADER);
    }
}
