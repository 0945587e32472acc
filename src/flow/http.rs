//! HTTP/1.0 and HTTP/1.1 in flows: requests and responses, each told when it is complete.
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use ringtap::flow::extract::FiveTuple;
//! use ringtap::flow::http::{HttpMessage, HttpParser};
//! use ringtap::flow::{FlowExt, SessionEvent};
//!
//! # async fn run(capture: ringtap::AsyncCapture) -> ringtap::Result<()> {
//! let mut messages =
//!     capture.flow_stream(FiveTuple::bidirectional()).session_stream(HttpParser::default());
//! while let Some(event) = messages.next().await {
//!     if let SessionEvent::Application { message: HttpMessage::Request(request), .. } = event? {
//!         println!("{} {}", request.method(), request.path_str().unwrap_or("?"));
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Heads are read by the crate `httparse`; where a message ends is decided here, by
//! [RFC 9112 §6.3](https://www.rfc-editor.org/rfc/rfc9112#section-6.3).

mod body;
mod chunked;
mod head;
mod message;
mod parser;
#[cfg(test)]
mod tests;

pub use self::head::{HttpFields, HttpVersion, is_http};
pub use self::message::{HttpMessage, HttpRequest, HttpResponse};
pub use self::parser::{HttpConfig, HttpParser};
