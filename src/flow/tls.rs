//! TLS in flows: the part of a handshake that is not encrypted.
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use ringtap::flow::extract::FiveTuple;
//! use ringtap::flow::tls::{TlsMessage, TlsParser};
//! use ringtap::flow::{FlowExt, SessionEvent};
//!
//! # async fn run(capture: ringtap::AsyncCapture) -> ringtap::Result<()> {
//! let mut messages =
//!     capture.flow_stream(FiveTuple::bidirectional()).session_stream(TlsParser::default());
//! while let Some(event) = messages.next().await {
//!     if let SessionEvent::Application { message: TlsMessage::ClientHello(hello), .. } = event? {
//!         println!("{} {}", hello.sni().unwrap_or("-"), hello.ja4());
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Messages may lie in any number of records and segments. They are read by the crate `tls-parser`, and the names of
//! certificates by `x509-parser`. What is encrypted is skipped: with TLS 1.3 everything behind the server's hello.

mod certificate;
mod fingerprint;
mod message;
mod parser;
pub(in crate::flow) mod read;
mod records;
#[cfg(test)]
mod tests;

pub use self::certificate::TlsCertificate;
pub use self::message::{TlsAlert, TlsClientHello, TlsMessage, TlsServerHello, TlsVersion};
pub use self::parser::{TlsConfig, TlsParser};
pub use self::records::is_tls;
