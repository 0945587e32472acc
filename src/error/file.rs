//! Faults of capture files.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use super::Error;

/// The reason why a capture file could not be read or written, and the position of the fault.
#[derive(Debug)]
pub struct FileError {
    path: Option<PathBuf>,
    offset: u64,
    fault: FileFault,
}

/// A fault of a capture file.
#[derive(Debug)]
#[non_exhaustive]
pub enum FileFault {
    /// The file could not be opened, read or written.
    Io(io::Error),
    /// The file does not begin like a pcap or pcapng file.
    NotACapture {
        /// The first four bytes of the file.
        magic: [u8; 4],
    },
    /// The version of the file's format is not known.
    Version {
        /// The major version.
        major: u16,
        /// The minor version.
        minor: u16,
    },
    /// The file ends within a header, a block or a packet. All packets before that were read.
    CutShort,
    /// The length of a block is too small for its type, not a multiple of four, or not repeated at its end.
    BlockLength {
        /// The type of the block.
        kind: u32,
        /// The length of the block.
        len: u32,
    },
    /// A packet or a block is longer than 16 MiB.
    TooLong {
        /// Its length.
        len: u32,
    },
    /// An option does not fit into its block.
    Option {
        /// The type of the block.
        kind: u32,
        /// The code of the option.
        code: u16,
    },
    /// A block refers to an interface that its section has not described.
    NoInterface {
        /// The number of the interface.
        id: u32,
    },
    /// More than 65,536 interfaces are described.
    TooManyInterfaces,
    /// The names, descriptions and filters of interfaces take more than 16 MiB in total.
    TooMuchText,
    /// The data to append has another format or link type than the file.
    Differs,
}

impl FileError {
    pub(crate) fn new(offset: u64, fault: FileFault) -> Self {
        Self { path: None, offset, fault }
    }

    pub(crate) fn io(offset: u64, error: io::Error) -> Self {
        Self::new(offset, FileFault::Io(error))
    }

    pub(crate) fn of(mut self, path: &Path) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    /// Returns the path of the file, if it was opened by path.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Returns the byte offset of the block or packet at fault. In a compressed file, the offset counts
    /// decompressed bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the fault.
    pub fn fault(&self) -> &FileFault {
        &self.fault
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "capture file {}", path.display())?,
            None => f.write_str("capture file")?,
        }
        // Of one that could not even be opened, no position is of interest.
        if self.offset > 0 || !matches!(self.fault, FileFault::Io(_)) {
            write!(f, ", byte {}", self.offset)?;
        }
        write!(f, ": {}", self.fault)
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::NotACapture { magic: [a, b, c, d] } => write!(
                f,
                "not a pcap or pcapng file: it begins with {a:02x} {b:02x} {c:02x} {d:02x} (compressed ones need the \
                 features `gzip` or `lz4`)"
            ),
            Self::Version { major, minor } => {
                write!(f, "format version {major}.{minor} is not known")
            }
            Self::CutShort => f.write_str("the file ends inside of a packet or block"),
            Self::BlockLength { kind, len } => {
                write!(f, "a block of type {kind:#x} cannot have length {len}")
            }
            Self::TooLong { len } => {
                write!(f, "a packet or block of {len} bytes; 16 MiB is the most")
            }
            Self::Option { kind, code } => {
                write!(f, "option {code} does not fit into its block of type {kind:#x}")
            }
            Self::NoInterface { id } => write!(f, "no interface {id} was described before"),
            Self::TooManyInterfaces => f.write_str("more than 65536 interfaces are described"),
            Self::TooMuchText => f.write_str(
                "names, descriptions and filters of interfaces take more than 16 MiB in all",
            ),
            Self::Differs => f.write_str(
                "the file's format or link type differs from that of the data to append",
            ),
        }
    }
}

impl StdError for FileError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.fault {
            FileFault::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        Self::File(Box::new(error))
    }
}
