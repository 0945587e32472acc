//! The client's hello in QUIC: the name of the server, as in TLS over TCP.
//!
//! The first packets of a connection are encrypted with keys that anybody can derive from the connection's first
//! identifier ([RFC 9001 §5.2](https://www.rfc-editor.org/rfc/rfc9001#section-5.2)). Versions 1 and 2 and the drafts from
//! 29 on are read, with the primitives of the crate `rustls`; what follows the hello is skipped.

mod packet;
#[cfg(test)]
mod tests;

use flowscope::{DatagramParser, FlowSide, ParserKind, Timestamp as FlowTime};

use self::packet::{Crypto, Initial, Secret};
use super::aside::{message_refused, parser_holds};
use super::tls::{TlsMessage, read};

pub use self::packet::is_quic;

/// Most initial packets of a client that are looked at for its hello.
const MOST_PACKETS: u8 = 32;

/// A parser of QUIC that tells the client's hello.
///
/// The hello may lie in any number of packets, in any order.
#[derive(Debug, Clone, Default)]
pub struct QuicParser {
    state: State,
}

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Nothing,
    /// Packets of a hello that is not complete.
    Hello(Box<Hello>),
    /// The hello was told, or given up.
    Over,
}

#[derive(Debug, Clone)]
struct Hello {
    /// The side that sent the first packet.
    client: FlowSide,
    secret: Secret,
    crypto: Crypto,
    packets: u8,
}

impl Hello {
    /// Takes in a client's initial packet. Once the hello is complete, returns it, or `None` within if it was refused.
    fn take(&mut self, initial: &Initial<'_>) -> Result<Option<Option<TlsMessage>>, &'static str> {
        self.packets += 1;
        let mut frames = initial.open(&self.secret);
        if frames.is_none() {
            // A server may have asked the client to begin again, with another identifier.
            frames = initial.open(&initial.secret());
            if frames.is_some() {
                (self.secret, self.crypto) = (initial.secret(), Crypto::default());
            }
        }
        let frames = frames.ok_or("an initial packet of QUIC that cannot be decrypted")?;
        self.crypto.add(&frames)?;
        match self.crypto.message()? {
            Some(message) => Ok(Some(read::message(message))),
            None if self.packets == MOST_PACKETS => {
                Err("a hello in QUIC that does not become complete")
            }
            None => Ok(None),
        }
    }
}

impl QuicParser {
    fn initial(&mut self, initial: &Initial<'_>, side: FlowSide) -> Option<TlsMessage> {
        if matches!(self.state, State::Nothing) {
            let (secret, crypto, packets) = (initial.secret(), Crypto::default(), 0);
            let hello = Hello { client: side, secret, crypto, packets };
            self.state = State::Hello(Box::new(hello));
        }
        // Those of a server are encrypted with other keys.
        let State::Hello(hello) = &mut self.state else { return None };
        if hello.client != side {
            return None;
        }
        let taken = hello.take(initial);
        if !matches!(taken, Ok(None)) {
            self.state = State::Over;
        }
        match taken {
            Ok(Some(Some(TlsMessage::ClientHello(mut hello)))) => {
                hello.is_quic = true;
                Some(TlsMessage::ClientHello(hello))
            }
            Ok(_) => None,
            Err(refused) => {
                message_refused(refused);
                None
            }
        }
    }
}

impl DatagramParser for QuicParser {
    type Message = TlsMessage;

    fn parse(&mut self, payload: &[u8], side: FlowSide, _: FlowTime, out: &mut Vec<TlsMessage>) {
        let mut rest = payload;
        // A datagram may have several packets.
        while !matches!(self.state, State::Over)
            && let Some((initial, behind)) = packet::initial(rest)
        {
            out.extend(self.initial(&initial, side));
            rest = behind;
        }
        parser_holds(match &self.state {
            State::Hello(hello) => size_of::<Hello>() + hello.crypto.held(),
            State::Nothing | State::Over => 0,
        });
    }

    fn parser_kind(&self) -> ParserKind {
        ParserKind::Other("quic")
    }
}
