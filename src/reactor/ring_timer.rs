//! A timer in the ring: for a reactor that does not sleep itself, and for one that sleeps so often that a
//! time limit on each sleep is expensive.

use std::time::{Duration, Instant};

/// A timer that has not reported this long after its deadline has been lost.
const LOST: Duration = Duration::from_secs(1);

/// The time for which the ring's timer was last set.
#[derive(Debug, Default)]
pub(super) struct RingTimer {
    set_for: Option<Instant>,
}

/// The request to make of the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    /// A new timer.
    New,
    /// An earlier deadline for the existing timer.
    Earlier,
}

impl RingTimer {
    /// Returns the request needed for the ring to wake at `deadline`, if any. A timer that is set goes off no
    /// later than any deadline; if it wakes a task too early, that task sets it again.
    pub(super) fn needs(&self, deadline: Option<Instant>) -> Option<(Setting, Instant)> {
        let deadline = deadline?;
        match self.set_for {
            None => Some((Setting::New, deadline)),
            // Long overdue without having reported: it was lost.
            Some(set_for) if set_for.elapsed() > LOST => Some((Setting::New, deadline)),
            Some(set_for) if deadline < set_for => Some((Setting::Earlier, deadline)),
            Some(_) => None,
        }
    }

    /// Returns whether the timer goes off no later than `deadline`, or has gone off without having been
    /// noticed yet: a sleep that ends at the next completion does not last past that. The clock is not read:
    /// a ring does not lose completions silently, since a loss ends its use.
    pub(super) fn covers(&self, deadline: Instant) -> bool {
        self.set_for.is_some_and(|set_for| set_for <= deadline)
    }

    pub(super) fn set_for(&mut self, deadline: Instant) {
        self.set_for = Some(deadline);
    }

    /// Returns whether the timer is due about now, or has gone off without having been noticed yet.
    pub(super) fn is_due(&self) -> bool {
        self.set_for.is_some_and(|set_for| set_for <= Instant::now())
    }

    /// Records that the timer has gone off, or that its ring is gone.
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
        let mut ring_timer = RingTimer::default();
        assert_eq!(ring_timer.needs(None), None);
        assert_eq!(ring_timer.needs(Some(at(10))), Some((Setting::New, at(10))));
        ring_timer.set_for(at(10));
        assert_eq!(ring_timer.needs(Some(at(20))), None);
        assert_eq!(ring_timer.needs(Some(at(5))), Some((Setting::Earlier, at(5))));
        ring_timer.set_for(at(5));
        assert_eq!(ring_timer.needs(Some(at(10))), None, "it rings, and is set anew");
        assert!(ring_timer.covers(at(10)) && ring_timer.covers(at(5)) && !ring_timer.covers(at(4)));
        assert!(!ring_timer.is_due());
        ring_timer.set_for(now);
        assert!(ring_timer.is_due());
        ring_timer.has_rung();
        assert!(!ring_timer.is_due() && !ring_timer.covers(at(10)));
        assert_eq!(ring_timer.needs(Some(at(10))), Some((Setting::New, at(10))));
    }
}
