//! A descriptor's place in a reactor.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use super::Reactor;
use super::op::Readiness;
use super::state::Shared;
use super::token::Token;
use crate::{Error, Result};

/// A descriptor whose readiness the reactor watches.
///
/// Its owner keeps the descriptor open while it is registered. Dropping the registration cancels
/// the poll with the next turn; the owner may close the descriptor right away, but the kernel keeps
/// the socket until the poll is gone: [`release`](Self::release) and
/// [`poll_released`](Self::poll_released) tell when that is.
#[derive(Debug)]
pub(crate) struct Registration {
    reactor: Weak<Shared>,
    token: Token,
    is_released: bool,
}

impl Registration {
    /// Registers `fd` for reading. Nothing is asked of the kernel until the first wait.
    pub(crate) fn new(reactor: &Reactor, fd: BorrowedFd<'_>) -> Result<Self> {
        let events = (libc::POLLIN | libc::POLLERR) as u32;
        let token = reactor.shared.state.borrow_mut().register(fd.as_raw_fd(), events)?;
        Ok(Self { reactor: Rc::downgrade(&reactor.shared), token, is_released: false })
    }

    /// Ready when something happened since this was last ready; arms the poll where needed.
    ///
    /// Readiness is a hint: look at the ring, and come back when it is empty.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<Readiness>> {
        match self.reactor.upgrade() {
            Some(shared) => shared.state.borrow_mut().poll_ready(self.token, cx.waker()),
            None => Poll::Ready(Err(Error::ReactorGone)),
        }
    }

    /// Lets go: the poll is cancelled with the next turn.
    pub(crate) fn release(&mut self) {
        if !std::mem::replace(&mut self.is_released, true)
            && let Some(shared) = self.reactor.upgrade()
        {
            shared.state.borrow_mut().release(self.token);
        }
    }

    /// Ready when the kernel has let go, after [`release`](Self::release).
    pub(crate) fn poll_released(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.reactor.upgrade() {
            Some(shared) => shared.state.borrow_mut().poll_released(self.token, cx.waker()),
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.release();
    }
}
