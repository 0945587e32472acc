//! How a capture file is to be written.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::compress::{CaptureFile, Compression};
use super::encode::{self, About};
use super::layout::{FileFormat, FileInterface};
use super::writer::{CaptureWriter, FULL, of_interface};
use crate::error::{FileError, Result};
use crate::packet::LinkType;

impl CaptureWriter {
    /// Creates a pcapng file of one Ethernet interface.
    ///
    /// # Errors
    /// As [`CaptureWriterBuilder::create`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().create(path)
    }

    /// Goes on with a pcapng file; see [`CaptureWriterBuilder::append`].
    ///
    /// # Errors
    /// As there.
    pub fn append(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().append(path)
    }

    /// How it is to be written.
    pub fn builder() -> CaptureWriterBuilder {
        CaptureWriterBuilder::default()
    }
}

/// How a capture file is written; from [`CaptureWriter::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `create`, `append` or `to`"]
pub struct CaptureWriterBuilder {
    pub(super) format: FileFormat,
    pub(super) interfaces: Vec<FileInterface>,
    about: About,
    has_directions: bool,
    pub(super) compression: Compression,
}

impl Default for CaptureWriterBuilder {
    fn default() -> Self {
        let application = Some(concat!("ringtap ", env!("CARGO_PKG_VERSION")).to_owned());
        let about = About { application, system: Some("Linux".to_owned()), ..About::default() };
        Self {
            format: FileFormat::default(),
            interfaces: Vec::new(),
            about,
            has_directions: true,
            compression: Compression::None,
        }
    }
}

impl CaptureWriterBuilder {
    /// The format. Default pcapng.
    pub fn format(mut self, format: FileFormat) -> Self {
        self.format = format;
        self
    }

    /// Adds an interface. The classic format has one; by default it is Ethernet, without a name.
    pub fn interface(mut self, interface: FileInterface) -> Self {
        self.interfaces.push(interface);
        self
    }

    /// A comment on the whole file; in pcapng only.
    pub fn comment(mut self, text: impl Into<String>) -> Self {
        self.about.comment = Some(text.into());
        self
    }

    /// The machine it was captured on; in pcapng only.
    pub fn hardware(mut self, text: impl Into<String>) -> Self {
        self.about.hardware = Some(text.into());
        self
    }

    /// The program that wrote it; in pcapng only. Default this crate and its version.
    pub fn application(mut self, text: impl Into<String>) -> Self {
        self.about.application = Some(text.into());
        self
    }

    /// Whether it is written of each packet which way it went, 12 bytes more; in pcapng only. Default true.
    pub fn directions(mut self, on: bool) -> Self {
        self.has_directions = on;
        self
    }

    /// How it is compressed. Default not.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Creates a file, in place of one that is there.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) where it cannot be written.
    pub fn create(self, path: impl AsRef<Path>) -> Result<CaptureWriter> {
        let path = path.as_ref();
        let file = File::create(path).map_err(|error| FileError::io(0, error).of(path))?;
        let out = CaptureFile::new(file, self.compression);
        Ok(self.start(out, true, Some(path))?)
    }

    /// Writes to anything; do not buffer it, the writer does.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn to<W: Write>(self, out: W) -> Result<CaptureWriter<W>> {
        Ok(self.start(out, true, None)?)
    }

    pub(super) fn start<W: Write>(
        mut self,
        out: W,
        has_header: bool,
        path: Option<&Path>,
    ) -> Result<CaptureWriter<W>, FileError> {
        if self.interfaces.is_empty() {
            self.interfaces.push(FileInterface::new(LinkType::ETHERNET));
        }
        let mut buffer = Vec::with_capacity(FULL + (64 << 10));
        match self.format {
            FileFormat::Pcapng => {
                encode::section(&mut buffer, &self.about);
                for interface in &self.interfaces {
                    encode::interface(&mut buffer, interface);
                }
            }
            format if has_header => {
                encode::file_header(&mut buffer, format, &self.interfaces[0]);
            }
            _ => {}
        }
        let interfaces = self.interfaces.iter().map(of_interface).collect();
        let kind = (self.format, self.has_directions);
        CaptureWriter::begin(out, buffer, kind, interfaces, path)
    }
}
