//! Whether completions signal a host's eventfd: tried once a process, since a kernel that takes the flags may still not do it.
//!
//! Linux 6.12.114 and later of that series put off a signal that is raised in a wait queue's wake-up, and after the
//! first one never give it (`__io_eventfd_signal`, io_uring/eventfd.c, sets a bit that nothing clears). With deferred work every
//! completion of a poll is such a one: a host would hear of the first packet and of no other.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::OnceLock;
use std::time::Duration;

use super::engine::Wait;
use super::token::Token;
use super::uring::{Uring, Work};
use crate::sys::event::{self, Beacon, EventFd, Interest};
use crate::{ReactorOptions, trace};

/// How a ring's completions signal an eventfd, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Signals {
    /// Not each of them.
    Never,
    /// A while after they were to.
    Late,
    /// Before the call returns that caused them.
    AtOnce,
}

/// How long a signal may take that is late: a grace period of RCU and more.
const LATE: Duration = Duration::from_millis(300);

/// How rings that post completions like this signal them.
pub(super) fn of(work: Work) -> Signals {
    static KNOWN: [OnceLock<Signals>; Work::ALL.len()] =
        [const { OnceLock::new() }; Work::ALL.len()];
    *KNOWN[work as usize].get_or_init(|| {
        let pipe = Beacon::new().map_err(io::Error::other);
        let tried = pipe.and_then(|pipe| try_out(work, pipe.as_fd(), || pipe.light()));
        // What cannot be tried is taken for good, as most kernels are.
        let signals = tried.unwrap_or(Signals::AtOnce);
        trace::signals_tried(&work, &signals);
        signals
    })
}

/// Has a multishot poll complete twice, as a host would see it.
fn try_out(work: Work, watched: BorrowedFd<'_>, wake: impl Fn()) -> io::Result<Signals> {
    let host = EventFd::new().map_err(io::Error::other)?;
    let options = ReactorOptions::new().max_ops(1).sq_entries(2);
    let mut ring = Uring::with(&options, work, Some(host.as_fd().as_raw_fd()))?;
    let result = watch(&mut ring, watched.as_raw_fd(), &host, wake);
    ring.close();
    result
}

fn watch(ring: &mut Uring, watched: RawFd, host: &EventFd, wake: impl Fn()) -> io::Result<Signals> {
    let failed = |_| io::Error::from_raw_os_error(libc::EIO);
    ring.push_poll(watched, libc::POLLIN as u32, Token::new(0, 0), true);
    ring.enter(Wait::No).map_err(failed)?;
    let mut signals = Signals::AtOnce;
    for _ in 0..2 {
        wake();
        let is_signalled = |limit| {
            event::poll([Interest::Readable(host.as_fd()), Interest::Not], Some(limit))
                .map(|[host, _]| host.readable)
        };
        signals = match (is_signalled(Duration::ZERO)?, signals) {
            (true, so_far) => so_far,
            (false, Signals::Never) => Signals::Never,
            (false, _) if is_signalled(LATE)? => Signals::Late,
            (false, _) => Signals::Never,
        };
        host.clear();
        ring.enter(Wait::No).map_err(failed)?;
        ring.reap().for_each(drop);
    }
    Ok(signals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_signals_at_once_however_work_is_done_and_an_eventfd_does_not_where_it_is_deferred() {
        for work in Work::ALL {
            if Uring::with(&ReactorOptions::new(), work, None).map(Uring::close).is_err() {
                continue; // not here
            }
            assert_eq!(of(work), of(work), "asked once");
            assert!(of(work) > Signals::Never || work == Work::Deferred, "{work:?}");
        }
        // What a kernel of the 6.12 series does of a pipe, every kernel since 6.10 does of an eventfd: the completion is
        // raised in that eventfd's own wake-up, and the second one is not signalled. So is it seen that none comes.
        let event = EventFd::new().unwrap();
        match try_out(Work::Deferred, event.as_fd(), || event.signal()) {
            Ok(signals) => assert!(signals < Signals::AtOnce, "{signals:?}"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}"),
        }
    }
}
