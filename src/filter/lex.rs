//! Splits the pcap-filter language into words with their positions.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::error::FilterError;

/// A word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A name, or a word whose meaning depends on its position.
    Word(&'a str),
    Number(u32),
    /// An IPv4 address or its first bytes, and the number of bits given.
    V4(u32, u32),
    V6(Ipv6Addr),
    Mac([u8; 6]),
    /// An operator or bracket, such as `(`, `&&` or `<=`.
    Sign(&'static str),
}

/// A word and its position in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lexeme<'a> {
    pub(super) token: Token<'a>,
    pub(super) at: usize,
    pub(super) len: usize,
}

/// Longer signs come first, because the first match is taken.
const SIGNS: &[&str] = &[
    "&&", "||", "<<", ">>", "<=", ">=", "==", "!=", "(", ")", "[", "]", ":", "/", "+", "-", "*",
    "%", "&", "|", "^", "<", ">", "=", "!",
];

/// Splits a filter into words.
pub(super) fn split(text: &str) -> Result<Vec<Lexeme<'_>>, FilterError> {
    let mut lexemes = Vec::new();
    // IPv6 addresses contain colons, and so do ranges in brackets; no address is expected within brackets.
    let (mut at, mut is_inside) = (0, false);
    while at < text.len() {
        let rest = &text[at..];
        let Some(first) = rest.chars().next() else { break };
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (token, len) = next(text, at, rest, is_inside)?;
        match token {
            Token::Sign("[") => is_inside = true,
            Token::Sign("]") => is_inside = false,
            _ => {}
        }
        lexemes.push(Lexeme { token, at, len });
        at += len;
    }
    Ok(lexemes)
}

fn next<'a>(
    text: &'a str,
    at: usize,
    rest: &'a str,
    is_inside: bool,
) -> Result<(Token<'a>, usize), FilterError> {
    if !is_inside && let Some(found) = address(rest) {
        return Ok(found);
    }
    let name_len = match rest.starts_with('-') {
        true => 0, // a sign, unless it is inside a name
        false => run(rest, is_of_name),
    };
    let (escape, word) = match rest.strip_prefix('\\') {
        Some(word) => (1, &word[..run(word, is_of_name)]),
        None => (0, &rest[..name_len]),
    };
    if word.is_empty() {
        let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
        return match sign {
            Some(sign) => Ok((Token::Sign(sign), sign.len())),
            None => Err(FilterError::at(text, at, "a word, a number or an operator")),
        };
    }
    if escape == 0 && word.starts_with(|c: char| c.is_ascii_digit()) {
        return number(text, at, word);
    }
    Ok((Token::Word(word), escape + word.len()))
}

/// The longest word that is looked at, so that the time stays linear in the length of the text.
const MAX_WORD: usize = 256;

/// Counts the bytes at the start for which `is_of_it` holds; they must be ASCII.
fn run(text: &str, is_of_it: impl Fn(char) -> bool) -> usize {
    text.bytes().take(MAX_WORD).take_while(|byte| is_of_it(char::from(*byte))).count()
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

fn number<'a>(text: &str, at: usize, word: &'a str) -> Result<(Token<'a>, usize), FilterError> {
    // The `-` in `1-2` is a separate sign, unless this is a range of ports, which the parser decides.
    let has_letter = word.contains(|c: char| c.is_ascii_alphabetic());
    if has_letter && word.contains('.') {
        return Ok((Token::Word(word), word.len())); // the name of a host: numbers with a dot are addresses
    }
    let digits = word.find('-').map_or(word, |sign| &word[..sign]);
    let (radix, significant) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if let Ok(number) = u32::from_str_radix(significant, radix) {
        return Ok((Token::Number(number), digits.len()));
    }
    if digits.contains('.') {
        let parts: Option<Vec<u8>> = digits.split('.').map(|part| part.parse().ok()).collect();
        return match parts {
            Some(parts) if parts.len() <= 4 => {
                let value = parts.iter().fold(0, |value, &part| value << 8 | u32::from(part));
                Ok((Token::V4(value, 8 * parts.len() as u32), digits.len()))
            }
            _ => Err(FilterError::at(text, at, "an IPv4 address: up to four numbers below 256")),
        };
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let is_octal = radix == 8 && digits.contains(['8', '9']);
        let what =
            if is_octal { "digits 0 to 7 behind a 0" } else { "a number of at most 32 bits" };
        return Err(FilterError::at(text, at, what));
    }
    Ok((Token::Word(word), word.len()))
}

/// Length of the longest address: IPv6 with an IPv4 address at its end.
const LONGEST_ADDRESS: usize = 45;

/// Reads a MAC or IPv6 address, or a complete IPv4 address, at the start of the text.
fn address(rest: &str) -> Option<(Token<'_>, usize)> {
    let is_of_address = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.' | '-');
    if !rest.starts_with(|c: char| c.is_ascii_hexdigit() || c == ':') {
        return None;
    }
    let len = run(rest, is_of_address);
    if len > LONGEST_ADDRESS {
        return None;
    }
    if rest[len..].starts_with(is_of_name) {
        return None; // part of a longer word
    }
    let word = &rest[..len];
    for separator in [':', '-', '.'] {
        let parts: Vec<&str> = word.split(separator).collect();
        let is_mac = parts.len() == 6;
        let is_cisco = separator == '.' && parts.len() == 3 && parts.iter().all(|p| p.len() == 4);
        if is_mac && parts.iter().all(|part| (1..=2).contains(&part.len())) {
            let bytes: Option<Vec<u8>> =
                parts.iter().map(|part| u8::from_str_radix(part, 16).ok()).collect();
            return bytes.and_then(|bytes| Some((Token::Mac(bytes.try_into().ok()?), len)));
        }
        if is_cisco {
            let mut mac = [0; 6];
            for (part, to) in parts.iter().zip(mac.chunks_mut(2)) {
                to.copy_from_slice(&u16::from_str_radix(part, 16).ok()?.to_be_bytes());
            }
            return Some((Token::Mac(mac), len));
        }
    }
    if let Ok(v4) = word.parse::<Ipv4Addr>() {
        return Some((Token::V4(v4.to_bits(), 32), len));
    }
    // Two groups may be written as an IPv4 address.
    let groups = word.matches(':').count() + usize::from(word.contains('.'));
    let v6 = word.contains("::") || groups == 7;
    let v6 = v6.then(|| word.parse::<Ipv6Addr>().ok()).flatten()?;
    Some((Token::V6(v6), len))
}
