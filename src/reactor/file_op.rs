//! Operations on files, submitted like polls and kicks. Each owns what the kernel uses until it has answered: the file and
//! the bytes.
//!
//! An operation is never cancelled: one that is dropped ends by itself, and what it owns is kept until then. If a ring has
//! to be left with operations in flight, what they own is leaked, since nobody can say until when the kernel uses it.

use std::ffi::CString;
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use crate::ring::disk::DiskBuffer;
use crate::sys::file;

/// An operation.
#[derive(Debug)]
pub(crate) enum FileOp {
    /// Writes the buffer at this offset.
    Write { file: Rc<OwnedFd>, offset: u64, buffer: DiskBuffer },
    /// Reserves room up to this length, without changing the length of the file.
    Reserve { file: Rc<OwnedFd>, len: u64 },
    /// Waits until the data are on the disk (`fdatasync`).
    Sync { file: Rc<OwnedFd> },
    /// Creates a file for writing, past the page cache if `is_direct`; fails if there is one of that name.
    Create { path: CString, is_direct: bool },
    /// Removes a file.
    Remove { path: CString },
    /// Closes a file.
    Close { file: Option<OwnedFd> },
}

/// The request that is made of the kernel for an operation.
#[derive(Debug, Clone, Copy)]
pub(super) enum FileRequest<'a> {
    Write { file: RawFd, offset: u64, bytes: &'a [u8] },
    Reserve { file: RawFd, len: u64 },
    Sync { file: RawFd },
    Create { path: &'a CString, flags: i32 },
    Remove { path: &'a CString },
    Close { file: RawFd },
}

impl FileOp {
    /// Returns the request. It is made once: a file to be closed is the kernel's from now on.
    pub(super) fn request(&mut self) -> FileRequest<'_> {
        use std::os::fd::AsRawFd;
        match self {
            Self::Write { file, offset, buffer } => FileRequest::Write {
                file: file.as_raw_fd(),
                offset: *offset,
                bytes: buffer.bytes(),
            },
            Self::Reserve { file, len } => {
                FileRequest::Reserve { file: file.as_raw_fd(), len: *len }
            }
            Self::Sync { file } => FileRequest::Sync { file: file.as_raw_fd() },
            Self::Create { path, is_direct } => {
                FileRequest::Create { path, flags: file::create_flags(*is_direct) }
            }
            Self::Remove { path } => FileRequest::Remove { path },
            // -1 is refused as any bad descriptor is.
            Self::Close { file } => {
                FileRequest::Close { file: file.take().map_or(-1, IntoRawFd::into_raw_fd) }
            }
        }
    }

    /// Disposes of the result of an operation that nobody waits for.
    pub(super) fn discard(&self, result: i32) {
        if matches!(self, Self::Create { .. }) && result >= 0 {
            drop(file::adopt(result));
        }
    }
}

/// The result of the system call that an operation stands for, or the errno of its failure.
pub(super) fn told(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}
