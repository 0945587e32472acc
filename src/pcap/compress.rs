//! Compressed files, by the features `gzip` and `lz4`.

use std::fs::File;
use std::io::{self, Chain, Cursor, Read, Write};

use crate::error::FileError;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Not.
    #[default]
    None,
    /// As gzip does: smaller.
    #[cfg(feature = "gzip")]
    Gzip,
    /// In frames of lz4: faster.
    #[cfg(feature = "lz4")]
    Lz4,
}

#[cfg(feature = "gzip")]
const GZIP: [u8; 2] = [0x1f, 0x8b];
#[cfg(feature = "lz4")]
const LZ4: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

/// What it is the reader of, without the compression.
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
        return Ok(Box::new(lz4_flex::frame::FrameDecoder::new(whole)));
    }
    Ok(Box::new(whole))
}

/// A file that is written, compressed or not.
pub struct CaptureFile(Kind);

enum Kind {
    Plain(File),
    #[cfg(feature = "gzip")]
    Gzip(flate2::write::GzEncoder<File>),
    #[cfg(feature = "lz4")]
    Lz4(Box<lz4_flex::frame::AutoFinishEncoder<File>>),
}

impl CaptureFile {
    pub(super) fn new(file: File, compression: Compression) -> Self {
        Self(match compression {
            Compression::None => Kind::Plain(file),
            #[cfg(feature = "gzip")]
            Compression::Gzip => {
                Kind::Gzip(flate2::write::GzEncoder::new(file, flate2::Compression::fast()))
            }
            #[cfg(feature = "lz4")]
            Compression::Lz4 => {
                Kind::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(file).auto_finish()))
            }
        })
    }

    fn inner(&mut self) -> &mut dyn Write {
        match &mut self.0 {
            Kind::Plain(file) => file,
            #[cfg(feature = "gzip")]
            Kind::Gzip(encoder) => encoder,
            #[cfg(feature = "lz4")]
            Kind::Lz4(encoder) => encoder,
        }
    }
}

impl Write for CaptureFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner().flush()
    }
}

impl std::fmt::Debug for CaptureFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaptureFile").finish_non_exhaustive()
    }
}
