//! The reactor's requests over `poll(2)` and `sendto`, for when io_uring is refused.
//!
//! The ops are the same; a turn that kicks costs one more system call. Polls are one-shot here: a poll
//! completes when its descriptor is ready and is then forgotten, so a state that lasts is not reported over
//! and over.

use std::os::fd::RawFd;
use std::time::Instant;

use super::enter::{Completion, Wait};
use super::fault::Fault;
#[cfg(feature = "record")]
use super::file_op::FileRequest;
use super::token::{Answered, Token};
use crate::sys::event::{self, Watched};
use crate::sys::{fork, packet_socket};

/// Polls and kicks of one thread.
#[derive(Debug)]
pub(super) struct Poller {
    /// The descriptor that ends a wait from another thread; its counter is cleared when it does.
    wake: RawFd,
    watched: Vec<Watched>,
    /// The op of each entry in `watched`.
    tokens: Vec<Token>,
    kicks: Vec<(RawFd, Token)>,
    completions: Vec<Completion>,
    forks: u32,
}

impl Poller {
    pub(super) fn new(wake: RawFd) -> Self {
        let forks = fork::generation();
        let (watched, tokens, kicks, completions) = Default::default();
        Self { wake, watched, tokens, kicks, completions, forks }
    }

    pub(super) fn push_poll(&mut self, fd: RawFd, events: u32, token: Token) {
        self.watched.push(Watched::new(fd, events as i16));
        self.tokens.push(token);
    }

    pub(super) fn push_kick(&mut self, fd: RawFd, token: Token) {
        self.kicks.push((fd, token));
    }

    /// Does it at once.
    #[cfg(feature = "record")]
    pub(super) fn push_file(&mut self, request: FileRequest<'_>, token: Token) {
        use crate::sys::file;
        let result = match request {
            FileRequest::Write { file, offset, bytes } => file::write(file, bytes, offset),
            FileRequest::Reserve { file, len } => file::reserve(file, len),
            FileRequest::Sync { file } => file::sync(file),
            FileRequest::Create { path, flags } => file::create(path, flags),
            FileRequest::Remove { path } => file::remove(path),
            FileRequest::Close { file } => file::close(file),
        };
        self.complete(Answered::Op(token), result);
    }

    pub(super) fn push_cancel(&mut self, token: Token) {
        let position = self.tokens.iter().position(|&watched| watched == token);
        if let Some(position) = position {
            self.forget(position);
            self.complete(Answered::Op(token), -libc::ECANCELED);
        }
        self.complete(Answered::Cancel(token), if position.is_some() { 0 } else { -libc::ENOENT });
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.kicks.is_empty()
    }

    /// Returns whether there is anything to ask for: a poller learns of readiness only by asking.
    pub(super) fn needs_enter(&self) -> bool {
        !self.kicks.is_empty() || !self.completions.is_empty() || !self.watched.is_empty()
    }

    /// Kicks, then polls for as long as `wait` says, unless something has completed already.
    pub(super) fn enter(&mut self, wait: Wait) -> Result<(), Fault> {
        for (fd, token) in std::mem::take(&mut self.kicks) {
            let result = match packet_socket::kick_fd(fd) {
                Ok(()) => 0,
                Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
            };
            self.complete(Answered::Op(token), result);
        }
        let is_done = !self.completions.is_empty();
        let now = Instant::now();
        let deadline = match wait {
            Wait::AtMost(most) if !is_done => most.and_then(|most| now.checked_add(most)),
            Wait::UntilDeadline(most) if !is_done => now.checked_add(most),
            Wait::Moderated { least, most } if !is_done => {
                self.wait_least(now + least)?;
                most.and_then(|most| now.checked_add(most))
            }
            _ => Some(now),
        };
        self.poll(deadline)
    }

    /// Sleeps until `until`, whatever arrives; only the wake descriptor ends the sleep early.
    fn wait_least(&mut self, until: Instant) -> Result<(), Fault> {
        let mut wake = [Watched::new(self.wake, libc::POLLIN)];
        event::poll_all(&mut wake, Some(until)).map_err(|error| Fault::of_poll(&error))
    }

    fn poll(&mut self, deadline: Option<Instant>) -> Result<(), Fault> {
        event::poll_all(&mut self.watched, deadline).map_err(|error| Fault::of_poll(&error))?;
        let mut position = 0;
        while let Some(watched) = self.watched.get(position) {
            let (ready, fd) = (watched.ready(), watched.fd());
            if ready == 0 {
                position += 1;
                continue;
            }
            if fd == self.wake {
                event::clear_fd(fd);
            }
            let token = self.forget(position);
            self.complete(Answered::Op(token), i32::from(ready));
        }
        Ok(())
    }

    pub(super) fn reap(&mut self, into: &mut Vec<Completion>) {
        into.append(&mut self.completions);
    }

    pub(super) fn is_foreign(&self) -> bool {
        self.forks != fork::generation()
    }

    fn forget(&mut self, position: usize) -> Token {
        self.watched.swap_remove(position);
        self.tokens.swap_remove(position)
    }

    fn complete(&mut self, answered: Answered, result: i32) {
        self.completions.push(Completion { answered, result, more: false });
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};
    use std::time::Duration;

    use super::*;
    use crate::sys::event::EventFd;

    fn reap(poller: &mut Poller) -> Vec<Completion> {
        let mut completions = Vec::new();
        poller.reap(&mut completions);
        completions
    }

    #[test]
    fn a_poll_completes_once_and_a_cancelled_one_with_two_answers() {
        let (wake, event) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        let mut poller = Poller::new(wake.as_fd().as_raw_fd());
        let (first, second) = (Token::new(0, 1), Token::new(1, 1));
        poller.push_poll(event.as_fd().as_raw_fd(), libc::POLLIN as u32, first);
        poller.push_poll(wake.as_fd().as_raw_fd(), libc::POLLIN as u32, second);
        poller.enter(Wait::No).unwrap();
        assert_eq!(reap(&mut poller), []);
        event.signal();
        poller.enter(Wait::AtMost(None)).unwrap();
        let (answered, result) = (Answered::Op(first), libc::POLLIN.into());
        assert_eq!(reap(&mut poller), [Completion { answered, result, more: false }]);
        poller.enter(Wait::AtMost(Some(Duration::from_millis(1)))).unwrap();
        assert_eq!(reap(&mut poller), [], "it was forgotten");

        poller.push_cancel(second);
        poller.push_cancel(first);
        let results: Vec<_> =
            reap(&mut poller).iter().map(|completion| completion.result).collect();
        assert_eq!(results, [-libc::ECANCELED, 0, -libc::ENOENT]);
    }

    #[test]
    fn a_kick_is_answered_with_its_errno_and_a_wake_up_is_cleared() {
        let wake = EventFd::new().unwrap();
        let fd = wake.as_fd().as_raw_fd();
        let mut poller = Poller::new(fd);
        let token = Token::new(0, 0);
        poller.push_kick(fd, token);
        assert!(poller.has_queued());
        poller.enter(Wait::AtMost(None)).unwrap();
        assert_eq!(reap(&mut poller)[0].result, -libc::ENOTSOCK);
        wake.signal();
        for expected in [1, 0] {
            poller.push_poll(fd, libc::POLLIN as u32, token);
            poller.enter(Wait::No).unwrap();
            assert_eq!(reap(&mut poller).len(), expected);
        }
    }
}
