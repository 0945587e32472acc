//! All protocols that this crate reads, in one pass.

use flowscope::KeyFields;

use super::dns::{DnsMessage, DnsTcpParser, DnsUdpParser};
use super::http::{HttpConfig, HttpMessage, HttpParser, is_http};
use super::protocols::Protocols;
#[cfg(feature = "flow-quic")]
use super::quic::{QuicParser, is_quic};
use super::tls::{TlsMessage, TlsParser, is_tls};

/// A message of one of the protocols that this crate reads; from [`Protocols::well_known`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppMessage {
    /// A message of DNS.
    Dns(DnsMessage),
    /// A message of HTTP/1.
    Http(HttpMessage),
    /// A message of TLS.
    Tls(TlsMessage),
}

impl<K: KeyFields + 'static> Protocols<K, AppMessage> {
    /// Returns the rules for DNS at port 53, and for HTTP/1 and TLS at any port, by the first bytes of a side; with
    /// the feature `flow-quic`, for the hellos in QUIC as well.
    #[must_use]
    pub fn well_known() -> Self {
        Self::well_known_with(HttpConfig::default())
    }

    /// Returns the rules of [`well_known`](Self::well_known), with this configuration of the HTTP parser.
    #[must_use]
    pub fn well_known_with(http: HttpConfig) -> Self {
        let http = HttpParser::with_config(http);
        let protocols = Self::new()
            .udp_ports([53], DnsUdpParser::default(), AppMessage::Dns)
            .tcp_ports([53], DnsTcpParser::default(), AppMessage::Dns)
            .tcp_bytes(|_, bytes| is_tls(bytes), TlsParser::default(), AppMessage::Tls)
            .tcp_bytes(|_, bytes| is_http(bytes), http, AppMessage::Http);
        #[cfg(feature = "flow-quic")]
        let protocols =
            protocols.udp_bytes(|_, bytes| is_quic(bytes), QuicParser::default(), AppMessage::Tls);
        protocols
    }
}
