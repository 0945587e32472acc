//! Frames that were made for it; real captures are in `tests/flow`.

use super::*;

/// An IPv4 packet with this protocol and payload.
fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 7, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2]);
    packet.extend(payload);
    packet
}

/// An IPv6 packet whose extension headers and payload follow.
fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend([0x20; 16]);
    packet.extend([0x30; 16]);
    packet.extend(payload);
    packet
}

fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = [source, destination, 8 + payload.len() as u16, 0]
        .iter()
        .flat_map(|half| half.to_be_bytes())
        .collect::<Vec<_>>();
    datagram.extend(payload);
    datagram
}

fn tcp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut segment =
        [source, destination].iter().flat_map(|half| half.to_be_bytes()).collect::<Vec<_>>();
    segment.extend([0, 0, 0, 9, 0, 0, 0, 8, 0x50, 0x18, 1, 2, 0, 0, 0, 0]);
    segment.extend(payload);
    segment
}

fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

fn read(frame: &[u8]) -> Option<Layers> {
    dissect(LinkType::ETHERNET, frame, frame.len(), 0, Tunnels::Outer)
}

fn within(frame: &[u8], tunnels: Tunnels) -> Option<(Option<Tunnel>, (u16, u16))> {
    let layers = dissect(LinkType::ETHERNET, frame, frame.len(), 0, tunnels)?;
    Some((layers.tunnel(), layers.ports()?))
}

#[test]
fn the_fast_path_says_what_the_whole_walk_says() {
    let mut read = 0;
    for (kind, header) in [(0x0800, v4 as fn(u8, &[u8]) -> Vec<u8>), (0x86dd, v6)] {
        for above in [tcp(7, 80, b"payload"), udp(7, 53, b"payload"), udp(7, 53, b"")] {
            let protocol = if above.len() > 20 {
                TCP_OR_UDP[usize::from(above[4..8] != [0, 0, 0, 9])]
            } else {
                17
            };
            for tag in [None, Some(0x2005_u16)] {
                let packet = header(protocol, &above);
                let mut frame = match tag {
                    None => ethernet(kind, &packet),
                    Some(tag) => {
                        let inner = [&tag.to_be_bytes()[..], &kind.to_be_bytes(), &packet].concat();
                        ethernet(0x8100, &inner)
                    }
                };
                frame.extend([0; 6]); // padding
                for changed in 0..frame.len() {
                    for value in [0, 1, 0x45, 0xff] {
                        let mut frame = frame.clone();
                        frame[changed] = value;
                        for len in [frame.len(), changed] {
                            let fast = plain::read(&frame[..len], frame.len(), 0);
                            let slow = slow(
                                LinkType::ETHERNET,
                                &frame[..len],
                                frame.len(),
                                0,
                                Tunnels::Outer,
                            );
                            if fast.is_some() {
                                read += 1;
                                assert_eq!(fast, slow, "{:02x?}", &frame[..len]);
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(read > 1000, "{read}");
}

const TCP_OR_UDP: [u8; 2] = [6, 17];

#[test]
fn tags_labels_and_other_links_are_looked_through() {
    let packet = v4(17, &udp(7, 53, b"x"));
    let tag = |id: u16, kind: u16| [id.to_be_bytes(), kind.to_be_bytes()].concat();
    let tagged = [tag(10, 0x88a8), tag(20, 0x8100), tag(30, 0x0800), packet.clone()].concat();
    let layers = read(&ethernet(0x9100, &tagged)).unwrap();
    assert_eq!((layers.vlan_ids(), layers.ports()), ((Some(10), Some(20)), Some((7, 53))));
    // Two labels, then IP; one label, a control word, then Ethernet.
    let labels = [&[0, 0, 0x10, 64, 0, 0, 0x11, 64][..], &packet].concat();
    assert_eq!(read(&ethernet(0x8847, &labels)).unwrap().network_offset(), 22);
    let wire = [&[0, 0, 0x11, 64, 0, 0, 0, 0][..], &ethernet(0x0800, &packet)].concat();
    assert_eq!(read(&ethernet(0x8847, &wire)).unwrap().network_offset(), 36);
    // PPPoE, with the protocol in one byte and in two.
    for protocol in [&[0x21][..], &[0, 0x21]] {
        let len = (protocol.len() + packet.len()) as u16;
        let session =
            [&[0x11, 0, 0, 1][..], &len.to_be_bytes(), protocol, &packet, &[0; 4]].concat();
        let layers = read(&ethernet(0x8864, &session)).unwrap();
        assert_eq!((layers.ip_len(), layers.payload().len()), (29, 1));
    }
    // 802.3 with SNAP, whose length tells padding apart.
    let snap = [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &packet].concat();
    assert_eq!(read(&ethernet(snap.len() as u16, &snap)).unwrap().ports(), Some((7, 53)));
    assert_eq!(read(&ethernet(0x0806, &packet)), None);
    let before: [(LinkType, &[u8]); 9] = [
        (LinkType::RAW, &[]),
        (LinkType::IPV4, &[]),
        (LinkType::NULL, &[2, 0, 0, 0]),
        (LinkType::LOOP, &[0, 0, 0, 2]),
        (LinkType::PPP, &[0xff, 3, 0, 0x21]),
        (LinkType::PPP, &[0x21]),
        (LinkType::C_HDLC, &[0x0f, 0, 8, 0]),
        (LinkType::LINUX_SLL, &[0, 0, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0, 8, 0]),
        (LinkType::PPP_ETHER, &[0x11, 0, 0, 1, 0, 31, 0, 0x21]),
    ];
    for (link, header) in before {
        let bytes = [header, &packet].concat();
        let layers = dissect(link, &bytes, bytes.len(), 0, Tunnels::Outer).expect("it is IP");
        assert_eq!(layers.network_offset(), header.len(), "{link:?}");
        assert_eq!(layers.ports(), Some((7, 53)));
    }
    assert_eq!(dissect(LinkType(147), &packet, packet.len(), 0, Tunnels::Outer), None);
}

#[test]
fn extension_headers_come_in_any_order() {
    let datagram = udp(7, 53, b"x");
    // Destination options, hop by hop, routing, a fragment header that divides nothing, AH.
    let chain = [
        &[0, 0, 1, 4, 0, 0, 0, 0][..],
        &[43, 0, 1, 4, 0, 0, 0, 0],
        &[44, 0, 0, 0, 0, 0, 0, 0],
        &[51, 0, 0, 0, 0, 0, 0, 1],
        &[17, 4, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        &datagram,
    ]
    .concat();
    let layers = read(&ethernet(0x86dd, &v6(60, &chain))).unwrap();
    assert_eq!((layers.protocol(), layers.ports()), (17, Some((7, 53))));
    assert_eq!(layers.payload().len(), 1);
    let esp = read(&ethernet(0x0800, &v4(50, &[1, 2, 3, 4, 0, 0, 0, 1, 9, 9]))).unwrap();
    assert_eq!((esp.spi(), esp.ports()), (Some(0x0102_0304), None));
    let echo = read(&ethernet(0x0800, &v4(1, &[8, 0, 0, 0, 0x12, 0x34, 0, 1]))).unwrap();
    assert_eq!((echo.icmp_id(), echo.payload().len()), (Some(0x1234), 8));
}

#[test]
fn tunnels_are_entered_as_deep_as_asked() {
    let inner = v4(6, &tcp(7, 80, b"x"));
    let frame = ethernet(0x0800, &inner);
    let vxlan = udp(9, 4789, &[&[8, 0, 0, 0, 0, 1, 2, 0][..], &frame].concat());
    let geneve = udp(9, 6081, &[&[1, 0, 0x65, 0x58, 0, 0, 7, 0, 9, 9, 9, 9][..], &frame].concat());
    let gtp = udp(
        9,
        2152,
        &[&[0x34, 255, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0x85, 1, 0, 0, 0][..], &inner].concat(),
    );
    let gre = [&[0x30, 0, 8, 0, 0, 0, 0, 4, 0, 0, 0, 1][..], &inner].concat();
    let erspan =
        [&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 0, 0, 3, 0, 0, 0, 0][..], &frame].concat();
    let pptp =
        [&[0x30, 1, 0x88, 0x0b, 0, 0, 0, 2, 0, 0, 0, 1, 0xff, 3, 0, 0x21][..], &inner].concat();
    for (protocol, payload, kind, id) in [
        (17, vxlan, TunnelKind::Vxlan, 0x102),
        (17, geneve, TunnelKind::Geneve, 7),
        (17, gtp, TunnelKind::GtpU, 5),
        (47, gre, TunnelKind::Gre, 4),
        (47, erspan, TunnelKind::Erspan, 3),
        (47, pptp, TunnelKind::Gre, 2),
        (4, inner.clone(), TunnelKind::IpInIp, 0),
        (97, [&[0x30, 0][..], &frame].concat(), TunnelKind::EtherIp, 0),
        (137, [&[0, 0, 0x11, 64][..], &inner].concat(), TunnelKind::Mpls, 0),
    ] {
        let packet = ethernet(0x0800, &v4(protocol, &payload));
        let found = within(&packet, Tunnels::Inner).expect("it has a tunnel");
        assert_eq!(found, (Some(Tunnel { kind, id }), (7, 80)));
        let outer = read(&packet).unwrap();
        assert_eq!((outer.protocol(), outer.tunnel()), (protocol, None));
        // Cut off, or within something else, it is the tunnel that counts.
        let cut = &packet[..packet.len() - inner.len()];
        let layers = dissect(LinkType::ETHERNET, cut, packet.len(), 0, Tunnels::Innermost).unwrap();
        assert_eq!((layers.protocol(), layers.tunnel()), (protocol, None));
    }
    let mut nested = inner;
    for _ in 0..12 {
        nested = v4(4, &nested);
    }
    let layers = |tunnels| dissect(LinkType::RAW, &nested, nested.len(), 0, tunnels).unwrap();
    assert_eq!(layers(Tunnels::Inner).network_offset(), 20);
    assert_eq!(layers(Tunnels::Innermost).network_offset(), 160);
}

#[test]
fn lengths_of_0_are_the_frames_and_cut_packets_keep_theirs() {
    for (kind, at, packet) in
        [(0x0800, 16, v4(6, &tcp(7, 80, &[1; 100]))), (0x86dd, 18, v6(6, &tcp(7, 80, &[1; 100])))]
    {
        let mut frame = ethernet(kind, &packet);
        let whole = read(&frame).unwrap();
        frame[at..at + 2].copy_from_slice(&[0, 0]);
        assert_eq!(read(&frame).unwrap(), whole);
        let cut =
            dissect(LinkType::ETHERNET, &frame[..80], frame.len(), 0, Tunnels::Outer).unwrap();
        assert_eq!(cut, whole, "as on the wire");
        assert_eq!(cut.payload().len(), 100);
    }
}

#[test]
fn no_packet_is_too_strange() {
    let packet = v4(47, &[&[0xf0, 0, 8, 0][..], &v6(0, &[0; 60])].concat());
    let mut state = 1_u64;
    for round in 0..20_000 {
        let mut frame = ethernet([0x0800, 0x8100, 0x8847, 0x8864, 0x86dd, 40][round % 6], &packet);
        for _ in 0..6 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let at = (state >> 33) as usize % frame.len();
            frame[at] = (state >> 25) as u8;
        }
        frame.truncate((state >> 40) as usize % (frame.len() + 1));
        for link in [1, 0, 9, 12, 50, 51, 104, 108, 113, 276] {
            let Some(layers) = dissect(LinkType(link), &frame, frame.len(), 0, Tunnels::Innermost)
            else {
                continue;
            };
            assert!(layers.network <= layers.transport && layers.transport <= layers.payload);
            assert!(
                layers.payload <= layers.payload_end && layers.payload_end <= layers.network_end
            );
            assert!(layers.network_end as usize <= frame.len());
        }
    }
}

#[test]
fn what_is_behind_the_announced_end_is_no_header() {
    // A header of IP that announces nothing above it, and a reset in the padding.
    let mut frame = [0; 60];
    frame[12..18].copy_from_slice(&[8, 0, 0x45, 0, 0, 20]);
    frame[23] = 6;
    (frame[46], frame[47]) = (0x50, 4);
    let read =
        |frame: &[u8]| dissect(LinkType::ETHERNET, frame, frame.len(), 0, Tunnels::Innermost);
    assert_eq!(read(&frame), None);
    frame[17] = 40;
    assert_eq!(read(&frame).and_then(|layers| layers.tcp()).map(|tcp| tcp.flags), Some(4));
    // Labels of MPLS that go on behind the end of the packet that they are in.
    frame[17] = 28;
    frame[23] = 137;
    frame[42..46].copy_from_slice(&[0, 0, 1, 64]);
    frame[46] = 0x45;
    let layers = read(&frame).unwrap();
    assert_eq!((layers.protocol(), layers.tunnel(), layers.ip_len()), (137, None, 28));
}
