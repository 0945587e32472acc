//! The two halves of a turn that touch the engine: submitting and reaping.

use std::task::Waker;
use std::time::{Duration, Instant};

use super::counters::Counters;
use super::engine::{Completion, Wait};
use super::fault::Fault;
use super::kick::Answer;
use super::op::Completed;
use super::ops::{Entry, Kind};
use super::state::{Request, State};
use super::token::{Answered, Token};

/// Ops of a reactor, its own not counted, up to which those who wait are woken on suspicion.
const FEW: usize = 8;

/// Deadlines from here on are left to the ring's timer.
const FAR: Duration = Duration::from_millis(2);

/// The longest sleep that a silent kick is submitted with.
const KICK_CHECK: Duration = Duration::from_millis(2);

impl State {
    /// Puts what is queued to the engine, and enters it where there is reason to.
    pub(super) fn submit(&mut self, wait: Wait, counters: &Counters) -> Result<(), Fault> {
        let (is_oneshot, wake) = (self.is_moderated, self.wake);
        let Self { engine, ops, backlog, silent, .. } = self;
        let Ok(engine) = engine else { return Ok(()) };
        if engine.is_foreign() {
            return Err(Fault::Forked); // before the ring is looked at: a child has no mapping of it
        }
        while let Some(&request) = backlog.front() {
            if engine.is_full() {
                counters.enters.add(1);
                engine.enter(Wait::No)?;
                if engine.is_full() {
                    break; // the kernel is short of memory: the rest waits for the next turn
                }
            }
            backlog.pop_front();
            match request {
                Request::Cancel(token) => engine.push_cancel(token),
                Request::Arm(token) => {
                    if let Some(entry) = ops.get(token)
                        && entry.op.push()
                    {
                        match entry.kind {
                            Kind::Poll(events) => {
                                // The unparker's event stays readable: once reported, it is over.
                                let is_oneshot = is_oneshot && wake != Some(token);
                                engine.push_poll(entry.fd, events, token, is_oneshot);
                            }
                            Kind::Kick { is_awaited: true, .. } => {
                                engine.push_kick(entry.fd, token, false);
                            }
                            Kind::Kick { .. } => {
                                engine.push_kick(entry.fd, token, true);
                                silent.push(token);
                            }
                        }
                    }
                }
            }
        }
        let wait = self.set_alarm(wait);
        let Self { engine: Ok(engine), backlog, silent, .. } = self else { return Ok(()) };
        // Nobody sleeps while a request waits for room, nor long with a silent kick: it may have gone
        // well in part, and only its port can tell.
        let wait = match wait {
            _ if !backlog.is_empty() => Wait::No,
            wait if !silent.is_empty() => wait.at_most(KICK_CHECK),
            wait => wait,
        };
        if wait != Wait::No || engine.needs_enter() {
            counters.enters.add(1);
            engine.enter(wait)?;
        }
        Ok(())
    }

    /// Has the ring's timer go off for the next deadline, where there is reason to: how to wait then.
    ///
    /// Whoever sleeps himself has it for what is far: a limit to every sleep sets a timer of the kernel's and
    /// takes it back, each time, and a flood ends many sleeps until a deadline comes.
    fn set_alarm(&mut self, wait: Wait) -> Wait {
        let (is_asked, otherwise) = match wait {
            Wait::UntilDeadline(limit) => (limit >= FAR, Wait::AtMost(Some(limit))),
            wait => (self.is_hosted, wait),
        };
        if !is_asked {
            return otherwise;
        }
        let next_deadline = self.next_deadline();
        let Self { engine: Ok(engine), alarm, .. } = self else { return otherwise };
        if !engine.has_alarm() || engine.is_full() {
            return otherwise;
        }
        if let Some((setting, deadline)) = alarm.needs(next_deadline)
            // What is due already, this very turn expires.
            && let Some(time) = deadline.checked_duration_since(Instant::now())
        {
            engine.push_alarm(setting, time);
            alarm.set_for(deadline);
        }
        let is_covered = next_deadline.is_some_and(|deadline| alarm.covers(deadline));
        match wait {
            Wait::UntilDeadline(_) if is_covered => Wait::AtMost(None),
            _ => otherwise,
        }
    }

    /// Whether a turn would find something to do.
    pub(super) fn has_work(&mut self) -> bool {
        self.needs_turn() || self.engine.as_mut().is_ok_and(|engine| engine.needs_enter())
    }

    /// Whom to wake where the kernel has announced work, but not said what: all who wait to read, if they are
    /// few. Moderated polls are left alone, since each is worth a wait; and where there is something to submit,
    /// the enter is not put off.
    pub(super) fn announced(&mut self) -> Option<Vec<Waker>> {
        let is_announced = self.engine.as_mut().is_ok_and(|engine| engine.is_announced());
        let is_alone = self.backlog.is_empty() && self.ops.len() <= FEW + 1;
        if !is_announced || !is_alone || self.is_moderated {
            return None;
        }
        // Not the earliest deadline: that may be another by now than the one the timer was set for.
        if self.alarm.is_due() {
            return None; // it was most likely the timer
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

    /// Takes completions, and notes what they mean: how many sockets had something.
    pub(super) fn reap(&mut self, counters: &Counters) -> u64 {
        let Self {
            engine: Ok(engine), ops, backlog, wakers, ended, answers, silent, alarm, ..
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
                Answered::RingTimer => alarm.has_rung(),
                // It failed: the timer has just gone off, which is heard of as well, or is not there.
                Answered::AlarmUpdate if result < 0 => alarm.has_rung(),
                Answered::AlarmUpdate => {}
                Answered::Cancel(token) => {
                    if ops.get(token).is_some_and(|entry| entry.op.cancel_answered(result)) {
                        backlog.push_back(Request::Cancel(token));
                    }
                }
                Answered::Op(token) => {
                    let Some(entry) = ops.get(token) else { continue };
                    match entry.op.complete(result, more) {
                        Completed::Wake => match &entry.kind {
                            Kind::Poll(_) => {
                                came += u64::from(wake != Some(token));
                                wakers.extend(entry.waker.take());
                            }
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

    /// The unparker's op has no waiter: its readiness is taken here, and it is armed again should
    /// it have ended. Without it nobody could end a park, so an error ends the use of the ring.
    fn rearm_wake(&mut self) {
        let Some(wake) = self.wake else { return };
        match self.ops.get(wake).and_then(|entry| entry.op.take()) {
            Some(Err(errno)) => self.fail(Fault::Poll(errno)),
            _ => self.want(wake),
        }
    }
}

/// What the port of a kick is to be told.
fn answer(entry: &mut Entry, token: Token, result: i32) -> Option<Answer> {
    entry.op.take(); // the port looks at its ring instead
    let Kind::Kick { port, is_awaited } = &mut entry.kind else { return None };
    *is_awaited = false;
    Some(Answer { token, port: port.clone(), errno: (-result).max(0) })
}
