//! What is wrong with a capture file.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use super::Error;

/// Why a capture file could not be read or written, and where in it.
#[derive(Debug)]
pub struct FileError {
    path: Option<PathBuf>,
    offset: u64,
    fault: FileFault,
}

/// What is wrong with a capture file.
#[derive(Debug)]
#[non_exhaustive]
pub enum FileFault {
    /// It could not be opened, read or written.
    Io(io::Error),
    /// It begins like no pcap or pcapng file.
    NotACapture {
        /// Its first four bytes.
        magic: [u8; 4],
    },
    /// It is of a version that is not known.
    Version {
        /// The number before the point.
        major: u16,
        /// The number behind it.
        minor: u16,
    },
    /// It ends inside of a header, a block or a packet; all packets before were read.
    CutShort,
    /// A block's length is too small for what it is, no multiple of four, or not repeated at its end.
    BlockLength {
        /// The block's type.
        kind: u32,
        /// Its length.
        len: u32,
    },
    /// A packet, or a block, is longer than 16 MiB.
    TooLong {
        /// Its length.
        len: u32,
    },
    /// An option of a block does not fit into it.
    Option {
        /// The block's type.
        kind: u32,
        /// The option's code.
        code: u16,
    },
    /// A block is of an interface that its section has not described.
    NoInterface {
        /// The interface's number.
        id: u32,
    },
    /// More than 65,536 interfaces are described.
    TooManyInterfaces,
    /// Names, descriptions and filters of interfaces take more than 16 MiB in all.
    TooMuchText,
    /// What is to be appended is of another format, or of another kind of link, than the file.
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

    /// The file's path, where it was opened by one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Where in the file, in bytes: the beginning of the block or packet; of a compressed one, in what it holds.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What is wrong there.
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
        write!(f, ", byte {}: {}", self.offset, self.fault)
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::NotACapture { magic: [a, b, c, d] } => write!(
                f,
                "no pcap or pcapng file: it begins with {a:02x} {b:02x} {c:02x} {d:02x} (compressed ones need the \
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
                "the file is of another format or kind of link than what is to be appended",
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
