//! What filters say of Linux cooked packets, with their header and before they have one, and of the frames inside of them.

use super::inside_tests::{datagram, frame_of, v6};
use super::*;

const SLL: LinkType = LinkType::LINUX_SLL;
const SLL2: LinkType = LinkType::LINUX_SLL2;
/// The interface of all packets here.
const INDEX: u8 = 3;
const OUTGOING: u8 = 4;

fn filter(text: &str) -> BpfFilter {
    BpfFilter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn sll(kind: u16, payload: &[u8]) -> Vec<u8> {
    let header = [0, OUTGOING, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0];
    [&header[..], &kind.to_be_bytes(), payload].concat()
}

fn sll2(kind: u16, payload: &[u8]) -> Vec<u8> {
    let header = [0, 0, 0, 0, 0, INDEX, 0, 1, OUTGOING, 6, 2, 0, 0, 0, 0, 1, 0, 0];
    [&kind.to_be_bytes()[..], &header, payload].concat()
}

/// What the kernel knows of an outgoing packet of this type.
fn beside(kind: u16) -> Ancillary {
    Ancillary {
        protocol: kind,
        direction: Some(PacketDirection::Outgoing),
        ifindex: INDEX.into(),
        ..Ancillary::default()
    }
}

/// The verdicts on version 1, on version 2, and on a packet whose header comes later; all of them are the same.
#[track_caller]
fn decide(text: &str, kind: u16, payload: &[u8]) -> bool {
    let on = |link| filter(text).for_link(link).unwrap_or_else(|error| panic!("{text}: {error}"));
    let cooked = filter(text).on_cooked().unwrap_or_else(|error| panic!("{text}: {error}"));
    let verdicts = [
        on(SLL).matches(&sll(kind, payload)),
        on(SLL2).matches(&sll2(kind, payload)),
        cooked.matches_with(payload, &beside(kind)),
    ];
    assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{text}: {verdicts:?}");
    verdicts[0]
}

fn vxlan(frame: &[u8]) -> Vec<u8> {
    datagram(4789, &[&[8, 0, 0, 0, 0, 0, 7, 0][..], frame].concat())
}

/// An 802.2 frame inside of a tunnel: behind a length.
fn of_802_2(payload: &[u8]) -> Vec<u8> {
    frame_of(payload.len() as u16, payload)
}

const STP: [u8; 38] = {
    let mut frame = [0; 38];
    (frame[0], frame[1], frame[2]) = (0x42, 0x42, 3);
    frame
};
/// A link state packet of level 1.
const LSP: [u8; 11] = [0xfe, 0xfe, 3, 0x83, 0x1b, 1, 0, 18, 1, 0, 0];

#[test]
fn a_frame_in_a_tunnel_is_of_ethernet_whatever_the_outer_link() {
    let tagged = frame_of(0x8100, &[&[0, 5, 8, 0][..], &datagram(53, b"")].concat());
    let to_all = [&[0xff; 6][..], &frame_of(0x0800, &datagram(53, b""))[6..]].concat();
    for (text, frame) in [
        ("vxlan and stp", of_802_2(&STP)),
        ("vxlan and llc", of_802_2(&STP)),
        ("vxlan and llc u", of_802_2(&STP)),
        ("vxlan and isis", of_802_2(&LSP)),
        ("vxlan and iso", of_802_2(&LSP)),
        ("vxlan and lsp", of_802_2(&LSP)),
        ("vxlan and ipx", of_802_2(&[0xff; 30])),
        ("vxlan and vlan 5 and udp port 53", tagged),
        ("vxlan and broadcast", to_all.clone()),
        ("vxlan and ether src 02:00:00:00:00:02", to_all),
    ] {
        let other = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 6][..], &[0; 60]].concat();
        let (meant, other) = (vxlan(&frame), vxlan(&other));
        assert!(decide(text, 0x0800, &meant), "{text}");
        assert!(!decide(text, 0x0800, &other), "{text}");
        let raw = filter(text).for_link(LinkType::RAW).unwrap();
        assert_eq!([raw.matches(&meant), raw.matches(&other)], [true, false], "{text}");
    }
}

#[test]
fn where_a_packet_was_seen_is_asked_of_the_outer_header_also_in_a_tunnel() {
    let packet = vxlan(&frame_of(0x0800, &datagram(53, b"")));
    for (text, expected) in [("vxlan and outbound", true), ("vxlan and inbound", false)] {
        assert_eq!(decide(text, 0x0800, &packet), expected, "{text}");
    }
    for (text, expected) in [("vxlan and ifindex 3", true), ("vxlan and ifindex 4", false)] {
        let filter = filter(text).for_link(SLL2).unwrap();
        assert_eq!(filter.matches(&sll2(0x0800, &packet)), expected, "{text}");
    }
}

#[test]
fn lengths_count_the_header_that_is_added_later_behind_anything() {
    let udp = datagram(53, b"");
    let tagged = [&[0, 5, 8, 0][..], &udp].concat();
    let session = [&[0x11, 0, 0, 7, 0, 30, 0, 0x21][..], &udp].concat();
    let tunnel = vxlan(&frame_of(0x0800, &udp));
    for (before, kind, payload) in
        [("vlan", 0x8100, tagged), ("pppoes", 0x8864, session), ("vxlan", 0x0800, tunnel)]
    {
        let len = payload.len() + 20;
        let cooked = |text: String| {
            let filter = filter(&text).on_cooked().unwrap();
            filter.matches_with(&payload, &beside(kind))
        };
        assert!(cooked(format!("{before} and len = {len}")), "{before}");
        assert!(cooked(format!("{before} and greater {len} and less {len}")), "{before}");
        assert!(!cooked(format!("{before} and greater {}", len + 1)), "{before}");
    }
}

#[test]
fn bytes_of_a_frame_in_a_tunnel_are_not_those_of_the_outer_header() {
    let packet = vxlan(&frame_of(0x0800, &datagram(53, b"")));
    assert!(decide("vxlan and ether[0:2] = 0x200 and link[12:2] = 0x800", 0x0800, &packet));
    assert!(!decide("vxlan and link[0:2] = 0x800", 0x0800, &packet));
}

#[test]
fn protocols_of_iso_are_behind_the_header_of_802_2_alone() {
    for (text, expected) in
        [("isis", true), ("iso proto 131", true), ("l1", true), ("clnp", false), ("psnp", false)]
    {
        assert_eq!(decide(text, 4, &LSP), expected, "{text}");
    }
    // PPP has no such header.
    let session = frame_of(0x8864, &[&[0x11, 0, 0, 7, 0, 10, 0, 0x23][..], &LSP[3..]].concat());
    assert!(filter("pppoes and isis").matches(&session));
    assert!(filter("pppoes and lsp").matches(&session));
    assert!(!filter("pppoes and clnp").matches(&session));
}

#[test]
fn behind_a_tag_there_is_a_length_as_on_ethernet() {
    let behind = |len: u16, payload: &[u8]| [&[0, 5][..], &len.to_be_bytes(), payload].concat();
    let stp = behind(38, &STP);
    for (text, expected) in [
        ("vlan and stp", true),
        ("vlan 5 and llc u", true),
        ("vlan and netbeui", false),
        ("vlan and ipx", false),
    ] {
        assert_eq!(decide(text, 0x8100, &stp), expected, "{text}");
    }
    assert!(decide("vlan and ipx", 0x8100, &behind(30, &[0xff; 30])));
    // In the header of a cooked packet, Linux writes a number of its own.
    assert!(decide("stp", 4, &STP) && !decide("stp", 38, &STP));
}

#[test]
fn a_transparent_filter_looks_through_tags_of_cooked_packets() {
    let udp = datagram(53, b"");
    let once = [&[0, 5, 8, 0][..], &udp].concat();
    let twice = [&[0, 5, 0x81, 0][..], &once].concat();
    for (text, expected) in [("udp port 53", true), ("not udp", false)] {
        let through = filter(text).vlan_transparent().unwrap();
        let cooked = through.on_cooked().unwrap();
        let also_cooked = filter(text).on_cooked().unwrap().vlan_transparent().unwrap();
        let file = through.for_link(SLL2).unwrap();
        for (kind, payload) in [(0x0800, &udp), (0x8100, &once), (0x88a8, &twice)] {
            let known = beside(kind);
            assert_eq!(cooked.matches_with(payload, &known), expected, "{text} {kind:x}");
            assert_eq!(also_cooked.matches_with(payload, &known), expected, "{text} {kind:x}");
            assert_eq!(file.matches(&sll2(kind, payload)), expected, "{text} {kind:x}");
        }
    }
}

#[test]
fn a_filter_for_cooked_sockets_is_compiled_anew_for_packets_with_a_header() {
    let (payload, known) = (datagram(53, b""), beside(0x0800));
    let cooked = filter("udp port 53").on_cooked().unwrap();
    assert!(cooked.matches_with(&payload, &known));
    assert!(cooked.matches_on(Some(SLL2), &sll2(0x0800, &payload), &known));
    assert!(cooked.matches_on(Some(LinkType::ETHERNET), &frame_of(0x0800, &payload), &known));
    let with_header = cooked.on(Some(SLL2)).unwrap();
    assert_eq!(with_header, filter("udp port 53").for_link(SLL2).unwrap());
    assert!(with_header.matches_with(&sll2(0x0800, &payload), &known));
    assert_ne!(cooked, with_header);
    assert_eq!(with_header.on_cooked().unwrap(), cooked);
    assert_eq!(cooked.program(FilterTarget::Socket), cooked.program(FilterTarget::Cooked));
    let ready = BpfFilter::new(cooked.program(FilterTarget::Cooked)).unwrap();
    assert!(ready.is_program() && !cooked.is_program());
    assert_eq!(ready.on_cooked().unwrap(), ready);
}

#[test]
fn a_packet_in_geneve_without_a_frame_has_no_link_header() {
    let geneve = |kind: u16, payload: &[u8]| {
        let [high, low] = kind.to_be_bytes();
        let header = [&[0, 0, high, low, 0, 0, 7, 0][..], payload].concat();
        frame_of(0x0800, &datagram(6081, &header))
    };
    let matches = |text: &str, frame: &[u8]| filter(text).matches(frame);
    // Its first bytes as those of a frame would be to all, and behind a length.
    let mut odd = v6(59, &[0; 8]);
    (odd[0], odd[12], odd[13]) = (0x61, 0, 5);
    let packet = geneve(0x86dd, &odd);
    assert!(matches("geneve and ip6", &packet));
    for text in [
        "geneve and ether multicast",
        "geneve and broadcast",
        "geneve and llc",
        "geneve and stp",
        "geneve and ether host 61:00:00:00:00:08",
    ] {
        assert!(!matches(text, &packet), "{text}");
        assert!(matches(&format!("not ({text})"), &packet), "{text}");
    }
    let tagged = geneve(0x8100, &[&[0, 5, 8, 0][..], &datagram(53, b"")].concat());
    assert!(matches("geneve and vlan 5 and udp port 53", &tagged));
    assert!(!matches("geneve and vlan 6", &tagged));
    assert!(!matches("geneve and vlan and ether host 00:05:08:00:45:00", &tagged));
    assert!(matches("geneve and ipx", &geneve(0x8137, &[0; 30])));
    // One with a frame has a header.
    let inner = frame_of(0x0800, &datagram(53, b""));
    assert!(matches("geneve and ether dst 02:00:00:00:00:01", &geneve(0x6558, &inner)));
}
