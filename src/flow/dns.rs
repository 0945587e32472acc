//! DNS in flows: queries and responses, over UDP ([`DnsUdpParser`]) and TCP ([`DnsTcpParser`]).
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use ringtap::flow::dns::{DnsMessage, DnsUdpParser};
//! use ringtap::flow::extract::FiveTuple;
//! use ringtap::flow::{FlowExt, SessionEvent};
//!
//! # async fn run(capture: ringtap::AsyncCapture) -> ringtap::Result<()> {
//! let mut messages =
//!     capture.flow_stream(FiveTuple::bidirectional()).datagram_stream(DnsUdpParser::default());
//! while let Some(event) = messages.next().await {
//!     if let SessionEvent::Application { message: DnsMessage::Query(query), .. } = event? {
//!         query.questions.iter().for_each(|question| println!("{}", question.name));
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Messages are read by the crate `domain`. Types and classes are numbers, and any number is legal
//! ([RFC 3597](https://www.rfc-editor.org/rfc/rfc3597)). A message that is cut, or wrong from some place on, is told
//! with what comes before that place, and with its [fault](DnsContent::fault). One without a whole header is
//! [refused](super::ParserFault::Refused).

mod message;
mod parser;
mod pending;
mod read;
#[cfg(test)]
mod tests;

pub use self::message::{
    DnsContent, DnsEdns, DnsFault, DnsFlags, DnsMessage, DnsQuestion, DnsRdata, DnsRecord,
};
pub use self::parser::{DnsConfig, DnsTcpParser, DnsUdpParser};
