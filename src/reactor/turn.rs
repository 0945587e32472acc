//! One turn of a reactor: push what is queued → enter → reap → expire timers → release the borrow →
//! ask ports → wake.

use std::cell::RefCell;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::counters::Counters;
use super::enter::Wait;
use super::fault::Fault;
use super::host::Host;
use super::moderator::Moderator;
use super::ops::{AfterKick, Answer, Next};
use super::state::State;
use super::unpark::Unparker;
use super::wake::{Woken, wake_all};
use crate::error::Result;
use crate::options::ReactorOptions;

/// Maximum number of turns in a row before the host's other tasks run.
pub(super) const ROUNDS: u32 = 4;

/// The longest time for which moderation keeps a socket from being polled.
const LONGEST: Duration = Duration::from_secs(1);

/// The state shared by a reactor and its handles.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) state: RefCell<State>,
    pub(super) unparker: Unparker,
    pub(super) counters: Arc<Counters>,
    pub(super) moderator: RefCell<Moderator>,
    /// The host, if another runtime runs this thread.
    pub(super) host: Option<Host>,
}

/// Maximum number of rounds, and time per round, that ending a reactor waits for the kernel to let go.
const REAP_ROUNDS: u32 = 50;
const REAP_WAIT: Duration = Duration::from_millis(100);

impl Inner {
    pub(super) fn new(options: &ReactorOptions, host: Option<Host>) -> Result<Self> {
        let unparker = Unparker::new()?;
        let event = host.as_ref().map(|host| host.event().as_raw_fd());
        let state = RefCell::new(State::new(options, unparker.event().as_raw_fd(), event)?);
        let moderator = RefCell::new(Moderator::new(options.moderation()));
        Ok(Self { state, unparker, counters: Arc::default(), moderator, host })
    }

    /// Changes the requests to the kernel, and tells the host if there are any.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.borrow_mut();
        let result = change(&mut state);
        if let Some(host) = &self.host
            && state.needs_turn()
        {
            drop(state);
            host.wake_driver();
        }
        result
    }

    /// Turns the reactor once without waiting.
    pub(super) fn turn(&self) {
        match &self.host {
            None => drop(self.cycle(Wait::No)),
            Some(host) => {
                if self.hosted_turn() {
                    host.wake_driver();
                }
            }
        }
    }

    /// Turns the reactor once, sleeping until a completion, a timer, or an unpark; does not sleep if there is
    /// news.
    pub(super) fn park(&self, has_news: impl FnOnce() -> bool) -> Result<()> {
        let limit = self.state.borrow().limit();
        self.unparker.begin();
        if limit == Some(Duration::ZERO) || has_news() {
            self.unparker.end();
            self.turn();
            return Ok(());
        }
        let has_engine = self.state.borrow().has_engine();
        let slept = if has_engine {
            self.sleep(limit);
            Ok(())
        } else {
            let slept = self.unparker.sleep(limit);
            self.unparker.end();
            self.turn();
            slept
        };
        self.counters.wakeups.add(1);
        slept
    }

    /// Turns the reactor once, sleeping in the ring for as long as moderation wants.
    fn sleep(&self, most: Option<Duration>) {
        let mut moderator = self.moderator.borrow_mut();
        let interval = moderator.interval();
        let most = match most {
            // The ring's timer would not end the first part of the sleep.
            None if !interval.is_zero() => self.state.borrow().time_left(),
            most => most,
        };
        let wait = match interval.min(most.unwrap_or(Duration::MAX)) {
            Duration::ZERO => most.map_or(Wait::AtMost(None), Wait::UntilDeadline),
            least => {
                self.counters.coalesced.add(1);
                Wait::Moderated { least, most }
            }
        };
        let start = moderator.is_adaptive().then(Instant::now);
        let entered = self.submit(wait);
        if let Some(start) = start {
            moderator.slept(start.elapsed());
        }
        drop(moderator);
        let (_, woken) = self.finish(wait, entered);
        woken.go_on();
    }

    /// Turns the reactor once and returns the number of sockets that had something.
    pub(super) fn cycle(&self, wait: Wait) -> u64 {
        let (came, woken) = self.cycle_to_the_end(wait);
        woken.go_on();
        came
    }

    /// Does what [`cycle`](Self::cycle) does, but returns a waker's panic instead of resuming it.
    fn cycle_to_the_end(&self, wait: Wait) -> (u64, Woken) {
        let entered = self.submit(wait);
        self.finish(wait, entered)
    }

    fn submit(&self, wait: Wait) -> Result<(), Fault> {
        self.counters.turns.add(1);
        self.state.borrow_mut().submit(wait, &self.counters)
    }

    /// Performs the part of a turn that follows the enter.
    fn finish(&self, wait: Wait, entered: Result<(), Fault>) -> (u64, Woken) {
        let mut state = self.state.borrow_mut();
        if let Err(fault) = entered {
            state.fail(fault);
        }
        if wait != Wait::No {
            self.unparker.end(); // before any task is woken: this thread runs again
        }
        let came = state.reap(&self.counters);
        // A sleep that a socket ended most likely ended before the next timer was due. A due timer is not
        // lost: the next sleep then has no time left, or the ring's timer, which is due as well, ends it at
        // once.
        let (mut wakers, mut answers) = state.take_due(wait == Wait::No || came == 0);
        drop(state);
        if wait != Wait::No && came == 0 && wakers.is_empty() {
            self.counters.spurious.add(1);
        }
        self.deliver(&mut answers, &mut wakers);
        let woken = wake_all(&mut wakers);
        self.state.borrow_mut().give_back((wakers, answers));
        (came, woken)
    }

    /// Wakes the tasks that wait for the host to look at its own I/O, which nobody reports any more.
    fn end_looks(&self) {
        if let Some(host) = &self.host {
            wake_all(&mut host.looked()).go_on();
        }
    }

    /// Fails all waiters, since there is no reactor any more.
    pub(super) fn give_up(&self) {
        self.end_looks();
        let mut state = self.state.borrow_mut();
        if state.check().is_err() {
            return;
        }
        state.give_up(Fault::Ended);
        drop(state);
        let (_, woken) = self.finish(Wait::No, Ok(()));
        woken.go_on();
    }

    /// Cancels everything, waits a bounded time for the kernel to let go, closes the ring, and wakes all
    /// tasks that still wait.
    pub(super) fn shut_down(&self) {
        self.state.borrow_mut().cancel_all();
        let mut panic = Woken::default();
        for _ in 0..REAP_ROUNDS {
            if !self.state.borrow().is_waiting_for_kernel() {
                break;
            }
            panic = panic.or(self.cycle_to_the_end(Wait::AtMost(Some(REAP_WAIT))).1);
        }
        let mut wakers = self.state.borrow_mut().end();
        panic = panic.or(wake_all(&mut wakers));
        self.end_looks();
        if let Some(host) = &self.host {
            host.wake_driver(); // which then ends
        }
        panic.go_on();
    }

    /// Tells ports the outcome of their kicks, and adds the tasks to wake for it.
    pub(super) fn deliver(&self, answers: &mut Vec<Answer>, wakers: &mut Vec<Waker>) {
        for Answer { token, port, errno } in answers.drain(..) {
            // The port is released before any task is woken.
            let Some(AfterKick { next, waiter }) = port.upgrade().map(|port| port.kicked(errno))
            else {
                continue;
            };
            wakers.extend(waiter);
            let mut state = self.state.borrow_mut();
            match next {
                Next::Rest => {}
                // After a stall a kick is no longer silent: the port must hear how it went on.
                Next::Kick => state.want_kick(token, true),
                Next::KickAfter(wait) => state.want_at(token, Instant::now() + wait),
            }
        }
    }

    /// Turns until there is nothing to do, or for long enough; returns whether there is more.
    pub(super) fn hosted_turn(&self) -> bool {
        let (mut came, mut has_more) = (0, true);
        for _ in 0..ROUNDS {
            came += self.cycle(Wait::No);
            has_more = self.state.borrow_mut().has_work();
            if !has_more {
                break;
            }
        }
        if came > 0 {
            self.moderate();
        }
        has_more
    }

    /// Wakes waiting tasks, if there are few, before the kernel has said for which of them something arrived;
    /// returns whether a turn is owed because of that. A task that finds nothing in its ring goes on waiting;
    /// a task that finds a packet gets it one enter earlier.
    pub(super) fn guess(&self, host: &Host) -> bool {
        if host.has_guessed.replace(false) {
            return false;
        }
        let mut state = self.state.borrow_mut();
        let Some(mut wakers) = state.announced() else { return false };
        drop(state);
        let woken = wake_all(&mut wakers);
        self.state.borrow_mut().give_back((wakers, Vec::new()));
        host.has_guessed.set(true);
        woken.go_on();
        true
    }

    /// Records that something has arrived, and sets when sockets are polled again.
    fn moderate(&self) {
        let Some(host) = &self.host else { return };
        let mut moderator = self.moderator.borrow_mut();
        let now = Instant::now();
        let waited = now.saturating_duration_since(host.waits_since.replace(now));
        if moderator.is_adaptive() {
            moderator.slept(waited);
        }
        let interval = moderator.interval().min(LONGEST);
        self.state.borrow_mut().rearm_at = (!interval.is_zero()).then(|| now + interval);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::time::Instant;

    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "enters an io_uring")]
    fn only_a_sleep_for_timers_is_left_to_the_rings_own() {
        let shared = Inner::new(&ReactorOptions::default(), None).unwrap();
        let soon = Duration::from_millis(20);
        let change = |state: &mut State| {
            let hour = Instant::now() + Duration::from_secs(3600);
            state.timers.insert(hour, Waker::noop().clone())
        };
        shared.change(change);
        // Waits as the end of a reactor does, ignoring timers; otherwise this would last an hour.
        shared.cycle(Wait::AtMost(Some(soon)));
        let start = Instant::now();
        shared.change(|state| state.timers.insert(start + soon, Waker::noop().clone()));
        shared.park(|| false).unwrap();
        let is_uring = shared
            .state
            .borrow()
            .backend()
            .is_ok_and(|backend| backend == crate::reactor::Backend::IoUring);
        assert_eq!(shared.counters.completions.get(), u64::from(is_uring), "the timer's");
        assert!(start.elapsed() >= soon);
    }
}
