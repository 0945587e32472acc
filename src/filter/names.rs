//! Names that stand for numbers: ports, protocols, and the named offsets and constants of pcap-filter(7).

use std::collections::HashMap;
use std::sync::OnceLock;

use super::ast::{LlcKind, Transport};

/// The services of this machine, which come before those of the table (services(5)).
const SERVICES: &str = "/etc/services";
/// A larger file is not one of services.
const MOST_BYTES: u64 = 4 << 20;

/// Returns a port's number by name, and the transport it is registered for (`None`: TCP and UDP).
pub(super) fn port(name: &str) -> Option<(u16, Option<Transport>)> {
    static OF_MACHINE: OnceLock<Services> = OnceLock::new();
    let of_machine = OF_MACHINE.get_or_init(|| {
        let is_small = std::fs::metadata(SERVICES).is_ok_and(|file| file.len() <= MOST_BYTES);
        let bytes = is_small.then(|| std::fs::read(SERVICES).ok()).flatten().unwrap_or_default();
        services(&bytes)
    });
    of_machine.get(name).copied().or_else(|| known_port(name))
}

/// Ports by name.
type Services = HashMap<String, (u16, Option<Transport>)>;

/// Reads lines such as `domain 53/udp nameserver # comment`.
fn services(file: &[u8]) -> Services {
    let mut all = Services::new();
    // A comment may be in any encoding.
    for line in String::from_utf8_lossy(file).lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let (Some(name), Some(port)) = (words.next(), words.next()) else { continue };
        let Some((port, transport)) = port.split_once('/') else { continue };
        let transport = match transport {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            "sctp" => Transport::Sctp,
            _ => continue,
        };
        let Ok(port) = port.parse() else { continue };
        for name in std::iter::once(name).chain(words) {
            let of = all.entry(name.to_owned()).or_insert((port, Some(transport)));
            // With TCP and UDP both, a name means either; what has several numbers means the first.
            if *of != (port, Some(transport)) && of.0 == port && transport != Transport::Sctp {
                of.1 = None;
            }
        }
    }
    all
}

/// Returns the bits of an 802.11 frame's type.
pub(super) fn wlan_type(name: &str) -> Option<u8> {
    Some(match name {
        "mgt" | "management" => 0x00,
        "ctl" | "control" => 0x04,
        "data" => 0x08,
        _ => return None,
    })
}

/// The subtypes of 802.11 frames by name, with the bits of their types.
const WLAN_SUBTYPES: &[(&str, u8)] = &[
    ("assocreq", 0x00),
    ("assoc-req", 0x00),
    ("assocresp", 0x10),
    ("assoc-resp", 0x10),
    ("reassocreq", 0x20),
    ("reassoc-req", 0x20),
    ("reassocresp", 0x30),
    ("reassoc-resp", 0x30),
    ("probereq", 0x40),
    ("probe-req", 0x40),
    ("proberesp", 0x50),
    ("probe-resp", 0x50),
    ("beacon", 0x80),
    ("atim", 0x90),
    ("disassoc", 0xa0),
    ("disassociation", 0xa0),
    ("auth", 0xb0),
    ("authentication", 0xb0),
    ("deauth", 0xc0),
    ("deauthentication", 0xc0),
    ("ps-poll", 0xa4),
    ("rts", 0xb4),
    ("cts", 0xc4),
    ("ack", 0xd4),
    ("cf-end", 0xe4),
    ("cf-end-ack", 0xf4),
    ("data", 0x08),
    ("data-cf-ack", 0x18),
    ("data-cf-poll", 0x28),
    ("data-cf-ack-poll", 0x38),
    ("null", 0x48),
    ("cf-ack", 0x58),
    ("cf-poll", 0x68),
    ("cf-ack-poll", 0x78),
    ("qos-data", 0x88),
    ("qos-data-cf-ack", 0x98),
    ("qos-data-cf-poll", 0xa8),
    ("qos-data-cf-ack-poll", 0xb8),
    ("qos", 0xc8),
    ("qos-cf-poll", 0xe8),
    ("qos-cf-ack-poll", 0xf8),
];

/// Returns the bits of an 802.11 frame's subtype, with those of its type.
pub(super) fn wlan_subtype(name: &str) -> Option<u8> {
    WLAN_SUBTYPES.iter().find(|(known, _)| *known == name).map(|(_, bits)| *bits)
}

/// Returns the same of a subtype of this type.
pub(super) fn wlan_subtype_of(kind: u8, name: &str) -> Option<u8> {
    wlan_subtype(name).filter(|bits| bits & 0x0c == kind)
}

/// The ports of an own table, for those that the machine's file lacks, and for machines without one.
fn known_port(name: &str) -> Option<(u16, Option<Transport>)> {
    use Transport::{Tcp, Udp};
    let (number, transport) = match name {
        "echo" => (7, None),
        "discard" => (9, None),
        "daytime" => (13, None),
        "chargen" => (19, None),
        "ftp-data" => (20, Some(Tcp)),
        "ftp" => (21, Some(Tcp)),
        "ssh" => (22, Some(Tcp)),
        "telnet" => (23, Some(Tcp)),
        "smtp" => (25, Some(Tcp)),
        "time" => (37, None),
        "whois" => (43, Some(Tcp)),
        "tacacs" => (49, None),
        "domain" => (53, None),
        "bootps" => (67, Some(Udp)),
        "bootpc" => (68, Some(Udp)),
        "tftp" => (69, Some(Udp)),
        "gopher" => (70, Some(Tcp)),
        "finger" => (79, Some(Tcp)),
        "http" | "www" => (80, Some(Tcp)),
        "kerberos" => (88, None),
        "pop3" => (110, Some(Tcp)),
        "sunrpc" => (111, None),
        "nntp" => (119, Some(Tcp)),
        "ntp" => (123, Some(Udp)),
        "netbios-ns" => (137, Some(Udp)),
        "netbios-dgm" => (138, Some(Udp)),
        "netbios-ssn" => (139, Some(Tcp)),
        "imap2" | "imap" => (143, Some(Tcp)),
        "snmp" => (161, None),
        "snmp-trap" | "snmptrap" => (162, None),
        "bgp" => (179, Some(Tcp)),
        "irc" => (194, None),
        "ldap" => (389, None),
        "https" => (443, None),
        "microsoft-ds" => (445, None),
        "isakmp" => (500, Some(Udp)),
        "rtsp" => (554, None),
        "syslog" => (514, Some(Udp)),
        "shell" => (514, Some(Tcp)),
        "printer" => (515, Some(Tcp)),
        "rip" | "route" => (520, Some(Udp)),
        "submission" => (587, Some(Tcp)),
        "ldaps" => (636, None),
        "rsync" => (873, Some(Tcp)),
        "ftps" => (990, Some(Tcp)),
        "imaps" => (993, Some(Tcp)),
        "pop3s" => (995, Some(Tcp)),
        "socks" => (1080, Some(Tcp)),
        "openvpn" => (1194, None),
        "ms-sql-s" => (1433, Some(Tcp)),
        "radius" => (1812, Some(Udp)),
        "radius-acct" => (1813, Some(Udp)),
        "nfs" => (2049, None),
        "mysql" => (3306, Some(Tcp)),
        "ipsec-nat-t" => (4500, Some(Udp)),
        "sip" => (5060, None),
        "sip-tls" => (5061, None),
        "xmpp-client" => (5222, Some(Tcp)),
        "mdns" => (5353, Some(Udp)),
        "postgresql" => (5432, Some(Tcp)),
        "amqp" => (5672, None),
        "x11" => (6000, Some(Tcp)),
        "redis" => (6379, Some(Tcp)),
        "http-alt" => (8080, None),
        "git" => (9418, None),
        _ => return None,
    };
    Some((number, transport))
}

/// The number of an IP protocol by name.
pub(super) fn ip_protocol(name: &str) -> Option<u8> {
    Some(match name {
        "ip" => 0,
        "icmp" => 1,
        "igmp" => 2,
        "ipip" | "ipencap" => 4,
        "tcp" => 6,
        "egp" => 8,
        "hopopt" => 0,
        "igrp" => 9,
        "udp" => 17,
        "ip6" | "ipv6" => 41,
        "rsvp" => 46,
        "gre" => 47,
        "esp" => 50,
        "ah" => 51,
        "icmp6" | "ipv6-icmp" => 58,
        "ospf" => 89,
        "pim" => 103,
        "vrrp" | "carp" => 112,
        "l2tp" => 115,
        "sctp" => 132,
        "udplite" => 136,
        _ => return None,
    })
}

/// The number of an Ethernet type by name.
pub(super) fn ether_type(name: &str) -> Option<u16> {
    Some(match name {
        "ip" => 0x0800,
        "arp" => 0x0806,
        "rarp" => 0x8035,
        "ip6" => 0x86dd,
        "vlan" => 0x8100,
        "mpls" => 0x8847,
        "pppoed" => 0x8863,
        "pppoes" => 0x8864,
        "loopback" => 0x9000,
        "decnet" => 0x6003,
        "lldp" => 0x88cc,
        "slow" => 0x8809,
        _ => return link_protocol(name),
    })
}

/// The number of a protocol above the link layer that is a word of its own: an Ethernet type or a SAP of 802.2.
pub(super) fn link_protocol(name: &str) -> Option<u16> {
    Some(match name {
        "atalk" => 0x809b,
        "aarp" => 0x80f3,
        "lat" => 0x6004,
        "moprc" => 0x6002,
        "mopdl" => 0x6001,
        "sca" => 0x6007,
        "iso" => 0xfe,
        "stp" => 0x42,
        "ipx" => 0xe0,
        "netbeui" => 0xf0,
        _ => return None,
    })
}

/// The first byte of packets of a protocol of ISO's.
pub(super) fn iso_protocol(name: &str) -> Option<u8> {
    Some(match name {
        "clnp" => 0x81,
        "esis" | "es-is" => 0x82,
        "isis" | "is-is" => 0x83,
        _ => return None,
    })
}

/// The types of IS-IS packets that a word stands for.
pub(super) fn isis_pdus(word: &str) -> Option<&'static [u8]> {
    Some(match word {
        "l1" => &[26, 24, 18, 15, 17],
        "l2" => &[27, 25, 20, 16, 17],
        "iih" => &[17, 15, 16],
        "lsp" => &[18, 20],
        "snp" => &[27, 26, 24, 25],
        "csnp" => &[24, 25],
        "psnp" => &[26, 27],
        _ => return None,
    })
}

/// Kinds of 802.2 frames by name.
const LLC_KINDS: [(&str, LlcKind); 14] = [
    ("i", LlcKind::Information),
    ("s", LlcKind::Supervisory),
    ("u", LlcKind::Unnumbered),
    ("rr", LlcKind::SupervisoryOf(0x01)),
    ("rnr", LlcKind::SupervisoryOf(0x05)),
    ("rej", LlcKind::SupervisoryOf(0x09)),
    ("ui", LlcKind::UnnumberedOf(0x03)),
    ("ua", LlcKind::UnnumberedOf(0x63)),
    ("disc", LlcKind::UnnumberedOf(0x43)),
    ("dm", LlcKind::UnnumberedOf(0x0f)),
    ("sabme", LlcKind::UnnumberedOf(0x6f)),
    ("test", LlcKind::UnnumberedOf(0xe3)),
    ("xid", LlcKind::UnnumberedOf(0xaf)),
    ("frmr", LlcKind::UnnumberedOf(0x87)),
];

pub(super) fn llc_kind(name: &str) -> Option<LlcKind> {
    LLC_KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
}

pub(super) fn llc_name(kind: LlcKind) -> &'static str {
    LLC_KINDS.iter().find(|(_, known)| *known == kind).map_or("", |(name, _)| name)
}

/// A named offset or constant of arithmetic.
pub(super) fn constant(name: &str) -> Option<u32> {
    Some(match name {
        "icmptype" | "icmp6type" => 0,
        "icmpcode" | "icmp6code" => 1,
        "tcpflags" => 13,
        "tcp-fin" => 0x01,
        "tcp-syn" => 0x02,
        "tcp-rst" => 0x04,
        "tcp-push" => 0x08,
        "tcp-ack" => 0x10,
        "tcp-urg" => 0x20,
        "tcp-ece" => 0x40,
        "tcp-cwr" => 0x80,
        "icmp-echoreply" => 0,
        "icmp-unreach" => 3,
        "icmp-sourcequench" => 4,
        "icmp-redirect" => 5,
        "icmp-echo" => 8,
        "icmp-routeradvert" => 9,
        "icmp-routersolicit" => 10,
        "icmp-timxceed" => 11,
        "icmp-paramprob" => 12,
        "icmp-tstamp" => 13,
        "icmp-tstampreply" => 14,
        "icmp-ireq" => 15,
        "icmp-ireqreply" => 16,
        "icmp-maskreq" => 17,
        "icmp-maskreply" => 18,
        "icmp6-destinationunreach" => 1,
        "icmp6-packettoobig" => 2,
        "icmp6-timeexceeded" => 3,
        "icmp6-parameterproblem" => 4,
        "icmp6-echo" => 128,
        "icmp6-echoreply" => 129,
        "icmp6-multicastlistenerquery" => 130,
        "icmp6-multicastlistenerreportv1" => 131,
        "icmp6-multicastlistenerdone" => 132,
        "icmp6-routersolicit" => 133,
        "icmp6-routeradvert" => 134,
        "icmp6-neighborsolicit" => 135,
        "icmp6-neighboradvert" => 136,
        "icmp6-redirect" => 137,
        "icmp6-multicastlistenerreportv2" => 143,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_in_another_encoding_hides_no_services() {
        let all = services(b"first 1000/tcp # caf\xe9\nsecond 2000/udp other\n");
        assert_eq!(all["first"], (1000, Some(Transport::Tcp)));
        assert_eq!(all["other"], (2000, Some(Transport::Udp)));
    }
}
