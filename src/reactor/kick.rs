//! Kicks: telling the kernel to look at a transmit ring, within an enter that happens anyway.
//!
//! A port that has committed frames is marked. The next turn submits one kick for it, together with all other
//! requests and the wait. At most one kick per port is in flight. A successful kick posts no completion
//! unless a task awaits it, since the completion would end the wait that the kick was submitted with. Only
//! the port can tell, from its ring, what a kick achieved, so the reactor asks the port and kicks again at
//! once, later, or not at all.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::{Rc, Weak};

use super::Reactor;
use super::ops::OnKick;
use super::token::Token;
use super::turn::Inner;
use crate::error::{Error, Result};

/// A transmit ring's registration with a reactor. Dropping it cancels a kick in flight.
#[derive(Debug)]
pub(crate) struct Kicker {
    reactor: Weak<Inner>,
    token: Token,
}

impl Kicker {
    pub(crate) fn new(
        reactor: &Reactor,
        fd: BorrowedFd<'_>,
        port: Weak<dyn OnKick>,
    ) -> Result<Self> {
        let shared = &reactor.shared;
        let token = shared.state.borrow_mut().register_kick(fd.as_raw_fd(), port)?;
        Ok(Self { reactor: Rc::downgrade(shared), token })
    }

    /// Marks the port, so that the next turn kicks it.
    pub(crate) fn mark(&self) -> Result<()> {
        self.want(false)
    }

    /// Marks the port and makes the kick's answer end the park that submits the kick.
    pub(crate) fn mark_awaited(&self) -> Result<()> {
        self.want(true)
    }

    fn want(&self, awaited: bool) -> Result<()> {
        let shared = self.reactor.upgrade().ok_or(Error::ReactorGone)?;
        shared.change(|state| {
            state.check()?;
            state.want_kick(self.token, awaited);
            Ok(())
        })
    }
}

impl Drop for Kicker {
    fn drop(&mut self) {
        if let Some(shared) = self.reactor.upgrade() {
            let waker = shared.change(|state| state.release(self.token));
            drop(waker);
        }
    }
}
