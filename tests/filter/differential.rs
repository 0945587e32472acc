//! Our compiler beside libpcap's own: expressions made from the grammar, program against program, in our machine.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use ringtap::BpfFilter;
use ringtap::filter::{Ancillary, FilterTarget, Headers, LinkType, Needs};
use ringtap_lab::{pcap, skip};

const EXPRESSIONS: usize = 600;
const PACKETS: usize = 6_000;

/// Chance, the same in each run (xorshift).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % sides
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }
}

/// Expressions, with addresses and ports that occur in packets.
struct Grammar<'a> {
    dice: Dice,
    packets: &'a [pcap::Recorded],
}

impl Grammar<'_> {
    fn address(&mut self) -> String {
        for _ in 0..20 {
            let (frame, _) = &self.packets[self.dice.roll(self.packets.len())];
            if frame.len() > 54 && frame[12..14] == [8, 0] {
                let at = 26 + 4 * self.dice.roll(2);
                let [a, b, c, d] = frame[at..at + 4] else { unreachable!("four bytes") };
                return format!("{a}.{b}.{c}.{d}");
            }
        }
        "10.0.0.1".to_owned()
    }

    fn address6(&mut self) -> String {
        for _ in 0..200 {
            let (frame, _) = &self.packets[self.dice.roll(self.packets.len())];
            if frame.len() > 54 && frame[12..14] == [0x86, 0xdd] {
                let at = 22 + 16 * self.dice.roll(2);
                let bytes: [u8; 16] = frame[at..at + 16].try_into().unwrap();
                return std::net::Ipv6Addr::from(bytes).to_string();
            }
        }
        "fe80::1".to_owned()
    }

    fn port(&mut self) -> u16 {
        let (frame, _) = &self.packets[self.dice.roll(self.packets.len())];
        match self.dice.roll(3) {
            0 if frame.len() > 40 => u16::from_be_bytes([frame[34], frame[35]]),
            1 => *self.dice.pick(&[53, 80, 443, 22, 0, 65535]),
            _ => self.dice.roll(65536) as u16,
        }
    }

    fn side(&mut self) -> &'static str {
        const SIDES: &[&str] = &["", "", "", "src ", "dst ", "src or dst ", "src and dst "];
        SIDES[self.dice.roll(SIDES.len())]
    }

    fn number(&mut self) -> u32 {
        match self.dice.roll(4) {
            0 => *self.dice.pick(&[0, 1, 0xf, 0xff, 0x1fff, 0xffff, 0x8000_0000, u32::MAX]),
            1 => self.dice.roll(1 << 16) as u32,
            _ => self.dice.roll(256) as u32,
        }
    }

    fn arith(&mut self, depth: usize) -> String {
        if depth == 0 || self.dice.roll(3) == 0 {
            return match self.dice.roll(6) {
                0 => self.number().to_string(),
                1 => "len".to_owned(),
                _ => {
                    let protocols =
                        ["ip", "ip6", "tcp", "udp", "icmp", "ether", "icmp6", "arp", "sctp"];
                    let (protocol, at) = (*self.dice.pick(&protocols), self.dice.roll(40));
                    let width = *self.dice.pick(&["", ":1", ":2", ":4"]);
                    format!("{protocol}[{at}{width}]")
                }
            };
        }
        // libpcap forgets under which protocol the right one of two operands is what it says; ours does not.
        let right = match self.dice.roll(3) {
            0 => self.number().to_string(),
            1 => "len".to_owned(),
            _ => format!("ether[{}:2]", self.dice.roll(40)),
        };
        let left = self.arith(depth - 1);
        match self.dice.roll(12) {
            0 => format!("({left} << {})", self.dice.roll(31)),
            1 => format!("({left} >> {})", self.dice.roll(31)),
            2 => format!("({left} / {})", 1 + self.dice.roll(9)),
            3 => format!("({left} % {})", 1 + self.dice.roll(9)),
            4 => format!("tcp[({left}) & 0x1f]"),
            5 => format!("({left} & 0x{:x})", self.number()),
            sign => format!("({left} {} {right})", ["+", "-", "*", "&", "|", "^"][sign - 6]),
        }
    }

    /// Without parentheses, of the operators on whose precedence all agree.
    fn flat(&mut self) -> String {
        let mut text = format!("ip[{}]", self.dice.roll(20));
        for _ in 0..1 + self.dice.roll(4) {
            let sign = *self.dice.pick(&["+", "-", "*", "/", "&", "|"]);
            text += &match sign {
                "/" => format!(" / {}", 1 + self.dice.roll(9)),
                _ => format!(" {sign} {}", self.number()),
            };
        }
        text
    }

    /// Several ports or addresses, under one set of qualifiers.
    fn list(&mut self) -> String {
        let count = 2 + self.dice.roll(30);
        let side = *self.dice.pick(&["", "src ", "dst "]);
        let (head, ids): (_, Vec<String>) = match self.dice.roll(3) {
            0 => ("port", (0..count).map(|_| self.port().to_string()).collect()),
            1 => ("tcp port", (0..count).map(|_| self.port().to_string()).collect()),
            _ => ("host", (0..count).map(|_| self.address()).collect()),
        };
        let (transport, kind) = head.split_once(' ').map_or(("", head), |(a, b)| (a, b));
        format!("{transport} {side}{kind} {}", ids.join(" or "))
    }

    fn primitive(&mut self) -> String {
        let side = self.side();
        match self.dice.roll(29) {
            24 => format!("({})", self.list()),
            25 => format!("not ({})", self.list()),
            26 => format!("{} > {}", self.flat(), self.number()),
            27 | 28 => {
                let words = [
                    "llc",
                    "llc i",
                    "llc s",
                    "llc u",
                    "llc ui",
                    "llc rr",
                    "llc xid",
                    "ipx",
                    "stp",
                    "iso",
                    "netbeui",
                    "atalk",
                    "aarp",
                    "lat",
                    "moprc",
                    "mopdl",
                    "decnet",
                    "igrp",
                    "clnp",
                    "esis",
                    "isis",
                    "l1",
                    "l2",
                    "iih",
                    "lsp",
                    "csnp",
                    "psnp",
                    "iso proto 130",
                    "isis proto 16",
                    "ether proto 66",
                    "ether proto 6",
                    "ether proto 170",
                    "byte 12 = 8",
                    "byte 15 > 64",
                    "byte 14 < 9",
                ];
                (*self.dice.pick(&words)).to_owned()
            }
            0..=2 => {
                let names = [
                    "ip", "ip6", "arp", "rarp", "tcp", "udp", "icmp", "icmp6", "sctp", "igmp",
                    "pim", "ah", "esp", "vrrp",
                ];
                (*self.dice.pick(&names)).to_owned()
            }
            3 | 4 => format!("{side}host {}", self.address()),
            5 => format!("ip {side}host {}", self.address()),
            6 => format!("{side}host {}", self.address6()),
            7 => {
                let prefix = self.dice.roll(33);
                let mask = u32::MAX.checked_shl(32 - prefix as u32).unwrap_or(0);
                let address: std::net::Ipv4Addr = self.address().parse().unwrap();
                format!(
                    "{side}net {}/{prefix}",
                    std::net::Ipv4Addr::from_bits(address.to_bits() & mask)
                )
            }
            8 => {
                let prefix = self.dice.roll(129);
                let mask = u128::MAX.checked_shl(128 - prefix as u32).unwrap_or(0);
                let address: std::net::Ipv6Addr = self.address6().parse().unwrap();
                format!(
                    "{side}net {}/{prefix}",
                    std::net::Ipv6Addr::from_bits(address.to_bits() & mask)
                )
            }
            9..=11 => format!("{side}port {}", self.port()),
            12 => {
                format!("{}{side}port {}", self.dice.pick(&["tcp ", "udp ", "sctp "]), self.port())
            }
            13 => format!("{side}portrange {}-{}", self.port(), self.port()),
            14 => format!("port ({} or {})", self.port(), self.port()),
            15 => format!(
                "{}{}",
                self.dice.pick(&["ip proto ", "ip6 proto ", "proto "]),
                self.dice.roll(256)
            ),
            16 => format!("ether proto 0x{:04x}", 1501 + self.dice.roll(64_000)),
            17 => {
                let (frame, _) = &self.packets[self.dice.roll(self.packets.len())];
                let mut mac = String::new();
                for byte in frame.get(..6).unwrap_or(&[1; 6]) {
                    write!(mac, ":{byte:02x}").unwrap();
                }
                format!("ether {side}host {}", &mac[1..])
            }
            18 => (*self.dice.pick(&["broadcast", "multicast", "ip multicast", "ip6 multicast"]))
                .to_owned(),
            19 => format!("{} {}", self.dice.pick(&["less", "greater"]), self.dice.roll(1600)),
            _ => {
                let relation = *self.dice.pick(&["=", "==", "!=", "<", ">", "<=", ">="]);
                format!("{} {relation} {}", self.arith(2), self.arith(1))
            }
        }
    }

    fn expression(&mut self, depth: usize) -> String {
        if depth == 0 || self.dice.roll(4) == 0 {
            return self.primitive();
        }
        let (left, right) = (self.expression(depth - 1), self.expression(depth - 1));
        match self.dice.roll(7) {
            0 => format!("not ({left})"),
            1 | 2 => format!("({left}) or {right}"),
            3 => format!("{left} && ! ({right})"),
            4 => format!("{left} or {right}"),
            _ => format!("{left} and {right}"),
        }
    }

    /// With what moves the offsets of all that follows in front, now and then.
    fn labelled(&mut self) -> String {
        let inner = self.expression(3);
        match self.dice.roll(10) {
            0 => format!("vlan and ({inner})"),
            1 => format!("vlan {} and {inner}", self.dice.roll(4096)),
            2 => format!("pppoes and ({inner})"),
            3 => format!("({inner}) or vlan and {}", self.primitive()),
            _ => inner,
        }
    }
}

/// Real packets of all captures, some of them cut, some with bytes changed.
fn packets() -> Option<Vec<pcap::Recorded>> {
    let directory = pcap::directory()?;
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut packets = Vec::new();
    for path in paths {
        if let Some((1, some)) = pcap::packets(&path) {
            packets.extend(some.into_iter().take(60));
        }
    }
    let mut dice = Dice(0x5eed);
    let real = packets.len();
    while packets.len() < PACKETS {
        let (mut frame, wire_len) = packets[dice.roll(real)].clone();
        match dice.roll(3) {
            0 => frame.truncate(dice.roll(80)),
            1 => frame[..].iter_mut().take(60).for_each(|byte| {
                if dice.roll(20) == 0 {
                    *byte = dice.roll(256) as u8;
                }
            }),
            _ => {
                let kind: [u8; 4] =
                    *dice.pick(&[[0x81, 0, 0, 100], [0x88, 0xa8, 0, 7], [0x81, 0, 0x20, 100]]);
                if frame.len() > 12 {
                    frame.splice(12..12, kind);
                }
            }
        }
        packets.push((frame, wire_len));
    }
    Some(packets)
}

/// Whether a frame has the terms that a filter needs.
fn may_match(filter: &BpfFilter, frame: &[u8]) -> bool {
    let Some(headers) = Headers::read(LinkType::ETHERNET, frame) else { return true };
    filter.needs().may_match(|term| headers.terms().any(|of| of == term))
}

pub(crate) fn libpcap(
    options: &[&str],
    expression: &str,
    empty: &Path,
) -> Result<BpfFilter, String> {
    let mut command = Command::new("tcpdump");
    let output = command.args(options).arg(empty).arg(expression).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    BpfFilter::from_listing(&text).map_err(|error| format!("{error}: {text}"))
}

#[ringtap_lab::test]
fn what_we_compile_decides_as_what_libpcap_compiles() {
    let Some(packets) = packets() else { return skip("no captures beside the repository") };
    if Command::new("tcpdump").arg("--version").output().is_err() {
        return skip("no tcpdump here: its compiler is the oracle");
    }
    let directory = ringtap_lab::Directory::new();
    let empty = directory.path().join("empty.pcap");
    let mut header = 0xa1b2_c3d4_u32.to_ne_bytes().to_vec();
    header.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0]);
    std::fs::write(&empty, header).unwrap();
    let mut grammar = Grammar { dice: Dice(0xfeed_beef), packets: &packets };
    let (mut compared, mut refused, mut ratios, mut faults) = (0, 0, Vec::new(), Vec::new());
    let (mut accepted, mut cut, mut optimised, mut narrowed) = (0, 0, 0, 0);
    while compared < EXPRESSIONS {
        let expression = grammar.labelled();
        let theirs = match libpcap(&["-ddd", "-r"], &expression, &empty) {
            Ok(theirs) => theirs,
            Err(error) => {
                // What libpcap refuses (`expression rejects all packets`, say) is no oracle.
                refused += 1;
                assert!(refused < 10 * EXPRESSIONS, "{expression}: {error}");
                continue;
            }
        };
        compared += 1;
        let ours = match BpfFilter::parse(&expression) {
            Ok(ours) => ours,
            Err(error) => {
                faults.push(format!("{expression}: {error}"));
                continue;
            }
        };
        let said = BpfFilter::parse(&ours.to_string()).map(|said| said.to_string());
        if said.as_ref().ok() != Some(&ours.to_string()) {
            faults.push(format!("{expression}: {ours} is {said:?}"));
        }
        let length = |filter: &BpfFilter| filter.program(FilterTarget::Offline).len() as f64;
        ratios.push(length(&ours) / length(&theirs));
        let verdict = |filter: &BpfFilter, (frame, wire_len): &pcap::Recorded| {
            filter.matches_offline(frame, &Ancillary::of_len(*wire_len))
        };
        let differ: Vec<&pcap::Recorded> = packets
            .iter()
            .filter(|packet| verdict(&ours, packet) != verdict(&theirs, packet))
            .collect();
        let matching: Vec<&pcap::Recorded> =
            packets.iter().filter(|packet| verdict(&ours, packet)).collect();
        accepted += matching.len();
        if let Some((frame, _)) = matching.iter().find(|(frame, _)| !may_match(&ours, frame)) {
            faults.push(format!("{expression} needs {}: {frame:02x?}", ours.needs()));
        }
        narrowed += usize::from(ours.needs() != Needs::Nothing);
        if differ.is_empty() {
            continue;
        }
        // A load beyond the end rejects a packet. libpcap's optimiser changes the order of tests, and leaves loads
        // that nothing depends on: so on a packet that was cut the verdicts may differ, though never on the same
        // packet with something behind its end.
        let whole = |(frame, wire_len): &pcap::Recorded| {
            let mut frame = frame.clone();
            frame.resize(70_000, 0);
            (frame, *wire_len)
        };
        let fault = differ.iter().find(|packet| {
            let whole = whole(packet);
            packet.0.len() > 400 || verdict(&ours, &whole) != verdict(&theirs, &whole)
        });
        // libpcap's optimiser forgets, now and then, that X is another: then libpcap disagrees with itself.
        let plain = || libpcap(&["-O", "-ddd", "-r"], &expression, &empty).unwrap();
        match fault {
            Some(packet) if verdict(&plain(), packet) == verdict(&ours, packet) => optimised += 1,
            Some((frame, _)) => {
                faults.push(format!("{expression}: {:02x?}", &frame[..frame.len().min(64)]));
            }
            None => cut += differ.len(),
        }
    }
    ratios.sort_by(f64::total_cmp);
    let (median, worst) = (ratios[ratios.len() / 2], ratios[ratios.len() - 1]);
    println!(
        "{compared} expressions on {} packets, {accepted} accepted, {refused} refused by libpcap, {cut} verdicts that \
         differ by where a packet was cut, {optimised} expressions on which libpcap's optimiser errs; \
         program length beside libpcap's: median {median:.2}, worst {worst:.2}",
        packets.len()
    );
    assert!(
        faults.is_empty(),
        "{} differ:\n{}",
        faults.len(),
        faults[..faults.len().min(12)].join("\n")
    );
    assert!(narrowed > EXPRESSIONS / 10, "{narrowed} expressions need a term");
    assert!(median <= 1.3, "programs are {median:.2} times as long");
}

#[ringtap_lab::test]
fn frames_of_one_gist_have_the_same_headers() {
    let Some(packets) = packets() else { return skip("no captures beside the repository") };
    let mut known: std::collections::HashMap<[u64; 2], Headers> = Default::default();
    let mut again = 0;
    for (frame, _) in &packets {
        let Some(gist) = Headers::gist(LinkType::ETHERNET, frame) else { continue };
        assert_eq!(Headers::gist(LinkType::RAW, frame), None);
        let headers = Headers::read(LinkType::ETHERNET, frame).unwrap();
        again += usize::from(known.contains_key(&gist));
        assert_eq!(*known.entry(gist).or_insert(headers), headers, "{frame:02x?}");
    }
    assert!(known.len() > 300 && again > 300, "{} and {again}", known.len());
}
