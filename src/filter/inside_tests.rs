//! Filters that look into tunnels and along chains of headers, and those with names.

use super::*;

fn error(text: &str) -> FilterError {
    match BpfFilter::parse(text) {
        Err(error) => error,
        other => panic!("{text}: {other:?}"),
    }
}

/// A UDP datagram in IPv4.
pub(super) fn datagram(to: u16, payload: &[u8]) -> Vec<u8> {
    let len = (28 + payload.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet.extend([0x9c, 0x40]);
    packet.extend(to.to_be_bytes());
    packet.extend((len - 20).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

pub(super) fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 64];
    packet.extend([[0xfd; 16], [0xfe; 16]].concat());
    packet.extend(payload);
    packet
}

pub(super) fn frame_of(kind: u16, payload: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &kind.to_be_bytes(), payload].concat()
}

fn decide(text: &str, frame: &[u8]) -> bool {
    BpfFilter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).matches(frame)
}

#[test]
fn conditions_behind_a_tunnel_are_about_the_packet_inside() {
    let inner = datagram(53, b"inside");
    let frame = frame_of(0x0800, &inner);
    let geneve = |kind: [u8; 2], inner: &[u8]| {
        [&[1, 0, kind[0], kind[1], 0, 0, 7, 0, 9, 9, 9, 9][..], inner].concat()
    };
    let vxlan = [&[8, 0, 0, 0, 0, 1, 2, 0][..], &frame].concat();
    let in_v6 = |port: u16, payload: &[u8]| {
        let len = (8 + payload.len()) as u16;
        let header = [[0x9c, 0x40], port.to_be_bytes(), len.to_be_bytes(), [0, 0]].concat();
        frame_of(0x86dd, &v6(17, &[header, payload.to_vec()].concat()))
    };
    let of_frame = geneve([0x65, 0x58], &frame);
    let of_packet = geneve([8, 0], &inner);
    let with_frame = [frame_of(0x0800, &datagram(6081, &of_frame)), in_v6(6081, &of_frame)];
    let without = [frame_of(0x0800, &datagram(6081, &of_packet)), in_v6(6081, &of_packet)];
    for packet in with_frame.iter().chain(&without) {
        for (text, expected) in [
            ("geneve", true),
            ("geneve 7", true),
            ("geneve 8", false),
            ("not geneve", false),
            ("geneve and udp port 53", true),
            ("geneve 7 and ip and host 10.0.0.1 and udp[8] = 0x69", true),
            ("geneve and tcp", false),
            ("geneve and port 6081", false),
            ("not (geneve and ip6)", true),
            ("udp port 6081 and geneve and ip src 10.0.0.1 and not ip6", true),
            ("vxlan", false),
        ] {
            assert_eq!(decide(text, packet), expected, "{text}");
        }
    }
    for packet in &with_frame {
        assert!(decide("geneve and ether host 02:00:00:00:00:01 and ether[12:2] = 0x800", packet));
    }
    for packet in [frame_of(0x0800, &datagram(4789, &vxlan)), in_v6(4789, &vxlan)] {
        for (text, expected) in [
            ("vxlan", true),
            ("vxlan 258", true),
            ("vxlan 1", false),
            ("vxlan and udp port 53", true),
            ("vxlan 258 and ether dst 02:00:00:00:00:01 and ip[12:4] = 0x0a000001", true),
            ("vxlan and arp", false),
            ("geneve", false),
        ] {
            assert_eq!(decide(text, &packet), expected, "{text}");
        }
        // A cut packet, and one that only looks like it, are no tunnels.
        assert!(!decide("vxlan and udp", &packet[..packet.len() - 30]));
    }
    let nested = frame_of(
        0x0800,
        &datagram(
            4789,
            &[&[8, 0, 0, 0, 0, 0, 5, 0][..], &frame_of(0x0800, &datagram(4789, &vxlan))].concat(),
        ),
    );
    assert!(decide("vxlan 5 and vxlan 258 and udp port 53", &nested));
    assert!(!decide("vxlan 5 and vxlan 5", &nested));
}

#[test]
fn behind_a_tunnel_there_is_only_what_must_hold_of_the_packet_inside() {
    for text in [
        "geneve or tcp",
        "(geneve and ip) or tcp",
        "vxlan or geneve",
        "geneve or port 80 or port 53",
        "geneve or host 10.0.0.1 or host 10.0.0.2",
        "geneve or ip[9] = 6",
        "not geneve and udp",
        "not geneve and ip[9] = 6",
        "not geneve and (port 80 or 53)",
        "tcp or geneve and ip[9] = 6",
    ] {
        assert!(error(text).to_string().contains("write each way by itself"), "{text}");
    }
    assert!(error("(not geneve) and vxlan").to_string().contains("beside another"));
    decide("tcp or geneve", &[]);
}

#[test]
fn protocols_are_found_behind_chains_of_headers() {
    let tcp = [0; 20];
    let chain = [
        &[60, 0, 1, 4, 0, 0, 0, 0][..], // hop-by-hop options
        &[43, 0, 1, 4, 0, 0, 0, 0],     // destination options
        &[44, 0, 0, 0, 0, 0, 0, 0],     // routing
        &[51, 0, 0, 0, 0, 0, 0, 1],     // a fragment header
        &[6, 4, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], // AH
        &tcp,
    ]
    .concat();
    let packet = frame_of(0x86dd, &v6(0, &chain));
    for (protocol, expected) in
        [(0, true), (60, true), (43, true), (44, true), (51, true), (6, true), (17, false)]
    {
        assert_eq!(decide(&format!("ip6 protochain {protocol}"), &packet), expected, "{protocol}");
        assert_eq!(decide(&format!("protochain {protocol}"), &packet), expected, "{protocol}");
        assert!(!decide(&format!("ip protochain {protocol}"), &packet));
    }
    let ah = [&[17, 4][..], &[0; 22], &[0; 8]].concat();
    let mut v4 = datagram(1, &ah);
    v4.truncate(20);
    v4[9] = 51;
    v4.extend(&ah);
    let packet = frame_of(0x0800, &v4);
    assert!(decide("ip protochain \\udp and protochain 51", &packet));
    assert!(!decide("ip protochain \\tcp", &packet));
    assert!(!decide("protochain 17", &packet[..34]), "cut");
}

#[test]
fn names_are_looked_up_by_a_resolver_alone() {
    struct Names;
    impl Resolver for Names {
        fn host(&self, name: &str) -> Vec<std::net::IpAddr> {
            match name {
                "router" | "3com.example" | "10-0-0-1.lan" | "1.2.3.4.example" => vec![
                    "10.0.0.1".parse().unwrap(),
                    "fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd".parse().unwrap(),
                ],
                _ => Vec::new(),
            }
        }
        fn network(&self, name: &str) -> Option<(std::net::Ipv4Addr, std::net::Ipv4Addr)> {
            (name == "lan")
                .then(|| ("10.0.0.77".parse().unwrap(), "255.255.255.0".parse().unwrap()))
        }
        fn ether(&self, name: &str) -> Option<[u8; 6]> {
            (name == "router").then_some([2, 0, 0, 0, 0, 1])
        }
        fn interface(&self, name: &str) -> Option<u32> {
            ["eth0", "5", "0x7", "6to4"].contains(&name).then_some(7)
        }
        fn netmask(&self) -> Option<std::net::Ipv4Addr> {
            Some("255.255.255.0".parse().unwrap())
        }
    }
    let with = |text: &str| BpfFilter::parse_with(text, &Names);
    let v4 = frame_of(0x0800, &datagram(53, b""));
    let from_v6 = frame_of(0x86dd, &v6(59, b""));
    let mut passed_on = v4.clone();
    passed_on[26..30].copy_from_slice(&[192, 0, 2, 1]);
    let mut to_all = v4.clone();
    to_all[33] = 255;
    for (text, of_v4, of_v6, passes, is_for_all) in [
        ("host router", true, true, false, true),
        ("ip host router", true, false, false, true),
        ("host 3com.example", true, true, false, true),
        ("host (10-0-0-1.lan or 1.2.3.4.example)", true, true, false, true),
        ("ip6 src host router", false, true, false, false),
        ("not (src router)", false, false, true, false),
        ("net lan", true, false, true, true),
        ("ether host router", true, true, true, true),
        ("gateway router", false, true, true, false),
        ("ip broadcast", false, false, false, true),
    ] {
        let filter = with(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let decided = [&v4, &from_v6, &passed_on, &to_all].map(|frame| filter.matches(frame));
        assert_eq!(decided, [of_v4, of_v6, passes, is_for_all], "{text}");
        // What it writes has addresses instead of names.
        let again = BpfFilter::parse(&filter.to_string()).unwrap();
        let programs = [&filter, &again].map(|filter| filter.program(FilterTarget::Offline));
        assert_eq!(programs[0], programs[1], "{text}: {filter}");
    }
    let known = Ancillary { ifindex: 7, ..Ancillary::default() };
    for text in ["ifname eth0", "ifname 5", "ifname 0x7 and ip", "ifname 6to4"] {
        assert!(with(text).unwrap().matches_with(&v4, &known), "{text}");
    }
    assert!(!with("not ifname eth0").unwrap().matches_with(&v4, &known));
    for text in [
        "host nobody",
        "ip6 host 10.0.0.1",
        "net router",
        "gateway nobody",
        "ifname lo",
        "arp host ::1",
    ] {
        assert!(with(text).is_err(), "{text}");
    }
}
