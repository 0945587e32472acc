//! Appending to an existing file.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::path::Path;

use super::builder::CaptureWriterBuilder;
use super::compress::{CaptureFile, Compression};
use super::layout::{FileFormat, FileInterface};
use super::reader::CaptureReader;
use super::writer::CaptureWriter;
use crate::error::{Error, FileError, FileFault, Result};
use crate::packet::LinkType;

impl CaptureWriterBuilder {
    /// Appends to a file, or creates it if it does not exist or is empty. In pcapng a new section begins, with
    /// its own interfaces. An incomplete last packet, such as a crash leaves, is cut off.
    ///
    /// The file is read once, to find its end. A compressed file cannot be appended to, but it can be created.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be read or written, is damaged, or, in the classic format, differs in
    /// resolution, link type, byte order or version.
    pub fn append(self, path: impl AsRef<Path>) -> Result<CaptureWriter> {
        let path = path.as_ref();
        let of = |error: std::io::Error| FileError::io(0, error).of(path);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(of)?;
        let is_new = file.metadata().map_err(of)?.len() == 0;
        let mut end = 0;
        if !is_new {
            if self.compression != Compression::None {
                return Err(FileError::new(0, FileFault::Differs).of(path).into());
            }
            end = self.end(&file, path)?;
            file.set_len(end).map_err(of)?;
        }
        file.seek(SeekFrom::End(0)).map_err(of)?;
        let out = CaptureFile::new(file, self.compression);
        Ok(self.start(out, is_new, Some(path))?.behind(end))
    }

    /// Returns the offset at which the last complete packet ends.
    fn end(&self, file: &File, path: &Path) -> Result<u64> {
        let of = |error: std::io::Error| FileError::io(0, error).of(path);
        let differs = |offset| Err(FileError::new(offset, FileFault::Differs).of(path).into());
        let mut reader = CaptureReader::plain(file.try_clone().map_err(of)?, path)?;
        if reader.format() != self.format {
            return differs(0);
        }
        let link_type = self.interfaces.first().map_or(LinkType::ETHERNET, |first| first.link_type);
        let has_same_link = |interface: &FileInterface| interface.link_type == link_type;
        if self.format != FileFormat::Pcapng
            && (!reader.interfaces().iter().all(has_same_link) || !reader.is_plain())
        {
            return differs(20);
        }
        loop {
            let end = reader.offset();
            match reader.next_block() {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(end),
                Err(Error::File(error)) if matches!(error.fault(), FileFault::CutShort) => {
                    return Ok(end);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
