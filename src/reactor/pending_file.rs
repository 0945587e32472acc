//! Operations on files that were handed to a reactor.

use std::io;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use super::Reactor;
use super::file_op::FileOp;
use super::ops::Kind;
use super::state::State;
use super::token::Token;
use super::turn::Inner;
use crate::error::{Error, Result};

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
