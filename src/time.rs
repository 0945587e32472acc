//! Timers on the thread's reactor, so that periodic work needs no other runtime.
//!
//! A timer is watched by the reactor of the thread that polls it; if that reactor ends, the next one that
//! polls the timer takes over.

mod budget;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;

pub use self::budget::Budget;
use crate::reactor::{Deadline, Reactor};

/// Waits until `duration` has elapsed.
pub fn sleep(duration: Duration) -> Sleep {
    // A time beyond the range of the clock never comes.
    Sleep { deadline: Instant::now().checked_add(duration), timer: None, turn: 0 }
}

/// Waits until `deadline`.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline: Some(deadline), timer: None, turn: 0 }
}

/// A sleep in progress. Cancel-safe: dropping it removes the timer.
///
/// # Panics
/// Panics if first polled on a thread without a reactor, since nothing would ever wake it. If its reactor
/// ends first, it never completes unless it is polled on a thread with another reactor.
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    /// The deadline; `None` means never.
    deadline: Option<Instant>,
    timer: Option<Deadline>,
    /// The number of the reactor's turn when this was last polled.
    turn: u64,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let turn = self.timer.as_ref().and_then(|timer| timer.set_waker(cx.waker()));
        if let Some(turn) = turn
            && turn != self.turn
        {
            // The reactor watches the clock itself, and will fire the timer when it is due.
            self.turn = turn;
            return Poll::Pending;
        }
        if deadline <= Instant::now() {
            self.timer = None;
            return Poll::Ready(());
        }
        if turn.is_none() {
            match Reactor::current() {
                Ok(reactor) => {
                    let timer = Deadline::new(&reactor, deadline, cx.waker());
                    self.turn = timer.turn();
                    self.timer = Some(timer);
                }
                // Its reactor was detached while it waited: nothing can wake it any more.
                Err(_) if self.timer.is_some() => {}
                Err(error) => panic!("{error}"),
            }
        }
        Poll::Pending
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// The error of [`timeout`] if the time limit passed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time was up")
    }
}

impl std::error::Error for Elapsed {}

/// Awaits `future` for at most `limit`, and drops it when the time is up.
///
/// # Errors
/// [`Elapsed`] if the time was up first. A future that is ready at once is never late; a future that first
/// yields to other tasks, as sockets do now and then, is late for a zero `limit`.
///
/// # Panics
/// As for [`Sleep`].
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = std::pin::pin!(future);
    let mut sleep = sleep(limit);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut sleep).poll(cx).map(|()| Err(Elapsed))
    })
    .await
}

/// Creates an interval that ticks every `period`, for the first time after one period.
///
/// Ticks that were not awaited in time are skipped and not made up for: measure time by the `Instant` that a
/// tick returns, never by counting ticks.
///
/// # Panics
/// Panics if `period` is zero.
pub fn interval(period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval's period is not zero");
    Interval { period, sleep: sleep(period) }
}

/// Periodic ticks; from [`interval`]. Cancel-safe: a tick that was not awaited to completion is not lost.
#[derive(Debug)]
pub struct Interval {
    period: Duration,
    sleep: Sleep,
}

impl Interval {
    /// Waits for the next tick and returns the time at which it was due.
    ///
    /// # Panics
    /// As for [`Sleep`].
    pub async fn tick(&mut self) -> Instant {
        std::future::poll_fn(|cx| self.poll_tick(cx)).await
    }

    fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        std::task::ready!(Pin::new(&mut self.sleep).poll(cx));
        let now = Instant::now();
        let due = self.sleep.deadline.unwrap_or(now);
        self.sleep = sleep_until(next_tick(due, now, self.period));
        Poll::Ready(due)
    }
}

impl Stream for Interval {
    type Item = Instant;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Instant>> {
        self.poll_tick(cx).map(Some)
    }
}

/// Returns the first multiple of `period` after `due` that lies in the future.
fn next_tick(due: Instant, now: Instant, period: Duration) -> Instant {
    let late = now.saturating_duration_since(due).as_nanos();
    let into_period = late % period.as_nanos();
    // Less than `period`, so it fits.
    let into_period =
        Duration::new((into_period / 1_000_000_000) as u64, (into_period % 1_000_000_000) as u32);
    now + (period - into_period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_ticks_are_skipped_and_the_phase_is_kept() {
        let start = Instant::now();
        let period = Duration::from_millis(10);
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(next_tick(at(10), at(10), period), at(20));
        assert_eq!(next_tick(at(10), at(13), period), at(20));
        assert_eq!(next_tick(at(10), at(47), period), at(50));
    }
}
