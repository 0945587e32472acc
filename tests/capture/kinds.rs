//! Interfaces of every kind, beside tcpdump on the same packets: the same ones are captured, filtered, and written.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ringtap::flow::extract::FiveTuple;
use ringtap::flow::{FlowEvent, FlowExt};
use ringtap::packet::LinkType;
use ringtap::pcap::{
    CaptureReader, CaptureWriter, FileFormat, FileInterface, PacketSink, PcapSource, RotatingWriter,
};
use ringtap::{Bridge, Capture, Error, executor};
use ringtap_lab::generator::Sender;
use ringtap_lab::{
    Directory, Protocol, Traffic, bootstrap, link, namespace, pcap, skip, skip_for_ordinary_users,
    tool,
};

use crate::link_types::tun;

/// Kinds of interfaces (`ARPHRD_*`), and the link types of their packets.
const KINDS: [(u16, LinkType); 12] = [
    (libc::ARPHRD_NONE, LinkType::RAW),
    (519, LinkType::RAW), // ARPHRD_RAWIP
    (libc::ARPHRD_TUNNEL, LinkType::RAW),
    (libc::ARPHRD_TUNNEL6, LinkType::RAW),
    (libc::ARPHRD_SIT, LinkType::RAW),
    (libc::ARPHRD_PPP, LinkType::LINUX_SLL2),
    (libc::ARPHRD_IPGRE, LinkType::LINUX_SLL2),
    (823, LinkType::LINUX_SLL2), // ARPHRD_IP6GRE
    (280, LinkType::LINUX_SLL2), // ARPHRD_CAN
    (804, LinkType::LINUX_SLL2), // ARPHRD_IEEE802154
    (libc::ARPHRD_INFINIBAND, LinkType::LINUX_SLL2),
    (4242, LinkType::LINUX_SLL2), // nobody's
];

/// tcpdump, once it listens; `None`, said loudly, where there is none.
fn tcpdump(interface: &str, filter: &str, count: usize, path: &Path) -> Option<Child> {
    let child = Command::new("tcpdump")
        .args(["-Z", "root", "-n", "-U", "-i", interface, "-c"])
        .args([&count.to_string(), "-w", path.to_str().unwrap(), filter])
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        skip("no tcpdump here");
        return None;
    };
    let stderr = child.stderr.take().unwrap();
    let mut lines = BufReader::new(stderr).lines();
    let mut said = Vec::new();
    for line in lines.by_ref().map(Result::unwrap) {
        said.push(line);
        if said.last().is_some_and(|line| line.contains("listening on")) {
            std::thread::spawn(move || lines.for_each(drop));
            return Some(child);
        }
    }
    panic!("tcpdump on {interface}: {said:?}");
}

/// Packets from their network layer on, whatever header they have before it.
fn network_layers(path: &Path) -> Vec<Vec<u8>> {
    let (link, packets) = pcap::packets(path).unwrap();
    let header = match LinkType(link) {
        LinkType::RAW | LinkType::IPV4 => 0,
        LinkType::LINUX_SLL => 16,
        LinkType::LINUX_SLL2 => 20,
        other => panic!("{other:?}"),
    };
    packets.into_iter().map(|(data, _)| data[header..].to_vec()).collect()
}

/// Keys and packets of all flows in a file, as text.
fn flows(path: &Path) -> Vec<String> {
    let flows = PcapSource::open(path).unwrap().flow_stream(FiveTuple::bidirectional());
    let ended = flows.filter_map(async |event| match event.unwrap() {
        FlowEvent::Ended { key, stats, .. } => Some(format!(
            "{key} {} {}",
            stats.packets_initiator + stats.packets_responder,
            stats.octets_initiator + stats.octets_responder
        )),
        _ => None,
    });
    let mut all: Vec<_> = executor::block_on(ended.collect());
    all.sort();
    all
}

#[ringtap_lab::test]
fn every_kind_of_interface_gives_the_packets_that_tcpdump_has() {
    let Some(_net) = namespace() else { return };
    let Some(mut tun) = tun() else { return };
    let may_compare = bootstrap::was_root();
    if !may_compare {
        skip_for_ordinary_users("tcpdump changes its groups, which ordinary users may not");
    }
    let directory = Directory::new();
    let traffic = [Protocol::Udp, Protocol::Tcp].map(|protocol| Traffic {
        protocol,
        flows: 5,
        len: 300,
        varied: true,
        ..Traffic::default()
    });
    let packets: Vec<_> = (0..40)
        .map(|number| traffic[number as usize % 2].frame(number, 0)[14..].to_vec())
        .collect();
    for (kind, link_type) in KINDS {
        tun.set_kind(kind);
        let [ours, theirs] = ["ours.pcap", "theirs.pcap"].map(|name| directory.path().join(name));
        // libpcap compiles no filter for these.
        let is_known_there = ![280, 804].contains(&kind);
        let mut child = None;
        if is_known_there && may_compare {
            let Some(listening) = tcpdump(&tun.name, "udp", 20, &theirs) else { return };
            child = Some(listening);
        }
        let options = Capture::builder().interface(&tun.name).filter("udp".parse().unwrap());
        let mut capture = options.block_size(1 << 16).block_timeout_ms(5).build().unwrap();
        assert_eq!(capture.link_type(), link_type, "{kind}");
        let interface = FileInterface::new(capture.link_type());
        let file = CaptureWriter::builder().format(FileFormat::PcapMicros).interface(interface);
        let mut file = file.create(&ours).unwrap();
        packets.iter().for_each(|packet| tun.receive(packet));
        while file.stats().packets < 20 {
            let batch = capture.next_batch_timeout(Duration::from_secs(20)).unwrap();
            let batch = batch.expect("they come");
            for packet in &batch {
                assert_eq!(packet.hardware_type(), Some(kind));
                assert_eq!(packet.link_type(), Some(link_type));
            }
            file.write_batch(&batch).unwrap();
        }
        file.finish().unwrap();
        let found = network_layers(&ours);
        let sent: Vec<_> = packets.iter().step_by(2).cloned().collect();
        assert_eq!(found, sent, "{kind}");
        let of_ours = flows(&ours);
        assert_eq!(of_ours.len(), 5, "{kind}");
        let Some(mut child) = child else { continue };
        let began = Instant::now();
        while network_layers(&theirs).len() < 20 {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{kind}: tcpdump has seen {}",
                network_layers(&theirs).len()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, network_layers(&theirs), "{kind}");
        assert_eq!(of_ours, flows(&theirs), "{kind}");
    }
}

#[ringtap_lab::test]
fn frames_without_a_known_header_are_not_bridged() {
    let Some(net) = namespace() else { return };
    let Some(tun) = tun() else { return };
    let veth = net.veth();
    tun.set_kind(libc::ARPHRD_IPGRE);
    let error = Bridge::open_pair(&tun.name, &veth.left).unwrap_err();
    assert!(matches!(&error, Error::Unusable { option: "bridge", .. }), "{error}");
    let error = Bridge::open_pair("any", &veth.left).unwrap_err();
    assert!(error.to_string().contains("any"), "{error}");
}

#[ringtap_lab::test]
fn a_classic_file_of_all_interfaces_must_be_told_its_link_type() {
    let options = CaptureWriter::builder().each_interface().format(FileFormat::PcapNanos);
    let error = options.clone().to(Vec::new()).unwrap_err();
    assert!(matches!(&error, Error::File(_)), "{error}");
    options.interface(FileInterface::new(LinkType::LINUX_SLL2)).to(Vec::new()).unwrap();
}

#[ringtap_lab::test]
fn a_file_of_all_interfaces_describes_each_as_it_appears() {
    let Some(net) = namespace() else { return };
    let pairs = [net.veth(), net.veth()];
    let directory = Directory::new();
    let path = directory.path().join("any.pcapng");
    let mut capture = Capture::builder().interface("any").block_timeout_ms(5).build().unwrap();
    let options = CaptureWriter::builder().each_interface();
    let series = directory.path().join("series");
    std::fs::create_dir(&series).unwrap();
    let mut rotating = RotatingWriter::builder(&series, "any")
        .file(options.clone())
        .max_packets(5)
        .build()
        .unwrap();
    let mut file = options.create(&path).unwrap();
    for (number, veth) in pairs.iter().chain([&net.veth()]).enumerate() {
        let frame = Traffic::default().frame(number as u64, 0);
        Sender::open(&veth.left).unwrap().send_all(&[frame.clone(), frame]).unwrap();
        while file.stats().packets < 4 * (number as u64 + 1) {
            let batch = capture.next_batch_timeout(Duration::from_secs(20)).unwrap();
            let batch = batch.expect("they come");
            file.write_batch(&batch).unwrap();
            batch.iter().for_each(|packet| rotating.write_packet(&packet).unwrap());
        }
    }
    file.finish().unwrap();
    rotating.set_statistics(capture.stats().unwrap().into());
    let stats = rotating.finish().unwrap();
    assert_eq!((stats.packets, stats.lost, stats.files, stats.errors), (12, 0, 3, 0));
    let written = |path: &Path| {
        let mut reader = CaptureReader::open(path).unwrap();
        let mut written = Vec::new();
        while let Some(record) = reader.next_record().unwrap() {
            written.push((record.interface(), record.packet().data().to_vec()));
        }
        let name = |number: usize| reader.interfaces()[number].name.clone().unwrap();
        written.into_iter().map(|(number, data)| (name(number), data)).collect::<Vec<_>>()
    };
    let mut parts: Vec<_> =
        std::fs::read_dir(&series).unwrap().map(|entry| entry.unwrap().path()).collect();
    parts.sort();
    assert_eq!(parts.iter().flat_map(|path| written(path)).collect::<Vec<_>>(), written(&path));
    let fields =
        ["-T", "fields", "-e", "frame.interface_name", "-e", "sll.ifindex", "-e", "udp.port"];
    let arguments = [&["-r", path.to_str().unwrap()][..], &fields].concat();
    let Some(text) = tool::run("tshark", &arguments, &[]) else { return };
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines.len(), 12);
    for (number, line) in lines.iter().enumerate() {
        let veth = number / 4;
        let name = [format!("left{veth}"), format!("right{veth}")]
            .into_iter()
            .find(|name| name == line[0]);
        let name = name.unwrap_or_else(|| panic!("{number}: {line:?}"));
        assert_eq!(line[1], link::index(&name).unwrap().to_string());
        assert!(line[2].contains(','), "it is UDP: {line:?}");
    }
}
