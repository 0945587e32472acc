//! Fingerprints of clients: [JA3](https://github.com/salesforce/ja3) and
//! [JA4](https://github.com/FoxIO-LLC/ja4/blob/main/technical_details/JA4.md).

use std::fmt::Write;

use super::message::{TlsClientHello, TlsVersion};

impl TlsClientHello {
    /// Returns the highest version that the client offers.
    pub fn version(&self) -> TlsVersion {
        let offered = self.supported_versions.iter().filter(|v| !is_grease(v.0));
        // Drafts of 1.3 are below it, whatever their numbers.
        let rank = |version: &TlsVersion| match version.is_1_3() {
            true if *version != TlsVersion::TLS_1_3 => (TlsVersion::TLS_1_2.0, version.0),
            _ => (version.0, 0),
        };
        offered.copied().max_by_key(rank).unwrap_or(self.legacy_version)
    }

    /// Returns the text of which [`ja3`](Self::ja3) is the hash.
    pub fn ja3_text(&self) -> String {
        ja3_text(self)
    }

    /// Returns the fingerprint JA3: 32 hexadecimal digits.
    pub fn ja3(&self) -> String {
        format!("{:x}", md5::compute(self.ja3_text()))
    }

    /// Returns the fingerprint JA4.
    pub fn ja4(&self) -> String {
        ja4(self, if self.is_quic { 'q' } else { 't' })
    }
}

/// Returns whether a value is one of those that are reserved so that peers learn to ignore what they do not know.
const fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

fn without_grease(values: &[u16]) -> impl Iterator<Item = u16> {
    values.iter().copied().filter(|value| !is_grease(*value))
}

fn ja3_text(hello: &TlsClientHello) -> String {
    let list = |values: &mut dyn Iterator<Item = u16>| {
        let texts: Vec<String> = values.map(|value| value.to_string()).collect();
        texts.join("-")
    };
    format!(
        "{},{},{},{},{}",
        hello.legacy_version.0,
        list(&mut without_grease(&hello.cipher_suites)),
        list(&mut without_grease(&hello.extension_types)),
        list(&mut without_grease(&hello.supported_groups)),
        list(&mut hello.point_formats.iter().map(|format| u16::from(*format))),
    )
}

/// Extensions that JA4 leaves out of its hash: the name of the server, and the application protocols.
const SNI: u16 = 0;
const ALPN: u16 = 16;

fn ja4(hello: &TlsClientHello, transport: char) -> String {
    let mut ciphers: Vec<u16> = without_grease(&hello.cipher_suites).collect();
    let mut extensions: Vec<u16> = without_grease(&hello.extension_types).collect();
    let version = match hello.version() {
        version if version.is_1_3() => "13",
        TlsVersion::TLS_1_2 => "12",
        TlsVersion::TLS_1_1 => "11",
        TlsVersion::TLS_1_0 => "10",
        TlsVersion::SSL_3_0 => "s3",
        TlsVersion(0x0002) => "s2",
        _ => "00",
    };
    let sni = if extensions.contains(&SNI) { 'd' } else { 'i' };
    let counts = (ciphers.len().min(99), extensions.len().min(99));
    let (first, last) = hello.alpn_ends.map_or(('0', '0'), ends);
    ciphers.sort_unstable();
    extensions.retain(|extension| !matches!(*extension, SNI | ALPN));
    extensions.sort_unstable();
    let mut listed = hex(extensions.iter().copied());
    if !extensions.is_empty() && !hello.signature_algorithms.is_empty() {
        listed.push('_');
        listed.push_str(&hex(without_grease(&hello.signature_algorithms)));
    }
    let (ciphers, listed) = (hash(&hex(ciphers.into_iter())), hash(&listed));
    let (of_ciphers, of_extensions) = counts;
    format!(
        "{transport}{version}{sni}{of_ciphers:02}{of_extensions:02}{first}{last}_{ciphers}_{listed}"
    )
}

/// The first and the last character of a protocol's name, or of its hexadecimal form if they are not alphanumeric.
fn ends([first, last]: [u8; 2]) -> (char, char) {
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return (char::from(first), char::from(last));
    }
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    (digit(first >> 4), digit(last & 15))
}

fn hex(values: impl Iterator<Item = u16>) -> String {
    let mut text = String::new();
    for value in values {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{value:04x}"); // a String takes all
    }
    text
}

/// The first twelve digits of a SHA-256, or zeros for nothing.
fn hash(text: &str) -> String {
    if text.is_empty() {
        return "0".repeat(12);
    }
    let hash = hmac_sha256::Hash::hash(text.as_bytes());
    let [a, b, c, d, e, f, ..] = hash;
    format!("{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}")
}
