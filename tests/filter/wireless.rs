//! Filters on 802.11, with and without a radiotap header, beside libpcap's.

use std::path::{Path, PathBuf};
use std::process::Command;

use ringtap::BpfFilter;
use ringtap::filter::LinkType;
use ringtap_lab::{Directory, skip};

use crate::differential::{Dice, libpcap};

const FRAMES: usize = 3000;
const JOINED: usize = 60;
const MACS: [[u8; 6]; 3] = [[1, 2, 3, 4, 5, 6], [0xff; 6], [0x33, 0x33, 0, 0, 0, 1]];

/// What both know.
const CONDITIONS: &[&str] = &[
    "ip",
    "ip6",
    "arp",
    "rarp",
    "tcp",
    "sctp",
    "udp port 53",
    "tcp port 80",
    "portrange 50-90",
    "src port 80 and dst host 192.0.2.7",
    "host 10.0.0.1",
    "net 192.0.2.0/24",
    "host 2001:db8::1",
    "ip proto 17",
    "ip6 proto 17",
    "proto 17",
    "ip[9] = 6",
    "tcp[0:2] = 80",
    "udp[2:2] = 443",
    "tcp[tcpflags] & tcp-syn != 0",
    "ip multicast",
    "ip6 multicast",
    "wlan host 1:2:3:4:5:6",
    "wlan src 1:2:3:4:5:6",
    "wlan dst 1:2:3:4:5:6",
    "ether src and dst 1:2:3:4:5:6",
    "wlan addr1 1:2:3:4:5:6",
    "wlan addr2 1:2:3:4:5:6",
    "wlan addr1 1:2:3:4:5:6 or ff:ff:ff:ff:ff:ff",
    "wlan addr3 (1:2:3:4:5:6 or not 33:33:0:0:0:1)",
    "wlan ra host (1:2:3:4:5:6 or ff:ff:ff:ff:ff:ff) and type data",
    "wlan addr3 1:2:3:4:5:6",
    "wlan addr4 1:2:3:4:5:6",
    "wlan ra 1:2:3:4:5:6",
    "wlan ta 1:2:3:4:5:6",
    "wlan broadcast",
    "ether multicast",
    "type mgt",
    "type ctl",
    "wlan type data",
    "type 4",
    "type mgt subtype beacon",
    "type mgt subtype 0x40",
    "type ctl subtype ack",
    "type data subtype qos-data",
    "subtype deauth",
    "subtype null",
    "dir tods",
    "dir dstods",
    "dir 2",
    "wlan[0] = 8",
    "wlan[4:4] = 0x01020304",
    "ether[wlan[0] & 1] = 8",
    "vlan 5 and tcp port 80",
    "llc",
    "llc i",
    "llc u",
    "iso",
    "isis",
    "stp",
    "ipx",
    "netbeui",
    "atalk",
    "aarp",
    "decnet",
    "ether proto 0x0800",
    "ether proto 5",
    "ether proto 0x8137",
    "less 70",
    "greater 90",
];
/// Of frames with a radiotap header.
const OF_RADIO: &[&str] =
    &["radio[2] > 12", "radio[4:4] & 0x02000000 != 0", "radio[radio[2] & 3] = 0"];

/// A frame of any kind, with something known in it, cut at times.
fn frame(dice: &mut Dice, has_radio: bool) -> Vec<u8> {
    let mut frame = if has_radio { radiotap(dice) } else { Vec::new() };
    let kinds = [0x80, 0x08, 0x88, 0x48, 0xc4, 0xd4, 0xb4, 0x40, 0xc0, 0x0c, 0x18, 0x8c, 0xa4];
    let kind = if dice.roll(3) == 0 { dice.roll(64) as u8 * 4 } else { *dice.pick(&kinds) };
    frame.extend([kind, dice.roll(4) as u8, 0, 0]);
    for _ in 0..3 {
        frame.extend(*dice.pick(&MACS));
    }
    frame.extend([0, 0]);
    if kind & 0x8c == 0x88 {
        frame.extend([0, 0]);
    }
    if dice.roll(4) == 0 {
        frame.extend(*dice.pick(&MACS));
    }
    if dice.roll(3) == 0 {
        frame.resize(frame.len().next_multiple_of(4), 0);
    }
    payload(dice, &mut frame);
    if dice.roll(5) == 0 {
        frame.truncate(dice.roll(frame.len() + 1));
    }
    frame
}

fn radiotap(dice: &mut Dice) -> Vec<u8> {
    let (has_time, has_flags, has_more) = (dice.roll(2) == 0, dice.roll(2) == 0, dice.roll(8) == 0);
    let present = u32::from(has_time) | u32::from(has_flags) << 1 | u32::from(has_more) << 31;
    let mut header = vec![0, 0, 0, 0];
    header.extend(present.to_le_bytes());
    if has_more {
        header.extend([0; 4]);
    }
    if has_time {
        header.resize(header.len().next_multiple_of(8), 0);
        header.extend([7; 8]);
    }
    if has_flags {
        header.push(if dice.roll(2) == 0 { 0x20 } else { 0 }); // padded, or not
    }
    header.resize(header.len() + dice.roll(4), 0);
    let len = header.len() as u16;
    header[2..4].copy_from_slice(&len.to_le_bytes());
    header
}

fn payload(dice: &mut Dice, frame: &mut Vec<u8>) {
    let without_snap: [&[u8]; 6] = [
        &[0xfe, 0xfe, 3, 0x83, 0x1b, 1, 0, 16],
        &[0xe0, 0xe0, 3, 0, 0],
        &[0x42, 0x42, 3],
        &[0x06, 0x06, 3],
        &[0xf0, 0xf0, 3],
        &[0xaa, 0xaa, 3, 8, 0, 7, 0x80, 0x9b],
    ];
    if dice.roll(4) == 0 {
        return frame.extend_from_slice(without_snap[dice.roll(without_snap.len())]);
    }
    let types =
        [0x0800, 0x0800, 0x0800, 0x86dd, 0x0806, 0x8100, 0x8137, 0x809b, 0x80f3, 0x6003_u16];
    let mut kind = *dice.pick(&types);
    frame.extend([0xaa, 0xaa, 3, 0, 0, 0]);
    frame.extend(kind.to_be_bytes());
    if kind == 0x8100 {
        frame.extend([0, 5, 8, 0]);
        kind = 0x0800;
    }
    match kind {
        0x0800 => {
            let options = dice.roll(2) as u8;
            let protocol = *dice.pick(&[6, 17, 1, 132]);
            let fragment =
                [if dice.roll(8) == 0 { 0x20 } else { 0 }, if dice.roll(8) == 0 { 5 } else { 0 }];
            let to = if dice.roll(3) == 0 { 224 } else { 192 };
            frame.extend([
                0x45 + options,
                0,
                0,
                60,
                0,
                0,
                fragment[0],
                fragment[1],
                64,
                protocol,
                0,
                0,
            ]);
            frame.extend([10, 0, 0, 1, to, 0, 2, 7]);
            frame.resize(frame.len() + 4 * usize::from(options), 1);
            frame.extend([0, *dice.pick(&[80, 80, 53]), 1, 187]);
            frame.extend((0..16).map(|_| dice.roll(256) as u8));
        }
        0x86dd => {
            frame.extend([0x60, 0, 0, 0, 0, 20, *dice.pick(&[6, 17, 58, 44]), 64]);
            frame.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            frame.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            frame.extend([17, 53, 0, 80, 0, 0, 0, 53, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        _ => frame.extend([
            0, 1, 8, 0, 6, 4, 0, 1, 1, 2, 3, 4, 5, 6, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 7,
        ]),
    }
}

fn empty_file(directory: &Directory, link: LinkType) -> PathBuf {
    let path = directory.path().join(format!("{}.pcap", link.0));
    let mut header = 0xa1b2_c3d4_u32.to_ne_bytes().to_vec();
    header.extend([2_u16, 4].map(u16::to_ne_bytes).concat());
    header.extend([0, 0, 1 << 16, u32::from(link.0)].map(u32::to_ne_bytes).concat());
    std::fs::write(&path, header).unwrap();
    path
}

/// Compares the verdicts on all frames. Returns how many frames match.
fn compare(expression: &str, link: LinkType, empty: &Path, frames: &[Vec<u8>]) -> usize {
    let theirs = libpcap(&["-ddd", "-r"], expression, empty);
    let theirs = theirs.unwrap_or_else(|error| panic!("{expression} on {}: {error}", link.0));
    let ours = BpfFilter::parse(expression).and_then(|filter| filter.for_link(link));
    let ours = ours.unwrap_or_else(|error| panic!("{expression} on {}: {error}", link.0));
    let said = BpfFilter::parse(&ours.to_string()).and_then(|filter| filter.for_link(link));
    assert_eq!(said.map(|said| said.to_string()).ok(), Some(ours.to_string()), "{expression}");
    for frame in frames.iter().filter(|frame| ours.matches(frame) != theirs.matches(frame)) {
        // A load beyond the end rejects a frame, and the order of the tests is not the same: so the verdicts may differ on
        // a frame that was cut, though not on it with something behind its end.
        let mut whole = frame.clone();
        whole.resize(400, 0);
        let (verdict, right) = (ours.matches(&whole), theirs.matches(&whole));
        assert_eq!(verdict, right, "`{expression}` on {}: {frame:02x?}", link.0);
    }
    frames.iter().filter(|frame| ours.matches(frame)).count()
}

#[ringtap_lab::test]
fn frames_of_802_11_are_filtered_as_by_libpcap() {
    if Command::new("tcpdump").arg("--version").output().is_err() {
        return skip("no tcpdump here: its compiler is the oracle");
    }
    let directory = Directory::new();
    let mut never = Vec::new();
    for link in [LinkType::IEEE802_11, LinkType::IEEE802_11_RADIOTAP] {
        let has_radio = link == LinkType::IEEE802_11_RADIOTAP;
        let mut dice = Dice(0x80211);
        let frames: Vec<_> = (0..FRAMES).map(|_| frame(&mut dice, has_radio)).collect();
        let empty = empty_file(&directory, link);
        let conditions = CONDITIONS.iter().chain(OF_RADIO.iter().filter(|_| has_radio));
        for condition in conditions {
            if compare(condition, link, &empty, &frames) == 0 {
                never.push(*condition);
            }
        }
        for _ in 0..JOINED {
            let [a, b, c] = [(); 3].map(|()| *dice.pick(CONDITIONS));
            let joined = match dice.roll(4) {
                0 => format!("({a}) and not ({b})"),
                1 => format!("({a}) or ({b}) and ({c})"),
                2 => format!("not ({a}) or ({b})"),
                _ => format!("({a}) and (({b}) or ({c}))"),
            };
            let ours = BpfFilter::parse(&joined).and_then(|filter| filter.for_link(link));
            if ours.is_err_and(|error| error.to_string().contains("no packet of link type")) {
                continue; // a contradiction, which libpcap does not always see
            }
            // What follows `vlan` in the text is about the frame behind the tag. libpcap gives the register in which it
            // keeps the payload's offset to a comparison as well, and refuses what cannot match.
            if !joined.contains("vlan")
                && !joined.contains('[')
                && libpcap(&["-ddd", "-r"], &joined, &empty).is_ok()
            {
                compare(&joined, link, &empty, &frames);
            }
        }
    }
    let few = ["ether proto 5", "rarp", "ipx", "decnet", "aarp", "less 70"];
    never.retain(|condition| !few.contains(condition));
    assert!(never.is_empty(), "no frame shows whether these are right: {never:?}");
}

#[ringtap_lab::test]
fn what_only_802_11_has_is_refused_elsewhere() {
    for (text, words) in [
        ("type mgt", "no `type` for link type 1, which is not 802.11"),
        ("dir tods", "no `dir` for link type 1"),
        ("wlan addr2 1:2:3:4:5:6", "no `addr2` for link type 1"),
        ("radio[0] = 0", "no `radio` for link type 1"),
    ] {
        let filter = BpfFilter::parse(text).unwrap();
        let refused = filter.for_link(LinkType::ETHERNET).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
    let radio = BpfFilter::parse("radio[0] = 0").unwrap();
    let refused = radio.for_link(LinkType::IEEE802_11).unwrap_err().to_string();
    assert!(refused.contains("no radiotap header"), "{refused}");
    let refused =
        BpfFilter::parse("mpls").unwrap().for_link(LinkType::IEEE802_11).unwrap_err().to_string();
    assert!(refused.contains("no `mpls` for 802.11"), "{refused}");
    for (text, words) in [
        ("type", "a type: `mgt`, `ctl`, `data`"),
        ("type 5", "a type: `mgt`"),
        ("type mgt subtype rts", "a subtype of that type"),
        ("subtype 8", "the name of a subtype"),
        ("dir 4", "a direction"),
        ("wlan addr2 10.0.0.1", "a MAC address"),
        ("radio", "`[` after `radio`"),
    ] {
        let refused = BpfFilter::parse(text).unwrap_err().to_string();
        assert!(refused.contains(words), "{text}: {refused}");
    }
}
