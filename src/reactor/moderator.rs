//! The minimum length of the next sleep: a pure function of how long the last sleeps lasted.

use std::time::Duration;

use crate::options::Coalesce;

/// Sleeps shorter than this count as wake-ups in quick succession.
const SHORT: Duration = Duration::from_micros(50);
/// Moderation begins after this many more short sleeps than long ones, each of which undoes a few, …
const STREAK: u32 = 16;
const UNDONE: u32 = 4;
/// … with sleeps of this length.
const FIRST: Duration = Duration::from_micros(25);

/// Decides the minimum length of sleeps.
#[derive(Debug)]
pub(super) struct Moderator {
    coalesce: Coalesce,
    /// The current interval of adaptive moderation.
    interval: Duration,
    streak: u32,
}

impl Moderator {
    pub(super) fn new(coalesce: Coalesce) -> Self {
        Self { coalesce, interval: Duration::ZERO, streak: 0 }
    }

    /// Returns the minimum length of the next sleep, if anything arrives during it; zero means no moderation.
    pub(super) fn interval(&self) -> Duration {
        match self.coalesce {
            Coalesce::Off => Duration::ZERO,
            Coalesce::Fixed(interval) => interval,
            Coalesce::Adaptive { max } => self.interval.min(max),
        }
    }

    /// Returns whether [`slept`](Self::slept) needs to be called.
    pub(super) fn is_adaptive(&self) -> bool {
        matches!(self.coalesce, Coalesce::Adaptive { .. })
    }

    /// Records how long the last sleep lasted.
    pub(super) fn slept(&mut self, time: Duration) {
        let Coalesce::Adaptive { max } = self.coalesce else { return };
        if self.interval.is_zero() {
            self.streak = match time < SHORT {
                true => self.streak + 1,
                false => self.streak.saturating_sub(UNDONE),
            };
            if self.streak >= STREAK {
                self.interval = FIRST.min(max);
            }
        } else if time < self.interval + SHORT.max(self.interval / 2) {
            // Something arrived during the interval or soon after: there is load.
            self.interval = (2 * self.interval).min(max);
        } else {
            // Nothing arrived: ending moderation takes as many quiet sleeps as reaching it took loaded ones.
            self.interval /= 2;
            if self.interval < FIRST {
                (self.interval, self.streak) = (Duration::ZERO, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn fixed_is_what_it_says_and_off_is_nothing() {
        for (coalesce, interval) in [(Coalesce::Off, us(0)), (Coalesce::Fixed(us(70)), us(70))] {
            let mut moderator = Moderator::new(coalesce);
            for time in [us(1), us(1000)] {
                assert_eq!(moderator.interval(), interval);
                moderator.slept(time);
            }
        }
    }

    #[test]
    fn adaptive_grows_under_load_to_its_bound_and_ends_when_it_is_quiet() {
        let mut moderator = Moderator::new(Coalesce::Adaptive { max: us(200) });
        for _ in 0..STREAK {
            assert_eq!(moderator.interval(), us(0));
            moderator.slept(us(10));
        }
        let mut seen = Vec::new();
        for _ in 0..6 {
            let interval = moderator.interval();
            seen.push(interval.as_micros());
            moderator.slept(interval + us(5));
        }
        assert_eq!(seen, [25, 50, 100, 200, 200, 200]);
        for _ in 0..4 {
            assert!(!moderator.interval().is_zero());
            moderator.slept(us(5000));
        }
        assert_eq!(moderator.interval(), us(0));
    }

    #[test]
    fn a_few_quick_wake_ups_among_slow_ones_do_not_begin_it() {
        let mut moderator = Moderator::new(Coalesce::Adaptive { max: us(200) });
        for round in 0..1000 {
            moderator.slept(if round % 3 == 0 { us(180) } else { us(5) });
        }
        assert_eq!(moderator.interval(), us(0));
    }

    #[test]
    fn a_bound_below_the_first_step_holds() {
        let mut moderator = Moderator::new(Coalesce::Adaptive { max: us(10) });
        for _ in 0..100 {
            moderator.slept(us(1));
            assert!(moderator.interval() <= us(10));
        }
    }
}
