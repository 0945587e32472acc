//! A timer in the ring: for a reactor that does not sleep itself, and for one that sleeps so often that a limit to
//! each sleep is dear.

use std::time::{Duration, Instant};

/// So long after its time a timer that was not heard of has been lost.
const LOST: Duration = Duration::from_secs(1);

/// When the ring's timer goes off, as far as it was asked.
#[derive(Debug, Default)]
pub(super) struct RingTimer {
    set_for: Option<Instant>,
}

/// What to ask of the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    /// A timer.
    New,
    /// That the timer goes off earlier.
    Earlier,
}

impl RingTimer {
    /// Whether the ring must be asked to wake for `deadline`. A timer that is set goes off no later than
    /// any deadline; whoever is woken by it for nothing sets it anew.
    pub(super) fn needs(&self, deadline: Option<Instant>) -> Option<(Setting, Instant)> {
        let deadline = deadline?;
        match self.set_for {
            None => Some((Setting::New, deadline)),
            // Long past, and never heard of: it was lost.
            Some(set_for) if set_for.elapsed() > LOST => Some((Setting::New, deadline)),
            Some(set_for) if deadline < set_for => Some((Setting::Earlier, deadline)),
            Some(_) => None,
        }
    }

    /// Whether the timer goes off no later than `deadline`, or has gone off and was not heard of yet: whoever
    /// sleeps until there is a completion does not sleep past that. The clock is not asked: what is lost of a ring
    /// is not lost silently, but ends its use.
    pub(super) fn covers(&self, deadline: Instant) -> bool {
        self.set_for.is_some_and(|set_for| set_for <= deadline)
    }

    pub(super) fn set_for(&mut self, deadline: Instant) {
        self.set_for = Some(deadline);
    }

    /// Whether it goes off about now, or did and was not heard of yet.
    pub(super) fn is_due(&self) -> bool {
        self.set_for.is_some_and(|set_for| set_for <= Instant::now())
    }

    /// It has gone off, or its ring is gone.
    pub(super) fn has_rung(&mut self) {
        self.set_for = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_set_for_the_earliest_deadline_and_again_when_it_has_rung() {
        let now = Instant::now();
        let at = |secs: u64| now + Duration::from_secs(100 * secs);
        let mut alarm = RingTimer::default();
        assert_eq!(alarm.needs(None), None);
        assert_eq!(alarm.needs(Some(at(10))), Some((Setting::New, at(10))));
        alarm.set_for(at(10));
        assert_eq!(alarm.needs(Some(at(20))), None);
        assert_eq!(alarm.needs(Some(at(5))), Some((Setting::Earlier, at(5))));
        alarm.set_for(at(5));
        assert_eq!(alarm.needs(Some(at(10))), None, "it rings, and is set anew");
        assert!(alarm.covers(at(10)) && alarm.covers(at(5)) && !alarm.covers(at(4)));
        assert!(!alarm.is_due());
        alarm.set_for(now);
        assert!(alarm.is_due());
        alarm.has_rung();
        assert!(!alarm.is_due() && !alarm.covers(at(10)));
        assert_eq!(alarm.needs(Some(at(10))), Some((Setting::New, at(10))));
    }
}
