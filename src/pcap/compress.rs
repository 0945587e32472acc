//! Compressed files, with the features `gzip` and `lz4`.

use std::fs::File;
use std::io::{self, Chain, Cursor, Read, Write};
#[cfg(feature = "lz4")]
use std::io::{BufRead, BufReader};

use crate::error::FileError;

/// Compression of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Compression {
    /// No compression.
    #[default]
    None,
    /// Gzip: smaller files.
    #[cfg(feature = "gzip")]
    Gzip,
    /// LZ4 frames: faster.
    #[cfg(feature = "lz4")]
    Lz4,
}

#[cfg(feature = "gzip")]
const GZIP: [u8; 2] = [0x1f, 0x8b];
#[cfg(feature = "lz4")]
const LZ4: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

/// Returns a reader of the decompressed data.
pub(super) fn decompressed(
    mut reader: Box<dyn Read + Send>,
) -> Result<Box<dyn Read + Send>, FileError> {
    let mut head = [0; 4];
    let mut len = 0;
    while len < head.len() {
        match reader.read(&mut head[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(FileError::io(0, error)),
        }
    }
    let whole: Chain<Cursor<Vec<u8>>, _> = Cursor::new(head[..len].to_vec()).chain(reader);
    #[cfg(feature = "gzip")]
    if head[..2] == GZIP {
        return Ok(Box::new(flate2::read::MultiGzDecoder::new(whole)));
    }
    #[cfg(feature = "lz4")]
    if head == LZ4 {
        return Ok(Box::new(Frames(lz4_flex::frame::FrameDecoder::new(BufReader::new(whole)))));
    }
    Ok(Box::new(whole))
}

/// Consecutive LZ4 frames; the decoder itself stops at the end of each.
#[cfg(feature = "lz4")]
struct Frames<R: Read>(lz4_flex::frame::FrameDecoder<BufReader<R>>);

#[cfg(feature = "lz4")]
impl<R: Read> Read for Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.0.read(into)?;
            if read > 0 || into.is_empty() || self.0.get_mut().fill_buf()?.is_empty() {
                return Ok(read);
            }
        }
    }
}

/// A file open for writing, compressed or not.
///
/// A compressed file is a series of members (gzip) or frames (LZ4), each ended by a flush. Everything that was
/// flushed can therefore be read, whatever happens to the rest.
pub struct CaptureFile {
    compression: Compression,
    spill: Spill,
    encoder: Encoder,
}

/// Holds encoded bytes until the file accepts them, so that a file error does not lose part of the encoded
/// data.
struct Spill {
    file: File,
    waiting: Vec<u8>,
}

/// The current member or frame, encoded into memory.
enum Encoder {
    None,
    #[cfg(feature = "gzip")]
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    #[cfg(feature = "lz4")]
    Lz4(Box<lz4_flex::frame::FrameEncoder<Vec<u8>>>),
}

impl Encoder {
    fn new(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None,
            #[cfg(feature = "gzip")]
            Compression::Gzip => {
                let level = flate2::Compression::fast();
                Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), level))
            }
            #[cfg(feature = "lz4")]
            Compression::Lz4 => Self::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(Vec::new()))),
        }
    }

    /// Ends the member or frame and returns its remaining bytes.
    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(Vec::new()),
            #[cfg(feature = "gzip")]
            Self::Gzip(encoder) => encoder.finish(),
            #[cfg(feature = "lz4")]
            Self::Lz4(encoder) => encoder.finish().map_err(io::Error::other),
        }
    }
}

impl CaptureFile {
    pub(super) fn new(file: File, compression: Compression) -> Self {
        let spill = Spill { file, waiting: Vec::new() };
        Self { compression, spill, encoder: Encoder::None }
    }
}

impl Spill {
    fn drain(&mut self) -> io::Result<()> {
        super::encode::drain(&mut self.waiting, &mut self.file)
    }
}

impl Write for CaptureFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.compression == Compression::None {
            return self.spill.file.write(bytes);
        }
        self.spill.drain()?;
        if matches!(self.encoder, Encoder::None) {
            self.encoder = Encoder::new(self.compression);
        }
        match &mut self.encoder {
            Encoder::None => {}
            #[cfg(feature = "gzip")]
            Encoder::Gzip(encoder) => {
                encoder.write_all(bytes)?;
                self.spill.waiting.append(encoder.get_mut());
            }
            #[cfg(feature = "lz4")]
            Encoder::Lz4(encoder) => {
                encoder.write_all(bytes)?;
                self.spill.waiting.append(encoder.get_mut());
            }
        }
        // Bytes that the file does not accept now are retried by the next write or flush, which report the
        // error.
        let _ = self.spill.drain();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let rest = std::mem::replace(&mut self.encoder, Encoder::None).finish()?;
        self.spill.waiting.extend(rest);
        self.spill.drain()?;
        self.spill.file.flush()
    }
}

impl std::fmt::Debug for CaptureFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaptureFile")
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}
