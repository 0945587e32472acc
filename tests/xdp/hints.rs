//! Times, hashes and VLAN tags of packets that AF_XDP received.

use std::time::Duration;

use ringtap::packet::{Clock, OwnedPacket, Timestamp, VlanTag};
use ringtap::xdp::{Attach, XdpHints, XdpProgram};
use ringtap::{Capture, Error, XdpSocket};
use ringtap_lab::generator::Sender;
use ringtap_lab::{Protocol, Traffic, link, skip};

use crate::setup::{privileged, socket};

fn received(socket: &mut XdpSocket, count: usize) -> Vec<OwnedPacket> {
    let mut packets = Vec::new();
    while packets.len() < count {
        let batch = socket.next_batch_timeout(Duration::from_secs(20)).unwrap();
        let batch = batch.expect("they come");
        packets.extend(batch.iter().map(|packet| packet.to_owned()));
        // Detached, a packet has the same.
        let detached = batch.to_detached();
        for (packet, copy) in batch.iter().zip(&detached) {
            let of = |packet: &ringtap::Packet<'_>| {
                (packet.timestamp(), packet.clock(), packet.rxhash(), packet.vlan())
            };
            assert_eq!(of(&packet), of(&copy));
        }
    }
    packets
}

/// Frames of eight flows.
fn frames() -> Vec<Vec<u8>> {
    let traffic = Traffic { protocol: Protocol::Tcp, flows: 8, ..Traffic::default() };
    (0..16).map(|number| traffic.frame(number, 0)).collect()
}

/// What AF_PACKET knows of these frames: their hashes.
fn hashes(interface: &str, sender: &Sender) -> Vec<Option<u32>> {
    let mut capture = Capture::builder()
        .interface(interface)
        .block_timeout_ms(5)
        .ignore_outgoing(true)
        .build()
        .unwrap();
    sender.send_all(&frames()).unwrap();
    let mut hashes = Vec::new();
    while hashes.len() < frames().len() {
        let batch = capture.next_batch_timeout(Duration::from_secs(20)).unwrap();
        hashes.extend(batch.expect("they come").iter().map(|packet| packet.rxhash()));
    }
    hashes
}

#[ringtap_lab::test]
fn each_packet_has_the_time_of_its_arrival_and_the_hash_that_packet_sockets_are_told() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let sender = Sender::open(&veth.left).unwrap();
    let expected = hashes(&veth.right, &sender);
    assert!(expected.iter().all(|hash| hash.is_some_and(|hash| hash != 0)));
    let program = XdpProgram::redirect_all(&veth.right, Attach::Auto).unwrap();
    let hints = match program.hints() {
        Ok(hints) => hints,
        Err(error) => return skip(&error.to_string()),
    };
    assert!(hints.contains(XdpHints::KERNEL_TIMESTAMP | XdpHints::HASH), "{hints:?}");
    let mut socket = socket(&veth.right).program(program).build().unwrap();
    let mut sent = Vec::new();
    for frame in frames() {
        let before = Timestamp::now();
        sender.send_all(&[frame]).unwrap();
        sent.push((before, Timestamp::now()));
        std::thread::sleep(Duration::from_millis(2));
    }
    let packets = received(&mut socket, sent.len());
    for ((packet, (before, after)), hash) in packets.iter().zip(&sent).zip(&expected) {
        let packet = packet.as_packet();
        assert_eq!(packet.clock(), Clock::Software);
        let time = packet.timestamp();
        assert!(*before <= time && time <= *after, "{before} {time} {after}");
        assert_eq!(packet.rxhash(), *hash);
        assert_eq!(packet.vlan(), None);
    }
}

#[ringtap_lab::test]
fn tags_that_are_not_in_the_bytes_are_told() {
    let Some(net) = privileged() else { return };
    let (from, veth) = (net.veth(), net.veth());
    // The kernel's bridge moves the tag out of the bytes.
    if let Err(error) = link::add_bridge("bridge0", &[&from.right, &veth.left]) {
        return skip(&format!("this kernel has no bridge: {error}"));
    }
    let filter = "udp or tcp".parse().unwrap();
    let program = XdpProgram::filtered(&veth.right, Attach::Native, &filter).unwrap();
    match program.hints() {
        Ok(hints) if hints.contains(XdpHints::VLAN) => {}
        Ok(hints) => return skip(&format!("Linux 6.8 tells of tags: {hints:?}")),
        Err(error) => return skip(&error.to_string()),
    }
    let mut socket = socket(&veth.right).program(program).build().unwrap();
    let frame = frames().remove(0);
    let tag = VlanTag { tpid: 0x8100, tci: 0x2005 };
    let mut with_tag = frame.clone();
    with_tag.splice(12..12, tag.to_bytes());
    Sender::open(&from.left).unwrap().send_all(&[&with_tag, &frame]).unwrap();
    let [tagged, plain] = &received(&mut socket, 2)[..] else { panic!("two") };
    assert_eq!((tagged.as_packet().stripped_vlan(), plain.as_packet().vlan()), (Some(tag), None));
    assert_eq!((tagged.data(), plain.data()), (&frame[..], &frame[..]), "the bytes have none");
    assert!(tagged.as_packet().matches(&"vlan 5 and tcp".parse().unwrap()));
}

#[ringtap_lab::test]
fn without_hints_packets_have_the_time_of_their_batch_and_it_is_said_why() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let program = XdpProgram::redirect_all(&veth.right, Attach::Generic).unwrap();
    let error = program.hints().unwrap_err();
    assert!(matches!(error, Error::Os { .. }) && error.to_string().contains("Generic"), "{error}");
    let mut socket = socket(&veth.right).program(program).build().unwrap();
    Sender::open(&veth.left).unwrap().send_all(&frames()).unwrap();
    for packet in received(&mut socket, frames().len()) {
        let packet = packet.as_packet();
        assert_eq!((packet.clock(), packet.rxhash()), (Clock::Read, None));
    }
}

#[ringtap_lab::test]
fn a_program_that_follows_another_at_once_has_hints_too_and_asks_for_what_is_wanted() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    if let Err(error) = XdpProgram::redirect_all(&veth.right, Attach::Native).unwrap().hints() {
        return skip(&error.to_string());
    }
    let sender = Sender::open(&veth.left).unwrap();
    for wanted in [XdpHints::KERNEL_TIMESTAMP, XdpHints::HASH, XdpHints::empty(), XdpHints::VLAN] {
        let program = XdpProgram::redirect_with_hints(&veth.right, Attach::Native, wanted).unwrap();
        assert_eq!(program.hints().unwrap(), wanted);
        let mut socket = socket(&veth.right).program(program).build().unwrap();
        sender.send_all(&frames()).unwrap();
        for packet in received(&mut socket, frames().len()) {
            let packet = packet.as_packet();
            let has_time = wanted.contains(XdpHints::KERNEL_TIMESTAMP);
            assert_eq!(packet.clock() == Clock::Software, has_time, "{wanted:?}");
            assert_eq!(packet.rxhash().is_some(), wanted.contains(XdpHints::HASH), "{wanted:?}");
        }
        drop(socket); // and its program with it, after a moment
    }
    let taken = XdpProgram::redirect_all(&veth.right, Attach::Native).unwrap();
    let error = XdpProgram::redirect_all(&veth.right, Attach::Native).unwrap_err();
    assert!(matches!(error, Error::ProgramAttached { .. }), "{error}");
    assert!(!taken.hints().unwrap().contains(XdpHints::TIMESTAMP), "another clock's");
}
