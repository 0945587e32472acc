//! IPFIX over UDP or TCP (RFC 7011): a record for each direction of a flow that had packets, with bytes of layer 3.
//!
//! A collector acknowledges nothing: what was handed to the kernel counts as delivered. Numbers of records go into
//! message headers, by which a collector counts what it missed; totals go as options (RFC 7011, 4.3).

use std::io::{self, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
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

/// Information elements by number (IANA's registry), and their lengths.
const FLOW: [(u16, u16); 8] =
    [(7, 2), (11, 2), (4, 1), (136, 1), (152, 8), (153, 8), (1, 8), (2, 8)];
/// Ports, protocol, flowEndReason, flowStart- and flowEndMilliseconds, octetDeltaCount, packetDeltaCount; before them
/// the addresses.
const ADDRESSES: [(u16, [(u16, u16); 2]); 2] =
    [(V4, [(8, 4), (12, 4)]), (V6, [(27, 16), (28, 16)])];
/// By exportingProcessId, which is the shard: observedFlowTotalCount, notSentFlowTotalCount,
/// ignoredPacketTotalCount.
const SCOPE: (u16, u16) = (144, 4);
const COUNTS: [(u16, u16); 3] = [(163, 8), (166, 8), (164, 8)];

enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

pub(super) struct Ipfix {
    config: IpfixConfig,
    link: Option<Link>,
    /// Data records sent in this session.
    sequence: u32,
    templates: Option<Instant>,
    messages: u64,
}

impl Ipfix {
    pub(super) fn new(config: &IpfixConfig) -> Self {
        Self { config: config.clone(), link: None, sequence: 0, templates: None, messages: 0 }
    }

    /// Sends sets in one message; `records` of them are data.
    fn send(&mut self, sets: &[u8], records: u32) -> io::Result<()> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut message = Vec::with_capacity(HEADER + sets.len());
        message.extend(10_u16.to_be_bytes());
        message.extend(((HEADER + sets.len()) as u16).to_be_bytes());
        message.extend((seconds as u32).to_be_bytes());
        message.extend(self.sequence.to_be_bytes());
        message.extend(self.config.domain.to_be_bytes());
        message.extend(sets);
        match self.link.as_mut().ok_or(io::ErrorKind::NotConnected)? {
            Link::Udp(socket) => drop(socket.send(&message)?),
            Link::Tcp(stream) => {
                refuse_if_closed(stream)?;
                stream.write_all(&message)?;
            }
        }
        self.sequence = self.sequence.wrapping_add(records);
        self.messages += 1;
        if self.messages.is_multiple_of(BURST) && matches!(self.link, Some(Link::Udp(_))) {
            std::thread::sleep(Duration::from_micros(500));
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
        self.send(&templates(), 0)?;
        self.templates = Some(Instant::now());
        Ok(())
    }
}

impl Sink for Ipfix {
    fn open(&mut self) -> Outcome<()> {
        let to = &self.config.to;
        let name = |error: io::Error| format!("{to}: {error}");
        self.templates = None;
        self.link = Some(match self.config.transport {
            // The numbers go on, so that a collector can tell what it missed.
            Transport::Udp if self.link.is_some() => return Ok(()),
            Transport::Udp => {
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.connect(to).map_err(name)?;
                Link::Udp(socket)
            }
            Transport::Tcp => {
                let patience = Duration::from_secs(5);
                let stream = TcpStream::connect_timeout(to, patience).map_err(name)?;
                stream.set_write_timeout(Some(patience))?;
                Link::Tcp(stream)
            }
        });
        self.sequence = 0;
        Ok(())
    }

    fn held(&mut self, _shard: u16, _from: u64) -> Outcome<Held> {
        Ok(Held::default()) // a collector tells nothing
    }

    fn deliver(&mut self, records: &[Record]) -> Outcome<usize> {
        let mut done = 0;
        while done < records.len() {
            let mut sets = Sets::default();
            let count = records[done..].iter().take_while(|record| sets.add(record)).count();
            match self.tell_templates().and_then(|()| self.send(&sets.finish(), sets.records)) {
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
    let mut fields = Vec::new();
    for (template, addresses) in ADDRESSES {
        fields.extend([template, (addresses.len() + FLOW.len()) as u16]);
        addresses.iter().chain(&FLOW).for_each(|&(element, len)| fields.extend([element, len]));
    }
    let mut sets = set(2, &fields.iter().flat_map(|field| field.to_be_bytes()).collect::<Vec<_>>());
    let mut options = vec![TOTALS, 1 + COUNTS.len() as u16, 1];
    [SCOPE].iter().chain(&COUNTS).for_each(|&(element, len)| options.extend([element, len]));
    sets.extend(set(3, &options.iter().flat_map(|field| field.to_be_bytes()).collect::<Vec<_>>()));
    sets
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
    content: [Vec<u8>; 3],
    records: u32,
}

impl Sets {
    /// Adds a record; false where there is no room for it.
    fn add(&mut self, record: &Record) -> bool {
        let used: usize = self.content.iter().map(|set| 4 + set.len()).sum();
        // No record takes more: two directions of IPv6.
        if HEADER + used + 2 * (32 + 38) > MESSAGE {
            return false;
        }
        match &record.body {
            Body::Flow(flow) => self.add_flow(flow),
            Body::Counts(counts) => self.add_counts(record.shard, counts),
        }
        true
    }

    fn add_flow(&mut self, flow: &Flow) {
        for (from, to, direction) in flow.directions() {
            let out = &mut self.content[usize::from(from.is_ipv6())];
            for address in [from.ip(), to.ip()] {
                match address {
                    IpAddr::V4(v4) => out.extend(v4.octets()),
                    IpAddr::V6(v6) => out.extend(v6.octets()),
                }
            }
            out.extend(from.port().to_be_bytes());
            out.extend(to.port().to_be_bytes());
            out.extend([flow.protocol, flow.reason as u8]);
            for number in
                [flow.start / 1_000_000, flow.end / 1_000_000, direction.octets, direction.packets]
            {
                out.extend(number.to_be_bytes());
            }
            self.records += 1;
        }
    }

    fn add_counts(&mut self, shard: u16, counts: &Counts) {
        let out = &mut self.content[2];
        out.extend(u32::from(shard).to_be_bytes());
        let Counts { flows, overflowed, refused, lost, drops, .. } = counts;
        let missing = overflowed + refused + lost;
        for number in [flows + missing, missing, *drops] {
            out.extend(number.to_be_bytes());
        }
        self.records += 1;
    }

    fn finish(&self) -> Vec<u8> {
        let ids = [V4, V6, TOTALS];
        let there = ids.iter().zip(&self.content).filter(|(_, content)| !content.is_empty());
        there.flat_map(|(id, content)| set(*id, content)).collect()
    }
}
