//! Kicks: telling the kernel to look at a transmit ring, in the enter that happens anyway.
//!
//! A port that has committed something is marked; the next turn submits one kick for it, together with
//! whatever else there is to submit, and the wait. At most one kick a port is in flight. One that goes
//! well posts no completion unless somebody awaits it, since that would end the wait it was submitted
//! with. What a kick came to only the port can say, from its ring; so the reactor asks it, and kicks
//! again at once, later, or not.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::{Rc, Weak};

use super::Reactor;
use super::ops::OnKick;
use super::token::Token;
use super::turn::Inner;
use crate::error::{Error, Result};

/// A transmit ring's place in a reactor. Dropping it cancels a kick in flight.
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

    /// Marks the port: the next turn kicks.
    pub(crate) fn mark(&self) -> Result<()> {
        self.want(false)
    }

    /// Marks the port, and has the kick's answer end the park that it is made in.
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
