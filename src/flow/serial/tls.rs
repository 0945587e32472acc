//! Messages of TLS.

use serde::ser::{Serialize, Serializer};

use super::{hex, text};
use crate::flow::tls::{
    TlsAlert, TlsCertificate, TlsClientHello, TlsMessage, TlsServerHello, TlsVersion,
};

/// Writes the version as text.
impl Serialize for TlsVersion {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        text(self, to)
    }
}

/// Writes the fingerprints, too.
impl Serialize for TlsClientHello {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Hello<'a> {
            protocol: &'static str,
            r#type: &'static str,
            version: TlsVersion,
            legacy_version: TlsVersion,
            #[serde(serialize_with = "hex")]
            random: &'a [u8],
            #[serde(serialize_with = "hex")]
            session_id: &'a [u8],
            #[serde(skip_serializing_if = "Option::is_none")]
            sni: Option<&'a str>,
            alpn: &'a [String],
            supported_versions: &'a [TlsVersion],
            cipher_suites: &'a [u16],
            extension_types: &'a [u16],
            supported_groups: &'a [u16],
            signature_algorithms: &'a [u16],
            is_ech: bool,
            is_quic: bool,
            ja3: String,
            ja4: String,
        }
        let hello = Hello {
            protocol: "tls",
            r#type: "client_hello",
            version: self.version(),
            legacy_version: self.legacy_version,
            random: &self.random,
            session_id: &self.session_id,
            sni: self.sni(),
            alpn: &self.alpn,
            supported_versions: &self.supported_versions,
            cipher_suites: &self.cipher_suites,
            extension_types: &self.extension_types,
            supported_groups: &self.supported_groups,
            signature_algorithms: &self.signature_algorithms,
            is_ech: self.is_ech,
            is_quic: self.is_quic,
            ja3: self.ja3(),
            ja4: self.ja4(),
        };
        hello.serialize(to)
    }
}

impl Serialize for TlsServerHello {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Hello<'a> {
            protocol: &'static str,
            r#type: &'static str,
            version: TlsVersion,
            legacy_version: TlsVersion,
            #[serde(serialize_with = "hex")]
            random: &'a [u8],
            #[serde(serialize_with = "hex")]
            session_id: &'a [u8],
            cipher_suite: u16,
            extension_types: &'a [u16],
            #[serde(skip_serializing_if = "Option::is_none")]
            alpn: Option<&'a str>,
            is_retry_request: bool,
        }
        let hello = Hello {
            protocol: "tls",
            r#type: "server_hello",
            version: self.version(),
            legacy_version: self.legacy_version,
            random: &self.random,
            session_id: &self.session_id,
            cipher_suite: self.cipher_suite,
            extension_types: &self.extension_types,
            alpn: self.alpn.as_deref(),
            is_retry_request: self.is_retry_request,
        };
        hello.serialize(to)
    }
}

/// Writes the names, without the certificate itself.
impl Serialize for TlsCertificate {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Certificate<'a> {
            subject: &'a str,
            issuer: &'a str,
            dns_names: &'a [String],
        }
        let Self { subject, issuer, dns_names, .. } = self;
        Certificate { subject, issuer, dns_names }.serialize(to)
    }
}

impl Serialize for TlsMessage {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        enum Other<'a> {
            Certificate { protocol: &'static str, certificates: &'a [TlsCertificate] },
            Alert { protocol: &'static str, level: u8, description: u8 },
        }
        let protocol = "tls";
        match self {
            Self::ClientHello(hello) => hello.serialize(to),
            Self::ServerHello(hello) => hello.serialize(to),
            Self::Certificate(certificates) => {
                Other::Certificate { protocol, certificates }.serialize(to)
            }
            Self::Alert(TlsAlert { level, description }) => {
                let (level, description) = (*level, *description);
                Other::Alert { protocol, level, description }.serialize(to)
            }
        }
    }
}
