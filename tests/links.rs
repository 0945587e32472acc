//! Interfaces that are no Ethernet: filters mean the same packets there, and capture files say what is in them.

use std::time::Duration;

use ringtap::{
    BpfFilter, BpfInsn, Capture, CaptureBuilder, Error, LinkType, interface_info, interfaces,
};
use ringtap_lab::{Protocol, Traffic, Tun, bootstrap, namespace};

ringtap_lab::test_binary!();

/// An Ethernet header.
const HEADER: usize = 14;

fn ring(interface: &str) -> CaptureBuilder {
    Capture::builder().interface(interface).block_size(1 << 16).block_count(4).block_timeout_ms(5)
}

/// A tun; `None`, said loudly, for those who may make none.
fn tun() -> Option<Tun> {
    match Tun::new() {
        Ok(tun) => Some(tun),
        Err(error) if !bootstrap::was_root() || error.raw_os_error() == Some(libc::ENOENT) => {
            eprintln!("NOT RUN: /dev/net/tun is not for this user, or there is none ({error})");
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

#[test]
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
    assert_eq!(built.link_type(), Some(LinkType::RAW));
    for frame in &frames {
        tun.receive(&frame[HEADER..]);
    }
    let [first, _, third] = frames.map(|frame| frame[HEADER..].to_vec());
    assert_eq!(received(&mut built, 2), [first.clone(), third.clone()]);
    assert_eq!(received(&mut later, 2), [first.clone(), third]);
    assert_eq!(received(&mut cut, 2)[0], first[..20]);
    // Nobody else came in between.
    assert_eq!(built.stats().unwrap().packets, 2);

    // Neither does it accept what such a link cannot have, nor look at a program from elsewhere.
    let error = built.set_filter(&"vlan 5".parse().unwrap()).unwrap_err();
    assert!(matches!(error, Error::Filter(_)), "{error}");
    built.set_filter(&BpfFilter::new([BpfInsn { code: 6, jt: 0, jf: 0, k: 7 }]).unwrap()).unwrap();
    tun.receive(&frames_of(&udp));
    assert_eq!(received(&mut built, 1)[0].len(), 7);
}

fn frames_of(traffic: &Traffic) -> Vec<u8> {
    traffic.frame(9, 0)[HEADER..].to_vec()
}

#[cfg(feature = "pcap")]
#[test]
fn a_capture_file_is_of_the_kind_of_link_that_its_packets_are_of() {
    use ringtap::pcap::{CaptureReader, CaptureWriter, FileInterface};

    let Some(_net) = namespace() else { return };
    let Some(mut tun) = tun() else { return };
    let directory = ringtap_lab::Directory::new();
    let path = directory.path().join("tun.pcapng");
    let mut capture = ring(&tun.name).build().unwrap();
    tun.receive(&frames_of(&Traffic::default()));
    let link = FileInterface::new(capture.link_type().unwrap());
    let mut file = CaptureWriter::builder().interface(link).create(&path).unwrap();
    loop {
        let batch = capture.next_batch_timeout(Duration::from_secs(20)).unwrap().expect("it comes");
        file.write_batch(&batch).unwrap();
        // The kernel's own router solicitations may come before.
        if batch.iter().any(|packet| packet.data() == frames_of(&Traffic::default())) {
            break;
        }
    }
    file.finish().unwrap();
    let mut reader = CaptureReader::open(&path).unwrap();
    let mut is_there = false;
    while let Some(record) = reader.next_record().unwrap() {
        let packet = record.packet();
        is_there |= packet.data() == frames_of(&Traffic::default());
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

#[test]
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
