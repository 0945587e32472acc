//! Initial packets (RFC 9000 §17.2.2), their protection (RFC 9001 §5), and the frames in them.

use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{Keys, Suite, Version};

/// Most bytes of a hello.
const MOST_CRYPTO: usize = 32 * 1024;
/// Most pieces of a hello that wait for others.
const MOST_PIECES: usize = 64;
/// Bytes of a packet that header protection samples.
const SAMPLE: usize = 16;

/// Where the keys of a connection's initial packets come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Secret {
    version: u32,
    id: Vec<u8>,
}

/// An initial packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Initial<'a> {
    version: u32,
    /// The identifier of the receiver.
    id: &'a [u8],
    /// The packet, and where its number begins.
    bytes: &'a [u8],
    number_at: usize,
}

fn known(version: u32) -> Option<Version> {
    match version {
        1 => Some(Version::V1),
        0x6b33_43cf => Some(Version::V2),
        0xff00_001d..=0xff00_0020 => Some(Version::V1Draft),
        0xff00_0021 | 0xff00_0022 => Some(Version::V1),
        _ => None,
    }
}

/// Takes parts off the front of a packet.
struct Parts<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Parts<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    /// A number of one, two, four or eight bytes, which its first two bits tell (RFC 9000 §16).
    fn number(&mut self) -> Option<u64> {
        let first = self.byte()?;
        let more = self.take((1 << (first >> 6)) - 1)?;
        let start = u64::from(first & 0x3f);
        Some(more.iter().fold(start, |number, byte| number << 8 | u64::from(*byte)))
    }
}

/// Returns whether a datagram begins with an initial packet of a version that is read.
pub fn is_quic(datagram: &[u8]) -> bool {
    initial(datagram).is_some()
}

/// Returns the initial packet that a datagram begins with, and the bytes behind it.
pub(super) fn initial(datagram: &[u8]) -> Option<(Initial<'_>, &[u8])> {
    let mut parts = Parts { bytes: datagram, at: 0 };
    let first = parts.byte()?;
    let version = u32::from_be_bytes(*parts.take(4)?.first_chunk()?);
    let of_initial = u8::from(matches!(known(version)?, Version::V2));
    if first & 0xc0 != 0xc0 || first >> 4 & 3 != of_initial {
        return None;
    }
    let len = parts.byte()?;
    let id = parts.take(usize::from(len)).filter(|id| id.len() <= 20)?;
    let len = parts.byte()?;
    parts.take(usize::from(len))?;
    let token = parts.number()?;
    parts.take(usize::try_from(token).ok()?)?;
    let len = usize::try_from(parts.number()?).ok()?;
    let number_at = parts.at;
    let (bytes, behind) = datagram.split_at_checked(number_at.checked_add(len)?)?;
    Some((Initial { version, id, bytes, number_at }, behind))
}

impl Secret {
    /// The keys of a client.
    fn keys(&self) -> Option<Keys> {
        let Suite { suite, quic } = TLS13_AES_128_GCM_SHA256.tls13()?.quic_suite()?;
        Some(Keys::initial(known(self.version)?, suite, quic, &self.id, rustls::Side::Server))
    }
}

impl Initial<'_> {
    /// The secret of a connection that begins with this packet.
    pub(super) fn secret(&self) -> Secret {
        Secret { version: self.version, id: self.id.to_vec() }
    }

    /// Returns the packet's frames, if they are protected with this secret's keys.
    pub(super) fn open(&self, secret: &Secret) -> Option<Vec<u8>> {
        let keys = secret.keys()?.remote;
        let mut bytes = self.bytes.to_vec();
        let (header, rest) = bytes.split_at_mut(self.number_at);
        let (number, sampled) = rest.split_at_mut_checked(4)?;
        let (first, _) = header.split_first_mut()?;
        keys.header.decrypt_in_place(sampled.get(..SAMPLE)?, first, number).ok()?;
        let number_len = usize::from(*first & 3) + 1;
        let number = number[..number_len].iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
        let (header, payload) = bytes.split_at_mut(self.number_at + number_len);
        let len = keys.packet.decrypt_in_place(number, header, payload).ok()?.len();
        Some(payload[..len].to_vec())
    }
}

/// The bytes of a handshake, from frames in any order.
#[derive(Debug, Clone, Default)]
pub(super) struct Crypto {
    /// The bytes from the beginning on.
    start: Vec<u8>,
    /// Pieces behind a gap, with their offsets.
    pieces: Vec<(usize, Vec<u8>)>,
}

const PADDING: u8 = 0;
const PING: u8 = 1;
const ACK: u8 = 2;
const ACK_ECN: u8 = 3;
const CRYPTO: u8 = 6;

impl Crypto {
    pub(super) fn held(&self) -> usize {
        let pieces = self.pieces.iter().map(|(_, piece)| piece.capacity() + 32);
        self.start.capacity() + pieces.sum::<usize>()
    }

    /// Takes in the frames of a packet.
    pub(super) fn add(&mut self, frames: &[u8]) -> Result<(), &'static str> {
        let mut parts = Parts { bytes: frames, at: 0 };
        self.frames(&mut parts).unwrap_or(Err("a frame of QUIC that is not well-formed"))
    }

    /// Returns `None` for a frame that is cut off.
    fn frames(&mut self, parts: &mut Parts<'_>) -> Option<Result<(), &'static str>> {
        while parts.at < parts.bytes.len() {
            match parts.byte()? {
                PADDING | PING => {}
                of @ (ACK | ACK_ECN) => {
                    let [_, _, ranges, _] = [(); 4].map(|()| parts.number());
                    for _ in 0..ranges? {
                        parts.number()?;
                        parts.number()?;
                    }
                    for _ in 0..if of == ACK_ECN { 3 } else { 0 } {
                        parts.number()?;
                    }
                }
                CRYPTO => {
                    let offset = usize::try_from(parts.number()?).ok()?;
                    let len = usize::try_from(parts.number()?).ok()?;
                    let data = parts.take(len)?;
                    if let Err(refused) = self.piece(offset, data) {
                        return Some(Err(refused));
                    }
                }
                // The connection ends, or it is a frame that initial packets may not have.
                _ => return Some(Err("an initial packet of QUIC without a hello")),
            }
        }
        Some(Ok(()))
    }

    fn piece(&mut self, offset: usize, data: &[u8]) -> Result<(), &'static str> {
        if offset.saturating_add(data.len()) > MOST_CRYPTO || self.pieces.len() == MOST_PIECES {
            return Err("a hello in QUIC that is longer than the limit");
        }
        self.pieces.push((offset, data.to_vec()));
        while let Some(next) = self.pieces.iter().position(|(at, _)| *at <= self.start.len()) {
            let (at, piece) = self.pieces.swap_remove(next);
            self.start.extend_from_slice(piece.get(self.start.len() - at..).unwrap_or_default());
        }
        Ok(())
    }

    /// Returns the hello, with its header, if it is complete.
    pub(super) fn message(&self) -> Result<Option<&[u8]>, &'static str> {
        const CLIENT_HELLO: u8 = 1;
        match self.start[..] {
            [CLIENT_HELLO, a, b, c, ..] => {
                Ok(self.start.get(..4 + u32::from_be_bytes([0, a, b, c]) as usize))
            }
            [] | [CLIENT_HELLO, ..] => Ok(None),
            _ => Err("an initial packet of QUIC without a hello"),
        }
    }
}
