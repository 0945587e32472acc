//! The messages of a handshake.

use std::fmt;

use super::certificate::TlsCertificate;

/// A message of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsMessage {
    /// The client's hello. After a retry there is a second one.
    ClientHello(Box<TlsClientHello>),
    /// The server's hello, or its request for another hello of the client.
    ServerHello(Box<TlsServerHello>),
    /// The certificates of a side, its own first; before TLS 1.3 they are not encrypted.
    Certificate(Vec<TlsCertificate>),
    /// An alert that is not encrypted.
    Alert(TlsAlert),
}

/// Version of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TlsVersion(pub u16);

impl TlsVersion {
    /// SSL 3.0.
    pub const SSL_3_0: Self = Self(0x0300);
    /// TLS 1.0.
    pub const TLS_1_0: Self = Self(0x0301);
    /// TLS 1.1.
    pub const TLS_1_1: Self = Self(0x0302);
    /// TLS 1.2.
    pub const TLS_1_2: Self = Self(0x0303);
    /// TLS 1.3.
    pub const TLS_1_3: Self = Self(0x0304);

    /// Returns whether this is TLS 1.3 or a draft of it.
    pub const fn is_1_3(self) -> bool {
        self.0 == Self::TLS_1_3.0 || self.0 >> 8 == 0x7f
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SSL_3_0 => f.write_str("SSL 3.0"),
            Self::TLS_1_0 => f.write_str("TLS 1.0"),
            Self::TLS_1_1 => f.write_str("TLS 1.1"),
            Self::TLS_1_2 => f.write_str("TLS 1.2"),
            Self::TLS_1_3 => f.write_str("TLS 1.3"),
            Self(draft) if self.is_1_3() => write!(f, "TLS 1.3 draft {}", draft & 0xff),
            Self(other) => write!(f, "{other:#06x}"),
        }
    }
}

impl fmt::Debug for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A client's hello. Lists are in the order of the message, with values that
/// [RFC 8701](https://www.rfc-editor.org/rfc/rfc8701) reserves (GREASE).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsClientHello {
    /// Version of the message; since TLS 1.3 it says 1.2.
    pub legacy_version: TlsVersion,
    /// The client's random bytes.
    pub random: [u8; 32],
    /// Session that the client wants to go on with.
    pub session_id: Vec<u8>,
    /// Cipher suites.
    pub cipher_suites: Vec<u16>,
    /// Compression methods.
    pub compression_methods: Vec<u8>,
    /// Types of the extensions.
    pub extension_types: Vec<u16>,
    /// Name of the server.
    pub sni: Option<String>,
    /// Application protocols; bytes that are not UTF-8 are replaced.
    pub alpn: Vec<String>,
    /// First and last byte of the first of them, as they are.
    pub(super) alpn_ends: Option<[u8; 2]>,
    /// Versions, in the extension for them.
    pub supported_versions: Vec<TlsVersion>,
    /// Groups for the exchange of keys.
    pub supported_groups: Vec<u16>,
    /// Formats of points on curves.
    pub point_formats: Vec<u8>,
    /// Signature algorithms.
    pub signature_algorithms: Vec<u16>,
    /// Whether the hello is the outer one of an encrypted hello.
    pub is_ech: bool,
    /// Whether the hello came in QUIC, not over TCP.
    pub is_quic: bool,
}

impl TlsClientHello {
    /// Returns the name of the server.
    pub fn sni(&self) -> Option<&str> {
        self.sni.as_deref()
    }
}

/// A server's hello.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsServerHello {
    /// Version of the message; since TLS 1.3 it says 1.2.
    pub legacy_version: TlsVersion,
    /// The server's random bytes; zeros in the retry requests of drafts.
    pub random: [u8; 32],
    /// Session.
    pub session_id: Vec<u8>,
    /// The cipher suite.
    pub cipher_suite: u16,
    /// Types of the extensions, in their order.
    pub extension_types: Vec<u16>,
    /// The application protocol; `None` with TLS 1.3, which encrypts it.
    pub alpn: Option<String>,
    /// Version in the extension for it.
    pub supported_version: Option<TlsVersion>,
    /// Whether the client is asked for another hello.
    pub is_retry_request: bool,
}

impl TlsServerHello {
    /// Returns the version of the connection.
    pub fn version(&self) -> TlsVersion {
        self.supported_version.unwrap_or(self.legacy_version)
    }
}

/// An alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsAlert {
    /// 1 for a warning, 2 for one that ends the connection.
    pub level: u8,
    /// The alert, such as 40 for a handshake that failed.
    pub description: u8,
}
