//! Interfaces that are no Ethernet: filters mean the same packets there, and capture files say what is in them.

use std::time::Duration;

use ringtap::capture::CaptureBuilder;
use ringtap::filter::BpfInsn;
use ringtap::interface::{interface_info, interfaces};
use ringtap::packet::LinkType;
use ringtap::{BpfFilter, Capture, Error, Injector};
use ringtap_lab::{Protocol, Traffic, Tun, bootstrap, namespace, skip_for_ordinary_users};

/// An Ethernet header.
const HEADER: usize = 14;

fn ring(interface: &str) -> CaptureBuilder {
    Capture::builder().interface(interface).block_size(1 << 16).block_count(64).block_timeout_ms(5)
}

/// A tun; `None`, said loudly, for those who may make none.
pub(crate) fn tun() -> Option<Tun> {
    match Tun::new() {
        Ok(tun) => Some(tun),
        Err(error) if !bootstrap::was_root() || error.raw_os_error() == Some(libc::ENOENT) => {
            skip_for_ordinary_users(&format!("no tun: {error}"));
            None
        }
        Err(error) => panic!("a tun: {error}"),
    }
}

/// What comes out of these packets.
fn received(capture: &mut Capture, count: usize) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while packets.len() < count {
        let batch = capture.next_batch_timeout(Duration::from_secs(20)).unwrap();
        packets.extend(batch.expect("they come").iter().map(|packet| packet.data().to_vec()));
    }
    packets
}

#[ringtap_lab::test]
fn filters_mean_the_same_packets_on_a_link_without_a_header() {
    let Some(_net) = namespace() else { return };
    let Some(mut tun) = tun() else { return };
    let udp = Traffic { protocol: Protocol::Udp, ..Traffic::default() };
    let tcp = Traffic { protocol: Protocol::Tcp, ..Traffic::default() };
    let frames = [udp.frame(1, 0), tcp.frame(2, 0), udp.frame(3, 0)];
    let filter: BpfFilter = "udp".parse().unwrap();
    assert_eq!(interface_info(&tun.name).unwrap().link_type, Some(LinkType::RAW));

    let mut built = ring(&tun.name).filter(filter.clone()).build().unwrap();
    let mut cut = ring(&tun.name).filter(filter.clone()).snap_len(20).build().unwrap();
    let mut later = ring(&tun.name).filter("tcp".parse().unwrap()).build().unwrap();
    later.set_filter(&filter).unwrap();
    assert_eq!(built.link_type(), LinkType::RAW);
    for frame in &frames {
        tun.receive(&frame[HEADER..]);
    }
    let [first, _, third] = frames.map(|frame| frame[HEADER..].to_vec());
    let batch = built.next_batch_timeout(Duration::from_secs(20)).unwrap().expect("it comes");
    let packet = batch.iter().next().unwrap();
    assert_eq!(packet.data(), first);
    // Offline, the accepted packet matches the same filter, and does not match a contrary one.
    assert!(packet.matches(&filter));
    assert!(!packet.matches(&BpfFilter::parse("tcp").unwrap()));
    let mut packets: Vec<_> = batch.iter().map(|packet| packet.data().to_vec()).collect();
    drop(batch);
    if packets.len() < 2 {
        packets.extend(received(&mut built, 1)); // the block's time was up in between
    }
    assert_eq!(packets, [first.clone(), third.clone()]);
    assert_eq!(received(&mut later, 2), [first.clone(), third]);
    assert_eq!(received(&mut cut, 2)[0], first[..20]);
    // Nobody else came in between.
    assert_eq!(built.stats().unwrap().packets, 2);

    // Neither does it accept what such a link cannot have, nor look at a program from elsewhere.
    let error = built.set_filter(&"vlan 5".parse().unwrap()).unwrap_err();
    assert!(matches!(error, Error::Filter(_)), "{error}");
    built.set_filter(&BpfFilter::new([BpfInsn { code: 6, jt: 0, jf: 0, k: 7 }]).unwrap()).unwrap();
    tun.receive(&udp.frame(9, 0)[HEADER..]);
    assert_eq!(received(&mut built, 1)[0].len(), 7);
}

#[cfg(feature = "af-xdp")]
#[ringtap_lab::test]
fn before_the_stack_a_filter_means_the_same_packets_too() {
    use ringtap::XdpSocket;
    use ringtap::xdp::{Attach, XdpProgram};

    if !bootstrap::was_root() {
        return skip_for_ordinary_users("receiving through AF_XDP takes root");
    }
    let Some(_net) = namespace() else { return };
    let Some(mut tun) = tun() else { return };
    let [udp, tcp] = [Protocol::Udp, Protocol::Tcp]
        .map(|protocol| Traffic { protocol, ..Traffic::default() }.frame(1, 0)[HEADER..].to_vec());
    let program =
        XdpProgram::filtered(&tun.name, Attach::Generic, &"udp".parse().unwrap()).unwrap();
    let options = XdpSocket::builder().interface(&tun.name).frame_count(128);
    let mut socket = options.program(program).build().unwrap();
    tun.receive(&tcp);
    tun.receive(&udp);
    let batch = socket.next_batch_timeout(Duration::from_secs(20)).unwrap().expect("it comes");
    let packets: Vec<_> = batch.iter().map(|packet| packet.data().to_vec()).collect();
    assert_eq!(packets, [udp]);
}

#[cfg(feature = "pcap")]
#[ringtap_lab::test]
fn a_capture_file_is_of_the_kind_of_link_that_its_packets_are_of() {
    use ringtap::pcap::{CaptureReader, CaptureWriter, FileInterface};

    let Some(_net) = namespace() else { return };
    let Some(mut tun) = tun() else { return };
    let directory = ringtap_lab::Directory::new();
    let path = directory.path().join("tun.pcapng");
    let mut capture = ring(&tun.name).build().unwrap();
    let bytes = Traffic::default().frame(9, 0)[HEADER..].to_vec();
    tun.receive(&bytes);
    let link = FileInterface::new(capture.link_type());
    let mut file = CaptureWriter::builder().interface(link).create(&path).unwrap();
    loop {
        let batch = capture.next_batch_timeout(Duration::from_secs(20)).unwrap().expect("it comes");
        file.write_batch(&batch).unwrap();
        // The kernel's own router solicitations may come before.
        if batch.iter().any(|packet| packet.data() == bytes) {
            break;
        }
    }
    file.finish().unwrap();
    let mut reader = CaptureReader::open(&path).unwrap();
    let mut is_there = false;
    while let Some(record) = reader.next_record().unwrap() {
        let packet = record.packet();
        is_there |= packet.data() == bytes;
        assert!(
            BpfFilter::parse("ip or ip6")
                .unwrap()
                .for_link(LinkType::RAW)
                .unwrap()
                .matches(packet.data())
        );
    }
    assert!(is_there);
    assert_eq!(reader.interfaces()[0].link_type, LinkType::RAW);
}

#[ringtap_lab::test]
fn all_interfaces_are_listed_and_nothing_else() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let all = interfaces().unwrap();
    let mut names: Vec<&str> = all.iter().map(|info| info.name.as_str()).collect();
    names.sort_unstable();
    // Those of namespaces that were made by this kernel's modules come with each (`ifb0`, `tunl0`, `sit0`).
    for expected in ["lo", &veth.left, &veth.right] {
        assert!(names.contains(&expected), "{names:?}");
    }
    let left = all.iter().find(|info| info.name == veth.left).unwrap();
    assert_eq!(*left, interface_info(&veth.left).unwrap());
    assert_eq!(left.link_type, Some(LinkType::ETHERNET));
}

#[ringtap_lab::test]
fn a_link_without_a_header_sends_packets_of_its_mtu_and_no_longer() {
    let Some(_net) = namespace() else { return };
    let Some(tun) = tun() else { return };
    let mut injector = Injector::open(&tun.name).unwrap();
    assert_eq!(injector.max_frame_len(), 1500);
    let mut capture = ring(&tun.name).build().unwrap();
    let mut packet = vec![0; 1500];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&1500_u16.to_be_bytes());
    injector.send(&packet).unwrap();
    packet.push(0);
    let error = injector.send(&packet).unwrap_err();
    assert!(matches!(error, Error::FrameLength { len: 1501, least: 1, most: 1500 }), "{error}");
    assert!(injector.drain(Duration::from_secs(20)).unwrap());
    assert_eq!((injector.stats().committed, injector.rejected()), (1, 0));
    assert_eq!(received(&mut capture, 1), [packet[..1500].to_vec()]);
}
