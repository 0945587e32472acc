//! How long a message's body is (RFC 9112 §6.3).

use super::chunked::Chunked;
use super::head::HttpFields;

/// The rest of a body.
#[derive(Debug, Clone)]
pub(super) enum Body {
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

/// The body of a request.
pub(super) fn of_request(fields: &HttpFields) -> Result<Body, &'static str> {
    match coding(fields) {
        Coding::Chunked => Ok(Body::Chunked(Chunked::default())),
        Coding::Other => Err("a request whose last transfer coding is not chunked"),
        Coding::None => Ok(Body::Length(length(fields)?.unwrap_or(0))),
    }
}

/// The body of a response to a request that is not HEAD.
pub(super) fn of_response(status: u16, fields: &HttpFields) -> Result<Body, &'static str> {
    if matches!(status, 100..=199 | 204 | 304) {
        return Ok(Body::Length(0));
    }
    match coding(fields) {
        Coding::Chunked => Ok(Body::Chunked(Chunked::default())),
        Coding::Other => Ok(Body::UntilClose),
        Coding::None => Ok(length(fields)?.map_or(Body::UntilClose, Body::Length)),
    }
}

enum Coding {
    None,
    Chunked,
    Other,
}

/// The last transfer coding.
fn coding(fields: &HttpFields) -> Coding {
    let items = fields.get_all("transfer-encoding").flat_map(|value| value.split(|b| *b == b','));
    let last = items.map(<[u8]>::trim_ascii).filter(|item| !item.is_empty()).last();
    match last {
        None => Coding::None,
        Some(last) if last.eq_ignore_ascii_case(b"chunked") => Coding::Chunked,
        // It was a coding that changes nothing, until RFC 7230 removed it.
        Some(last) if last.eq_ignore_ascii_case(b"identity") => Coding::None,
        Some(_) => Coding::Other,
    }
}

/// The length that the fields give. Repeated values must be equal.
fn length(fields: &HttpFields) -> Result<Option<u64>, &'static str> {
    let mut length = None;
    let values = fields.get_all("content-length").flat_map(|value| value.split(|b| *b == b','));
    for value in values.map(<[u8]>::trim_ascii) {
        let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let number = str::from_utf8(value).ok().filter(|_| is_number);
        let number: u64 = number
            .and_then(|number| number.parse().ok())
            .ok_or("a Content-Length that is not a number of bytes")?;
        if length.is_some_and(|before| before != number) {
            return Err("several Content-Lengths that differ");
        }
        length = Some(number);
    }
    Ok(length)
}
