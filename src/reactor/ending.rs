//! How a reactor does without its ring, and how it ends.

use std::task::Waker;

use super::engine::Engine;
use super::fault::Fault;
use super::kick::Answer;
use super::op::Restarted;
use super::ops::Kind;
use super::state::{Request, State};
use super::token::Token;

impl State {
    /// The engine has failed: goes on with another, or has everybody who waits on it learn so.
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
        self.alarm.has_rung();
        // What is in the backlog is still to be put to the engine, but cancels have nothing to cancel.
        self.backlog.retain(|request| matches!(request, Request::Arm(_)));
        for token in self.ops.in_flight() {
            match self.ops.get(token).map(|entry| entry.op.restart()) {
                Some(Restarted::Queue) => self.backlog.push_back(Request::Arm(token)),
                Some(Restarted::Free) => self.free(token),
                _ => {}
            }
        }
        self.silent.clear();
    }

    /// Everybody who waits learns that nothing will come.
    pub(super) fn give_up(&mut self, fault: Fault) {
        if let Ok(engine) = std::mem::replace(&mut self.engine, Err(fault)) {
            engine.close();
        }
        self.alarm.has_rung();
        self.backlog.clear();
        self.delayed.clear();
        let Self { ops, wakers, answers, .. } = self;
        ops.for_each(|_, entry| {
            wakers.extend(entry.waker.take());
            if let Kind::Kick { port, .. } = &entry.kind {
                // Whoever waits for a kick's answer learns that there will be none.
                let (token, port) = (Token::new(0, 0), port.clone());
                answers.push(Answer { token, port, errno: libc::ECANCELED });
            }
        });
    }

    pub(super) fn cancel_all(&mut self) {
        self.is_ending = true;
        self.delayed.clear();
        for token in self.ops.all() {
            // Whoever waits for this op is woken, and learns that there is no reactor.
            let waker = self.release(token);
            self.wakers.extend(waker);
        }
    }

    pub(super) fn is_waiting_for_kernel(&self) -> bool {
        self.engine.is_ok() && !self.ops.in_flight().is_empty()
    }

    /// Closes the ring and forgets all ops and timers: whom to wake.
    pub(super) fn end(&mut self) -> Vec<Waker> {
        let is_idle = self.ops.in_flight().is_empty();
        // Where the kernel did not let go in time it may still use what is left: leak the ring.
        if let Ok(engine) = std::mem::replace(&mut self.engine, Err(Fault::Ended))
            && is_idle
        {
            engine.close();
        }
        self.backlog.clear();
        self.delayed.clear();
        let Self { ops, timers, wakers, .. } = self;
        ops.for_each(|_, entry| wakers.extend(entry.waker.take()));
        timers.drain(wakers);
        self.wake = None;
        std::mem::take(&mut self.wakers)
    }
}
