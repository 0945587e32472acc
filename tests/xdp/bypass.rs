//! Flows that never reach a socket.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ringtap::error::Step;
use ringtap::xdp::{Attach, Bypass, BypassCounts, BypassKey, BypassVerdict, XdpProgram};
use ringtap::{Capture, Error, XdpSocket};
use ringtap_lab::{Generator, Protocol, Traffic, Veth};

use crate::setup::{privileged, socket};

const FLOWS: u64 = 4;
const FRAMES: u64 = 400;
const PATIENCE: Duration = Duration::from_secs(60);

/// The flow of a frame of the lab's, of either version of IP, with a tag or without.
fn key_of(frame: &[u8]) -> BypassKey {
    let type_at = if frame[12..14] == [0x81, 0] { 16 } else { 12 };
    let ip = &frame[type_at + 2..];
    let (addresses, protocol, ports): ([IpAddr; 2], _, _) = match frame[type_at..type_at + 2] {
        [0x08, 0x00] => {
            let at = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap());
            ([at(12), at(16)], ip[9], &ip[20..])
        }
        _ => {
            let at = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
            ([at(8), at(24)], ip[6], &ip[40..])
        }
    };
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    let [source, destination] = addresses;
    let source = SocketAddr::new(source, port(0));
    BypassKey::new(source, SocketAddr::new(destination, port(2)), protocol)
}

/// Takes what comes to the socket until nothing more does. Returns the flows of the frames.
fn received(socket: &mut XdpSocket) -> Vec<BypassKey> {
    let mut flows = Vec::new();
    while let Some(batch) = socket.next_batch_timeout(Duration::from_millis(200)).unwrap() {
        flows.extend(batch.iter().map(|packet| key_of(packet.data())));
    }
    flows
}

fn opened(veth: &Veth, attach: Attach, flows: u32) -> (XdpSocket, Bypass) {
    let program = XdpProgram::redirect_with_bypass(&veth.right, attach, flows).unwrap();
    let bypass = program.bypass().unwrap();
    (socket(&veth.right).program(program).build().unwrap(), bypass)
}

#[ringtap_lab::test]
fn flows_are_dropped_or_passed_and_counted_and_others_arrive() {
    let Some(net) = privileged() else { return };
    let kinds = [
        (Protocol::Udp, None, Attach::Auto),
        (Protocol::Tcp, Some(5), Attach::Auto),
        (Protocol::Udp6, None, Attach::Auto),
        (Protocol::Udp, None, Attach::Generic),
    ];
    for (protocol, vlan, attach) in kinds {
        let veth = net.veth();
        let traffic = Traffic { flows: FLOWS as u32, protocol, vlan, ..Traffic::default() };
        let (mut socket, bypass) = opened(&veth, attach, 64);
        // What the stack gets.
        let mut stack =
            Capture::builder().interface(&veth.right).ignore_outgoing(true).build().unwrap();
        let mut generator = Generator::new(&veth.left, &traffic);
        generator.flood(FRAMES);
        assert_eq!(received(&mut socket).len() as u64, FRAMES, "{protocol:?}");

        let [dropped, passed, ..] = [0, 1, 2].map(|flow| key_of(&traffic.frame(flow, 0)));
        bypass.insert(dropped, BypassVerdict::Drop).unwrap();
        bypass.insert(passed, BypassVerdict::Pass).unwrap();
        bypass.insert(dropped.reversed(), BypassVerdict::Drop).unwrap();
        generator.flood(FRAMES);
        let flows = received(&mut socket);
        assert_eq!(flows.len() as u64, FRAMES / 2, "{protocol:?} {vlan:?} {attach:?}");
        assert!(!flows.contains(&dropped) && !flows.contains(&passed));
        let len = traffic.frame(0, 0).len() as u64;
        let counts = |flow| {
            bypass.counts(flow).unwrap().map(|BypassCounts { packets, bytes, .. }| (packets, bytes))
        };
        let quarter = FRAMES / 4;
        assert_eq!(counts(dropped), Some((quarter, quarter * len)));
        assert_eq!(counts(passed), Some((quarter, quarter * len)));
        assert_eq!(counts(dropped.reversed()), Some((0, 0)));
        assert_eq!(counts(passed.reversed()), None);

        let (mut seen, start) = (0, Instant::now());
        while seen < quarter {
            assert!(start.elapsed() < PATIENCE, "{seen} of {quarter} were passed to the stack");
            if let Some(batch) = stack.next_batch_timeout(Duration::from_millis(100)).unwrap() {
                // A tag is beside the bytes here, and may be part of the key's place: compare what is behind it.
                seen +=
                    batch.iter().filter(|packet| key_of(packet.data()) == passed).count() as u64;
            }
        }
        assert_eq!(seen, quarter);

        let mut all = bypass.flows().unwrap();
        all.sort_by_key(|(flow, ..)| flow.source);
        let mut expected = vec![dropped, passed, dropped.reversed()];
        expected.sort_by_key(|flow| flow.source);
        assert_eq!(all.iter().map(|(flow, ..)| *flow).collect::<Vec<_>>(), expected);
        assert!(bypass.remove(dropped).unwrap());
        assert!(!bypass.remove(dropped).unwrap());
        generator.flood(FLOWS);
        assert_eq!(received(&mut socket).len(), 3);
    }
}

#[ringtap_lab::test]
fn what_has_no_key_reaches_the_socket() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let (mut socket, bypass) = opened(&veth, Attach::Auto, 64);
    let traffic = Traffic::default();
    let frame = traffic.frame(0, 0);
    bypass.insert(key_of(&frame), BypassVerdict::Drop).unwrap();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = frame.clone();
        change(&mut frame);
        frame
    };
    let frames = [
        changed(&|frame| frame[20] = 0x20), // the first of several fragments
        changed(&|frame| frame[21] = 1),    // a later one
        changed(&|frame| frame[23] = 1),    // ICMP
        changed(&|frame| frame[14] = 0x44), // a header that is too short
        changed(&|frame| frame[14] = 0x65),
        changed(&|frame| frame[13] = 6), // ARP
        changed(&|frame| frame.truncate(30)),
        changed(&|frame| frame.truncate(36)), // half of the ports
        changed(&|frame| {
            frame.splice(12..12, [0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3]);
        }),
        frame.clone(), // this one is bypassed
        changed(&|frame| {
            frame.splice(12..12, [0x88, 0xa8, 0, 1, 0x81, 0, 0, 2]);
        }), // and this one
        changed(&|frame| {
            // Options, which move the ports.
            frame[14] = 0x46;
            frame.splice(34..34, [1, 1, 1, 1]);
        }), // and this one
    ];
    let sender = ringtap_lab::generator::Sender::open(&veth.left).unwrap();
    sender.send_all(&frames).unwrap();
    let mut arrived = 0;
    while let Some(batch) = socket.next_batch_timeout(Duration::from_millis(200)).unwrap() {
        arrived += batch.len();
    }
    assert_eq!(arrived, frames.len() - 3);
    assert_eq!(bypass.counts(key_of(&frame)).unwrap().unwrap().packets, 3);
}

#[ringtap_lab::test]
fn the_least_recently_used_make_room_and_mistakes_are_told() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let (_socket, bypass) = opened(&veth, Attach::Auto, 100);
    let flow =
        |number: u16| BypassKey::new(([10, 0, 0, 1], number).into(), ([10, 0, 0, 2], 80).into(), 6);
    for number in 0..5000 {
        bypass.insert(flow(number), BypassVerdict::Drop).unwrap();
    }
    let held = bypass.flows().unwrap().len();
    assert!((1..=200).contains(&held), "{held}");
    assert!(bypass.counts(flow(4999)).unwrap().is_some(), "the newest is there");

    let mixed = BypassKey::new(([10, 0, 0, 1], 1).into(), "[::1]:80".parse().unwrap(), 6);
    let refused = bypass.insert(mixed, BypassVerdict::Drop).unwrap_err();
    assert!(matches!(&refused, Error::Os { step: Step::BypassFlow, .. }), "{refused:?}");
    assert!(refused.to_string().contains("one version of IP"), "{refused}");
    let plain = net.veth();
    let program = XdpProgram::redirect_all(&plain.right, Attach::Auto).unwrap();
    assert!(program.bypass().is_none());
}
