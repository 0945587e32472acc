//! A reactor's state: its ring, its ops, its timers, and the operations on them.
//!
//! No user code runs while the state is borrowed: methods that take a waker return the one it replaces, for
//! the caller to drop.

use std::os::fd::RawFd;
use std::rc::Weak;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::backlog::{Backlog, Request};
use super::counters::Counters;
use super::deadlines::Deadlines;
use super::engine::Engine;
use super::enter::Completion;
use super::fallback::Poller;
use super::fault::Fault;
use super::op::{Completed, Readiness, Released, Restarted};
use super::ops::{Answer, Entry, Kind, OnKick, Ops};
use super::ring_timer::RingTimer;
use super::token::{Answered, Token};
use super::{Backend, signals, warning};
use crate::error::{Error, Result, Step};
use crate::options::{Coalesce, IoUringFeatures, ReactorOptions};
use crate::trace;

#[derive(Debug)]
pub(super) struct State {
    pub(super) engine: Result<Engine, Fault>,
    pub(super) ops: Ops,
    /// Requests for the next enter.
    pub(super) backlog: Backlog,
    /// The wakers of tasks that wait for a time.
    pub(super) timers: Deadlines<Waker>,
    /// The ring's own timer.
    pub(super) ring_timer: RingTimer,
    /// Whether another runtime does the sleeping, and is woken for timers by the ring alone.
    pub(super) is_hosted: bool,
    /// The op that watches the unparker's eventfd.
    pub(super) wake: Option<Token>,
    /// Whether sockets are polled once per wait, and not before `rearm_at`: this moderates wake-ups if
    /// another runtime does the sleeping.
    pub(super) is_moderated: bool,
    pub(super) rearm_at: Option<Instant>,
    /// The completions reaped in this turn.
    pub(super) completions: Vec<Completion>,
    /// The wakers collected in a turn, to be woken after it.
    pub(super) wakers: Vec<Waker>,
    /// Ops whose last completion came in this turn.
    pub(super) ended: Vec<Token>,
    /// Kicks of this turn that post a completion only if they fail.
    pub(super) silent: Vec<Token>,
    /// The answers to kicks in this turn; their ports are asked after it.
    pub(super) answers: Vec<Answer>,
    /// The fallback if io_uring is refused.
    pub(super) fallback: Fallback,
    /// Set while everything is being cancelled: no new work begins.
    pub(super) is_ending: bool,
    /// Ops that are armed later: kicks of ports that stall, and polls that would spin. At most one per op.
    pub(super) delayed: Deadlines<Token>,
}

/// The pause between two attempts if waiting would spin.
const RETRY: Duration = Duration::from_millis(1);

/// The reaction to a refused io_uring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fallback {
    /// Use `poll(2)` instead.
    Poll,
    /// Fail all waiters.
    Fail,
}

impl Fallback {
    /// Returns the engine to go on with after `fault`.
    pub(super) fn for_fault(self, fault: Fault, wake: RawFd) -> Result<Engine, Fault> {
        if self == Self::Fail || !fault.is_refusal() {
            return Err(fault);
        }
        warning::io_uring_is_refused(fault);
        Ok(Engine::Poll(Poller::new(wake)))
    }
}

impl State {
    /// Creates a state whose engine wakes when `wake` is written to, and signals a host's `event` for
    /// completions.
    pub(super) fn new(options: &ReactorOptions, wake: RawFd, event: Option<RawFd>) -> Result<Self> {
        let fallback = match event {
            // A poller cannot signal a host.
            None if !options.requires_io_uring() => Fallback::Poll,
            _ => Fallback::Fail,
        };
        let engine = match signals::best_ring(options, event).map(Engine::Uring) {
            Ok(engine) => Ok(engine),
            Err(fault) => fallback.for_fault(fault, wake),
        };
        // One op more than the user may have, for the unparker.
        let limit = options.op_limit() as usize + 1;
        let mut state = Self {
            engine,
            ops: Ops::new(limit),
            backlog: Backlog::with_capacity(limit),
            timers: Deadlines::default(),
            ring_timer: RingTimer::default(),
            is_hosted: event.is_some(),
            wake: None,
            is_moderated: event.is_some() && options.moderation() != Coalesce::Off,
            rearm_at: None,
            completions: Vec::with_capacity(2 * limit),
            wakers: Vec::with_capacity(limit),
            ended: Vec::with_capacity(limit),
            silent: Vec::new(),
            answers: Vec::new(),
            delayed: Deadlines::default(),
            fallback,
            is_ending: false,
        };
        trace::attached(&state.backend(), &state.features());
        if state.has_engine() {
            let wake = state.register_poll(wake, libc::POLLIN as u32)?;
            state.wake = Some(wake);
            state.want(wake);
        }
        Ok(state)
    }

    pub(super) fn has_engine(&self) -> bool {
        self.engine.is_ok()
    }

    /// Takes the tasks to wake and the ports to tell, as found in this turn; the caller gives the lists back
    /// empty. Due timers are included if the clock is read.
    pub(super) fn take_due(&mut self, looks_at_clock: bool) -> (Vec<Waker>, Vec<Answer>) {
        let Self { timers, wakers, .. } = self;
        if looks_at_clock && !timers.is_empty() {
            let now = Instant::now();
            wakers.extend(std::iter::from_fn(|| timers.take_due(now)));
        }
        self.take_delayed();
        (std::mem::take(&mut self.wakers), std::mem::take(&mut self.answers))
    }

    /// Takes back the lists of [`take_due`](Self::take_due) for their capacity.
    ///
    /// Entries added by woken tasks in the meantime are kept.
    pub(super) fn give_back(&mut self, (mut wakers, mut answers): (Vec<Waker>, Vec<Answer>)) {
        wakers.append(&mut self.wakers);
        answers.append(&mut self.answers);
        (self.wakers, self.answers) = (wakers, answers);
    }

    pub(super) fn register_poll(&mut self, fd: RawFd, events: u32) -> Result<Token> {
        self.register(fd, Kind::Poll(events))
    }

    pub(super) fn register_kick(&mut self, fd: RawFd, port: Weak<dyn OnKick>) -> Result<Token> {
        self.register(fd, Kind::Kick { port, is_awaited: false })
    }

    fn register(&mut self, fd: RawFd, kind: Kind) -> Result<Token> {
        self.check()?;
        let limit = self.ops.limit() - 1;
        self.ops.insert(fd, kind).ok_or(Error::TooManyOps { limit })
    }

    /// Returns an error if there is no backend to work with.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_ending {
            return Err(Error::ReactorGone);
        }
        self.engine.as_ref().map(|_| ()).map_err(|&fault| fault.into())
    }

    pub(super) fn features(&self) -> IoUringFeatures {
        match &self.engine {
            Ok(Engine::Uring(uring)) => uring.features(),
            _ => IoUringFeatures::empty(),
        }
    }

    pub(super) fn backend(&self) -> Result<Backend> {
        match &self.engine {
            Ok(Engine::Uring(_)) => Ok(Backend::IoUring),
            Ok(Engine::Poll(_)) => Ok(Backend::Poll),
            Err(fault) => Err((*fault).into()),
        }
    }

    /// Returns the event of an op since the last call; `None` means that the caller has to wait.
    pub(super) fn take_ready(&mut self, token: Token) -> Option<Result<Readiness>> {
        if let Err(fault) = self.engine {
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

    /// Returns whether the op already wakes the task of `waker`.
    pub(super) fn wakes(&mut self, token: Token, waker: &Waker) -> bool {
        let known = self.ops.get(token).and_then(|entry| entry.waker.as_ref());
        known.is_some_and(|known| known.will_wake(waker))
    }

    /// Wakes `waker`, or the known one, when something arrives for the op, and arms it if needed.
    ///
    /// `found_nothing` tells that the task was woken before and found nothing. A descriptor that stays ready
    /// without being of use would end every wait at once if polls report states instead of events.
    pub(super) fn wait(
        &mut self,
        token: Token,
        waker: Option<Waker>,
        found_nothing: bool,
    ) -> Option<Waker> {
        let replaced = waker.and_then(|waker| self.set_waker(token, waker));
        let reports_events =
            !self.is_moderated && self.engine.as_ref().is_ok_and(Engine::is_edge_triggered);
        if self.ops.get(token).is_some_and(|entry| entry.delay.is_some()) {
            // Its time is already set, whoever polls in between.
        } else if found_nothing && !reports_events {
            self.want_at(token, Instant::now() + RETRY);
        } else if let Some(rearm_at) = self.rearm_at {
            self.want_at(token, rearm_at);
        } else {
            self.want(token);
        }
        replaced
    }

    /// Wakes `waker` when something arrives for the op, or when it is freed.
    pub(super) fn set_waker(&mut self, token: Token, waker: Waker) -> Option<Waker> {
        match self.ops.get(token) {
            Some(entry) => entry.waker.replace(waker),
            None => Some(waker),
        }
    }

    /// Returns whether the kernel has let go of a released op.
    pub(super) fn is_released(&mut self, token: Token) -> bool {
        self.engine.is_err() || self.ops.get(token).is_none()
    }

    /// Releases an op on behalf of its owner.
    pub(super) fn release(&mut self, token: Token) -> Option<Waker> {
        if self.engine.is_err() {
            return self.ops.remove(token)?.waker; // the kernel holds nothing of it any more
        }
        let entry = self.ops.get(token)?;
        let waker = entry.waker.take();
        match entry.op.release() {
            Released::Freed => self.free(token),
            #[cfg(feature = "record")]
            Released::Cancel if matches!(entry.kind, Kind::File(_)) => {} // it ends by itself
            Released::Cancel => self.backlog.push(Request::Cancel(token)),
            Released::Waiting => {}
        }
        waker
    }

    /// Submits an op in the next turn, unless it is already on its way.
    pub(super) fn want(&mut self, token: Token) {
        if self.ops.get(token).is_some_and(|entry| entry.op.want()) {
            self.backlog.push(Request::Arm(token));
        }
    }

    /// Kicks a port in the next turn. An awaited answer ends a park; otherwise only a failure does.
    pub(super) fn want_kick(&mut self, token: Token, awaited: bool) {
        if let Some(entry) = self.ops.get(token)
            && let Kind::Kick { is_awaited, .. } = &mut entry.kind
        {
            *is_awaited |= awaited;
        }
        self.want(token);
    }

    /// Does what [`want`](Self::want) does, at a later time.
    pub(super) fn want_at(&mut self, token: Token, when: Instant) {
        let Some(entry) = self.ops.get(token) else { return };
        if !entry.op.is_idle() {
            return; // it is on its way
        }
        let former = entry.delay.replace(self.delayed.insert(when, token));
        former.and_then(|former| self.delayed.remove(former));
    }

    fn take_delayed(&mut self) {
        if self.delayed.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(token) = self.delayed.take_due(now) {
            if let Some(entry) = self.ops.get(token) {
                entry.delay = None;
            }
            self.want_kick(token, true);
        }
    }

    fn forget_delayed(&mut self) {
        for token in self.delayed.drain() {
            if let Some(entry) = self.ops.get(token) {
                entry.delay = None;
            }
        }
    }

    /// Returns the time of the next wake-up or kick.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        [self.timers.next(), self.delayed.next()].into_iter().flatten().min()
    }

    /// Returns the maximum sleep before the next deadline. Returns `None` if there is none, or if the ring's
    /// own timer goes off by then, which is known without reading the clock.
    pub(super) fn limit(&self) -> Option<Duration> {
        if self.next_deadline().is_some_and(|next| self.ring_timer.covers(next)) {
            return None;
        }
        self.time_left()
    }

    /// Returns the time until the next deadline.
    pub(super) fn time_left(&self) -> Option<Duration> {
        self.next_deadline().map(|next| next.saturating_duration_since(Instant::now()))
    }

    /// Returns whether a host's reactor needs a turn to make requests of the kernel.
    pub(super) fn needs_turn(&self) -> bool {
        self.engine.is_ok()
            && (!self.backlog.is_empty() || self.ring_timer.needs(self.next_deadline()).is_some())
    }

    /// Frees a slot, and wakes the task that waited for that.
    pub(super) fn free(&mut self, token: Token) {
        if let Some(entry) = self.ops.remove(token) {
            self.wakers.extend(entry.waker);
            entry.delay.and_then(|delay| self.delayed.remove(delay));
            let Self { ops, backlog, .. } = self;
            backlog.forget(token, ops.len(), |known| ops.get(known).is_some());
        }
    }

    /// Handles a failed engine: goes on with another, or fails all waiters.
    pub(super) fn fail(&mut self, fault: Fault) {
        let wake = self.wake.and_then(|wake| self.ops.get(wake)).map(|entry| entry.fd);
        let fallback = match wake {
            Some(wake) => self.fallback.for_fault(fault, wake),
            None => Err(fault),
        };
        match fallback {
            Ok(engine) => self.go_on_with(engine),
            Err(fault) => self.give_up(fault),
        }
    }

    fn go_on_with(&mut self, engine: Engine) {
        if let Ok(refused) = std::mem::replace(&mut self.engine, Ok(engine)) {
            refused.close();
        }
        self.ring_timer.has_rung();
        // Queued requests still have to go to the engine, but cancels have nothing left to cancel.
        self.backlog.retain(|request| matches!(request, Request::Arm(_)));
        #[cfg(feature = "record")]
        self.lose_files();
        for token in self.ops.in_flight() {
            match self.ops.get(token).map(|entry| entry.op.restart()) {
                Some(Restarted::Queue) => self.backlog.push(Request::Arm(token)),
                Some(Restarted::Free) => self.free(token),
                _ => {}
            }
        }
        self.silent.clear();
    }

    /// Fails all waiters.
    pub(super) fn give_up(&mut self, fault: Fault) {
        if let Ok(engine) = std::mem::replace(&mut self.engine, Err(fault)) {
            engine.close();
        }
        self.ring_timer.has_rung();
        self.backlog.clear();
        self.forget_delayed();
        #[cfg(feature = "record")]
        self.lose_files();
        let Self { ops, wakers, answers, .. } = self;
        ops.for_each(|_, entry| {
            wakers.extend(entry.waker.take());
            if let Kind::Kick { port, .. } = &entry.kind {
                // A task that awaits a kick's answer learns that there will be none.
                let (token, port) = (Token::new(0, 0), port.clone());
                answers.push(Answer { token, port, errno: libc::ECANCELED });
            }
        });
    }

    pub(super) fn cancel_all(&mut self) {
        self.is_ending = true;
        self.forget_delayed();
        for token in self.ops.all() {
            // The task that waits for this op is woken, and learns that there is no reactor.
            let waker = self.release(token);
            self.wakers.extend(waker);
        }
    }

    pub(super) fn is_waiting_for_kernel(&self) -> bool {
        self.engine.is_ok() && self.ops.are_in_flight()
    }

    /// Closes the ring, drops all ops and timers, and returns the tasks to wake.
    pub(super) fn end(&mut self) -> Vec<Waker> {
        let is_idle = !self.ops.are_in_flight();
        // If the kernel did not let go in time, it may still use what is left: leak the ring.
        if let Ok(engine) = std::mem::replace(&mut self.engine, Err(Fault::Ended))
            && is_idle
        {
            engine.close();
        }
        #[cfg(feature = "record")]
        self.lose_files();
        self.backlog.clear();
        self.forget_delayed();
        let Self { ops, timers, wakers, .. } = self;
        ops.for_each(|_, entry| wakers.extend(entry.waker.take()));
        wakers.extend(timers.drain());
        self.wake = None;
        std::mem::take(&mut self.wakers)
    }

    /// Returns whether a turn would find something to do.
    pub(super) fn has_work(&mut self) -> bool {
        self.needs_turn() || self.engine.as_mut().is_ok_and(|engine| engine.needs_enter())
    }

    /// Returns the wakers of all tasks that wait to read, if there are few and the kernel has announced work
    /// without saying for which op. Moderated polls are left alone, since each is worth a wait. If there are
    /// requests to submit, the enter is not delayed.
    pub(super) fn announced(&mut self) -> Option<Vec<Waker>> {
        let is_announced = self.engine.as_mut().is_ok_and(|engine| engine.is_announced());
        let is_alone = self.backlog.is_empty() && self.ops.len() <= FEW + 1;
        if !is_announced || !is_alone || self.is_moderated {
            return None;
        }
        // Not the earliest deadline, which may have changed since the timer was set.
        if self.ring_timer.is_due() {
            return None; // most likely it was the timer
        }
        let Self { ops, wakers, wake, .. } = self;
        let reads =
            |kind: &Kind| matches!(kind, Kind::Poll(events) if events & libc::POLLIN as u32 != 0);
        ops.for_each(|token, entry| {
            if reads(&entry.kind) && entry.op.is_armed() && *wake != Some(token) {
                wakers.extend(entry.waker.take());
            }
        });
        (!wakers.is_empty()).then(|| std::mem::take(wakers))
    }

    /// Takes completions and processes them; returns the number of sockets that had something.
    pub(super) fn reap(&mut self, counters: &Counters) -> u64 {
        let Self {
            engine: Ok(engine),
            ops,
            backlog,
            wakers,
            ended,
            answers,
            silent,
            ring_timer,
            ..
        } = self
        else {
            return 0;
        };
        if engine.has_overflowed() {
            counters.overflows.add(1);
        }
        engine.reap(&mut self.completions);
        let (reaped, mut came) = (self.completions.len() as u64, 0);
        let wake = self.wake;
        for Completion { answered, result, more } in self.completions.drain(..) {
            match answered {
                Answered::RingTimer => ring_timer.has_rung(),
                // The update failed: the timer has just gone off, which is reported as well, or does not
                // exist.
                Answered::RingTimerUpdate if result < 0 => ring_timer.has_rung(),
                Answered::RingTimerUpdate => {}
                Answered::Cancel(token) => {
                    if ops.get(token).is_some_and(|entry| entry.op.cancel_answered(result)) {
                        backlog.push(Request::Cancel(token));
                    }
                }
                Answered::Op(token) => {
                    let Some(entry) = ops.get(token) else { continue };
                    let completed = entry.op.complete(result, more);
                    #[cfg(feature = "record")]
                    if completed == Completed::Wake && entry.end_file(result) {
                        wakers.extend(entry.waker.take());
                        continue;
                    } else if completed == Completed::Freed {
                        entry.discard_file(result);
                    }
                    match completed {
                        Completed::Wake => match &entry.kind {
                            Kind::Poll(_) => {
                                came += u64::from(wake != Some(token));
                                wakers.extend(entry.waker.take());
                            }
                            Kind::Kick { .. } => answers.extend(answer(entry, token, result)),
                            #[cfg(feature = "record")]
                            Kind::File(_) | Kind::Done(_) => {}
                        },
                        Completed::Freed => ended.push(token),
                        Completed::Ignored => {}
                    }
                }
            }
        }
        // A silent kick without a completion succeeded: it was made inside the enter, unless the enter took
        // no requests.
        if !engine.has_queued() {
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
        came
    }

    /// Re-arms the unparker's op, which has no waiter: takes its readiness, and arms it again if it has
    /// ended. Without this op no thread could end a park, so an error ends the use of the ring.
    fn rearm_wake(&mut self) {
        let Some(wake) = self.wake else { return };
        match self.ops.get(wake).and_then(|entry| entry.op.take()) {
            Some(Err(errno)) => self.fail(Fault::Poll(errno)),
            _ => self.want(wake),
        }
    }
}

/// Maximum number of ops, not counting the reactor's own, up to which waiting tasks are woken on suspicion.
const FEW: usize = 8;

/// Returns the answer to pass to the port of a kick.
fn answer(entry: &mut Entry, token: Token, result: i32) -> Option<Answer> {
    entry.op.take(); // the port looks at its ring instead
    let Kind::Kick { port, is_awaited } = &mut entry.kind else { return None };
    *is_awaited = false;
    Some(Answer { token, port: port.clone(), errno: (-result).max(0) })
}
