//! Decides which packets get into a capture's ring: by its filter, its snap length, and whether it accepts any.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringtap_filter::{BpfFilter, BpfInsn, FilterTarget};

use super::exclusion::{Exclusion, without};
use crate::error::{Error, Result, Step};
use crate::packet::{LinkType, SLL2_HEADER_LEN};
use crate::sys::cbpf;

/// The link-layer headers of a socket's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Headers {
    /// Of this type.
    Of(LinkType),
    /// The kernel removes them, and filters see packets without any.
    Cooked,
}

impl Headers {
    /// The type of the headers that readers see.
    pub(super) fn link(self) -> LinkType {
        match self {
            Self::Of(link) => link,
            Self::Cooked => LinkType::LINUX_SLL2,
        }
    }
}

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
    /// Returns the filter compiled for the packets of a socket.
    fn on(self, headers: Headers) -> Result<Self> {
        match (self, headers) {
            (Self::Classic(filter), Headers::Cooked) => Ok(Self::Classic(filter.on_cooked()?)),
            (Self::Classic(filter), Headers::Of(link)) => Ok(Self::Classic(filter.on(Some(link))?)),
            (other, _) => Ok(other),
        }
    }
}

/// The intake of a socket. Each change is one system call, so every packet is judged by either the old or the new
/// filter; and a change never opens a closed intake.
#[derive(Debug)]
pub(super) struct Intake {
    /// The bytes to keep of a packet, without a header that is added later.
    snap_len: Option<u32>,
    /// What the filter must drop in any case.
    excluded: Vec<Exclusion>,
    headers: Headers,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    decider: SocketFilter,
    is_open: bool,
    is_locked: bool,
}

impl Intake {
    /// Creates the intake of a socket with such headers.
    pub(super) fn new(
        decider: SocketFilter,
        snap_len: Option<u32>,
        excluded: Vec<Exclusion>,
        headers: Headers,
    ) -> Result<Self> {
        let (decider, is_open, is_locked) = (decider.on(headers)?, false, false);
        let header_len = if headers == Headers::Cooked { SLL2_HEADER_LEN as u32 } else { 0 };
        // A filter that accepts no byte drops the packet.
        let snap_len = snap_len.map(|bytes| bytes.saturating_sub(header_len).max(1));
        let state = Mutex::new(State { decider, is_open, is_locked });
        Ok(Self { snap_len, excluded, headers, state })
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
        let decider = decider.on(self.headers)?;
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
        let attach = |program: &[BpfInsn]| match self.excluded[..] {
            [] => cbpf::attach(socket, program),
            _ => cbpf::attach(socket, &without(&self.excluded, program)),
        };
        match (decider, self.snap_len) {
            (SocketFilter::AcceptAll, None) if self.excluded.is_empty() => cbpf::detach(socket),
            (SocketFilter::AcceptAll, bytes) => attach(&[BpfInsn::ret(bytes.unwrap_or(u32::MAX))]),
            (SocketFilter::Classic(filter), None) => attach(filter.program(FilterTarget::Socket)),
            (SocketFilter::Classic(filter), Some(bytes)) => attach(&filter.cut_to(bytes)),
            (SocketFilter::Extended(_), _) if !self.excluded.is_empty() => {
                let source = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
                Err(Error::os(Step::SetFilter, source))
            }
            (SocketFilter::Extended(program), _) => cbpf::attach_extended(socket, program.as_fd()),
        }
    }

    pub(super) fn link(&self) -> LinkType {
        self.headers.link()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
