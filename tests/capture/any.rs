//! Captures on all interfaces, and on interfaces whose headers are of an unknown kind: both are cooked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringtap::capture::{CaptureBuilder, RingLayout, RingProfile};
use ringtap::fanout::FanoutMode;
use ringtap::filter::PacketDirection;
use ringtap::interface::{Interface, InterfaceNames, interface_counters, interface_info};
use ringtap::metrics::Measured;
use ringtap::packet::{LinkType, OwnedPacket, VlanTag};
use ringtap::{BpfFilter, Capture, Error, Injector};
use ringtap_lab::generator::Sender;
use ringtap_lab::{Protocol, Traffic, link, namespace};

/// Bytes of an Ethernet header, and of that of cooked packets.
const ETHERNET: usize = 14;
const COOKED: usize = 20;

fn ring() -> CaptureBuilder {
    let options = Capture::builder().interface(Interface::Any);
    options.block_size(1 << 16).block_count(256).block_timeout_ms(5)
}

/// The next `count` packets that the capture delivers.
fn received(capture: &mut Capture, count: usize) -> Vec<OwnedPacket> {
    let mut packets = Vec::new();
    while packets.len() < count {
        let batch = capture.next_batch_timeout(Duration::from_secs(20)).unwrap();
        packets.extend(batch.expect("they come").iter().map(|packet| packet.to_owned()));
    }
    assert_eq!(packets.len(), count);
    packets
}

fn frame(number: u64) -> Vec<u8> {
    Traffic { protocol: Protocol::Udp, varied: false, len: 100, ..Traffic::default() }
        .frame(number, 0)
}

#[ringtap_lab::test]
fn packets_of_all_interfaces_say_which_they_are_of_also_of_one_that_appears_later() {
    let Some(net) = namespace() else { return };
    let first = net.veth();
    for layout in [RingLayout::Blocks, RingLayout::Frames] {
        let mut capture = ring().layout(layout).build().unwrap();
        assert_eq!((capture.interface(), capture.link_type()), ("any", LinkType::LINUX_SLL2));
        let second = net.veth();
        for (number, veth) in [(1, &first), (2, &second)] {
            let sent = frame(number);
            Sender::open(&veth.left).unwrap().send_all(&[&sent]).unwrap();
            let [out, inward] = &received(&mut capture, 2)[..] else { panic!("two") };
            let ways = [
                (out, &veth.left, PacketDirection::Outgoing),
                (inward, &veth.right, PacketDirection::OtherHost),
            ];
            for (packet, name, direction) in ways {
                let packet = packet.as_packet();
                assert_eq!(packet.data()[COOKED..], sent[ETHERNET..], "{layout:?}");
                assert_eq!(packet.original_len(), sent.len() - ETHERNET + COOKED);
                assert_eq!(packet.link_type(), Some(LinkType::LINUX_SLL2));
                assert_eq!(packet.interface_index(), Some(link::index(name).unwrap()));
                assert_eq!(packet.direction(), Some(direction));
                assert_eq!(packet.ll_protocol(), Some(0x0800));
                assert_eq!(packet.hardware_type(), Some(libc::ARPHRD_ETHER));
                assert_eq!(&*packet.source_ll_addr().unwrap(), &sent[6..12]);
                assert_eq!(packet.destination_ll_addr(), None, "it is not told");
                let header = &packet.data()[..COOKED];
                assert_eq!(header[..4], [8, 0, 0, 0]);
                assert_eq!(header[4..8], link::index(name).unwrap().to_be_bytes());
                assert_eq!(header[8..10], [0, 1]);
                assert_eq!((header[10], header[11]), (direction_number(direction), 6));
                assert_eq!(header[12..18], sent[6..12]);
            }
        }
        // Its removal is no error, and the others go on.
        second.delete();
        Sender::open(&first.left).unwrap().send_all(&[frame(3)]).unwrap();
        assert_eq!(received(&mut capture, 2).len(), 2);
    }
}

fn direction_number(direction: PacketDirection) -> u8 {
    if direction == PacketDirection::Outgoing { 4 } else { 3 }
}

#[ringtap_lab::test]
fn three_hundred_interfaces_are_one_socket_with_one_ring() {
    let Some(net) = namespace() else { return };
    let pairs: Vec<_> = (0..150).map(|_| net.veth()).collect();
    let began = std::time::Instant::now();
    let mut capture = ring().build().unwrap();
    println!("300 interfaces: open in {:?}", began.elapsed());
    for (number, veth) in pairs.iter().enumerate() {
        Sender::open(&veth.left).unwrap().send_all(&[frame(number as u64)]).unwrap();
    }
    let packets = received(&mut capture, 300);
    let seen: BTreeSet<_> =
        packets.iter().map(|packet| packet.as_packet().interface_index().unwrap()).collect();
    assert_eq!(seen.len(), 300);
    let mut names = InterfaceNames::new().unwrap();
    let names: BTreeSet<_> = seen.iter().map(|&index| names.of(index).to_owned()).collect();
    let all = pairs.iter().flat_map(|veth| [veth.left.clone(), veth.right.clone()]);
    assert_eq!(names, all.collect());

    // With promiscuous mode, all of them are put into it, and taken out of it at the end.
    let capture = ring().promiscuous(true).build().unwrap();
    assert!(pairs.iter().all(|veth| link::promiscuity(&veth.left).unwrap() == 1));
    drop(capture);
    assert!(pairs.iter().all(|veth| link::promiscuity(&veth.left).unwrap() == 0));
}

#[ringtap_lab::test]
fn interfaces_are_left_out_by_name_and_by_kind() {
    let Some(net) = namespace() else { return };
    net.loopback_up();
    let (kept, other) = (net.veth(), net.veth());
    let options = ring().exclude(&other.left).exclude(&other.right).exclude_hardware(772);
    let mut capture = options.filter("udp".parse().unwrap()).build().unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"on the loopback", socket.local_addr().unwrap()).unwrap();
    for veth in [&other, &kept] {
        Sender::open(&veth.left).unwrap().send_all(&[frame(1)]).unwrap();
    }
    let packets = received(&mut capture, 2);
    let indices: Vec<_> =
        packets.iter().map(|packet| packet.as_packet().interface_index().unwrap()).collect();
    assert_eq!(indices, [&kept.left, &kept.right].map(|name| link::index(name).unwrap()));
    assert_eq!(capture.stats().unwrap().packets, 2);

    let error = ring().exclude("not-there").build().unwrap_err();
    assert!(matches!(&error, Error::NoSuchInterface { name } if name == "not-there"), "{error}");
    let one = Capture::builder().interface(&kept.left).exclude(&kept.right);
    assert!(matches!(one.build().unwrap_err(), Error::Unusable { option: "exclude", .. }));
    let error = ring().offloads(true).build().unwrap_err();
    assert!(matches!(&error, Error::Unusable { option: "offloads", .. }), "{error}");
}

/// Frames of every kind that filters ask about.
fn mixture() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        for len in [60, 300, 1400] {
            let traffic = Traffic { protocol, varied: true, len, ..Traffic::default() };
            frames.extend((0..6).map(|number| traffic.frame(number, 0)));
        }
    }
    let addresses = frames[0][..12].to_vec();
    let with = |kind: [u8; 2], payload: &[u8]| [&addresses, &kind[..], payload].concat();
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &[2; 6], &[10, 0, 0, 1], &[0; 6], &[10, 0, 0, 2]];
    frames.push(with([8, 6], &[&arp.concat()[..], &[0; 18]].concat()));
    let mut icmp6 = vec![0x60, 0, 0, 0, 0, 8, 58, 255];
    icmp6.extend([[0xfe; 16], [0xff; 16]].concat());
    icmp6.extend([128, 0, 0, 0, 0, 1, 0, 1]);
    frames.push(with([0x86, 0xdd], &icmp6));
    frames.push(with([0x88, 0x47], &[&[0, 1, 1, 64][..], &frames[0][ETHERNET..]].concat()));
    frames
}

#[ringtap_lab::test]
fn filters_choose_cooked_packets_by_what_the_kernel_knows_of_them() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let sender = Sender::open(&veth.left).unwrap();
    let right = link::index(&veth.right).unwrap();
    let frames = mixture();
    let mut all = ring().build().unwrap();
    sender.send_all(&frames).unwrap();
    let everything = received(&mut all, 2 * frames.len());
    let of_right = format!("ifindex {right}");
    let texts = [
        "ip",
        "ip6",
        "arp",
        "udp",
        "tcp",
        "host 10.0.0.1",
        "inbound",
        "outbound and udp",
        "len > 200",
        "greater 200",
        "less 80",
        "len <= 86",
        "mpls",
        "mpls and udp",
        "icmp6",
        "link[0:2] = 0x806",
        "link[10] = 4",
        "link[8:2] = 1",
        "not ip",
        "udp[0:2] > 0",
        "portrange 1-2000",
        "ether proto 0x86dd",
        "vlan",
        "not vlan",
        &of_right,
        "not ifindex 4294967295",
        "net 10.0.0.0/8 and inbound",
    ];
    for text in texts {
        let filter: BpfFilter = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut capture =
            ring().filter(filter.clone()).build().unwrap_or_else(|error| panic!("{text}: {error}"));
        sender.send_all(&frames).unwrap();
        let expected: Vec<_> =
            everything.iter().filter(|packet| packet.as_packet().matches(&filter)).collect();
        let stop = capture.stop_handle().unwrap();
        stop.stop();
        let mut chosen = Vec::new();
        while let Some(batch) = capture.next_batch_timeout(Duration::from_secs(20)).unwrap() {
            chosen.extend(batch.iter().map(|packet| packet.to_owned()));
        }
        let bytes = |packet: &OwnedPacket| packet.as_packet().data().to_vec();
        assert_eq!(
            chosen.iter().map(bytes).collect::<Vec<_>>(),
            expected.into_iter().map(bytes).collect::<Vec<_>>(),
            "{text}"
        );
        let takes_all_or_none = ["vlan", "not vlan", "link[8:2] = 1", "not ifindex 4294967295"];
        let is_told_apart = !takes_all_or_none.contains(&text);
        assert!(!is_told_apart || (1..everything.len()).contains(&chosen.len()), "{text}");
    }
    for refused in ["ether host 02:00:00:00:00:01", "link[5] = 1", "broadcast", "ether[0] = 2"] {
        let error = ring().filter(refused.parse().unwrap()).build().unwrap_err();
        assert!(matches!(error, Error::Filter(_)), "{refused}: {error}");
    }
    let mut cut = ring().snap_len(48).build().unwrap();
    sender.send_all(&frames[..1]).unwrap();
    for packet in received(&mut cut, 2) {
        let (packet, whole) = (packet.as_packet(), everything[0].as_packet());
        assert_eq!((packet.len(), packet.is_truncated()), (48, true));
        assert_eq!(packet.original_len(), whole.original_len());
        assert_eq!(packet.data()[COOKED..], whole.data()[COOKED..48]);
    }
}

#[ringtap_lab::test]
fn tags_of_cooked_packets_are_beside_them_or_put_back() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let tag = VlanTag { tpid: 0x8100, tci: 0x2005 };
    let mut tagged = frame(1);
    tagged.splice(12..12, tag.to_bytes());
    let filter: BpfFilter = "inbound and vlan 5 and udp".parse().unwrap();
    let options = ring().filter(filter.clone());
    let (mut beside, mut inside) =
        (options.clone().build().unwrap(), options.vlan_reinsert(true).build().unwrap());
    Sender::open(&veth.left).unwrap().send_all(&[tagged.clone(), frame(2)]).unwrap();
    let beside = &received(&mut beside, 1)[0];
    let packet = beside.as_packet();
    assert_eq!((packet.vlan(), packet.stripped_vlan()), (Some(tag), Some(tag)));
    assert_eq!((&packet.data()[..2], &packet.data()[COOKED..]), (&[8, 0][..], &tagged[18..]));
    let inside = &received(&mut inside, 1)[0];
    let packet = inside.as_packet();
    assert_eq!(
        (packet.vlan(), packet.stripped_vlan(), packet.inner_vlan()),
        (Some(tag), None, None)
    );
    assert_eq!(packet.data()[..2], [0x81, 0]);
    assert_eq!(packet.data()[COOKED..], [&[0x20, 5, 8, 0], &tagged[18..]].concat());
    let layers = packet.layers(ringtap::packet::Tunnels::Outer).unwrap();
    assert_eq!((layers.vlan_ids().0, layers.network_offset()), (Some(5), COOKED + 4));
}

#[ringtap_lab::test]
fn all_tags_of_cooked_packets_are_told_in_either_layout_received_and_sent() {
    const IDS: [u16; 3] = [7, 8, 9];
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let frames = [1, 2, 3].map(|count| {
        let tags = IDS[..count].iter().map(|&id| VlanTag { tpid: 0x8100, tci: 0x2000 | id });
        let mut tagged = frame(count as u64);
        tagged.splice(12..12, tags.flat_map(VlanTag::to_bytes));
        tagged
    });
    for (is_reinserted, is_frames) in [(false, false), (false, true), (true, false), (true, true)] {
        let options = ring().filter("udp or vlan".parse().unwrap()).vlan_reinsert(is_reinserted);
        let options = if is_frames { options.profile(RingProfile::LowLatency) } else { options };
        let mut capture = options.build().unwrap();
        Sender::open(&veth.left).unwrap().send_all(&frames).unwrap();
        let mut packets = received(&mut capture, 6);
        packets.sort_by_key(|packet| {
            packet.as_packet().direction() == Some(PacketDirection::Outgoing)
        });
        for (number, packet) in packets.iter().enumerate() {
            let (packet, sent) = (packet.as_packet(), &frames[number % 3]);
            let context = format!("{number} {is_reinserted} {is_frames} {:x?}", packet.data());
            let layers = packet.layers(ringtap::packet::Tunnels::Outer).unwrap();
            assert_eq!(
                packet.data()[layers.network_offset()..],
                sent[12 + 4 * (number % 3 + 1) + 2..],
                "{context}"
            );
            let id = packet.vlan().map(VlanTag::id);
            // Of what this host sends, the kernel keeps no tag but the first, and older ones not even that.
            assert!(id == Some(7) || id.is_none() && number >= 3, "{context}");
            if number < 3 {
                let inner = (number > 0).then_some(8);
                assert_eq!(packet.inner_vlan().map(VlanTag::id), inner, "{context}");
                assert_eq!(layers.vlan_ids(), (Some(7), inner), "{context}");
            }
        }
    }
}

#[ringtap_lab::test]
fn members_of_a_group_share_the_packets_of_all_interfaces() {
    let Some(net) = namespace() else { return };
    let pairs = [net.veth(), net.veth(), net.veth()];
    let options = ring().ignore_outgoing(true);
    let mut first = options.clone().fanout_auto(FanoutMode::LoadBalance).build().unwrap();
    let group = first.fanout_group().unwrap();
    let mut second = options.fanout(FanoutMode::LoadBalance, group).build().unwrap();
    let frames: Vec<_> = (0..20).map(frame).collect();
    for veth in &pairs {
        Sender::open(&veth.left).unwrap().send_all(&frames).unwrap();
    }
    let mut counts = BTreeMap::new();
    for packet in received(&mut first, 30).iter().chain(&received(&mut second, 30)) {
        *counts.entry(packet.as_packet().interface_index().unwrap()).or_insert(0) += 1;
    }
    let expected = pairs.iter().map(|veth| (link::index(&veth.right).unwrap(), 20));
    assert_eq!(counts, expected.collect());
    assert!(interface_info("any").is_err());
}

#[ringtap_lab::test]
fn a_socket_that_another_has_opened_captures_without_a_right() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let (left, right) = (veth.left.clone(), veth.right.clone());
    let options = move || Capture::builder().interface(&right).block_timeout_ms(5);
    let sockets = [options().open_socket().unwrap(), ring().open_socket().unwrap()];
    let [one, all] = sockets;
    let name = veth.right.clone();
    let unprivileged = move || {
        ringtap_lab::limits::keep_capabilities(0);
        let error = options().build().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        let one = options().filter("udp".parse().unwrap()).build_on(one).unwrap();
        (one, Capture::from_owned_fd(all, "any").unwrap())
    };
    let (mut one, mut all) = std::thread::spawn(unprivileged).join().unwrap();
    Sender::open(&left).unwrap().send_all(&[frame(1)]).unwrap();
    assert_eq!(received(&mut one, 1)[0].data(), frame(1));
    assert_eq!(received(&mut all, 2)[1].data()[COOKED..], frame(1)[ETHERNET..]);

    let raw = || Capture::builder().interface(&name).open_socket().unwrap();
    for (socket, why) in [
        (std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into(), "no packet socket"),
        (raw(), "SOCK_DGRAM"),
    ] {
        let error = Capture::from_owned_fd(socket, "any").unwrap_err();
        assert!(matches!(error, Error::Unusable { option: "build_on", .. }));
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[ringtap_lab::test]
fn a_socket_that_another_has_opened_sends_without_a_right() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let name = veth.left.clone();
    let mut far_end =
        Capture::builder().interface(&veth.right).block_timeout_ms(5).build().unwrap();
    let options = move || Injector::builder().interface(&name).frame_count(16);
    let (one, other) = (options().open_socket().unwrap(), options().open_socket().unwrap());
    let [raw, to_others] = [(); 2].map(|()| options().open_socket().unwrap());
    let (left, unprivileged_left) = (veth.left.clone(), veth.left.clone());
    let unprivileged = move || {
        ringtap_lab::limits::keep_capabilities(0);
        let error = options().build().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        let from_builder = options().build_on(one).unwrap();
        [from_builder, Injector::from_owned_fd(other, &unprivileged_left).unwrap()]
    };
    let injectors = std::thread::spawn(unprivileged).join().unwrap();
    for (number, mut injector) in injectors.into_iter().enumerate() {
        // More than the ring has slots.
        for part in 0..20 {
            injector.send(&frame(20 * number as u64 + part)).unwrap();
        }
        injector.flush().unwrap();
    }
    let arrived = received(&mut far_end, 40);
    for (number, packet) in arrived.iter().enumerate() {
        assert_eq!(packet.data(), frame(number as u64));
    }

    let cooked = Capture::builder().interface("any").open_socket().unwrap();
    let bound = Injector::from_owned_fd(to_others, &left).unwrap();
    let bound = std::os::fd::AsFd::as_fd(&bound).try_clone_to_owned().unwrap();
    for (socket, why) in [
        (std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into(), "no packet socket"),
        (cooked, "SOCK_DGRAM"),
        (bound, "is bound"),
    ] {
        let error = Injector::from_owned_fd(socket, &left).unwrap_err();
        assert!(matches!(error, Error::Unusable { option: "build_on", .. }));
        assert!(error.to_string().contains(why), "{error}");
    }
    let error = Injector::from_owned_fd(raw, "not-there").unwrap_err();
    assert!(matches!(error, Error::NoSuchInterface { .. }), "{error}");
}

#[ringtap_lab::test]
fn an_interface_counts_what_it_received_and_sent_for_all() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let sender = Sender::open(&veth.left).unwrap();
    let before = interface_counters(&veth.right).unwrap();
    sender.send_all(&(0..10).map(frame).collect::<Vec<_>>()).unwrap();
    let now = interface_counters(&veth.right).unwrap().delta_since(&before);
    assert_eq!((now.rx_packets, now.rx_bytes), (10, 1_000));
    assert_eq!((now.tx_packets, now.card_drops(), now.rx_errors), (0, 0, 0));
    assert_eq!(interface_counters(&veth.left).unwrap().tx_packets, 10);
    let text = now.to_prometheus(&[("interface", &veth.right)]);
    assert!(
        text.contains("ringtap_interface_rx_packets_total{interface=\"right0\"} 10\n"),
        "{text}"
    );
    let error = interface_counters("not-there").unwrap_err();
    assert!(matches!(error, Error::NoSuchInterface { .. }), "{error}");
}

#[cfg(feature = "pcap")]
#[ringtap_lab::test]
fn drops_of_the_card_and_of_the_socket_are_apart_in_a_file() {
    use ringtap::interface::InterfaceCounters;
    use ringtap::pcap::{CaptureReader, CaptureWriter, InterfaceStatistics};
    use ringtap::stats::CaptureStats;

    let directory = ringtap_lab::Directory::new();
    let path = directory.path().join("drops.pcapng");
    let mut file = CaptureWriter::create(&path).unwrap();
    let mut socket = CaptureStats::default();
    (socket.packets, socket.drops) = (100, 7);
    let mut card = InterfaceCounters::default();
    (card.rx_missed, card.rx_fifo) = (3, 2);
    file.set_statistics(0, InterfaceStatistics::from(socket).with_interface(&card));
    file.finish().unwrap();
    let mut reader = CaptureReader::open(&path).unwrap();
    while reader.next_record().unwrap().is_some() {}
    let read = reader.interfaces()[0].statistics;
    assert_eq!((read.received, read.dropped), (Some(100), Some(5)));
    assert_eq!((read.dropped_by_system, read.accepted), (Some(7), Some(93)));
}
