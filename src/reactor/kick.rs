//! Kicks: telling the kernel to look at a transmit ring, in the enter that happens anyway.
//!
//! A port that has committed something is marked; the next turn submits one kick for it, together with
//! whatever else there is to submit, and the wait. At most one kick a port is in flight. One that goes
//! well posts no completion unless somebody awaits it, since that would end the wait it was submitted
//! with. What a kick came to only the port can say, from its ring; so the reactor asks it, and kicks
//! again at once, later, or not.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::Reactor;
use super::token::Token;
use super::turn::Shared;
use crate::error::{Error, Result};

/// A port with a transmit ring, as the reactor sees it.
pub(crate) trait OnKick {
    /// A kick was answered, with 0 or an errno: what is to be done next, and whom to wake. Wakes nobody itself: the
    /// port is held meanwhile, and a waker may do anything.
    fn kicked(&self, errno: i32) -> AfterKick;
}

/// What follows from a kick's answer.
#[derive(Debug)]
pub(crate) struct AfterKick {
    pub(crate) next: Next,
    /// Whom to wake.
    pub(crate) waiter: Option<Waker>,
}

/// When to kick again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// When the port is marked again.
    Rest,
    /// With the next turn.
    Kick,
    /// After a while.
    KickAfter(Duration),
}

/// A kick that was answered, for the port to be told outside of the borrow.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) token: Token,
    pub(super) port: Weak<dyn OnKick>,
    pub(super) errno: i32,
}

impl Shared {
    /// Tells ports what their kicks came to, and adds whom to wake for it.
    pub(super) fn deliver(&self, answers: &mut Vec<Answer>, wakers: &mut Vec<Waker>) {
        for Answer { token, port, errno } in answers.drain(..) {
            // The port is let go of before anybody is woken.
            let Some(AfterKick { next, waiter }) = port.upgrade().map(|port| port.kicked(errno))
            else {
                continue;
            };
            wakers.extend(waiter);
            let mut state = self.state.borrow_mut();
            match next {
                Next::Rest => {}
                // What has stalled is not silent any more: the port must hear how it went on.
                Next::Kick => state.want_kick(token, true),
                Next::KickAfter(wait) => state.want_at(token, Instant::now() + wait),
            }
        }
    }
}

/// A transmit ring's place in a reactor. Dropping it cancels a kick in flight.
#[derive(Debug)]
pub(crate) struct Kicker {
    reactor: Weak<Shared>,
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
