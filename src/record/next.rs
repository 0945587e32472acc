//! The next file, which is created and has its room reserved while the current one is written.

use std::io;
use std::path::PathBuf;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use super::output::{Output, file_error};
use crate::error::Result;
use crate::pcap::names::Names;
use crate::reactor::{FileOp, PendingFile, Reactor};
use crate::sys::file;

/// The next file, on its way.
#[derive(Debug)]
pub(super) enum Next {
    Nothing,
    Creating { op: PendingFile, path: PathBuf, is_direct: bool },
    Reserving { op: PendingFile, output: Output },
    Ready(Output),
}

impl Next {
    /// Whether it has not been begun.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// Takes the file, if it is ready.
    pub(super) fn take(&mut self) -> Option<Output> {
        match std::mem::replace(self, Self::Nothing) {
            Self::Ready(output) => Some(output),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Begins to create a file.
    pub(super) fn create(
        &mut self,
        reactor: &Reactor,
        names: &mut Names,
        is_direct: bool,
    ) -> Result<()> {
        let path = names.next(SystemTime::now());
        let op = FileOp::Create { path: file::c_path(&path)?, is_direct };
        let op = PendingFile::start(reactor, op).map_err(|(error, _)| error)?;
        *self = Self::Creating { op, path, is_direct };
        Ok(())
    }

    /// Goes on until the file can be written, with room for `len` bytes.
    pub(super) fn poll(
        &mut self,
        reactor: &Reactor,
        names: &mut Names,
        len: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<()>> {
        loop {
            match self {
                Self::Nothing | Self::Ready(_) => return Poll::Ready(Ok(())),
                Self::Creating { op, .. } => {
                    let created = ready!(op.poll(cx));
                    self.created(created?, reactor, names, len)?;
                }
                Self::Reserving { op, .. } => {
                    let reserved = ready!(op.poll(cx));
                    if let Self::Reserving { output, .. } = std::mem::replace(self, Self::Nothing) {
                        // Without room for all of it, it is written for as long as there is some.
                        if !matches!(reserved, Ok(Ok(_))) {
                            output.give_back();
                        }
                        *self = Self::Ready(output);
                    }
                }
            }
        }
    }

    fn created(
        &mut self,
        result: io::Result<u32>,
        reactor: &Reactor,
        names: &mut Names,
        len: u64,
    ) -> Result<()> {
        let next = std::mem::replace(self, Self::Nothing);
        let Self::Creating { path, is_direct, .. } = next else { return Ok(()) };
        match result {
            Ok(fd) => {
                let output = Output::new(file::adopt(fd as i32), path, is_direct);
                let reserve = output.reserve(len);
                *self = match reserve.map(|op| PendingFile::start(reactor, op)) {
                    Some(Ok(op)) => Self::Reserving { op, output },
                    _ => Self::Ready(output),
                };
                Ok(())
            }
            // A file system that does not take direct I/O has created the file all the same.
            Err(error) if is_direct && error.raw_os_error() == Some(libc::EINVAL) => {
                let _ = std::fs::remove_file(&path);
                self.create(reactor, names, false)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.create(reactor, names, is_direct)
            }
            Err(error) => Err(file_error(0, error, &path)),
        }
    }
}
