//! A packet as a line, in the words of tcpdump with `-n -S`: sequence numbers as they are, and no names.

mod dns;

use std::fmt::{self, Write as _};
use std::net::Ipv4Addr;

use jiff::tz::TimeZone;
use ringtap::interface::InterfaceNames;
use ringtap::packet::{Layers, LinkType, Packet, PacketDirection, TcpHeader, Tunnels};

use self::dns::Dns;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;
const ARP: u16 = 0x0806;

/// Writes packets as lines.
pub(crate) struct Lines {
    zone: TimeZone,
    /// Where packets say their interface, these are its names.
    names: Option<InterfaceNames>,
}

impl Lines {
    pub(crate) fn new(names: Option<InterfaceNames>) -> Self {
        Self { zone: TimeZone::system(), names }
    }

    /// Appends the line of a packet.
    pub(crate) fn write(&mut self, packet: &Packet<'_>, out: &mut String) -> fmt::Result {
        let nanos = i128::from(packet.timestamp().as_nanos());
        if let Ok(time) = jiff::Timestamp::from_nanosecond(nanos) {
            write!(out, "{} ", time.to_zoned(self.zone.clone()).strftime("%H:%M:%S.%6f"))?;
        }
        if let (Some(names), Some(index)) = (&mut self.names, packet.interface_index()) {
            let way = match packet.direction() {
                Some(PacketDirection::Outgoing) => "Out",
                Some(PacketDirection::Broadcast) => "B",
                Some(PacketDirection::Multicast) => "M",
                Some(PacketDirection::OtherHost) => "P",
                _ => "In",
            };
            write!(out, "{} {way} ", names.of(index))?;
        }
        if let Some(tag) = packet.vlan() {
            write!(out, "vlan {}, ", tag.id())?;
        }
        match packet.layers(Tunnels::Outer) {
            Some(layers) => write!(out, "{}", OfIp { packet, layers: &layers })?,
            None => write!(out, "{}", OfLink(packet))?,
        }
        out.push('\n');
        Ok(())
    }
}

/// A packet of IP.
struct OfIp<'a> {
    packet: &'a Packet<'a>,
    layers: &'a Layers,
}

impl fmt::Display for OfIp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers = self.layers;
        let (from, to) = (layers.source(), layers.destination());
        write!(f, "{} {from}", if from.is_ipv4() { "IP" } else { "IP6" })?;
        match layers.ports() {
            Some((source, destination)) => write!(f, ".{source} > {to}.{destination}: ")?,
            None => write!(f, " > {to}: ")?,
        }
        let len = layers.payload().len();
        match (layers.protocol(), layers.tcp()) {
            (TCP, Some(tcp)) => return of_tcp(f, &tcp, len),
            (UDP, _) if layers.ports().is_some() => return self.of_udp(f, len),
            (ICMP | ICMP6, _) if !layers.is_fragment() => return self.of_icmp(f),
            _ => {}
        }
        let len =
            layers.ip_len().saturating_sub(layers.transport_offset() - layers.network_offset());
        match protocol(layers.protocol()) {
            Some(name) => write!(f, "{name}")?,
            None => write!(f, "ip-proto-{}", layers.protocol())?,
        }
        match layers.is_fragment() {
            true => write!(f, ", a fragment, length {len}"),
            false => write!(f, ", length {len}"),
        }
    }
}

impl OfIp<'_> {
    fn of_udp(&self, f: &mut fmt::Formatter<'_>, len: usize) -> fmt::Result {
        let (data, place) = (self.packet.data(), self.layers.payload());
        let payload = &data[place.start.min(data.len())..place.end.min(data.len())];
        match self.layers.ports().and_then(|ports| Dns::of(payload, len, ports)) {
            Some(dns) => write!(f, "{dns}"),
            None => write!(f, "UDP, length {len}"),
        }
    }

    fn of_icmp(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers = self.layers;
        let at = layers.transport_offset();
        let len = layers.ip_len().saturating_sub(at - layers.network_offset());
        let data = self.packet.data();
        let name = if layers.protocol() == ICMP { "ICMP" } else { "ICMP6," };
        let Some([kind, code]) = data.get(at..at + 2) else {
            return write!(f, "{name} [cut], length {len}");
        };
        let echo = match (layers.protocol(), kind) {
            (ICMP, 8) | (ICMP6, 128) => Some("echo request"),
            (ICMP, 0) | (ICMP6, 129) => Some("echo reply"),
            _ => None,
        };
        match (echo, layers.icmp_id(), half(data, at + 6)) {
            (Some(echo), Some(id), Some(seq)) => {
                write!(f, "{name} {echo}, id {id}, seq {seq}, length {len}")
            }
            _ => write!(f, "{name} type {kind}, code {code}, length {len}"),
        }
    }
}

fn of_tcp(f: &mut fmt::Formatter<'_>, tcp: &TcpHeader, len: usize) -> fmt::Result {
    const FLAGS: [char; 8] = ['F', 'S', 'R', 'P', '.', 'U', 'E', 'W'];
    const BEGINS_OR_ENDS: u8 = 0b111;
    const ACK: u8 = 0b1_0000;
    f.write_str("Flags [")?;
    match tcp.flags {
        0 => f.write_str("none")?,
        flags => {
            let set = FLAGS.iter().enumerate().filter(|(bit, _)| flags >> bit & 1 == 1);
            set.map(|(_, flag)| flag).try_for_each(|flag| f.write_char(*flag))?;
        }
    }
    f.write_char(']')?;
    if len > 0 {
        write!(f, ", seq {}:{}", tcp.seq, tcp.seq.wrapping_add(len as u32))?;
    } else if tcp.flags & BEGINS_OR_ENDS != 0 {
        write!(f, ", seq {}", tcp.seq)?;
    }
    if tcp.flags & ACK != 0 {
        write!(f, ", ack {}", tcp.ack)?;
    }
    write!(f, ", win {}, length {len}", tcp.window)
}

/// A packet of something else than IP.
struct OfLink<'a>(&'a Packet<'a>);

impl fmt::Display for OfLink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (data, len) = (self.0.data(), self.0.original_len());
        let (type_at, payload_at) = match self.0.link_type() {
            Some(LinkType::ETHERNET) => return self.of_ethernet(f),
            Some(LinkType::LINUX_SLL) => (14, 16),
            Some(LinkType::LINUX_SLL2) => (0, 20),
            _ => return write!(f, "no IP, length {len}"),
        };
        match (half(data, type_at), data.get(payload_at..)) {
            (Some(ARP), Some(arp)) => of_arp(f, arp, len.saturating_sub(payload_at)),
            (Some(kind), _) => write!(f, "ethertype {kind:#06x}, length {len}"),
            (None, _) => write!(f, "[cut], length {len}"),
        }
    }
}

impl OfLink<'_> {
    fn of_ethernet(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (data, len) = (self.0.data(), self.0.original_len());
        let mut at = 12;
        while matches!(half(data, at), Some(0x8100 | 0x88a8 | 0x9100)) {
            at += 4;
        }
        match half(data, at) {
            Some(ARP) => of_arp(f, &data[at + 2..], len.saturating_sub(at + 2)),
            Some(kind) if kind >= 0x600 => {
                let (to, from) = (&data[..6], &data[6..12]);
                write!(f, "{} > {}, ethertype {kind:#06x}, length {len}", Mac(from), Mac(to))
            }
            Some(_) => {
                write!(f, "{} > {}, 802.3, length {len}", Mac(&data[6..12]), Mac(&data[..6]))
            }
            None => write!(f, "[cut], length {len}"),
        }
    }
}

fn of_arp(f: &mut fmt::Formatter<'_>, arp: &[u8], len: usize) -> fmt::Result {
    let address = |at: usize| arp.get(at..)?.first_chunk::<4>().map(|of| Ipv4Addr::from(*of));
    // Of addresses of Ethernet and IPv4.
    if arp.get(4..6) != Some(&[6, 4]) {
        return write!(f, "ARP, length {len}");
    }
    match (half(arp, 6), address(14), address(24)) {
        (Some(1), Some(from), Some(to)) => {
            write!(f, "ARP, Request who-has {to} tell {from}, length {len}")
        }
        (Some(2), Some(from), _) => {
            write!(f, "ARP, Reply {from} is-at {}, length {len}", Mac(&arp[8..14]))
        }
        (Some(operation), ..) => write!(f, "ARP, operation {operation}, length {len}"),
        (None, ..) => write!(f, "ARP, [cut], length {len}"),
    }
}

/// An address of Ethernet.
struct Mac<'a>(&'a [u8]);

impl fmt::Display for Mac<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_char(':')?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

fn protocol(number: u8) -> Option<&'static str> {
    Some(match number {
        ICMP => "icmp",
        TCP => "tcp",
        UDP => "udp",
        ICMP6 => "icmp6",
        2 => "igmp",
        41 => "ip6",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        89 => "ospf",
        103 => "pim",
        132 => "sctp",
        _ => return None,
    })
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|half| u16::from_be_bytes(*half))
}
