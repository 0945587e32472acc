//! Which packets get into a capture's ring: its filter, its snap length, and whether it takes any.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::capture::Capture;
use super::outgoing::without_outgoing;
use super::socket::Socket;
use crate::error::{Error, Result, Step};
use crate::filter::{BpfFilter, FilterTarget};
use crate::packet::LinkType;
use crate::sys::cbpf::{self, BpfInsn};

/// What decides.
#[derive(Debug, Clone, Default)]
pub(super) enum SocketFilter {
    /// Nothing: all packets are taken.
    #[default]
    Nobody,
    Classic(BpfFilter),
    /// A loaded program of the kind `BPF_PROG_TYPE_SOCKET_FILTER`.
    Extended(Arc<OwnedFd>),
}

impl SocketFilter {
    /// The same, of packets that begin like this.
    fn on(self, link: Option<LinkType>) -> Result<Self> {
        match self {
            Self::Classic(filter) => filter.on(link).map(Self::Classic),
            other => Ok(other),
        }
    }
}

/// A socket's intake. Each change is one system call, so every packet is judged by the one filter or by the
/// other; and a change does not open what was closed.
#[derive(Debug)]
pub(super) struct Intake {
    snap_len: Option<u32>,
    /// Whether the filter has to leave out what this host sends.
    skips_outgoing: bool,
    /// What the interface's packets begin with.
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
    /// Of an interface whose packets begin with `link`.
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

    /// A locked filter stays as it is.
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
            (SocketFilter::Nobody, None) if !self.skips_outgoing => cbpf::detach(socket),
            (SocketFilter::Nobody, bytes) => attach(&[BpfInsn::ret(bytes.unwrap_or(u32::MAX))]),
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

impl Capture {
    /// Takes only these packets from now on, also while packets come in: each is judged by this filter or by the
    /// one before, none by neither, and all are counted or, filtered, none. Those in the ring stay; and a packet that
    /// is being judged on another core as this returns may still be by the one before.
    ///
    /// # Errors
    /// [`Error::Filter`](crate::Error::Filter) where the interface is no Ethernet, and its packets do not have what
    /// the filter asks for. [`Error::Os`](crate::Error::Os) where the kernel refuses: with `EPERM` if the filter is
    /// locked; with `ENOMEM` if this one and the one before are together more than a socket may have
    /// (`net.core.optmem_max`: at the default of 128 KiB that is some 1700 instructions each). The one before stays.
    pub fn set_filter(&self, filter: &BpfFilter) -> Result<()> {
        self.socket.set_decider(SocketFilter::Classic(filter.clone()))
    }

    /// Takes all packets from now on.
    ///
    /// # Errors
    /// As [`set_filter`](Self::set_filter).
    pub fn clear_filter(&self) -> Result<()> {
        self.socket.set_decider(SocketFilter::Nobody)
    }

    /// Takes the packets that a loaded program accepts (`BPF_PROG_TYPE_SOCKET_FILTER`, from aya or libbpf say), as
    /// many bytes of each as it returns.
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) where it is no such program; as [`set_filter`](Self::set_filter).
    pub fn attach_ebpf_filter(&self, program: OwnedFd) -> Result<()> {
        self.socket.set_decider(SocketFilter::Extended(Arc::new(program)))
    }

    /// Has a loaded program choose from now on which member of the fanout group gets a packet; see
    /// [`FanoutMode::Ebpf`](crate::fanout::FanoutMode::Ebpf), in which the group must be.
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) where it is no socket-filter program, or the group is in another mode.
    pub fn attach_fanout_ebpf(&self, program: &OwnedFd) -> Result<()> {
        cbpf::fanout_extended(self.socket.as_fd(), program)
            .map_err(|error| error.of(self.interface()))
    }

    /// Locks the filter for as long as the socket lives: not even root can change it (`SO_LOCK_FILTER`, socket(7)).
    ///
    /// A capture with a locked filter cannot refuse packets either: stopped, it delivers what is in its ring and
    /// what comes in within two block timeouts.
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) where the kernel refuses.
    pub fn lock_filter(&self) -> Result<()> {
        self.socket.lock_filter()
    }

    /// A handle to change the filter from other threads, and behind an [`AsyncCapture`](crate::AsyncCapture).
    pub fn filter_handle(&self) -> FilterHandle {
        FilterHandle::new(&self.socket)
    }
}

/// Changes a capture's filter from any thread, while packets come in. Got from
/// [`Capture::filter_handle`](crate::Capture::filter_handle).
///
/// It does not keep the socket open; once that is closed, it does nothing.
#[derive(Debug, Clone)]
pub struct FilterHandle(Weak<Socket>);

impl FilterHandle {
    pub(super) fn new(socket: &Arc<Socket>) -> Self {
        Self(Arc::downgrade(socket))
    }

    /// As [`Capture::set_filter`](crate::Capture::set_filter).
    ///
    /// # Errors
    /// As there.
    pub fn set(&self, filter: &BpfFilter) -> Result<()> {
        self.change(SocketFilter::Classic(filter.clone()))
    }

    /// As [`Capture::clear_filter`](crate::Capture::clear_filter).
    ///
    /// # Errors
    /// As there.
    pub fn clear(&self) -> Result<()> {
        self.change(SocketFilter::Nobody)
    }

    fn change(&self, decider: SocketFilter) -> Result<()> {
        self.0.upgrade().map_or(Ok(()), |socket| socket.set_decider(decider))
    }
}
