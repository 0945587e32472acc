//! What a reactor owns, and one turn of it.
//!
//! Order of a turn: push what is queued → enter → reap → expire timers → release the borrow → wake.
//! Nothing of the user's (a waker, a destructor) runs while the state is borrowed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::counters::Counters;
use super::fault::Fault;
use super::op::{Completed, Readiness, Released};
use super::ops::Ops;
use super::timer::Timers;
use super::token::{Answered, Token};
use super::unpark::Unparker;
use super::uring::{Completion, Target, Uring, Wait};
use crate::{Error, ReactorOptions, Result, Step};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: RefCell<State>,
    pub(super) unparker: Unparker,
    pub(super) counters: Arc<Counters>,
}

#[derive(Debug)]
pub(super) struct State {
    driver: Result<Uring, Fault>,
    ops: Ops,
    /// Requests for the next enter. Bounded: each op has at most an arm or a cancel in it.
    backlog: VecDeque<Request>,
    pub(super) timers: Timers,
    /// The op that watches the unparker's eventfd.
    wake: Option<Token>,
    /// Collected in a turn, woken after it.
    wakers: Vec<Waker>,
    /// Ops whose last completion came in this turn.
    ended: Vec<Token>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Arm(Token),
    Cancel(Token),
}

/// Rounds and time that ending a reactor waits for the kernel to let go.
const REAP_ROUNDS: u32 = 50;
const REAP_WAIT: Duration = Duration::from_millis(100);

impl Shared {
    pub(super) fn new(options: &ReactorOptions) -> Result<Self> {
        let unparker = Unparker::new()?;
        let driver =
            Uring::new(options).map_err(|e| Fault::Refused(e.raw_os_error().unwrap_or(libc::EIO)));
        // One op more than the user may have: the unparker's.
        let limit = options.op_limit() as usize + 1;
        let mut state = State {
            driver,
            ops: Ops::new(limit),
            backlog: VecDeque::with_capacity(limit),
            timers: Timers::default(),
            wake: None,
            wakers: Vec::with_capacity(limit),
            ended: Vec::with_capacity(limit),
        };
        if state.driver.is_ok() {
            let wake = state.register(unparker.event().as_raw_fd(), libc::POLLIN as u32)?;
            state.wake = Some(wake);
            state.want(wake);
        }
        Ok(Self { state: RefCell::new(state), unparker, counters: Arc::default() })
    }

    /// One turn that does not wait.
    pub(super) fn turn(&self) {
        self.cycle(Wait::No);
    }

    /// One turn that sleeps until a completion, a timer, a notification, or `limit`.
    pub(super) fn park(&self, limit: Option<Duration>) -> Result<()> {
        let next = self.state.borrow().timers.next_deadline();
        let timer = next.map(|next| next.saturating_duration_since(Instant::now()));
        let limit = [limit, timer].into_iter().flatten().min();
        if limit == Some(Duration::ZERO) || !self.unparker.begin() {
            self.turn();
            return Ok(());
        }
        self.counters.wakeups.add(1);
        let has_ring = self.state.borrow().driver.is_ok();
        if has_ring {
            self.cycle(Wait::AtMost(limit));
            return Ok(());
        }
        let slept = self.unparker.sleep(limit.map(|limit| Instant::now() + limit));
        self.unparker.end();
        self.turn();
        slept
    }

    fn cycle(&self, wait: Wait) {
        self.counters.turns.add(1);
        let mut state = self.state.borrow_mut();
        if let Err(fault) = state.submit(wait, &self.counters) {
            state.fail(fault);
        }
        if wait != Wait::No {
            self.unparker.end(); // before anybody is woken: this thread runs again
        }
        state.reap(&self.counters);
        if !state.timers.is_empty() {
            let State { timers, wakers, .. } = &mut *state;
            timers.expire(Instant::now(), wakers);
        }
        let mut wakers = std::mem::take(&mut state.wakers);
        drop(state);
        for waker in wakers.drain(..) {
            waker.wake();
        }
        self.state.borrow_mut().wakers = wakers; // for its capacity
    }

    /// Cancels everything, waits a bounded time for the kernel to let go, and closes the ring.
    pub(super) fn shut_down(&self) {
        {
            let mut state = self.state.borrow_mut();
            let in_flight: Vec<_> = state.ops.in_flight().collect();
            for token in in_flight {
                state.release(token);
            }
        }
        for _ in 0..REAP_ROUNDS {
            let wait = {
                let state = self.state.borrow();
                state.driver.is_ok() && state.ops.in_flight().next().is_some()
            };
            if !wait {
                break;
            }
            self.cycle(Wait::AtMost(Some(REAP_WAIT)));
        }
        self.state.borrow_mut().end();
    }
}

impl State {
    pub(super) fn register(&mut self, fd: RawFd, events: u32) -> Result<Token> {
        let driver = self.driver.as_ref().map_err(|&fault| Error::from(fault))?;
        let limit = self.ops.limit() - 1;
        let token = self.ops.insert(fd, events).ok_or(Error::TooManyOps { limit })?;
        if driver.register_file(token.slot() as u32, Some(fd))
            && let Some(entry) = self.ops.get(token)
        {
            entry.target = Target::Registered(token.slot() as u32);
        }
        Ok(token)
    }

    pub(super) fn poll_ready(&mut self, token: Token, waker: &Waker) -> Poll<Result<Readiness>> {
        if let Err(fault) = self.driver {
            return Poll::Ready(Err(fault.into()));
        }
        let Some(entry) = self.ops.get(token) else {
            return Poll::Ready(Err(Error::ReactorGone));
        };
        match entry.op.take() {
            Some(Ok(ready)) => Poll::Ready(Ok(ready)),
            Some(Err(errno)) => {
                let source = std::io::Error::from_raw_os_error(errno);
                Poll::Ready(Err(Error::os(Step::PollSocket, source)))
            }
            None => {
                entry.set_waker(waker);
                self.want(token);
                Poll::Pending
            }
        }
    }

    /// The owner of an op lets go of it.
    pub(super) fn release(&mut self, token: Token) {
        if self.driver.is_err() {
            self.ops.remove(token); // nothing of it is left in the kernel
        }
        let Some(entry) = self.ops.get(token) else { return };
        entry.waker = None;
        match entry.op.release() {
            Released::Freed => {
                self.backlog.retain(|&request| request != Request::Arm(token));
                self.free(token);
            }
            Released::Cancel => self.backlog.push_back(Request::Cancel(token)),
            Released::Waiting => {}
        }
    }

    pub(super) fn poll_released(&mut self, token: Token, waker: &Waker) -> Poll<()> {
        match self.ops.get(token) {
            Some(entry) if self.driver.is_ok() => {
                entry.set_waker(waker);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    fn want(&mut self, token: Token) {
        if self.ops.get(token).is_some_and(|entry| entry.op.want()) {
            self.backlog.push_back(Request::Arm(token));
        }
    }

    /// Frees a slot, and clears its registered file so that nothing pins the socket.
    fn free(&mut self, token: Token) {
        let Some(entry) = self.ops.remove(token) else { return };
        if let (Target::Registered(slot), Ok(driver)) = (entry.target, &self.driver) {
            driver.register_file(slot, None);
        }
        self.wakers.extend(entry.waker);
    }

    fn submit(&mut self, wait: Wait, counters: &Counters) -> Result<(), Fault> {
        let Self { driver, ops, backlog, .. } = self;
        let Ok(driver) = driver else { return Ok(()) };
        if driver.is_foreign() {
            return Err(Fault::Forked); // before the ring is looked at: a child has no mapping of it
        }
        while let Some(&request) = backlog.front() {
            if driver.is_full() {
                counters.enters.add(1);
                driver.enter(Wait::No)?;
                if driver.is_full() {
                    break; // the kernel is short of memory: the rest waits for the next turn
                }
            }
            backlog.pop_front();
            match request {
                Request::Cancel(token) => driver.push_cancel(token),
                Request::Arm(token) => {
                    if let Some(entry) = ops.get(token)
                        && entry.op.push()
                    {
                        driver.push_poll(entry.target, entry.events, token);
                    }
                }
            }
        }
        if wait != Wait::No || driver.needs_enter() {
            counters.enters.add(1);
            driver.enter(wait)?;
        }
        Ok(())
    }

    fn reap(&mut self, counters: &Counters) {
        let Self { driver: Ok(driver), ops, backlog, wakers, ended, .. } = self else { return };
        if driver.has_overflowed() {
            counters.overflows.add(1);
        }
        let mut reaped = 0;
        for Completion { answered, result, more } in driver.reap() {
            reaped += 1;
            match answered {
                Answered::Cancel(token) => {
                    if ops.get(token).is_some_and(|entry| entry.op.cancel_answered(result)) {
                        backlog.push_back(Request::Cancel(token));
                    }
                }
                Answered::Op(token) => {
                    let Some(entry) = ops.get(token) else { continue };
                    match entry.op.complete(result, more) {
                        Completed::Wake => wakers.extend(entry.waker.take()),
                        Completed::Freed => ended.push(token),
                        Completed::Ignored => {}
                    }
                }
            }
        }
        counters.completions.add(reaped);
        while let Some(token) = self.ended.pop() {
            self.free(token);
        }
        self.rearm_wake();
    }

    /// The unparker's op has no waiter: its readiness is taken here, and it is armed again should
    /// it have ended.
    fn rearm_wake(&mut self) {
        if let Some(wake) = self.wake {
            if let Some(entry) = self.ops.get(wake) {
                entry.op.take();
            }
            self.want(wake);
        }
    }

    /// The ring is of no use any more: everybody who waits on it learns so.
    fn fail(&mut self, fault: Fault) {
        if let Ok(driver) = std::mem::replace(&mut self.driver, Err(fault)) {
            driver.close();
        }
        self.backlog.clear();
        let all: Vec<_> = self.ops.all().collect();
        for token in all {
            if let Some(entry) = self.ops.get(token) {
                self.wakers.extend(entry.waker.take());
            }
        }
    }

    /// Closes the ring and forgets all ops.
    fn end(&mut self) {
        let is_idle = self.ops.in_flight().next().is_none();
        // Where the kernel did not let go in time it may still use what is left: leak the ring.
        if let Ok(driver) = std::mem::replace(&mut self.driver, Err(Fault::Ended))
            && is_idle
        {
            driver.close();
        }
        let all: Vec<_> = self.ops.all().collect();
        for token in all {
            self.ops.remove(token);
        }
        self.wake = None;
    }
}
