//! Reading of capture files, one record at a time, with bounded memory.

mod buffer;
mod classic;
mod options;
mod pcapng;
mod time;

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use self::buffer::Buffer;
use self::classic::Classic;
use self::options::{Options, text};
use self::pcapng::Pcapng;
use super::compress;
use super::layout::{BYTE_ORDER, FILE_HEADER, FileFormat, FileInterface, block, option};
use crate::error::{FileError, FileFault, Result};
use crate::packet::{
    LinkLayer, LinkType, NO_DIRECTION, Packet, PacketMeta, PacketStatus, Timestamp, hardware_of,
};

/// Reads a capture file: pcap of either resolution and byte order, or pcapng.
///
/// ```no_run
/// use ringtap::pcap::CaptureReader;
///
/// let mut file = CaptureReader::open("a.pcapng")?;
/// while let Some(record) = file.next_record()? {
///     println!("{} {}", record.packet().timestamp(), record.packet().len());
/// }
/// # Ok::<(), ringtap::Error>(())
/// ```
///
/// Memory is bounded: the reader holds one packet or block of at most 16 MiB, and up to 65,536 interface
/// descriptions. Times are limited to the range of [`Timestamp`], which ends in the year 2106; later times
/// become the last one.
pub struct CaptureReader {
    buffer: Buffer,
    form: Form,
    interfaces: Vec<FileInterface>,
    path: Option<PathBuf>,
    is_over: bool,
}

enum Form {
    Classic(Classic),
    Pcapng(Pcapng),
}

/// An item found in the file, as ranges of the buffer.
enum Found {
    Packet(FoundPacket),
    Interface(usize),
    Statistics(usize),
    Section,
    Other { kind: u32, body: Range<usize> },
}

/// A packet, as ranges of the buffer.
struct FoundPacket {
    data: Range<usize>,
    meta: PacketMeta,
    interface: usize,
    has_time: bool,
    /// The options, if there is a comment among them, and whether their byte order is swapped.
    options: (Range<usize>, bool),
}

/// A packet read from a file.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    packet: Packet<'a>,
    interface: usize,
    has_time: bool,
    comments: Options<'a>,
}

impl<'a> Record<'a> {
    /// Returns the packet. Its [`interface_index`](Packet::interface_index) is [`interface`](Self::interface).
    pub fn packet(&self) -> Packet<'a> {
        self.packet
    }

    /// Returns the packet's index in [`CaptureReader::interfaces`].
    pub fn interface(&self) -> usize {
        self.interface
    }

    /// Returns whether the file has a timestamp for the packet. The timestamp of a simple packet is 0.
    pub fn has_time(&self) -> bool {
        self.has_time
    }

    /// Returns the first comment on the packet.
    pub fn comment(&self) -> Option<Cow<'a, str>> {
        self.comments().next()
    }

    /// Returns the comments on the packet, in their order.
    pub fn comments(&self) -> impl Iterator<Item = Cow<'a, str>> + use<'a> {
        let mut options = self.comments.clone();
        std::iter::from_fn(move || {
            loop {
                let (code, value) = options.next().ok().flatten()?;
                if code == option::COMMENT {
                    return Some(text(options.value(value)));
                }
            }
        })
    }
}

/// A block of a capture file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FileBlock<'a> {
    /// A packet.
    Packet(Record<'a>),
    /// The description of an interface, by its index in [`CaptureReader::interfaces`].
    Interface(usize),
    /// New statistics of an interface, by its index; they are stored in [`FileInterface::statistics`].
    Statistics(usize),
    /// A new section; the packets after it belong to the interfaces that it describes.
    Section,
    /// Any other block, such as host names (type 4) or keys (type 10).
    Other {
        /// Type of the block.
        kind: u32,
        /// Contents of the block, between its two length fields.
        body: &'a [u8],
    },
}

impl CaptureReader {
    /// Opens a file, which may be compressed if the features `gzip` and `lz4` are enabled.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if the file cannot be opened or is not a capture file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|error| FileError::io(0, error).of(path))?;
        let mut reader = Self::start(file).map_err(|error| error.of(path))?;
        reader.path = Some(path.to_owned());
        Ok(reader)
    }

    /// Reads from any [`Read`], buffering it internally.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn from_reader(reader: impl Read + Send + 'static) -> Result<Self> {
        Ok(Self::start(reader)?)
    }

    /// Opens a file for appending, without decompression: a compressed file cannot be appended to.
    pub(super) fn plain(file: File, path: &Path) -> Result<Self> {
        let mut reader = Self::on(Buffer::new(Box::new(file))).map_err(|error| error.of(path))?;
        reader.path = Some(path.to_owned());
        Ok(reader)
    }

    fn start(reader: impl Read + Send + 'static) -> Result<Self, FileError> {
        Self::on(Buffer::new(compress::decompressed(Box::new(reader))?))
    }

    fn on(mut buffer: Buffer) -> Result<Self, FileError> {
        if !buffer.fill(4)? {
            let magic = std::array::from_fn(|at| buffer.bytes().get(at).copied().unwrap_or(0));
            let fault = if buffer.bytes().is_empty() {
                FileFault::CutShort
            } else {
                FileFault::NotACapture { magic }
            };
            return Err(FileError::new(0, fault));
        }
        let mut interfaces = Vec::new();
        let form = match buffer.word(0, false) {
            block::SECTION => Form::Pcapng(Pcapng::default()),
            _ => {
                let is_whole = buffer.fill(FILE_HEADER)?;
                let (classic, interface) = Classic::read(buffer.bytes())?;
                if !is_whole {
                    return Err(FileError::new(0, FileFault::CutShort));
                }
                buffer.consume(FILE_HEADER);
                interfaces.push(interface);
                Form::Classic(classic)
            }
        };
        let (path, is_over) = (None, false);
        Ok(Self { buffer, form, interfaces, path, is_over })
    }

    /// Returns the next packet, or `None` at the end of the file.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) with the offset and the kind of damage; after an error, nothing more
    /// is returned.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>> {
        loop {
            match self.advance()? {
                None => return Ok(None),
                Some(Found::Packet(packet)) => return Ok(Some(self.record(packet))),
                Some(_) => {}
            }
        }
    }

    /// Returns the next block of any type, or `None` at the end of the file. A pcap file consists of packets
    /// only: the description of its interface has been read already.
    ///
    /// # Errors
    /// As for [`next_record`](Self::next_record).
    pub fn next_block(&mut self) -> Result<Option<FileBlock<'_>>> {
        let Some(found) = self.advance()? else { return Ok(None) };
        Ok(Some(match found {
            Found::Packet(packet) => FileBlock::Packet(self.record(packet)),
            Found::Interface(number) => FileBlock::Interface(number),
            Found::Statistics(number) => FileBlock::Statistics(number),
            Found::Section => FileBlock::Section,
            Found::Other { kind, body } => {
                FileBlock::Other { kind, body: &self.buffer.bytes()[body] }
            }
        }))
    }

    /// Returns the interfaces described so far, of all sections. In pcapng, further descriptions may follow
    /// between packets.
    pub fn interfaces(&self) -> &[FileInterface] {
        &self.interfaces
    }

    /// Returns the format of the file.
    pub fn format(&self) -> FileFormat {
        match &self.form {
            Form::Classic(classic) => classic.format(),
            Form::Pcapng(_) => FileFormat::Pcapng,
        }
    }

    /// Returns the offset of the next block or packet in the file, in bytes.
    pub fn offset(&self) -> u64 {
        self.buffer.next_offset()
    }

    /// Returns whether packets in the layout of our writer may follow those in the file.
    pub(super) fn is_plain(&self) -> bool {
        match &self.form {
            Form::Classic(classic) => classic.is_plain(),
            Form::Pcapng(_) => true,
        }
    }

    /// Returns whether the end of the file has been reached.
    pub(super) fn is_at_end(&self) -> bool {
        self.is_over
    }

    /// Returns whether the next block or packet is buffered, so that reading it does not wait.
    pub(super) fn is_at_hand(&self) -> bool {
        let rest = self.buffer.rest();
        let len = match &self.form {
            Form::Classic(classic) => classic.len_of(rest),
            Form::Pcapng(pcapng) => pcapng.len_of(rest),
        };
        len.is_some_and(|len| rest.len() >= len)
    }

    fn advance(&mut self) -> Result<Option<Found>> {
        if self.is_over {
            return Ok(None);
        }
        self.buffer.release();
        let found = match &mut self.form {
            Form::Classic(classic) => classic.next(&mut self.buffer, &self.interfaces[0]),
            Form::Pcapng(pcapng) => pcapng.next(&mut self.buffer, &mut self.interfaces),
        };
        self.is_over = !matches!(found, Ok(Some(_)));
        found.map_err(|error| match &self.path {
            Some(path) => error.of(path).into(),
            None => error.into(),
        })
    }

    fn record(&self, packet: FoundPacket) -> Record<'_> {
        let FoundPacket { data, meta, interface, has_time, options } = packet;
        let bytes = self.buffer.bytes();
        let (options, is_swapped) = options;
        let comments = Options::new(&bytes[options], is_swapped);
        Record { packet: Packet::new(&bytes[data], meta), interface, has_time, comments }
    }
}

impl fmt::Debug for CaptureReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureReader")
            .field("path", &self.path)
            .field("format", &self.format())
            .field("interfaces", &self.interfaces.len())
            .field("offset", &self.offset())
            .finish_non_exhaustive()
    }
}

/// Returns whether the byte-order magic of a section is swapped, or `None` if it is neither.
fn is_swapped(word: u32) -> Option<bool> {
    match word {
        BYTE_ORDER => Some(false),
        _ if word.swap_bytes() == BYTE_ORDER => Some(true),
        _ => None,
    }
}

/// Builds the metadata of a packet from the contents of the file.
fn meta(
    data: &[u8],
    wire_len: u32,
    timestamp: Timestamp,
    interface: (usize, LinkType),
    pkttype: Option<u8>,
) -> PacketMeta {
    let (interface, link_type) = interface;
    let protocol = match (link_type, data.get(12..14)) {
        (LinkType::ETHERNET, Some(&[a, b])) => u16::from_be_bytes([a, b]),
        _ => 0,
    };
    let link = LinkLayer {
        protocol,
        interface_index: interface as u32,
        hardware: hardware_of(link_type),
        pkttype: pkttype.unwrap_or(NO_DIRECTION),
        address_len: 0,
        address: [0; 8],
    };
    PacketMeta {
        wire_len,
        timestamp,
        status: PacketStatus::TIMESTAMP_SOFTWARE,
        rxhash: None,
        vlan: None,
        link: Some(link),
        offload: None,
    }
}
