//! Decides which packets get into a capture's ring: by its filter, its snap length, and whether it accepts any.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringtap_filter::{BpfFilter, BpfInsn, FilterTarget};

use super::outgoing::without_outgoing;
use crate::error::{Error, Result, Step};
use crate::packet::LinkType;
use crate::sys::cbpf;

/// The filter that decides.
#[derive(Debug, Clone, Default)]
pub(super) enum SocketFilter {
    /// No filter: all packets are accepted.
    #[default]
    AcceptAll,
    Classic(BpfFilter),
    /// A loaded program of type `BPF_PROG_TYPE_SOCKET_FILTER`.
    Extended(Arc<OwnedFd>),
}

impl SocketFilter {
    /// Returns the filter compiled for packets with this link-layer header.
    fn on(self, link: Option<LinkType>) -> Result<Self> {
        match self {
            Self::Classic(filter) => Ok(Self::Classic(filter.on(link)?)),
            other => Ok(other),
        }
    }
}

/// The intake of a socket. Each change is one system call, so every packet is judged by either the old or the new
/// filter; and a change never opens a closed intake.
#[derive(Debug)]
pub(super) struct Intake {
    snap_len: Option<u32>,
    /// Whether the filter must drop packets that this host sends.
    skips_outgoing: bool,
    /// The link-layer header of the interface's packets.
    link: Option<LinkType>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    decider: SocketFilter,
    is_open: bool,
    is_locked: bool,
}

impl Intake {
    /// Creates the intake of an interface whose packets begin with `link`.
    pub(super) fn new(
        decider: SocketFilter,
        snap_len: Option<u32>,
        skips_outgoing: bool,
        link: Option<LinkType>,
    ) -> Result<Self> {
        let (decider, is_open, is_locked) = (decider.on(link)?, false, false);
        Ok(Self {
            snap_len,
            skips_outgoing,
            link,
            state: Mutex::new(State { decider, is_open, is_locked }),
        })
    }

    pub(super) fn open(&self, socket: BorrowedFd<'_>) -> Result<()> {
        let mut state = self.lock();
        self.apply(socket, &state.decider)?;
        state.is_open = true;
        Ok(())
    }

    /// Closes the intake, unless the filter is locked: then it stays as it is.
    pub(super) fn close(&self, socket: BorrowedFd<'_>) -> Result<()> {
        let mut state = self.lock();
        state.is_open = false;
        if state.is_locked {
            return Ok(());
        }
        cbpf::attach(socket, &[BpfInsn::ret(0)])
    }

    pub(super) fn set(&self, socket: BorrowedFd<'_>, decider: SocketFilter) -> Result<()> {
        let decider = decider.on(self.link)?;
        let mut state = self.lock();
        if state.is_locked {
            let source = io::Error::from_raw_os_error(libc::EPERM);
            return Err(Error::os(Step::SetFilter, source));
        }
        if state.is_open {
            self.apply(socket, &decider)?;
        }
        state.decider = decider;
        Ok(())
    }

    pub(super) fn lock_filter(&self, socket: BorrowedFd<'_>) -> Result<()> {
        let mut state = self.lock();
        cbpf::lock(socket)?;
        state.is_locked = true;
        Ok(())
    }

    fn apply(&self, socket: BorrowedFd<'_>, decider: &SocketFilter) -> Result<()> {
        let attach = |program: &[BpfInsn]| match self.skips_outgoing {
            true => cbpf::attach(socket, &without_outgoing(program)),
            false => cbpf::attach(socket, program),
        };
        match (decider, self.snap_len) {
            (SocketFilter::AcceptAll, None) if !self.skips_outgoing => cbpf::detach(socket),
            (SocketFilter::AcceptAll, bytes) => attach(&[BpfInsn::ret(bytes.unwrap_or(u32::MAX))]),
            (SocketFilter::Classic(filter), None) => attach(filter.program(FilterTarget::Socket)),
            (SocketFilter::Classic(filter), Some(bytes)) => attach(&filter.cut_to(bytes)),
            (SocketFilter::Extended(_), _) if self.skips_outgoing => {
                let source = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
                Err(Error::os(Step::SetFilter, source))
            }
            (SocketFilter::Extended(program), _) => cbpf::attach_extended(socket, program.as_fd()),
        }
    }

    pub(super) fn link(&self) -> Option<LinkType> {
        self.link
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
