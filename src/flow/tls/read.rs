//! Reads the messages of a handshake.

use tls_parser::{
    TlsClientHelloContents, TlsExtension, TlsMessage as Parsed, TlsMessageHandshake,
    TlsServerHelloContents, parse_tls_client_hello_extension, parse_tls_message_handshake,
    parse_tls_server_hello_extension,
};

use super::certificate::TlsCertificate;
use super::message::{TlsClientHello, TlsMessage, TlsServerHello, TlsVersion};
use crate::flow::aside::message_refused;

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const HELLO_RETRY_REQUEST: u8 = 6;
const CERTIFICATE: u8 = 11;

/// The random bytes of a server's hello that is a request for another hello (RFC 8446 §4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// Most certificates of a chain that are read.
const MOST_CERTIFICATES: usize = 16;

/// Returns whether a message of this type is told.
pub(super) const fn is_told(of: u8) -> bool {
    matches!(of, CLIENT_HELLO | SERVER_HELLO | HELLO_RETRY_REQUEST | CERTIFICATE)
}

/// Reads a message with its header of four bytes. One that cannot be read is refused.
pub(in crate::flow) fn message(bytes: &[u8]) -> Option<TlsMessage> {
    let refused = match bytes.first() {
        Some(&CLIENT_HELLO) => "a client's hello that is not well-formed",
        Some(&CERTIFICATE) => "certificates that are not well-formed",
        _ => "a server's hello that is not well-formed",
    };
    let Ok((_, Parsed::Handshake(message))) = parse_tls_message_handshake(bytes) else {
        message_refused(refused);
        return None;
    };
    match message {
        TlsMessageHandshake::ClientHello(hello) => {
            Some(TlsMessage::ClientHello(Box::new(client(&hello))))
        }
        TlsMessageHandshake::ServerHello(hello) => {
            Some(TlsMessage::ServerHello(Box::new(server(&hello))))
        }
        TlsMessageHandshake::ServerHelloV13Draft18(hello) => {
            let version = TlsVersion(hello.version.0);
            let told = draft(version, array(hello.random), hello.cipher.0, hello.ext, false);
            Some(TlsMessage::ServerHello(Box::new(told)))
        }
        TlsMessageHandshake::HelloRetryRequest(hello) => {
            let version = TlsVersion(hello.version.0);
            let told = draft(version, [0; 32], hello.cipher.0, hello.ext, true);
            Some(TlsMessage::ServerHello(Box::new(told)))
        }
        TlsMessageHandshake::Certificate(chain) => {
            let chain = chain.cert_chain.iter().take(MOST_CERTIFICATES);
            let chain = chain.map(|certificate| {
                let (certificate, is_read) = TlsCertificate::read(certificate.data);
                if !is_read {
                    message_refused("a certificate that is not well-formed");
                }
                certificate
            });
            Some(TlsMessage::Certificate(chain.collect()))
        }
        _ => None,
    }
}

/// A server's hello of the early drafts of TLS 1.3, which had no session.
fn draft(
    version: TlsVersion,
    random: [u8; 32],
    cipher_suite: u16,
    extensions: Option<&[u8]>,
    is_retry_request: bool,
) -> TlsServerHello {
    TlsServerHello {
        legacy_version: version,
        random,
        session_id: Vec::new(),
        cipher_suite,
        extension_types: each_extension(extensions).map(|(of, _)| of).collect(),
        alpn: None,
        supported_version: Some(version),
        is_retry_request,
    }
}

fn client(hello: &TlsClientHelloContents<'_>) -> TlsClientHello {
    let mut told = TlsClientHello {
        legacy_version: TlsVersion(hello.version.0),
        random: array(hello.random),
        session_id: hello.session_id.unwrap_or_default().to_vec(),
        cipher_suites: hello.ciphers.iter().map(|cipher| cipher.0).collect(),
        compression_methods: hello.comp.iter().map(|method| method.0).collect(),
        extension_types: Vec::new(),
        sni: None,
        alpn: Vec::new(),
        alpn_ends: None,
        supported_versions: Vec::new(),
        supported_groups: Vec::new(),
        point_formats: Vec::new(),
        signature_algorithms: Vec::new(),
        is_ech: false,
        is_quic: false,
    };
    for (of, bytes) in each_extension(hello.ext) {
        told.extension_types.push(of);
        told.is_ech |= of == ENCRYPTED_CLIENT_HELLO;
        let Ok((_, extension)) = parse_tls_client_hello_extension(bytes) else { continue };
        match extension {
            TlsExtension::SNI(names) => {
                told.sni = names.first().map(|(_, name)| text(name));
            }
            TlsExtension::ALPN(protocols) => {
                told.alpn = protocols.iter().map(|protocol| text(protocol)).collect();
                told.alpn_ends =
                    protocols.first().and_then(|name| Some([*name.first()?, *name.last()?]));
            }
            TlsExtension::SupportedVersions(versions) => {
                told.supported_versions = versions.iter().map(|v| TlsVersion(v.0)).collect();
            }
            TlsExtension::EllipticCurves(groups) => {
                told.supported_groups = groups.iter().map(|group| group.0).collect();
            }
            TlsExtension::EcPointFormats(formats) => told.point_formats = formats.to_vec(),
            TlsExtension::SignatureAlgorithms(algorithms) => {
                told.signature_algorithms = algorithms;
            }
            _ => {}
        }
    }
    told
}

fn server(hello: &TlsServerHelloContents<'_>) -> TlsServerHello {
    let random = array(hello.random);
    let mut told = TlsServerHello {
        legacy_version: TlsVersion(hello.version.0),
        random,
        session_id: hello.session_id.unwrap_or_default().to_vec(),
        cipher_suite: hello.cipher.0,
        extension_types: Vec::new(),
        alpn: None,
        supported_version: None,
        is_retry_request: random == RETRY,
    };
    for (of, bytes) in each_extension(hello.ext) {
        told.extension_types.push(of);
        let Ok((_, extension)) = parse_tls_server_hello_extension(bytes) else { continue };
        match extension {
            TlsExtension::ALPN(protocols) => told.alpn = protocols.first().map(|name| text(name)),
            TlsExtension::SupportedVersions(versions) => {
                told.supported_version = versions.first().map(|version| TlsVersion(version.0));
            }
            _ => {}
        }
    }
    told
}

const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// Returns the type of each extension, and its bytes with their header.
fn each_extension(all: Option<&[u8]>) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = all.unwrap_or_default();
    std::iter::from_fn(move || {
        let &[high, low, long, short, ..] = rest else { return None };
        let len = usize::from(u16::from_be_bytes([long, short]));
        let (extension, behind) = rest.split_at_checked(4 + len)?;
        rest = behind;
        Some((u16::from_be_bytes([high, low]), extension))
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn array(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().unwrap_or([0; 32])
}
