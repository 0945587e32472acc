//! How long a task goes on before the rest of its thread has a turn.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::reactor::{Reactor, Turn};

/// How long a task that always has work goes on.
const TIME: Duration = Duration::from_micros(200);
/// Packets between two looks at the clock.
const LOOK_EVERY: u32 = 16;

/// Gives the rest of the thread a turn about every 200 µs: its other tasks, its reactor and, if another runtime runs the
/// thread, that one's own sockets and timers.
///
/// Async sockets do so by themselves between batches. A batch may have thousands of packets, though, and a program that
/// takes long for each should give turns within it:
///
/// ```no_run
/// use ringtap::time::Budget;
///
/// # async fn f(mut capture: ringtap::AsyncCapture) -> ringtap::Result<()> {
/// let mut budget = Budget::new();
/// while let Some(batch) = capture.next_batch().await? {
///     for packet in &batch {
///         println!("{} bytes", packet.len());
///         budget.spend().await;
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// A turn given to a host costs some microseconds, as the host has to look at its I/O.
pub struct Budget {
    /// The first look at the clock; none yet after a wait, whose time is not the task's.
    since: Option<Instant>,
    /// Packets until the next look at the clock.
    left: u32,
    /// The turn that is being given to a host.
    turn: Option<Turn>,
    /// Whether the task has yielded to the others of an executor without a host.
    yields: bool,
    is_spent: bool,
}

impl Budget {
    /// Creates a budget that begins with the first packet counted.
    pub fn new() -> Self {
        let (turn, yields, is_spent) = (None, false, false);
        Self { since: None, left: 1, turn, yields, is_spent }
    }

    /// Counts a packet, and gives a turn if the budget is spent. Costs about a nanosecond most times, and no system call
    /// then. Cancel-safe.
    pub async fn spend(&mut self) {
        if self.count(1) {
            poll_fn(|cx| self.poll_turn(cx)).await;
        }
    }

    /// Counts packets, and returns whether the budget is spent: then give a turn, as your runtime does that, and
    /// [`renew`](Self::renew) the budget.
    #[inline]
    pub fn count(&mut self, packets: u32) -> bool {
        if self.left > packets && !self.is_spent {
            self.left -= packets;
            return false;
        }
        self.look()
    }

    /// Looks at the clock. Returns whether the budget is spent.
    #[cold]
    pub(crate) fn look(&mut self) -> bool {
        self.left = LOOK_EVERY;
        match self.since {
            Some(since) => self.is_spent |= since.elapsed() >= TIME,
            None => self.since = Some(Instant::now()),
        }
        self.is_spent
    }

    /// Returns whether a turn is due.
    pub(crate) fn is_spent(&self) -> bool {
        self.is_spent
    }

    /// Begins anew, before or after a turn or a wait for something else.
    pub fn renew(&mut self) {
        *self = Self::new();
    }

    /// Gives a turn.
    pub(crate) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let look = Reactor::current().ok().and_then(|of| of.poll_look(&mut self.turn, cx));
        let given = look.unwrap_or_else(|| {
            self.turn = None;
            // The executor turns its reactor between rounds of tasks.
            match std::mem::replace(&mut self.yields, true) {
                true => Poll::Ready(()),
                false => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            }
        });
        if given.is_ready() {
            self.renew();
        }
        given
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("is_spent", &self.is_spent).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_wait_is_not_the_tasks() {
        let mut budget = Budget::new();
        assert!(!budget.look());
        std::thread::sleep(2 * TIME);
        assert!(budget.look() && budget.is_spent(), "it has worked all the time");
        budget.renew();
        std::thread::sleep(2 * TIME); // as a wait
        assert!(!budget.count(1), "it has not begun before");
        std::thread::sleep(2 * TIME);
        assert!(!(1..LOOK_EVERY).any(|_| budget.count(1)), "the clock is not read for each packet");
        assert!(budget.count(1));
        assert!(budget.count(1), "until it is renewed");
    }
}
