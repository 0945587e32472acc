//! Operations on files, submitted like polls and kicks. Each owns what the kernel uses until it has answered: the file and
//! the bytes.
//!
//! An operation is never cancelled: one that is dropped ends by itself, and what it owns is kept until then. If a ring has
//! to be left with operations in flight, what they own is leaked, since nobody can say until when the kernel uses it.

use std::ffi::CString;
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use super::Reactor;
use super::ops::Kind;
use super::state::State;
use super::token::Token;
use super::turn::Inner;
use crate::error::{Error, Result};
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

impl State {
    /// Takes an operation on a file, or returns it if there is no room, or nothing to work with.
    pub(super) fn register_file(
        &mut self,
        op: FileOp,
    ) -> std::result::Result<Token, (Error, FileOp)> {
        if let Err(error) = self.check() {
            return Err((error, op));
        }
        if self.ops.len() >= self.ops.limit() {
            return Err((Error::TooManyOps { limit: self.ops.limit() - 1 }, op));
        }
        Ok(self.ops.insert(-1, Kind::File(op)).expect("there is room"))
    }

    /// Returns the result of an operation on a file, once.
    pub(super) fn take_done(&mut self, token: Token) -> Option<io::Result<u32>> {
        match &mut self.ops.get(token)?.kind {
            Kind::Done(done) => done.take(),
            _ => None,
        }
    }

    /// Gives up operations on files that are in flight when their ring is left.
    pub(super) fn lose_files(&mut self) {
        for token in self.ops.in_flight() {
            let Some(entry) = self.ops.get(token) else { continue };
            if !matches!(entry.kind, Kind::File(_)) {
                continue;
            }
            entry.lose_file();
            self.wakers.extend(entry.waker.take());
            if entry.op.forget() {
                self.free(token);
            }
        }
    }
}

/// An operation that was handed to the reactor. If this is dropped, an operation that was submitted goes on by itself, and one
/// that was not is dropped with it.
#[derive(Debug)]
pub(crate) struct PendingFile {
    reactor: Weak<Inner>,
    token: Token,
}

impl PendingFile {
    /// Hands an operation over. It is submitted in the next turn; if that cannot be, it is returned.
    pub(crate) fn start(
        reactor: &Reactor,
        op: FileOp,
    ) -> std::result::Result<Self, (Error, FileOp)> {
        let shared = &reactor.shared;
        let token = shared.change(|state| {
            let token = state.register_file(op)?;
            state.want(token);
            Ok(token)
        })?;
        Ok(Self { reactor: Rc::downgrade(shared), token })
    }

    /// Returns ready when the operation has ended, with the result of its system call; it says so once. What it owned is
    /// released by then.
    ///
    /// # Errors
    /// [`Error::ReactorGone`] or the reactor's error, if it will not be heard of any more.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<io::Result<u32>>> {
        let Some(shared) = self.reactor.upgrade() else {
            return Poll::Ready(Err(Error::ReactorGone));
        };
        let mut state = shared.state.borrow_mut();
        if let Some(done) = state.take_done(self.token) {
            return Poll::Ready(Ok(done));
        }
        if let Err(error) = state.check() {
            return Poll::Ready(Err(error));
        }
        if !state.wakes(self.token, cx.waker()) {
            let replaced = state.set_waker(self.token, cx.waker().clone());
            drop(state);
            drop(replaced);
        }
        Poll::Pending
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if let Some(shared) = self.reactor.upgrade() {
            let waker = shared.change(|state| state.release(self.token));
            drop(waker);
        }
    }
}
