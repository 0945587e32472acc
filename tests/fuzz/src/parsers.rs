//! Messages of any bytes, however they are cut into segments.

use ringtap::flow::dns::{DnsMessage, DnsTcpParser, DnsUdpParser};
use ringtap::flow::http::{HttpParser, is_http};
use ringtap::flow::tls::{TlsMessage, TlsParser, is_tls};
use ringtap::flow::{DatagramParser, FlowSide, FlowTimestamp, SessionParser};

/// What both sides say in turn: for each piece a byte with its side and length before it.
fn pieces(mut bytes: &[u8]) -> Vec<(bool, &[u8])> {
    let mut pieces = Vec::new();
    while let [first, rest @ ..] = bytes {
        let len = usize::from(first >> 1) * 3;
        let (piece, rest) = rest.split_at(len.min(rest.len()));
        pieces.push((first & 1 == 1, piece));
        bytes = rest;
    }
    pieces
}

/// Feeds the pieces, each in segments of at most `most` bytes. Returns the messages, and why the parser gave up.
fn heard<P: SessionParser>(
    mut parser: P,
    pieces: &[(bool, &[u8])],
    most: usize,
) -> (Vec<P::Message>, Option<String>) {
    let (mut out, mut secs) = (Vec::new(), 1_700_000_000);
    for (side, piece) in pieces {
        secs += 1;
        for part in piece.chunks(most) {
            if parser.is_poisoned() {
                break;
            }
            match side {
                false => parser.feed_initiator(part, FlowTimestamp::new(secs, 0), &mut out),
                true => parser.feed_responder(part, FlowTimestamp::new(secs, 0), &mut out),
            }
        }
        parser.on_tick(FlowTimestamp::new(secs, 0), &mut out);
    }
    if !parser.is_poisoned() {
        parser.fin_initiator(&mut out);
        parser.fin_responder(&mut out);
    }
    (out, parser.poison_reason().map(str::to_owned))
}

fn cuts_do_not_matter<P: SessionParser + Clone>(parser: &P, bytes: &[u8]) -> Vec<P::Message>
where
    P::Message: PartialEq,
{
    let pieces = pieces(bytes);
    let whole = heard(parser.clone(), &pieces, usize::MAX);
    for most in [1, 7] {
        let cut = heard(parser.clone(), &pieces, most);
        assert!(whole == cut, "segments of {most}: {whole:?}, {cut:?}");
    }
    whole.0
}

/// A connection of HTTP is read the same however it is cut.
pub fn http_stream(bytes: &[u8]) {
    is_http(bytes);
    for message in cuts_do_not_matter(&HttpParser::default(), bytes) {
        let text = format!("{message:?}");
        assert!(text.len() < 40 * bytes.len() + 1000, "{text}");
    }
}

/// A connection of TLS is read the same however it is cut.
pub fn tls_stream(bytes: &[u8]) {
    is_tls(bytes);
    for message in cuts_do_not_matter(&TlsParser::default(), bytes) {
        if let TlsMessage::ClientHello(hello) = message {
            assert_eq!((hello.ja3().len(), hello.ja4().len()), (32, 36));
        }
    }
}

/// A message of DNS is told or refused; a connection is read the same however it is cut.
pub fn dns_message(bytes: &[u8]) {
    let (mut parser, mut out) = (DnsUdpParser::default(), Vec::new());
    for side in [FlowSide::Initiator, FlowSide::Responder] {
        parser.parse(bytes, side, FlowTimestamp::new(1_700_000_000, 0), &mut out);
    }
    assert_eq!(out.len(), if bytes.len() < 12 { 0 } else { 2 });
    for message in &out {
        let (DnsMessage::Query(content) | DnsMessage::Response(content)) = message else {
            panic!("{message:?}");
        };
        let records =
            content.answers.iter().chain(&content.authorities).chain(&content.additionals);
        // A name may take 255 bytes of a message for two, and four characters each.
        let length: usize = records.map(|record| record.data.to_string().len()).sum();
        assert!(length <= 1100 * bytes.len(), "{length}");
        assert_eq!(content.flags.is_response(), matches!(message, DnsMessage::Response(_)));
    }
    cuts_do_not_matter(&DnsTcpParser::default(), bytes);
}
