//! The options behind a block of pcapng.

use std::borrow::Cow;
use std::ops::Range;

use super::buffer::half;
use crate::pcap::layout::option;

/// An iterator over options, each with its code and value.
#[derive(Debug, Clone)]
pub(super) struct Options<'a> {
    bytes: &'a [u8],
    at: usize,
    is_swapped: bool,
}

impl<'a> Options<'a> {
    pub(super) fn new(bytes: &'a [u8], is_swapped: bool) -> Self {
        Self { bytes, at: 0, is_swapped }
    }

    pub(super) fn value(&self, range: Range<usize>) -> &'a [u8] {
        &self.bytes[range]
    }

    /// Returns the next option's code and the range of its value. An error holds the code of the option that
    /// does not fit.
    pub(super) fn next(&mut self) -> Result<Option<(u16, Range<usize>)>, u16> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        if self.bytes.len() - self.at < 4 {
            return Err(option::END);
        }
        let code = half(self.bytes, self.at, self.is_swapped);
        let len = usize::from(half(self.bytes, self.at + 2, self.is_swapped));
        let value = self.at + 4..self.at + 4 + len;
        if code == option::END {
            return Ok(None);
        }
        if value.end > self.bytes.len() {
            return Err(code);
        }
        self.at = value.end.next_multiple_of(4).min(self.bytes.len());
        Ok(Some((code, value)))
    }
}

/// Returns an option's text, which a zero octet ends.
pub(super) fn text(value: &[u8]) -> Cow<'_, str> {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end])
}
