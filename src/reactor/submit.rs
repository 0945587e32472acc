//! Passing a turn's requests to the engine, and the time of its wait.

use std::time::{Duration, Instant};

use super::backlog::Request;
use super::counters::Counters;
use super::engine::Engine;
use super::enter::Wait;
use super::fault::Fault;
use super::ops::{Entry, Kind};
use super::state::State;
use super::token::Token;

/// Deadlines at least this far away are left to the ring's timer.
const FAR: Duration = Duration::from_millis(2);

/// The longest sleep that a silent kick is submitted with.
const KICK_CHECK: Duration = Duration::from_millis(2);

impl State {
    /// Passes queued requests to the engine, and enters it if needed.
    pub(super) fn submit(&mut self, wait: Wait, counters: &Counters) -> Result<(), Fault> {
        let (is_moderated, wake) = (self.is_moderated, self.wake);
        let Self { engine, ops, backlog, silent, .. } = self;
        let Ok(engine) = engine else { return Ok(()) };
        if engine.is_foreign() {
            return Err(Fault::Forked); // before looking at the ring: a child does not have it mapped
        }
        while let Some(request) = backlog.front() {
            if engine.is_full() {
                counters.enters.add(1);
                engine.enter(Wait::No)?;
                if engine.is_full() {
                    break; // the kernel is short of memory: leave the rest to the next turn
                }
            }
            backlog.pop();
            match request {
                // Nothing to cancel if it has been freed meanwhile, by its own last completion.
                Request::Cancel(token) if ops.get(token).is_none() => {}
                Request::Cancel(token) => engine.push_cancel(token),
                Request::Arm(token) => {
                    if let Some(entry) = ops.get(token)
                        && entry.op.push()
                    {
                        // Always multishot for the unparker: its eventfd is never read, so a one-shot poll would
                        // complete again each time it is armed.
                        arm(engine, entry, token, is_moderated && wake != Some(token));
                        silent.extend(is_silent(&entry.kind).then_some(token));
                    }
                }
            }
        }
        let wait = self.set_ring_timer(wait);
        let Self { engine: Ok(engine), backlog, silent, .. } = self else { return Ok(()) };
        // Do not sleep while a request waits for room, nor for long with a silent kick: the kick may have
        // succeeded in part, and only its port can tell.
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

    /// Sets the ring's timer for the next deadline if that is worthwhile, and returns how to wait then.
    ///
    /// A reactor that sleeps itself uses the timer for distant deadlines. A limit on every sleep would make
    /// the kernel set a timer and cancel it again each time, and in a flood many sleeps end before a deadline
    /// arrives.
    fn set_ring_timer(&mut self, wait: Wait) -> Wait {
        let (is_asked, otherwise) = match wait {
            Wait::UntilDeadline(limit) => (limit >= FAR, Wait::AtMost(Some(limit))),
            wait => (self.is_hosted, wait),
        };
        if !is_asked {
            return otherwise;
        }
        let next_deadline = self.next_deadline();
        let Self { engine: Ok(engine), ring_timer, .. } = self else { return otherwise };
        if !engine.has_ring_timer() || engine.is_full() {
            return otherwise;
        }
        if let Some((setting, deadline)) = ring_timer.needs(next_deadline)
            // A deadline that is already due is handled in this very turn.
            && let Some(time) = deadline.checked_duration_since(Instant::now())
        {
            engine.push_ring_timer(setting, time);
            ring_timer.set_for(deadline);
        }
        let is_covered = next_deadline.is_some_and(|deadline| ring_timer.covers(deadline));
        match wait {
            Wait::UntilDeadline(_) if is_covered => Wait::AtMost(None),
            _ => otherwise,
        }
    }
}

/// Makes the request of an op.
fn arm(engine: &mut Engine, entry: &mut Entry, token: Token, is_oneshot: bool) {
    let is_silent = is_silent(&entry.kind);
    match &mut entry.kind {
        &mut Kind::Poll(events) => engine.push_poll(entry.fd, events, token, is_oneshot),
        Kind::Kick { .. } => engine.push_kick(entry.fd, token, is_silent),
        #[cfg(feature = "record")]
        Kind::File(op) => engine.push_file(op.request(), token),
        #[cfg(feature = "record")]
        Kind::Done(_) => {} // it is not armed again
    }
}

/// Whether this is a kick that no task awaits.
fn is_silent(kind: &Kind) -> bool {
    matches!(kind, Kind::Kick { is_awaited: false, .. })
}
