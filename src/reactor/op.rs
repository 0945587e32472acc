//! The life of a poll op, as a pure state machine.
//!
//! ```text
//!            want             pushed           completed, more
//!   Idle ───────────► Queued ────────► Armed ◄───────────────┐
//!    ▲                  │               │ │ └────────────────┘
//!    │  completed, last │               │ │
//!    └──────────────────┼───────────────┘ │ release
//!      release: freed   │ release: freed  ▼
//!                       ▼             Cancelling ──completed, last──► freed
//! ```
//!
//! An op that the kernel has seen is freed only by its own last completion (one without `F_MORE`). Until then
//! the kernel may still post completions for its token.

/// The events a socket is ready for: `POLL*` bits, sticky until taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Readiness(u32);

impl Readiness {
    /// Returns whether an error is pending on the socket.
    pub(crate) fn has_error(self) -> bool {
        self.0 & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) as u32 != 0
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Idle,
    Queued,
    Armed,
    Cancelling,
}

/// One poll op.
#[derive(Debug, Default)]
pub(crate) struct Op {
    phase: Phase,
    ready: Readiness,
    fault: Option<i32>,
}

/// The effect of a completion on the op's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completed {
    /// There is something to take: wake the waiter.
    Wake,
    /// The op has ended: free its slot.
    Freed,
    /// No effect.
    Ignored,
}

/// The work that releasing an op requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Released {
    /// The kernel has not seen the op: free its slot.
    Freed,
    /// Cancel the op, and wait for its last completion.
    Cancel,
    /// The cancellation is already under way.
    Waiting,
}

/// The action for an op that the kernel has forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restarted {
    Nothing,
    Queue,
    Free,
}

impl Op {
    /// Requests that the op be armed; returns true if it must be queued for that now.
    pub(super) fn want(&mut self) -> bool {
        let idle = self.phase == Phase::Idle;
        if idle {
            self.phase = Phase::Queued;
        }
        idle
    }

    /// Prepares the op for the submission ring; returns false if it is no longer wanted there.
    pub(super) fn push(&mut self) -> bool {
        let queued = self.phase == Phase::Queued;
        if queued {
            self.phase = Phase::Armed;
        }
        queued
    }

    /// Records a completion: `result` is `POLL*` bits or a negated errno, `more` the `F_MORE` flag.
    pub(super) fn complete(&mut self, result: i32, more: bool) -> Completed {
        match (self.phase, more) {
            (Phase::Armed, _) => {
                if result < 0 {
                    self.fault = Some(-result);
                } else {
                    self.ready.0 |= result as u32;
                }
                if !more {
                    self.phase = Phase::Idle;
                }
                Completed::Wake
            }
            (Phase::Cancelling, false) => Completed::Freed,
            (Phase::Cancelling, true) | (Phase::Idle | Phase::Queued, _) => Completed::Ignored,
        }
    }

    /// Releases the op on behalf of its owner.
    pub(super) fn release(&mut self) -> Released {
        match self.phase {
            Phase::Idle | Phase::Queued => Released::Freed,
            Phase::Armed => {
                self.phase = Phase::Cancelling;
                Released::Cancel
            }
            Phase::Cancelling => Released::Waiting,
        }
    }

    /// Records the answer to the cancel; returns true if the cancel must be sent again, because it missed an
    /// op that was just completing and may live on.
    pub(super) fn cancel_answered(&self, result: i32) -> bool {
        self.phase == Phase::Cancelling && matches!(-result, libc::ENOENT | libc::EALREADY)
    }

    /// Records that the kernel has forgotten the op; returns whether to queue it again or, if its end was
    /// awaited, free it.
    pub(super) fn restart(&mut self) -> Restarted {
        match self.phase {
            Phase::Idle | Phase::Queued => Restarted::Nothing,
            Phase::Armed => {
                self.phase = Phase::Queued;
                Restarted::Queue
            }
            Phase::Cancelling => Restarted::Free,
        }
    }

    /// Records that nothing more will be heard of an op in flight, which must not be queued again. Returns whether to free
    /// it.
    #[cfg(feature = "record")]
    pub(super) fn forget(&mut self) -> bool {
        let is_released = self.phase == Phase::Cancelling;
        if self.is_in_flight() {
            self.phase = Phase::Idle;
        }
        is_released
    }

    /// Takes the events since the last call: an errno, or the readiness of the socket.
    pub(super) fn take(&mut self) -> Option<Result<Readiness, i32>> {
        if let Some(errno) = self.fault.take() {
            return Some(Err(errno));
        }
        let ready = std::mem::take(&mut self.ready);
        (!ready.is_empty()).then_some(Ok(ready))
    }

    /// Returns whether no request to the kernel is queued or pending.
    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// Returns whether the op's completion is pending.
    pub(super) fn is_armed(&self) -> bool {
        self.phase == Phase::Armed
    }

    /// Returns whether the kernel knows this op.
    pub(super) fn is_in_flight(&self) -> bool {
        matches!(self.phase, Phase::Armed | Phase::Cancelling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN: i32 = libc::POLLIN as i32;
    const ERR: i32 = libc::POLLERR as i32;

    fn op(phase: Phase) -> Op {
        Op { phase, ..Op::default() }
    }

    #[test]
    fn every_event_in_every_phase() {
        use Phase::{Armed, Cancelling, Idle, Queued};
        // phase; after want, push, release; after a completion with and without F_MORE
        let table = [
            (
                Idle,
                (true, Queued),
                (false, Idle),
                (Released::Freed, Idle),
                (Completed::Ignored, Idle),
                (Completed::Ignored, Idle),
            ),
            (
                Queued,
                (false, Queued),
                (true, Armed),
                (Released::Freed, Queued),
                (Completed::Ignored, Queued),
                (Completed::Ignored, Queued),
            ),
            (
                Armed,
                (false, Armed),
                (false, Armed),
                (Released::Cancel, Cancelling),
                (Completed::Wake, Armed),
                (Completed::Wake, Idle),
            ),
            (
                Cancelling,
                (false, Cancelling),
                (false, Cancelling),
                (Released::Waiting, Cancelling),
                (Completed::Ignored, Cancelling),
                (Completed::Freed, Cancelling),
            ),
        ];
        for (phase, want, push, release, more, last) in table {
            let mut tried = op(phase);
            assert_eq!((tried.want(), tried.phase), want, "want in {phase:?}");
            let mut tried = op(phase);
            assert_eq!((tried.push(), tried.phase), push, "push in {phase:?}");
            let mut tried = op(phase);
            assert_eq!((tried.release(), tried.phase), release, "release in {phase:?}");
            for result in [IN, ERR, -libc::ECANCELED, -libc::EBADF] {
                let mut tried = op(phase);
                assert_eq!((tried.complete(result, true), tried.phase), more, "more in {phase:?}");
                let mut tried = op(phase);
                assert_eq!((tried.complete(result, false), tried.phase), last, "last in {phase:?}");
            }
            let restarted = match phase {
                Idle | Queued => Restarted::Nothing,
                Armed => Restarted::Queue,
                Cancelling => Restarted::Free,
            };
            assert_eq!(op(phase).restart(), restarted, "restart in {phase:?}");
            #[cfg(feature = "record")]
            {
                let mut tried = op(phase);
                let forgotten = (tried.forget(), tried.phase);
                let then = if phase == Queued { Queued } else { Idle };
                assert_eq!(forgotten, (phase == Cancelling, then), "forget in {phase:?}");
            }
            assert_eq!(op(phase).is_in_flight(), matches!(phase, Armed | Cancelling));
            assert_eq!(op(phase).is_armed(), phase == Armed);
            for (result, again) in
                [(0, false), (-libc::ENOENT, true), (-libc::EALREADY, true), (-libc::EINVAL, false)]
            {
                let expected = again && phase == Cancelling;
                assert_eq!(op(phase).cancel_answered(result), expected, "cancel in {phase:?}");
            }
        }
    }

    #[test]
    fn readiness_is_sticky_and_adds_up_until_taken() {
        let mut op = op(Phase::Armed);
        assert_eq!(op.take(), None);
        op.complete(IN, true);
        op.complete(ERR, true);
        let ready = op.take().unwrap().unwrap();
        assert_eq!(ready, Readiness((IN | ERR) as u32));
        assert!(ready.has_error());
        assert_eq!(op.take(), None);
    }

    #[test]
    fn a_fault_is_reported_once_and_before_readiness() {
        let mut op = op(Phase::Armed);
        op.complete(IN, true);
        op.complete(-libc::ENOMEM, false);
        assert_eq!(op.take(), Some(Err(libc::ENOMEM)));
        assert!(matches!(op.take(), Some(Ok(_))));
        assert!(op.want(), "it can be armed again");
    }
}
