//! Whether completions signal a host's eventfd: tested once per process, since a kernel may accept the flags
//! and still not signal.
//!
//! Linux 6.12.114 and later releases of that series defer a signal that is raised in a wait queue's wake-up,
//! and after the first one never deliver it (`__io_eventfd_signal`, io_uring/eventfd.c, sets a bit that
//! nothing clears). With deferred work, every completion of a poll raises such a signal: a host would hear of
//! the first packet and of no other.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::enter::Wait;
use super::fault::Fault;
use super::token::Token;
use super::uring::{Uring, Work};
use crate::options::ReactorOptions;
use crate::sys::event::{self, EventFd, Interest, SignalPipe};
use crate::trace;

/// How reliably a ring's completions signal an eventfd, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Signals {
    /// Not every completion signals.
    Never,
    /// Every completion signals, but some only after a while.
    Late,
    /// Every completion signals before the call that caused it returns.
    AtOnce,
}

/// How long a late signal may take: more than a grace period of RCU.
const LATE: Duration = Duration::from_millis(300);

/// Sets up a ring in the best mode that this kernel supports. If there is an `event`, completions signal it;
/// then a mode that loses signals is skipped, and a mode with late signals is used only if there is no better
/// one.
pub(super) fn best_ring(options: &ReactorOptions, event: Option<RawFd>) -> Result<Uring, Fault> {
    let mut fault = Fault::Unsignalled;
    for least in [Signals::AtOnce, Signals::Late] {
        for work in Work::ALL {
            if !options.allowed().contains(work.feature()) {
                continue;
            }
            let ring = match Uring::with(options, work, event) {
                Ok(ring) => ring,
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    fault = Fault::of_setup(&error);
                    continue;
                }
                Err(error) => return Err(Fault::of_setup(&error)),
            };
            if event.is_none() {
                return Ok(ring);
            }
            match at_least(work, least) {
                Ok(true) => return Ok(ring),
                Ok(false) => {
                    ring.close();
                    fault = Fault::Unsignalled;
                }
                Err(error) => {
                    ring.close();
                    return Err(Fault::of_setup(&error));
                }
            }
        }
    }
    Err(fault)
}

/// Returns whether rings in this mode signal at least this well. This is tested once per process; a test that
/// could not run is repeated.
fn at_least(work: Work, least: Signals) -> io::Result<bool> {
    static KNOWN: Mutex<[[Option<bool>; 2]; Work::ALL.len()]> =
        Mutex::new([[None; 2]; Work::ALL.len()]);
    let late = if least == Signals::AtOnce { Duration::ZERO } else { LATE };
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = &mut known[work as usize][usize::from(late.is_zero())];
    if let Some(known) = *known {
        return Ok(known);
    }
    let pipe = SignalPipe::new().map_err(io::Error::other)?;
    let signals = try_out(work, late, pipe.as_fd(), || pipe.write(), || pipe.drain())?;
    trace::signals_tried(&work, &signals);
    Ok(*known.insert(signals >= least))
}

/// Completes a multishot poll twice, and watches for its signals as a host would.
fn try_out(
    work: Work,
    late: Duration,
    watched: BorrowedFd<'_>,
    wake: impl Fn(),
    settle: impl Fn(),
) -> io::Result<Signals> {
    let host = EventFd::new().map_err(io::Error::other)?;
    let options = ReactorOptions::new().max_ops(1).sq_entries(2);
    let mut ring = Uring::with(&options, work, Some(host.as_fd().as_raw_fd()))?;
    let mut rounds = || {
        let failed = |_| io::Error::from_raw_os_error(libc::EIO);
        ring.push_poll(watched.as_raw_fd(), libc::POLLIN as u32, Token::new(0, 0), true);
        ring.enter(Wait::No).map_err(failed)?;
        let mut worst = Signals::AtOnce;
        for _ in 0..2 {
            wake();
            worst = worst.min(look(&host, late)?);
            if worst == Signals::Never {
                break; // the next signal may stand in for it
            }
            host.clear();
            settle();
            ring.enter(Wait::No).map_err(failed)?;
            ring.reap().for_each(drop);
        }
        Ok(worst)
    };
    let result = rounds();
    ring.close();
    result
}

/// Returns when a host is signalled: at once, within `late`, or never.
fn look(host: &EventFd, late: Duration) -> io::Result<Signals> {
    let mut limits = [(Duration::ZERO, Signals::AtOnce), (late, Signals::Late)].into_iter();
    let mut limit = limits.next();
    while let Some((time, signals)) = limit {
        let interests = [Interest::Readable(host.as_fd()), Interest::Not];
        let [polled, _] = event::poll(interests, Some(time))?;
        match (polled.readable, polled.interrupted) {
            (true, _) => return Ok(signals),
            (false, true) => {} // a signal of another kind: try again
            (false, false) => limit = limits.next(),
        }
    }
    Ok(Signals::Never)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_signals_a_host_in_some_mode_and_what_never_happens_is_never_signalled() {
        let modes: Vec<Work> = Work::ALL
            .into_iter()
            .filter(|&work| {
                Uring::with(&ReactorOptions::new(), work, None).map(Uring::close).is_ok()
            })
            .collect();
        if modes.is_empty() {
            return; // no io_uring here: `tests/reactor/refused.rs` covers that
        }
        let pipe = SignalPipe::new().unwrap();
        let try_mode = |work, wakes: bool| {
            let wake = || {
                if wakes {
                    pipe.write();
                }
            };
            try_out(work, Duration::from_millis(20), pipe.as_fd(), wake, || pipe.drain()).unwrap()
        };
        assert!(modes.iter().any(|&work| try_mode(work, true) > Signals::Never));
        for &work in &modes {
            assert_eq!(try_mode(work, false), Signals::Never, "{work:?}");
        }
        let best =
            best_ring(&ReactorOptions::new(), Some(EventFd::new().unwrap().as_fd().as_raw_fd()));
        best.unwrap().close();
    }
}
