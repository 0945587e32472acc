//! Handshakes in every cut, and the fingerprints of known hellos.

use flowscope::{SessionParser, Timestamp};
use proptest::prelude::*;

use super::{TlsConfig, TlsMessage, TlsParser, TlsVersion};
use crate::flow::aside;

fn vector(len_bytes: usize, content: &[u8]) -> Vec<u8> {
    [&content.len().to_be_bytes()[8 - len_bytes..], content].concat()
}

fn numbers(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

fn extension(of: u16, content: &[u8]) -> Vec<u8> {
    [of.to_be_bytes().to_vec(), vector(2, content)].concat()
}

fn handshake(of: u8, content: &[u8]) -> Vec<u8> {
    [vec![of], vector(3, content)].concat()
}

fn record(of: u8, content: &[u8]) -> Vec<u8> {
    [vec![of, 3, 1], vector(2, content)].concat()
}

/// A handshake message in records of at most `most` bytes.
fn records(message: &[u8], most: usize) -> Vec<u8> {
    message.chunks(most).flat_map(|part| record(22, part)).collect()
}

fn client_hello(version: u16, ciphers: &[u16], extensions: &[Vec<u8>]) -> Vec<u8> {
    let content = [
        numbers(&[version]),
        vec![7; 32],
        vector(1, b"session"),
        vector(2, &numbers(ciphers)),
        vector(1, &[0]),
        vector(2, &extensions.concat()),
    ];
    handshake(1, &content.concat())
}

fn server_hello(version: u16, random: [u8; 32], extensions: &[Vec<u8>]) -> Vec<u8> {
    let content = [
        numbers(&[version]),
        random.to_vec(),
        vector(1, b""),
        numbers(&[0x1301]),
        vec![0],
        vector(2, &extensions.concat()),
    ];
    handshake(2, &content.concat())
}

fn sni(name: &str) -> Vec<u8> {
    extension(0, &vector(2, &[vec![0], vector(2, name.as_bytes())].concat()))
}

fn alpn(names: &[&str]) -> Vec<u8> {
    let names: Vec<u8> = names.iter().flat_map(|name| vector(1, name.as_bytes())).collect();
    extension(16, &vector(2, &names))
}

/// What a browser says, with values that are reserved.
fn browser() -> Vec<u8> {
    let ciphers = [
        0x0a0a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013,
        0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
    ];
    let algorithms = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601];
    let extensions = [
        extension(0x1a1a, b""),
        sni("www.example"),
        extension(0x17, b""),
        extension(0xff01, &[0]),
        extension(0x0a, &vector(2, &numbers(&[0x2a2a, 29, 23, 24]))),
        extension(0x0b, &[1, 0]),
        extension(0x23, b""),
        alpn(&["h2", "http/1.1"]),
        extension(0x05, &[1, 0, 0, 0, 0]),
        extension(0x0d, &vector(2, &numbers(&algorithms))),
        extension(0x12, b""),
        extension(0x33, &vector(2, b"")),
        extension(0x2d, &[1, 1]),
        extension(0x2b, &vector(1, &numbers(&[0x3a3a, 0x0304, 0x0303]))),
        extension(0x1b, &[2, 0, 2]),
        extension(0x4469, b""),
        extension(0x15, &[0; 9]),
        extension(0x4a4a, &[0]),
    ];
    client_hello(0x0303, &ciphers, &extensions)
}

type Heard = (Vec<TlsMessage>, Vec<String>, Option<String>);

/// Reads what both sides say in turn, in segments of each size, which all give the same.
fn heard(talk: &[(bool, Vec<u8>)]) -> Heard {
    let mut first: Option<Heard> = None;
    for most in [usize::MAX, 1, 2, 5, 100] {
        let (mut parser, mut out, ts) = (TlsParser::default(), Vec::new(), Timestamp::default());
        aside::listen();
        for (side, bytes) in talk {
            for part in bytes.chunks(most) {
                match side {
                    false => parser.feed_initiator(part, ts, &mut out),
                    true => parser.feed_responder(part, ts, &mut out),
                }
            }
        }
        parser.fin_initiator(&mut out);
        parser.fin_responder(&mut out);
        let mut refused = Vec::new();
        aside::refused(|reason| refused.push(reason.into_owned()));
        let heard = (out, refused, parser.poison_reason().map(str::to_owned));
        match &first {
            None => first = Some(heard),
            Some(first) => assert_eq!(*first, heard, "segments of {most}"),
        }
    }
    first.unwrap()
}

#[test]
fn a_hello_lies_in_any_number_of_records() {
    let hello = browser();
    for most in [1, 3, 4, 5, 100, hello.len()] {
        let (messages, refused, fault) = heard(&[(false, records(&hello, most))]);
        assert_eq!((refused, fault), (vec![], None), "records of {most}");
        let [TlsMessage::ClientHello(hello)] = &messages[..] else { panic!("{messages:?}") };
        assert_eq!((hello.sni(), hello.version()), (Some("www.example"), TlsVersion::TLS_1_3));
        assert_eq!(hello.alpn, ["h2", "http/1.1"]);
        assert_eq!((hello.session_id.as_slice(), hello.random), (&b"session"[..], [7; 32]));
        assert_eq!(hello.ja4(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    }
}

#[test]
fn ja3_is_that_of_its_authors() {
    let ciphers = [47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4];
    let extensions = [
        sni("a.example"),
        extension(10, &vector(2, &numbers(&[23, 24, 25]))),
        extension(11, &[1, 0]),
    ];
    let hello = client_hello(0x0301, &ciphers, &extensions);
    let (messages, ..) = heard(&[(false, records(&hello, 4000))]);
    let [TlsMessage::ClientHello(hello)] = &messages[..] else { panic!("{messages:?}") };
    let text = "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0";
    assert_eq!(hello.ja3_text(), text);
    assert_eq!(hello.ja3(), "ada70206e40642a3e4461f35503241d5");
    assert_eq!((hello.version(), &hello.ja4()[..10]), (TlsVersion::TLS_1_0, "t10d120300"));
}

#[test]
fn a_retry_has_two_hellos_behind_changes_of_the_cipher_spec() {
    let retry = [
        0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8,
        0x91, 0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8,
        0x33, 0x9c,
    ];
    let version = |version: u16| extension(43, &numbers(&[version]));
    for draft in [0x0304, 0x7f1c] {
        let talk = [
            (false, records(&browser(), 300)),
            (false, record(23, b"early data")),
            (true, records(&server_hello(0x0303, retry, &[version(draft)]), 300)),
            (true, record(20, &[1])),
            (false, record(20, &[1])),
            (false, records(&browser(), 100)),
            (true, records(&server_hello(0x0303, [9; 32], &[version(draft)]), 300)),
            (true, record(23, b"encrypted")),
            (false, record(23, b"encrypted")),
            (true, b"what comes now is not read".to_vec()),
        ];
        let (messages, refused, fault) = heard(&talk);
        assert_eq!((refused, fault), (vec![], None));
        let kinds: Vec<(char, bool)> = messages
            .iter()
            .map(|message| match message {
                TlsMessage::ClientHello(_) => ('c', false),
                TlsMessage::ServerHello(hello) if hello.version().0 == draft => {
                    ('s', hello.is_retry_request)
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(kinds, [('c', false), ('s', true), ('c', false), ('s', false)]);
    }
}

#[test]
fn certificates_have_names_and_what_is_encrypted_is_skipped() {
    let der = bytes(CERTIFICATE);
    let broken = vec![1, 2, 3];
    let chain = [vector(3, &der), vector(3, &broken)].concat();
    let talk = [
        (false, records(&browser(), 300)),
        (true, records(&server_hello(0x0303, [1; 32], &[alpn(&["h2"])]), 300)),
        (true, records(&handshake(11, &vector(3, &chain)), 200)),
        (true, records(&[handshake(12, &[0; 300]), handshake(14, &[])].concat(), 50)),
        (false, record(21, &[1, 0])),
        (false, record(20, &[1])),
        (false, record(22, &[1, 0, 0, 2, 9])),
        (true, record(20, &[1])),
        (true, record(21, &[2, 40])),
    ];
    let (messages, refused, fault) = heard(&talk);
    assert_eq!(fault, None);
    assert_eq!(refused, ["a certificate that is not well-formed"]);
    let [
        TlsMessage::ClientHello(_),
        TlsMessage::ServerHello(hello),
        TlsMessage::Certificate(chain),
        TlsMessage::Alert(alert),
    ] = &messages[..]
    else {
        panic!("{messages:?}")
    };
    assert_eq!((hello.version(), hello.alpn.as_deref()), (TlsVersion::TLS_1_2, Some("h2")));
    assert_eq!(chain[0].subject, "O=Example, CN=www.example");
    assert_eq!(chain[0].dns_names, ["www.example", "*.a.example"]);
    assert_eq!((chain[1].subject.as_str(), &chain[1].der), ("", &broken));
    assert_eq!((alert.level, alert.description), (1, 0));
}

#[test]
fn ja4_has_the_bytes_of_a_protocol_whose_name_is_no_text() {
    let list = vector(2, &vector(1, &[0xab, 0xcd]));
    let hello = client_hello(0x0303, &[1], &[extension(16, &list)]);
    let (messages, ..) = heard(&[(false, records(&hello, 4000))]);
    let [TlsMessage::ClientHello(hello)] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(&hello.ja4()[..10], "t12i0101ad");
}

#[test]
fn a_connection_that_is_encrypted_holds_nothing_and_wants_nothing() {
    let mut parser = TlsParser::default();
    let (mut out, ts) = (Vec::new(), Timestamp::default());
    let hello = server_hello(0x0303, [1; 32], &[extension(43, &numbers(&[0x0304]))]);
    parser.feed_initiator(&records(&browser(), 300), ts, &mut out);
    parser.feed_responder(&records(&hello, 300), ts, &mut out);
    aside::listen();
    parser.feed_responder(&record(23, &[0; 1000]), ts, &mut out);
    assert_eq!((aside::held(), aside::is_content()), (Some(0), false));
    for _ in 0..3 {
        aside::listen();
        parser.feed_initiator(&record(23, &[0; 1000]), ts, &mut out);
        assert_eq!((aside::held(), aside::is_content()), (Some(0), true));
    }
}

#[test]
fn a_gap_takes_the_record_it_is_in() {
    let ts = Timestamp::default();
    for (kind, expected) in [(23, vec![]), (22, vec!["a record with a gap"])] {
        let (mut parser, mut out) = (TlsParser::default(), Vec::new());
        let first = record(kind, &[0; 300]);
        parser.feed_initiator(&first[..100], ts, &mut out);
        let behind = [&first[200..], &records(&browser(), 300)].concat();
        aside::listen();
        aside::behind_gap(100, || parser.feed_initiator(&behind, ts, &mut out));
        assert_eq!(out.len(), usize::from(kind == 23));
        parser.feed_initiator(&records(&browser(), 300), ts, &mut out);
        assert_eq!(out.len(), 1 + usize::from(kind == 23));
        let mut refused = Vec::new();
        aside::refused(|reason| refused.push(reason));
        assert_eq!(refused, expected);
        assert!(!parser.is_poisoned());
    }
}

#[test]
fn what_cannot_be_read_is_refused_with_a_reason() {
    let (messages, _, fault) = heard(&[(false, b"GET / HTTP/1.1\r\n\r\n".to_vec())]);
    let reason = "bytes that are not a record of TLS";
    assert_eq!((messages, fault.as_deref()), (vec![], Some(reason)));
    let short = records(&handshake(1, &[3, 3, 1]), 100);
    let (messages, refused, fault) = heard(&[(false, short)]);
    assert_eq!((messages, fault), (vec![], None));
    assert_eq!(refused, ["a client's hello that is not well-formed"]);
    let cut = records(&browser(), 300)[..200].to_vec();
    let (messages, refused, fault) = heard(&[(false, cut)]);
    assert_eq!((messages, fault), (vec![], None));
    assert_eq!(refused, ["a record that its connection cut off"]);
}

#[test]
fn a_message_longer_than_the_limit_is_skipped() {
    let config = TlsConfig { max_message: 1000, ..TlsConfig::default() };
    let mut parser = TlsParser::with_config(config);
    let long = client_hello(0x0303, &[1], &[extension(0x15, &[0; 4000])]);
    let bytes = records(&[long, browser()].concat(), 700);
    let (mut out, mut most) = (Vec::new(), 0);
    aside::listen();
    for part in bytes.chunks(9) {
        parser.feed_initiator(part, Timestamp::default(), &mut out);
        most = most.max(aside::held().unwrap());
    }
    assert!(matches!(&out[..], [TlsMessage::ClientHello(_)]));
    assert!(most < 4000, "{most}");
    let mut refused = Vec::new();
    aside::refused(|reason| refused.push(reason));
    assert_eq!(refused, ["a handshake message longer than the limit"]);
}

proptest! {
    /// However bytes are cut, what is heard is the same; and whatever comes, nothing panics.
    #[test]
    fn segments_do_not_matter(
        pieces in prop::collection::vec((any::<bool>(), 0..PIECES), 0..12),
        flip in any::<prop::sample::Index>(),
    ) {
        let mut talk: Vec<(bool, Vec<u8>)> =
            pieces.into_iter().map(|(side, number)| (side, piece(number))).collect();
        if let Some((_, bytes)) = talk.first_mut() {
            let at = flip.index(bytes.len());
            bytes[at] ^= 0x10;
        }
        heard(&talk);
    }
}

const PIECES: usize = 8;

fn piece(number: usize) -> Vec<u8> {
    match number {
        0 => records(&browser(), 70),
        1 => records(&server_hello(0x0303, [1; 32], &[]), 70),
        2 => record(20, &[1]),
        3 => record(21, &[2, 40]),
        4 => record(23, b"data"),
        5 => vec![21, 3, 3, 0, 2, 1],
        6 => vec![22, 3, 3, 0, 3, 11, 0, 0],
        _ => record(22, &handshake(11, &vector(3, &vector(3, &bytes(CERTIFICATE))))),
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.bytes().filter_map(|digit| char::from(digit).to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Made up: O=Example, CN=www.example, for www.example and *.a.example.
const CERTIFICATE: &str = "\
    308201cb30820170a00302010202141f29887c504ce108661671851df9485d85dfc9a2300a06082a8648ce3d040302302831\
    10300e060355040a0c074578616d706c653114301206035504030c0b7777772e6578616d706c65301e170d32363131333030\
    39353132375a170d3336313132373039353132375a30283110300e060355040a0c074578616d706c65311430120603550403\
    0c0b7777772e6578616d706c653059301306072a8648ce3d020106082a8648ce3d03010703420004c9bcd4c90622174f997f\
    d1d5207fb6bc1091257ea037ab8b5347911dfd74c2d209e7a11531e727c2568e99b4c75eee6cfb45065bbf348b8ddd69bdba\
    4536c7e6a3783076301d0603551d0e04160414de493de8b2d8804c11df7868285dcfcd02b01745301f0603551d2304183016\
    8014de493de8b2d8804c11df7868285dcfcd02b01745300f0603551d130101ff040530030101ff30230603551d11041c301a\
    820b7777772e6578616d706c65820b2a2e612e6578616d706c65300a06082a8648ce3d0403020349003046022100eef8f117\
    6e08fe225ccd2c3e5fc6daf29d8f3053521a1b05cf7b1143166eb9ce022100fd5552f6b443b882f6d01f11157a9616082b66\
    0346ea7c151fe922eafc778888";
