//! Framing, however the bytes are cut into segments.

use flowscope::{SessionParser, Timestamp};
use proptest::prelude::*;

use crate::flow::aside;

use super::{HttpConfig, HttpMessage, HttpParser, is_http};

/// What a connection says: bytes of the initiator (`false`) and the responder (`true`), in their order.
type Talk<'a> = [(bool, &'a [u8])];

/// Messages in short: method or status, body, length, whether complete.
type Short = (String, Vec<u8>, u64, bool);

fn short(message: &HttpMessage) -> Short {
    match message {
        HttpMessage::Request(m) => {
            (m.method().to_owned(), m.body().to_vec(), m.body_len(), m.is_complete())
        }
        HttpMessage::Response(m) => {
            (m.status().to_string(), m.body().to_vec(), m.body_len(), m.is_complete())
        }
    }
}

fn said(parser: &mut HttpParser, talk: &Talk<'_>, most: usize) -> Vec<HttpMessage> {
    let (mut out, ts) = (Vec::new(), Timestamp::default());
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
    out
}

/// Reads a talk in segments of each size, which all give the same, and returns it.
fn read(talk: &Talk<'_>) -> (Vec<Short>, Option<String>) {
    let mut first = None;
    for most in [usize::MAX, 1, 2, 3, 7, 64] {
        let mut parser = HttpParser::default();
        let shorts: Vec<Short> = said(&mut parser, talk, most).iter().map(short).collect();
        let all = (shorts, parser.poison_reason().map(str::to_owned));
        match &first {
            None => first = Some(all),
            Some(first) => assert_eq!(*first, all, "segments of {most}"),
        }
    }
    first.unwrap()
}

fn complete(what: &str, body: &[u8]) -> Short {
    (what.to_owned(), body.to_vec(), body.len() as u64, true)
}

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: h.example\r\n\r\n";

#[test]
fn a_body_has_the_length_that_the_rules_give() {
    let cases: [(&[u8], &[u8]); 11] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2, 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2;a=\"b\"\r\nok\r\n0\r\n\r\n", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\nA: b\r\n\r\n", b"ok"),
        (b"HTTP/1.1 200 OK\nContent-Length:2\n\nok", b"ok"),
        (b"\r\n\r\nHTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    ];
    for (response, body) in cases {
        let next: &[u8] = b"HTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx";
        let (messages, fault) = read(&[(false, GET), (true, response), (false, GET), (true, next)]);
        let text = String::from_utf8_lossy(response);
        assert_eq!(fault, None, "{text}");
        let status = text.trim_start()[9..12].to_owned();
        let expected = [
            complete("GET", b""),
            complete(&status, body),
            complete("GET", b""),
            complete("201", b"x"),
        ];
        assert_eq!(messages, expected, "{text}");
    }
}

#[test]
fn a_body_lasts_until_its_connection_ends_if_nothing_says_its_length() {
    let (messages, fault) = read(&[(false, GET), (true, b"HTTP/1.0 200 OK\r\n\r\nall of it")]);
    assert_eq!((messages[1].clone(), fault), (complete("200", b"all of it"), None));
}

#[test]
fn requests_decide_on_the_bodies_of_their_responses() {
    let asked: &[u8] = b"HEAD /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\nPURGE /c HTTP/1.1\r\n\r\n";
    let answers: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n\
        HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    let (messages, fault) = read(&[(false, asked), (true, answers)]);
    let bodies: [(&str, &[u8]); 7] = [
        ("HEAD", b""),
        ("GET", b""),
        ("PURGE", b""),
        ("200", b""),
        ("103", b""),
        ("200", b"ok"),
        ("200", b"abc"),
    ];
    let expected: Vec<Short> = bodies.iter().map(|(what, body)| complete(what, body)).collect();
    assert_eq!((messages, fault), (expected, None));
}

#[test]
fn another_protocol_is_skipped() {
    let connect: &[u8] = b"CONNECT h.example:443 HTTP/1.1\r\n\r\n";
    let (messages, fault) = read(&[
        (false, connect),
        (true, b"HTTP/1.1 200 Connection established\r\nContent-Length: 5\r\n\r\n"),
        (false, b"\x16\x03\x01\0\0"),
        (true, b"\x16\x03\x01\0\0"),
    ]);
    assert_eq!((messages, fault), (vec![complete("CONNECT", b""), complete("200", b"")], None));
    let refused: &[u8] = b"HTTP/1.1 407 Who\r\nContent-Length: 1\r\n\r\nx";
    let (messages, fault) = read(&[(false, connect), (true, refused), (false, GET)]);
    let expected = vec![complete("CONNECT", b""), complete("407", b"x"), complete("GET", b"")];
    assert_eq!((messages, fault), (expected, None));
    let upgrade: &[u8] = b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    let switch: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x02hi";
    let (messages, fault) = read(&[(false, upgrade), (true, switch), (false, b"\x81\x80abcd")]);
    assert_eq!((messages, fault), (vec![complete("GET", b""), complete("101", b"")], None));
}

#[test]
fn a_message_that_is_cut_is_refused_or_told_as_such() {
    let post: &[u8] = b"POST /a HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc";
    for tell_incomplete in [false, true] {
        aside::listen();
        let config = HttpConfig { tell_incomplete, ..HttpConfig::default() };
        let messages = said(&mut HttpParser::with_config(config), &[(false, post)], 9);
        let mut refused = Vec::new();
        aside::refused(|reason| refused.push(reason));
        let told: Vec<Short> = messages.iter().map(short).collect();
        match tell_incomplete {
            true => assert_eq!(told, [("POST".to_owned(), b"abc".to_vec(), 3, false)]),
            false => assert_eq!(refused, ["a message cut off within its body: POST /a"]),
        }
        assert_eq!(told.len() + refused.len(), 1);
    }
}

#[test]
fn bytes_that_are_missing_take_the_message_they_are_in() {
    let (ts, next) = (Timestamp::default(), b"HTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx");
    let bodies: [(&[u8], u64, &[u8]); 4] = [
        (b"Content-Length: 10\r\n\r\n012", 3, b"6789"),
        (b"Transfer-Encoding: chunked\r\n\r\na\r\n012", 3, b"6789\r\n0\r\n\r\n"),
        // It is not known where the first message ends: the next segment that begins one is read again.
        (b"Content-Length: 10\r\n\r\n012", 30, b""),
        (b"Transfer-Encoding: chunked\r\n\r\na\r\n012", 30, b""),
    ];
    for (start, missing, behind) in bodies {
        for tell_incomplete in [false, true] {
            let config = HttpConfig { tell_incomplete, ..HttpConfig::default() };
            let (mut parser, mut out) = (HttpParser::with_config(config), Vec::new());
            let first = [b"HTTP/1.1 200 OK\r\n", start].concat();
            parser.feed_responder(&first, ts, &mut out);
            aside::listen();
            aside::behind_gap(missing, || {
                parser.feed_responder(&[behind, next].concat(), ts, &mut out);
            });
            let mut refused = Vec::new();
            aside::refused(|reason| refused.push(reason));
            let told: Vec<Short> = out.iter().map(short).collect();
            let len = if behind.is_empty() { 3 } else { 10 };
            let cut = ("200".to_owned(), b"012".to_vec(), len, false);
            let expected = match tell_incomplete {
                true => vec![cut, complete("201", b"x")],
                false => vec![complete("201", b"x")],
            };
            let text = String::from_utf8_lossy(start);
            assert_eq!(told, expected, "{text} {missing}");
            assert_eq!(refused.len(), usize::from(!tell_incomplete), "{text}: {refused:?}");
            assert!(!parser.is_poisoned());
        }
    }
}

#[test]
fn heads_alone_are_told_at_once_and_bodies_are_still_framed() {
    let ts = Timestamp::default();
    let config = HttpConfig { heads_only: true, ..HttpConfig::default() };
    let head = |line: &str| (line.to_owned(), Vec::new(), 0, false);
    let bodies: [(&[u8], &[u8]); 2] = [
        (b"Content-Length: 30\r\n\r\nGET /no HTTP/1.1", b"\r\n\r\n0123456789"),
        (
            b"Transfer-Encoding: chunked\r\n\r\n14\r\nGET /no HTTP/1.1",
            b"\r\n\r\n\r\n0\r\nLast: yes\r\n\r\n",
        ),
    ];
    for (start, end) in bodies {
        let (mut parser, mut out) = (HttpParser::with_config(config), Vec::new());
        let first = [b"POST /up HTTP/1.1\r\n", start].concat();
        parser.feed_initiator(&first, ts, &mut out);
        assert_eq!(out.iter().map(short).collect::<Vec<_>>(), [head("POST")], "before its end");
        parser.feed_initiator(&[end, GET].concat(), ts, &mut out);
        let told: Vec<Short> = out.iter().map(short).collect();
        assert_eq!(told, [head("POST"), complete("GET", b"")]);
    }
    // With bytes missing, and without an end.
    aside::listen();
    let (mut parser, mut out) = (HttpParser::with_config(config), Vec::new());
    parser.feed_responder(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n012", ts, &mut out);
    aside::behind_gap(3, || parser.feed_responder(b"6789HTTP/1.1 204 No\r\n\r\n", ts, &mut out));
    parser.feed_responder(b"HTTP/1.0 200 OK\r\n\r\nthe first part", ts, &mut out);
    parser.fin_responder(&mut out);
    let told: Vec<Short> = out.iter().map(short).collect();
    assert_eq!(told, [head("200"), complete("204", b""), head("200")]);
    aside::refused(|reason| panic!("{reason}"));
}

#[test]
fn a_body_that_goes_on_is_not_complete_because_the_other_side_is_refused() {
    let config = HttpConfig { tell_incomplete: true, ..HttpConfig::default() };
    let talk: [(bool, &[u8]); 2] =
        [(true, b"HTTP/1.0 200 OK\r\n\r\nthe first part"), (false, b"\x01\x02\n")];
    let messages = said(&mut HttpParser::with_config(config), &talk, 99);
    let told: Vec<Short> = messages.iter().map(short).collect();
    assert_eq!(told, [("200".to_owned(), b"the first part".to_vec(), 14, false)]);
}

#[test]
fn fields_on_several_lines_are_one_and_framing_is_not_left_out() {
    let folded: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n chunked\r\nX: a\r\n\tb\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let (messages, fault) = read(&[(true, folded)]);
    assert_eq!((messages, fault), (vec![complete("200", b"ok")], None));
    let mut parser = HttpParser::default();
    let messages = said(&mut parser, &[(true, folded)], 99);
    let [HttpMessage::Response(response)] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(response.header("x"), Some(&b"a  \tb"[..]));
    for line in ["Content-Length : 3", "Transfer-Encoding\t: chunked", " Content-Length: 3"] {
        let request = format!("POST / HTTP/1.1\r\nA: b\r\n{line}\r\n\r\nabc");
        let (messages, fault) = read(&[(false, request.as_bytes())]);
        let is_folded = line.starts_with(' ');
        assert_eq!(fault.is_none(), is_folded, "{line}: {messages:?} {fault:?}");
    }
    // A line that means nothing is left out.
    let (messages, fault) = read(&[(false, b"GET / HTTP/1.1\r\nwhat is this\r\n\r\n")]);
    assert_eq!((messages, fault), (vec![complete("GET", b"")], None));
}

#[test]
fn a_connection_that_waits_for_nothing_holds_nothing() {
    let mut parser = HttpParser::default();
    let talk: [(bool, &[u8]); 2] = [(false, GET), (true, b"HTTP/1.1 204 No Content\r\n\r\n")];
    aside::listen();
    said(&mut parser, &talk, 99);
    assert_eq!(aside::held(), Some(0));
}

#[test]
fn first_bytes_tell_http() {
    for bytes in ["G", "GET ", "GET / HTTP/1.1\r\n", "HTTP", "HTTP/1.0 200", "PURGE / HTTP/1.1\n"] {
        assert!(is_http(bytes.as_bytes()), "{bytes}");
    }
    for bytes in ["", "P\nxyz", "HTTP\nfoo", "EHLO a\r\n", "PURGE / HTTP/1.1", "\u{16}\u{3}"] {
        assert!(!is_http(bytes.as_bytes()), "{bytes}");
    }
}

#[test]
fn spaces_in_a_target_are_part_of_it() {
    let request: &[u8] = b"GET /Hello World HTTP/1.0\r\nHost: a\r\n\r\n";
    let mut parser = HttpParser::default();
    let messages = said(&mut parser, &[(false, request)], 4);
    let [HttpMessage::Request(request)] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!((request.path_str(), request.host()), (Some("/Hello World"), Some("a")));
}

#[test]
fn what_cannot_be_read_is_refused_with_a_reason() {
    let cases: [(&[u8], &str); 9] = [
        (b"\x16\x03\x01\0\x05hello", "not a line of HTTP"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "a version other"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "that differ"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "not a number of bytes"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", "not a number"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", "not chunked"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz", "without a size"),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
            "longer than its size",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n11112222333344445\r\n",
            "16 digits",
        ),
    ];
    for (bytes, reason) in cases {
        let (_, fault) = read(&[(false, bytes)]);
        let text = String::from_utf8_lossy(bytes);
        assert!(fault.as_deref().is_some_and(|fault| fault.contains(reason)), "{text}: {fault:?}");
    }
    let long = [b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'a'; 70_000]].concat();
    let (_, fault) = read(&[(false, &long)]);
    assert_eq!(fault.as_deref(), Some("a head longer than the limit"));
}

#[test]
fn trailers_and_fields_are_those_that_were_sent() {
    let chunked: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\r\n\
        2\r\nok\r\n0\r\nDigest: abc\r\nX: y\r\n\r\n";
    let mut parser = HttpParser::default();
    let messages = said(&mut parser, &[(true, chunked)], 5);
    let [HttpMessage::Response(response)] = &messages[..] else { panic!("{messages:?}") };
    let trailers: Vec<(&str, &[u8])> = response.trailers().iter().collect();
    assert_eq!(trailers, [("Digest", &b"abc"[..]), ("X", b"y")]);
    assert_eq!(response.set_cookie().collect::<Vec<_>>(), ["a=1", "b=2"]);
    assert_eq!((response.reason(), response.version().as_str()), ("OK", "HTTP/1.1"));
}

#[test]
fn no_more_of_a_body_is_kept_than_the_limit() {
    let config = HttpConfig { max_body: 4, ..HttpConfig::default() };
    let mut parser = HttpParser::with_config(config);
    let post: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n0123456789";
    let messages: Vec<Short> = said(&mut parser, &[(false, post)], 3).iter().map(short).collect();
    assert_eq!(messages, [("POST".to_owned(), b"0123".to_vec(), 10, true)]);
}

proptest! {
    /// However a talk is cut, its messages are the same; and whatever comes, nothing panics.
    #[test]
    fn segments_do_not_matter(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..12),
        responds in any::<bool>(),
    ) {
        let bytes = pieces.concat();
        read(&[(responds, &bytes)]);
    }
}

const PIECES: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 304 Not\n",
    b"HEAD /x HTTP/1.0\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"\r\n",
    b"\n",
    b"abc",
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
    b"A: b\r\n",
    b"\0\xff",
];
