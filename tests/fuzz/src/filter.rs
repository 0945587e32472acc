//! Filters: their language, their compiler, their machine.

use ringtap::BpfFilter;
use ringtap::filter::{Ancillary, BpfInsn, FilterTarget};
use ringtap::packet::LinkType;

use crate::kernel;

/// The longest packet that is looked at.
const MAX_PACKET: usize = 1024;

/// Any text is parsed or refused; what was parsed says the same when it is parsed again.
pub fn filter_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match BpfFilter::parse(text) {
        Ok(filter) => {
            says_the_same_again(&filter);
            filter.matches(bytes);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A listing of a program, as `tcpdump -ddd` writes it, is taken or refused; what was taken is listed the same.
pub fn filter_listing(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match BpfFilter::from_listing(text) {
        Ok(filter) => {
            filter.matches(bytes);
            let program = filter.program(FilterTarget::Offline);
            assert_eq!(
                BpfFilter::new(program.to_vec())
                    .expect("it was taken")
                    .program(FilterTarget::Offline),
                program
            );
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Text made of the language's words, up to a zero byte; behind it a packet. The kernel takes what we compile, and
/// decides as our machine does.
pub fn filter_words(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text: String =
        bytes[..end].iter().map(|byte| WORDS[usize::from(*byte) % WORDS.len()]).collect();
    let packet = &bytes[end..];
    let packet = &packet[..packet.len().min(MAX_PACKET)];
    let Ok(filter) = BpfFilter::parse(&text) else { return };
    says_the_same_again(&filter);
    decided_alike(filter.program(FilterTarget::Offline), packet);
    for link in [LinkType::RAW, LinkType::NULL, LinkType::LINUX_SLL] {
        if let Ok(filter) = filter.for_link(link) {
            decided_alike(filter.program(FilterTarget::Offline), packet);
        }
    }
    if let Ok(through) = filter.vlan_transparent() {
        decided_alike(through.program(FilterTarget::Offline), packet);
        through.matches_with(packet, &Ancillary::default());
    }
    filter.matches_with(packet, &Ancillary::default());
}

/// Any program is taken or refused as the kernel does, and decides as there; behind its length, 8 bytes an
/// instruction, and a packet.
pub fn filter_program(bytes: &[u8]) {
    let Some((&count, rest)) = bytes.split_first() else { return };
    let (insns, packet) = rest.split_at(rest.len().min(8 * usize::from(count)));
    let insns = insns.chunks_exact(8).map(|bytes| BpfInsn {
        code: u16::from_le_bytes([bytes[0], bytes[1] & 1]),
        jt: bytes[2],
        jf: bytes[3],
        k: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    });
    let mut program: Vec<BpfInsn> = insns.collect();
    // Most programs at random would be refused for their end.
    program.push(BpfInsn { code: 0x16, jt: 0, jf: 0, k: 0 });
    let packet = &packet[..packet.len().min(MAX_PACKET)];
    let filter = BpfFilter::new(program.clone());
    if let Ok(filter) = &filter {
        filter.matches_with(packet, &Ancillary::of_len(u32::MAX));
    }
    if may_reach_beside(&program) {
        assert_eq!(filter.is_ok(), kernel::verdict(&program, &[]).is_some(), "{program:?}");
        return;
    }
    let ours = filter.ok().map(|filter| filter.matches(packet));
    assert_eq!(ours, kernel::verdict(&program, packet), "{program:?} {packet:02x?}");
}

/// Whether it may load from what is beside a packet, which these sockets do not have: by a fixed offset, or by one
/// that is computed and not surely small.
fn may_reach_beside(program: &[BpfInsn]) -> bool {
    let is_beside = |i: &BpfInsn| matches!(i.code & 0xe7, 0x20 | 0xa1) && i.k >= 0xffe0_0000;
    let is_computed = |i: &BpfInsn| i.code & 0xe7 == 0x40;
    let may_be_large = |i: &BpfInsn| match i.code & 7 {
        _ if is_computed(i) => i.k > 0xffff,
        // A word, or a number.
        0 | 1 => i.code & 0x18 == 0 && (i.code & 0xe0 != 0 || i.k > 0xffff),
        // Anything but division, `and` and shifts to the right.
        4 => !matches!(i.code & 0xf0, 0x30 | 0x50 | 0x70 | 0x90),
        _ => false,
    };
    program.iter().any(is_beside)
        || (program.iter().any(is_computed) && program.iter().any(may_be_large))
}

fn says_the_same_again(filter: &BpfFilter) {
    let said = filter.to_string();
    // Spelled out it may be longer or deeper than what is taken.
    if let Ok(again) = BpfFilter::parse(&said) {
        assert_eq!(again.to_string(), said);
    }
}

fn decided_alike(program: &[BpfInsn], packet: &[u8]) {
    let filter = BpfFilter::new(program).expect("what we compile, we take");
    let is_meant = filter.matches(packet);
    assert_eq!(Some(is_meant), kernel::verdict(program, packet), "{filter}\n{packet:02x?}");
}

/// What is written between blanks, or without them.
#[rustfmt::skip]
const WORDS: &[&str] = &[
    " ", " and ", " or ", "not ", "! ", "(", ")", "[", "]", ":", " && ", " || ",
    " = ", " == ", " != ", " < ", " > ", " <= ", " >= ", " + ", " - ", " * ", " / ", " % ", " & ", " | ", " ^ ",
    " << ", " >> ", "-",
    "ether ", "ip ", "ip6 ", "arp ", "rarp ", "tcp ", "udp ", "sctp ", "icmp ", "icmp6 ", "igmp ", "pim ", "vrrp ",
    "ah ", "esp ", "ether", "ip", "ip6", "arp", "tcp", "udp", "icmp", "icmp6", "len",
    "src ", "dst ", "src or dst ", "src and dst ", "host ", "net ", "port ", "portrange ", "proto ", "mask ",
    "vlan ", "mpls ", "pppoes ", "broadcast ", "multicast ", "greater ", "less ", "inbound ", "outbound ",
    "tcpflags", "tcp-syn", "icmptype", "icmp-echo", "http ", "domain ", "ssh ",
    "10.0.0.1", "192.168.0.0", "10.0.0.0", "255.0.0.0", "::1", "2001:db8::", "02:00:00:00:00:01", "/8", "/24", "/0",
    "0", "1", "2", "4", "6", "9", "12", "13", "14", "17", "20", "40", "80", "100", "443", "1024", "0xff", "0x0800",
    "0x86dd", "1500", "4095", "65535", "65536", "0xf0", "0x1fff", "0xffffffff", "2147483648",
    "ip[0] & 0xf ", "tcp[13] & 2 != 0 ", "ip[2:2] ", "ether[12:2] ", "ip6[40] ", "udp[4:2] ", "len ",
];
