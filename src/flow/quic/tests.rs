//! Hellos that a client sends in packets of any kind.

use flowscope::{DatagramParser, FlowSide, Timestamp};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{Keys, Suite, Version};

use super::{QuicParser, is_quic};
use crate::flow::aside;
use crate::flow::tls::TlsMessage;

fn number(value: usize) -> [u8; 2] {
    (0x4000 | value as u16).to_be_bytes()
}

fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
    [&[6][..], &number(offset), &number(data.len()), data].concat()
}

/// A hello for a server.
fn hello(name: &str) -> Vec<u8> {
    let name = name.as_bytes();
    let list = [&[0][..], &(name.len() as u16).to_be_bytes(), name].concat();
    let sni = [&(list.len() as u16).to_be_bytes()[..], &list].concat();
    let sni = [&[0, 0][..], &(sni.len() as u16).to_be_bytes(), &sni].concat();
    let body =
        [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &(sni.len() as u16).to_be_bytes(), &sni];
    let body = body.concat();
    [&[1, 0][..], &(body.len() as u16).to_be_bytes(), &body].concat()
}

/// Protects frames as a client does, in a packet with this number.
fn initial(version: u32, id: &[u8], packet_number: u8, frames: &[u8]) -> Vec<u8> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().and_then(|suite| suite.quic_suite());
    let Suite { suite, quic } = suite.unwrap();
    let (of, kind) = match version {
        0x6b33_43cf => (Version::V2, 0x10),
        0xff00_001d => (Version::V1Draft, 0),
        _ => (Version::V1, 0),
    };
    let keys = Keys::initial(of, suite, quic, id, rustls::Side::Client).local;
    let mut payload = frames.to_vec();
    payload.resize(frames.len().max(64), 0);
    let mut header = vec![0xc1 | kind];
    header.extend(version.to_be_bytes());
    header.push(id.len() as u8);
    header.extend(id);
    header.extend([0, 0]);
    header.extend(number(2 + payload.len() + keys.packet.tag_len()));
    let number_at = header.len();
    header.extend([0, packet_number]);
    let tag = keys.packet.encrypt_in_place(packet_number.into(), &header, &mut payload).unwrap();
    let mut packet = [&header[..], &payload, tag.as_ref()].concat();
    let (head, rest) = packet.split_at_mut(number_at);
    let (number, sampled) = rest.split_at_mut(4);
    keys.header.encrypt_in_place(&sampled[..16], &mut head[0], &mut number[..2]).unwrap();
    packet
}

/// Reads datagrams. Returns the names of the hellos, and the reasons of refusals.
fn told(datagrams: &[(FlowSide, Vec<u8>)]) -> (Vec<String>, Vec<String>) {
    let (mut parser, mut out) = (QuicParser::default(), Vec::new());
    aside::listen();
    for (side, datagram) in datagrams {
        parser.parse(datagram, *side, Timestamp::default(), &mut out);
    }
    let mut refused = Vec::new();
    aside::refused(|reason| refused.push(reason.into_owned()));
    let names = out.iter().map(|message| match message {
        TlsMessage::ClientHello(hello) => {
            assert!(hello.is_quic && hello.ja4().starts_with('q'));
            hello.sni().unwrap().to_owned()
        }
        other => panic!("{other:?}"),
    });
    (names.collect(), refused)
}

const ID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];

#[test]
fn a_hello_is_read_in_every_version() {
    for version in [1, 0x6b33_43cf, 0xff00_001d, 0xff00_0022] {
        let packet = initial(version, &ID, 0, &crypto(0, &hello("q.example")));
        assert!(is_quic(&packet));
        let told = told(&[(FlowSide::Initiator, packet)]);
        assert_eq!(told, (vec!["q.example".to_owned()], vec![]), "{version:#x}");
    }
    assert!(!is_quic(&initial(2, &ID, 0, &[])));
    assert!(!is_quic(b"GET / HTTP/1.1"));
}

#[test]
fn a_hello_lies_in_packets_of_any_order_and_number() {
    let hello = hello("a.rather.long.name.example");
    let part = |from: usize, to: usize| crypto(from, &hello[from..to]);
    let len = hello.len();
    let frames = [
        [&[1][..], &part(40, 60), &[0, 0], &part(10, 50)].concat(),
        [&[2, 5, 0, 1, 0, 1, 1][..], &part(60, len)].concat(),
        part(0, 12),
    ];
    let packets: Vec<Vec<u8>> = frames
        .iter()
        .enumerate()
        .map(|(number, frames)| initial(1, &ID, number as u8, frames))
        .collect();
    let expected = (vec!["a.rather.long.name.example".to_owned()], vec![]);
    let client = FlowSide::Initiator;
    let one_by_one: Vec<_> = packets.iter().map(|packet| (client, packet.clone())).collect();
    assert_eq!(told(&one_by_one), expected);
    assert_eq!(told(&[(client, packets.concat())]), expected);
    let answered = [&one_by_one[..2], &[(FlowSide::Responder, packets[0].clone())]].concat();
    assert_eq!(told(&[&answered[..], &one_by_one[2..]].concat()), expected);
}

#[test]
fn a_retry_gives_other_keys() {
    let hello = hello("r.example");
    let first = initial(1, &ID, 0, &crypto(0, &hello[..20]));
    let again = initial(1, &[9; 20], 1, &crypto(0, &hello));
    let told = told(&[(FlowSide::Initiator, first), (FlowSide::Initiator, again)]);
    assert_eq!(told, (vec!["r.example".to_owned()], vec![]));
}

#[test]
fn what_cannot_be_read_is_refused_once() {
    let hello = hello("r.example");
    let mut broken = initial(1, &ID, 0, &crypto(0, &hello));
    *broken.last_mut().unwrap() ^= 1;
    let long = initial(1, &ID, 0, &crypto(16_000, &hello));
    let beyond = [&[6, 0xc0, 0, 0, 0, 0xff, 0, 0, 0][..], &number(3), b"abc"].concat();
    let cases = [
        (broken, "cannot be decrypted"),
        (initial(1, &ID, 0, &beyond), "longer than the limit"),
        (initial(1, &ID, 0, &[0x1c, 0, 0, 0]), "without a hello"),
        (initial(1, &ID, 0, &crypto(0, &[2, 0, 0, 0])), "without a hello"),
        (initial(1, &ID, 0, &crypto(0, &[1, 0, 0, 1, 9])), "not well-formed"),
    ];
    for (packet, reason) in cases {
        let packet = (FlowSide::Initiator, packet);
        let (names, refused) = told(&[packet.clone(), packet]);
        assert!(names.is_empty() && refused.len() == 1, "{reason}: {names:?} {refused:?}");
        assert!(refused[0].contains(reason), "{reason}: {refused:?}");
    }
    let waits = told(&[(FlowSide::Initiator, long.clone())]);
    assert_eq!(waits, (vec![], vec![]));
    let (_, refused) = told(&vec![(FlowSide::Initiator, long); 40]);
    assert_eq!(refused, ["a hello in QUIC that does not become complete"]);
}
