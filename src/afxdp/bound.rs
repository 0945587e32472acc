//! What both halves of a socket have in common: the descriptor, and what it is bound to.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::figures::Figures;
use super::program::XdpProgram;
use crate::sys::netdev::{Asker, question_socket};
use crate::{Error, Result, Step};

/// A bound AF_XDP socket.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) socket: OwnedFd,
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) queue: u32,
    pub(super) is_zerocopy: bool,
    /// Whether the UMEM is in huge pages.
    pub(super) has_huge_pages: bool,
    pub(super) program: Option<XdpProgram>,
    pub(super) figures: Arc<Figures>,
    /// Keeps the interface promiscuous.
    pub(super) _membership: Option<OwnedFd>,
}

impl Bound {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Looks whether the interface is still the one it was.
    pub(super) fn check_link(&self) -> Result<()> {
        match index_of(&self.name) {
            Ok(index) if index == self.index => Ok(()),
            Ok(_) | Err(Error::NoSuchInterface { .. }) => Err(self.gone()),
            Err(error) => Err(error),
        }
    }

    /// Has the program send this queue's packets here.
    pub(super) fn open_intake(&self) -> Result<()> {
        self.program.as_ref().map_or(Ok(()), |program| program.register(self.queue, self.fd()))
    }

    /// Has the program send no more packets here.
    pub(super) fn close_intake(&self) {
        if let Some(program) = &self.program {
            program.unregister(self.queue); // others may go on with it
        }
    }

    pub(super) fn gone(&self) -> Error {
        Error::InterfaceGone { name: self.name.clone() }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.close_intake();
        if let Ok(stats) = self.kernel_stats() {
            self.figures.keep(stats);
        }
    }
}

pub(super) fn index_of(name: &str) -> Result<u32> {
    ask(name, "index", |asker| asker.index(name))
}

/// The interface's MTU: the most bytes behind a frame's Ethernet header.
pub(super) fn mtu_of(name: &str) -> Result<u32> {
    ask(name, "MTU", |asker| asker.mtu(name))
}

/// The receive queues in use; 1 where the driver does not say.
pub(super) fn queue_count(name: &str) -> Result<u32> {
    ask(name, "queues", |asker| {
        asker.index(name)?;
        Ok(asker.queues(name).map_or(1, |(rx, _)| rx))
    })
}

/// An AF_XDP socket answers no questions itself.
fn ask<T>(
    name: &str,
    what: &'static str,
    question: impl FnOnce(Asker<'_>) -> std::io::Result<T>,
) -> Result<T> {
    let socket = question_socket().map_err(|source| Error::os(Step::OpenSocket, source))?;
    question(Asker(socket.as_fd())).map_err(|source| match source.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => Error::NoSuchInterface { name: name.to_owned() },
        _ => Error::os(Step::QueryInterface(what), source),
    })
}
