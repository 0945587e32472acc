//! What a reactor owns: its ring, its ops, its timers, and what is to be done with them.
//!
//! Nothing of the user's runs while the state is borrowed: methods that take a waker hand the one it
//! replaces back, for the caller to drop.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::rc::Weak;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::counters::Counters;
use super::fault::Fault;
use super::kick::{Answer, Kicked};
use super::op::{Completed, Readiness, Released};
use super::ops::{Entry, Kind, Ops};
use super::timer::Timers;
use super::token::{Answered, Token};
use super::uring::{Completion, Uring, Wait};
use crate::{Error, ReactorOptions, Result, Step};

#[derive(Debug)]
pub(super) struct State {
    driver: Result<Uring, Fault>,
    ops: Ops,
    /// Requests for the next enter: at most an arm or a cancel for each op.
    backlog: VecDeque<Request>,
    pub(super) timers: Timers,
    /// The op that watches the unparker's eventfd.
    wake: Option<Token>,
    /// Collected in a turn, woken after it.
    wakers: Vec<Waker>,
    /// Ops whose last completion came in this turn.
    ended: Vec<Token>,
    /// Kicks of this turn that post a completion only if they fail.
    silent: Vec<Token>,
    /// Kicks answered in this turn, for their ports to be asked after it.
    answers: Vec<Answer>,
    /// Kicks that wait for their time. Few: at most one a port, and only of those that stall.
    delayed: Vec<(Instant, Token)>,
}

/// The longest sleep that a silent kick is submitted with.
const KICK_CHECK: Duration = Duration::from_millis(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Arm(Token),
    Cancel(Token),
}

impl Request {
    fn token(self) -> Token {
        match self {
            Self::Arm(token) | Self::Cancel(token) => token,
        }
    }
}

impl State {
    /// A state whose ring wakes at writes to `wake`.
    pub(super) fn new(options: &ReactorOptions, wake: RawFd) -> Result<Self> {
        let driver =
            Uring::new(options).map_err(|e| Fault::Refused(e.raw_os_error().unwrap_or(libc::EIO)));
        // One op more than the user may have: the unparker's.
        let limit = options.op_limit() as usize + 1;
        let mut state = Self {
            driver,
            ops: Ops::new(limit),
            backlog: VecDeque::with_capacity(limit),
            timers: Timers::default(),
            wake: None,
            wakers: Vec::with_capacity(limit),
            ended: Vec::with_capacity(limit),
            silent: Vec::new(),
            answers: Vec::new(),
            delayed: Vec::new(),
        };
        if state.has_ring() {
            let wake = state.register_poll(wake, libc::POLLIN as u32)?;
            state.wake = Some(wake);
            state.want(wake);
        }
        Ok(state)
    }

    pub(super) fn has_ring(&self) -> bool {
        self.driver.is_ok()
    }

    /// Whom to wake and whom to tell, as this turn has found out; to be given back empty.
    pub(super) fn take_due(&mut self) -> (Vec<Waker>, Vec<Answer>) {
        let Self { timers, wakers, .. } = self;
        if !timers.is_empty() {
            timers.expire(Instant::now(), wakers);
        }
        self.take_delayed();
        (std::mem::take(&mut self.wakers), std::mem::take(&mut self.answers))
    }

    /// Takes the lists of [`take_due`](Self::take_due) back, for their capacity.
    pub(super) fn give_back(&mut self, (wakers, answers): (Vec<Waker>, Vec<Answer>)) {
        (self.wakers, self.answers) = (wakers, answers);
    }

    pub(super) fn register_poll(&mut self, fd: RawFd, events: u32) -> Result<Token> {
        self.register(fd, Kind::Poll(events))
    }

    pub(super) fn register_kick(&mut self, fd: RawFd, port: Weak<dyn Kicked>) -> Result<Token> {
        self.register(fd, Kind::Kick { port, is_awaited: false })
    }

    fn register(&mut self, fd: RawFd, kind: Kind) -> Result<Token> {
        self.check()?;
        let limit = self.ops.limit() - 1;
        self.ops.insert(fd, kind).ok_or(Error::TooManyOps { limit })
    }

    /// Whether there is a ring to work with.
    pub(super) fn check(&self) -> Result<()> {
        self.driver.as_ref().map(|_| ()).map_err(|&fault| fault.into())
    }

    /// What came for an op since this was last asked; `None` means: wait.
    pub(super) fn take_ready(&mut self, token: Token) -> Option<Result<Readiness>> {
        if let Err(fault) = self.driver {
            return Some(Err(fault.into()));
        }
        let Some(entry) = self.ops.get(token) else { return Some(Err(Error::ReactorGone)) };
        let taken = entry.op.take()?;
        Some(
            taken.map_err(|errno| {
                Error::os(Step::PollSocket, std::io::Error::from_raw_os_error(errno))
            }),
        )
    }

    /// Wakes `waker` when something comes for the op, and arms it where needed.
    pub(super) fn wait(&mut self, token: Token, waker: Waker) -> Option<Waker> {
        let replaced = self.set_waker(token, waker);
        self.want(token);
        replaced
    }

    /// Wakes `waker` when something comes for the op, or when it is freed.
    pub(super) fn set_waker(&mut self, token: Token, waker: Waker) -> Option<Waker> {
        match self.ops.get(token) {
            Some(entry) => entry.waker.replace(waker),
            None => Some(waker),
        }
    }

    /// Whether the kernel has let go of a released op.
    pub(super) fn is_released(&mut self, token: Token) -> bool {
        self.driver.is_err() || self.ops.get(token).is_none()
    }

    /// The owner of an op lets go of it.
    pub(super) fn release(&mut self, token: Token) -> Option<Waker> {
        if self.driver.is_err() {
            return self.ops.remove(token)?.waker; // nothing of it is left in the kernel
        }
        let entry = self.ops.get(token)?;
        let waker = entry.waker.take();
        match entry.op.release() {
            Released::Freed => self.free(token),
            Released::Cancel => self.backlog.push_back(Request::Cancel(token)),
            Released::Waiting => {}
        }
        waker
    }

    /// An op is to be submitted with the next turn, if it is not on its way already.
    pub(super) fn want(&mut self, token: Token) {
        if self.ops.get(token).is_some_and(|entry| entry.op.want()) {
            self.backlog.push_back(Request::Arm(token));
        }
    }

    /// A port is to be kicked with the next turn. If the answer is awaited it ends a park; else only a
    /// failure does.
    pub(super) fn want_kick(&mut self, token: Token, awaited: bool) {
        if let Some(entry) = self.ops.get(token)
            && let Kind::Kick { is_awaited, .. } = &mut entry.kind
        {
            *is_awaited |= awaited;
        }
        self.want(token);
    }

    /// As [`want`](Self::want), at a later time.
    pub(super) fn want_at(&mut self, token: Token, when: Instant) {
        self.delayed.retain(|&(_, delayed)| delayed != token);
        self.delayed.push((when, token));
    }

    fn take_delayed(&mut self) {
        if self.delayed.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut delayed = std::mem::take(&mut self.delayed);
        delayed.retain(|&(when, token)| {
            let is_due = when <= now;
            if is_due {
                self.want_kick(token, true);
            }
            !is_due
        });
        self.delayed = delayed;
    }

    /// When somebody is next to be woken, or something to be kicked.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let delayed = self.delayed.iter().map(|&(when, _)| when).min();
        [self.timers.next_deadline(), delayed].into_iter().flatten().min()
    }

    /// Frees a slot, and wakes whoever waited for that.
    fn free(&mut self, token: Token) {
        self.backlog.retain(|request| request.token() != token);
        self.delayed.retain(|&(_, delayed)| delayed != token);
        if let Some(entry) = self.ops.remove(token) {
            self.wakers.extend(entry.waker);
        }
    }

    pub(super) fn submit(&mut self, wait: Wait, counters: &Counters) -> Result<(), Fault> {
        let Self { driver, ops, backlog, silent, .. } = self;
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
                        match entry.kind {
                            Kind::Poll(events) => driver.push_poll(entry.fd, events, token),
                            Kind::Kick { is_awaited: true, .. } => {
                                driver.push_kick(entry.fd, token, false);
                            }
                            Kind::Kick { .. } => {
                                driver.push_kick(entry.fd, token, true);
                                silent.push(token);
                            }
                        }
                    }
                }
            }
        }
        // Nobody sleeps while a request waits for room, nor long with a silent kick: it may have gone
        // well in part, and only its port can tell.
        let wait = match wait {
            _ if !backlog.is_empty() => Wait::No,
            wait if !silent.is_empty() => wait.at_most(KICK_CHECK),
            wait => wait,
        };
        if wait != Wait::No || driver.needs_enter() {
            counters.enters.add(1);
            driver.enter(wait)?;
        }
        Ok(())
    }

    pub(super) fn reap(&mut self, counters: &Counters) {
        let Self { driver: Ok(driver), ops, backlog, wakers, ended, answers, silent, .. } = self
        else {
            return;
        };
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
                        Completed::Wake => match &entry.kind {
                            Kind::Poll(_) => wakers.extend(entry.waker.take()),
                            Kind::Kick { .. } => answers.extend(answer(entry, token, result)),
                        },
                        Completed::Freed => ended.push(token),
                        Completed::Ignored => {}
                    }
                }
            }
        }
        // A kick that was to be silent and has said nothing went well: it was made inside the enter,
        // unless that took none.
        if !driver.has_queued() {
            for token in silent.drain(..) {
                if let Some(entry) = ops.get(token)
                    && entry.op.complete(0, false) == Completed::Wake
                {
                    answers.extend(answer(entry, token, 0));
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
    /// it have ended. Without it nobody could end a park, so an error ends the use of the ring.
    fn rearm_wake(&mut self) {
        let Some(wake) = self.wake else { return };
        match self.ops.get(wake).and_then(|entry| entry.op.take()) {
            Some(Err(errno)) => self.fail(Fault::Poll(errno)),
            _ => self.want(wake),
        }
    }

    /// The ring is of no use any more: everybody who waits on it learns so.
    pub(super) fn fail(&mut self, fault: Fault) {
        if let Ok(driver) = std::mem::replace(&mut self.driver, Err(fault)) {
            driver.close();
        }
        self.backlog.clear();
        let Self { ops, wakers, answers, .. } = self;
        ops.for_each(|entry| {
            wakers.extend(entry.waker.take());
            if let Kind::Kick { port, .. } = &entry.kind {
                // Whoever waits for a kick's answer learns that there will be none.
                let (token, port) = (Token::new(0, 0), port.clone());
                answers.push(Answer { token, port, errno: libc::ECANCELED });
            }
        });
    }

    pub(super) fn cancel_all(&mut self) {
        for token in self.ops.in_flight() {
            // Whoever waits for this op is woken at the end, and learns that there is no reactor.
            let waker = self.release(token);
            self.wakers.extend(waker);
        }
    }

    pub(super) fn is_waiting_for_kernel(&self) -> bool {
        self.driver.is_ok() && !self.ops.in_flight().is_empty()
    }

    /// Closes the ring and forgets all ops and timers: whom to wake.
    pub(super) fn end(&mut self) -> Vec<Waker> {
        let is_idle = self.ops.in_flight().is_empty();
        // Where the kernel did not let go in time it may still use what is left: leak the ring.
        if let Ok(driver) = std::mem::replace(&mut self.driver, Err(Fault::Ended))
            && is_idle
        {
            driver.close();
        }
        let Self { ops, timers, wakers, .. } = self;
        ops.for_each(|entry| wakers.extend(entry.waker.take()));
        timers.drain(wakers);
        self.wake = None;
        std::mem::take(&mut self.wakers)
    }
}

/// What the port of a kick is to be told.
fn answer(entry: &mut Entry, token: Token, result: i32) -> Option<Answer> {
    entry.op.take(); // the port looks at its ring instead
    let Kind::Kick { port, is_awaited } = &mut entry.kind else { return None };
    *is_awaited = false;
    Some(Answer { token, port: port.clone(), errno: (-result).max(0) })
}
