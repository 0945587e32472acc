//! The chunked transfer coding (RFC 9112 §7.1), byte by byte: what was read once is not read again.

/// What the next byte belongs to.
#[derive(Debug, Clone)]
pub(super) enum Chunked {
    Size {
        size: u64,
        digits: u8,
    },
    /// Behind the size, up to the end of the line.
    Extension {
        size: u64,
        len: usize,
    },
    Data(u64),
    /// The end of the line behind the data.
    DataEnd,
    Trailers,
}

impl Default for Chunked {
    fn default() -> Self {
        Self::Size { size: 0, digits: 0 }
    }
}

/// Most bytes of the extensions of a chunk.
const MOST_EXTENSIONS: usize = 16 * 1024;

/// A step of decoding.
pub(super) enum Step<'a> {
    /// Bytes of the body, and those behind.
    Data(&'a [u8], &'a [u8]),
    /// The trailer section begins with these bytes.
    Trailers(&'a [u8]),
    /// All bytes were read.
    More,
}

impl Chunked {
    /// Reads bytes until there is something to tell. `Trailers` is told again for the bytes that follow.
    pub(super) fn step<'a>(&mut self, mut bytes: &'a [u8]) -> Result<Step<'a>, &'static str> {
        loop {
            if matches!(self, Self::Trailers) {
                return Ok(Step::Trailers(bytes));
            }
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(Step::More) };
            match self {
                Self::Data(left) => {
                    let len = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    let (data, rest) = bytes.split_at(len);
                    *left -= len as u64;
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    return Ok(Step::Data(data, rest));
                }
                Self::Size { size, digits } => *self = after_size(*size, *digits, byte)?,
                Self::Extension { size, .. } if byte == b'\n' => *self = chunk(*size),
                Self::Extension { len, .. } => {
                    *len += 1;
                    if *len > MOST_EXTENSIONS {
                        return Err("a chunk with more than 16 KiB of extensions");
                    }
                }
                Self::DataEnd if byte == b'\n' => *self = Self::default(),
                Self::DataEnd if byte == b'\r' => {}
                Self::DataEnd => return Err("a chunk longer than its size"),
                Self::Trailers => {}
            }
            bytes = rest;
        }
    }
}

fn after_size(size: u64, digits: u8, byte: u8) -> Result<Chunked, &'static str> {
    if let Some(digit) = char::from(byte).to_digit(16) {
        if digits == 16 {
            return Err("a chunk size of more than 16 digits");
        }
        return Ok(Chunked::Size { size: size << 4 | u64::from(digit), digits: digits + 1 });
    }
    match byte {
        _ if digits == 0 => Err("a chunk without a size"),
        b'\n' => Ok(chunk(size)),
        b'\r' | b';' | b' ' | b'\t' => Ok(Chunked::Extension { size, len: 0 }),
        _ => Err("a chunk size that is not a number"),
    }
}

/// What follows the line of a size.
fn chunk(size: u64) -> Chunked {
    if size == 0 { Chunked::Trailers } else { Chunked::Data(size) }
}
