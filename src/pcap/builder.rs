//! Configuration of a capture file to be written.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::appearing::Appearing;
use super::compress::{CaptureFile, Compression};
use super::encode::{self, About};
use super::layout::{FileFormat, FileInterface};
use super::writer::{CaptureWriter, FULL, of_interface};
use crate::error::{FileError, FileFault, Result};
use crate::interface::InterfaceNames;
use crate::packet::LinkType;

impl CaptureWriter {
    /// Creates a pcapng file with one Ethernet interface.
    ///
    /// # Errors
    /// The errors of [`CaptureWriterBuilder::create`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().create(path)
    }

    /// Appends to a pcapng file; see [`CaptureWriterBuilder::append`].
    ///
    /// # Errors
    /// The errors of [`CaptureWriterBuilder::append`].
    pub fn append(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().append(path)
    }

    /// Returns a builder for a capture file.
    pub fn builder() -> CaptureWriterBuilder {
        CaptureWriterBuilder::default()
    }
}

/// Configures how a capture file is written; from [`CaptureWriter::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `create`, `append` or `to`"]
pub struct CaptureWriterBuilder {
    pub(super) format: FileFormat,
    pub(super) interfaces: Vec<FileInterface>,
    about: About,
    has_directions: bool,
    pub(super) compression: Compression,
    /// Whether interfaces are described when they appear.
    has_appearing: bool,
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
            has_appearing: false,
        }
    }
}

impl CaptureWriterBuilder {
    /// Sets the file format. Default: pcapng.
    pub fn format(mut self, format: FileFormat) -> Self {
        self.format = format;
        self
    }

    /// Describes each interface when the first packet that was seen on it is written, with its name in the calling
    /// thread's network namespace ([`NetNs::within`](crate::capture::NetNs::within) is for others); in pcapng only. For a capture on `any`, or several captures in one file.
    ///
    /// A packet is then of the interface that it was seen on, unless its [`PacketNote`](super::PacketNote) names another.
    /// The classic format has one interface, whose link type [`interface`](Self::interface) must say; in a file of cooked
    /// packets ([`LinkType::LINUX_SLL2`]), each packet has the index of its interface.
    pub fn each_interface(mut self) -> Self {
        self.has_appearing = true;
        self
    }

    /// Adds an interface. The classic format has exactly one; by default it is an Ethernet interface without a
    /// name.
    pub fn interface(mut self, interface: FileInterface) -> Self {
        self.interfaces.push(interface);
        self
    }

    /// Sets a comment on the whole file; in pcapng only.
    pub fn comment(mut self, text: impl Into<String>) -> Self {
        self.about.comment = Some(text.into());
        self
    }

    /// Sets the description of the machine on which the packets were captured; in pcapng only.
    pub fn hardware(mut self, text: impl Into<String>) -> Self {
        self.about.hardware = Some(text.into());
        self
    }

    /// Sets the name of the program that wrote the file; in pcapng only. Default: this crate and its version.
    pub fn application(mut self, text: impl Into<String>) -> Self {
        self.about.application = Some(text.into());
        self
    }

    /// Sets whether the direction of each packet is written, which takes 12 bytes per packet; in pcapng only.
    /// Default: true.
    pub fn directions(mut self, on: bool) -> Self {
        self.has_directions = on;
        self
    }

    /// Sets the compression. Default: none.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Creates a file, replacing an existing one.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if the file cannot be written.
    pub fn create(self, path: impl AsRef<Path>) -> Result<CaptureWriter> {
        let path = path.as_ref();
        let file = File::create(path).map_err(|error| FileError::io(0, error).of(path))?;
        let out = CaptureFile::new(file, self.compression);
        Ok(self.start(out, true, Some(path))?)
    }

    /// Writes to any [`Write`]; do not buffer it, as the writer does that itself.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn to<W: Write>(self, out: W) -> Result<CaptureWriter<W>> {
        Ok(self.start(out, true, None)?)
    }

    /// Returns whether interfaces are described as they appear.
    fn describes_each(&self) -> bool {
        self.has_appearing && self.format == FileFormat::Pcapng
    }

    /// Returns whether a file has an interface with this number from its beginning on.
    pub(super) fn has_interface(&self, number: u32) -> bool {
        let least = usize::from(!self.describes_each());
        (number as usize) < self.interfaces.len().max(least)
    }

    pub(super) fn start<W: Write>(
        mut self,
        out: W,
        has_header: bool,
        path: Option<&Path>,
    ) -> Result<CaptureWriter<W>, FileError> {
        let has_appearing = self.describes_each();
        if self.has_appearing && !has_appearing && self.interfaces.is_empty() {
            // They may be of any kind, and all of the file is of one.
            return Err(FileError::new(0, FileFault::NoInterface { id: 0 }));
        }
        let appearing = match has_appearing {
            true => Some(
                InterfaceNames::new()
                    .map_err(|error| FileError::io(0, std::io::Error::other(error.to_string())))?,
            ),
            false => None,
        };
        if self.interfaces.is_empty() && !has_appearing {
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
        let writer = CaptureWriter::begin(out, buffer, kind, interfaces, path)?;
        Ok(writer.appearing(appearing.map(Appearing::new)))
    }
}
