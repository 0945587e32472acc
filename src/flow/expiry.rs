//! The times at which flows must be checked, so that not all of them have to be checked each time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Flows ordered by the time at which they will have been idle long enough, if no packet arrives until then. By
/// that time a flow may have ended, begun anew, or received packets.
#[derive(Debug)]
pub(super) struct Expiry<K> {
    heap: BinaryHeap<Due<K>>,
    /// Entries being searched for flows that are gone, because there were too many of them.
    old: Vec<Due<K>>,
}

/// Number of entries of ended flows that is tolerated.
const SLACK: usize = 1024;

#[derive(Debug)]
struct Due<K> {
    /// Nanoseconds since the epoch, by the packets' clock.
    at: u64,
    key: K,
}

impl<K> PartialEq for Due<K> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<K> Eq for Due<K> {}

impl<K> PartialOrd for Due<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for Due<K> {
    /// The earliest time is the greatest, as a heap pops the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl<K> Expiry<K> {
    /// Reserves room for the given number of flows, and for as many ended ones. The memory is only used when
    /// touched, and need not be moved when the heap grows.
    pub(super) fn new(flows: usize) -> Self {
        let room = 2 * flows.min(1 << 20) + SLACK;
        Self { heap: BinaryHeap::with_capacity(room), old: Vec::new() }
    }

    pub(super) fn push(&mut self, at: u64, key: K) {
        self.heap.push(Due { at, key });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len() + self.old.len()
    }

    /// Returns the time at which the next flow is due, at the latest.
    pub(super) fn next(&self) -> Option<u64> {
        if self.old.is_empty() { self.heap.peek().map(|due| due.at) } else { Some(0) }
    }

    /// Removes and returns the next flow that is due at time `by`.
    pub(super) fn pop(&mut self, by: u64) -> Option<K> {
        if self.heap.peek().is_some_and(|due| due.at <= by) {
            return self.heap.pop().map(|due| due.key);
        }
        if by == u64::MAX { self.old.pop().map(|due| due.key) } else { None }
    }

    /// If most entries belong to ended flows, checks `some` of them and removes those of ended flows.
    #[inline]
    pub(super) fn tidy(&mut self, flows: usize, some: usize, is_there: impl Fn(&K, u64) -> bool) {
        if self.old.is_empty() {
            if self.heap.len() <= 2 * flows + SLACK {
                return;
            }
            let room = self.heap.capacity();
            let all = std::mem::replace(&mut self.heap, BinaryHeap::with_capacity(room));
            self.old = all.into_vec();
        }
        for _ in 0..some {
            let Some(due) = self.old.pop() else {
                self.old = Vec::new();
                return;
            };
            if is_there(&due.key, due.at) {
                self.heap.push(due);
            }
        }
    }

    pub(super) fn rebuild(&mut self, flows: impl Iterator<Item = (u64, K)>) {
        let mut all = std::mem::take(&mut self.heap).into_vec();
        all.clear();
        all.extend(flows.map(|(at, key)| Due { at, key }));
        self.heap = all.into();
        self.old = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_nothing_before_its_time() {
        let mut expiry = Expiry::new(10);
        for at in [5, 3, 9, 3] {
            expiry.push(at, at);
        }
        assert_eq!(expiry.pop(2), None);
        assert_eq!([expiry.pop(3), expiry.pop(8), expiry.pop(8)], [Some(3), Some(3), Some(5)]);
        assert_eq!((expiry.pop(8), expiry.next()), (None, Some(9)));
        expiry.rebuild((0..5000).map(|at| (at, at)));
        assert_eq!(expiry.next(), Some(0));
    }

    #[test]
    fn those_that_are_gone_are_forgotten_a_few_at_a_time() {
        let mut expiry = Expiry::new(10);
        expiry.rebuild((1..=5000).map(|at| (at, at)));
        expiry.tidy(2000, 4, |_, _| panic!("it is not time yet"));
        let mut turns = 0;
        // A hundred of them are still alive.
        while expiry.heap.len() > 150 || !expiry.old.is_empty() {
            expiry.tidy(100, 4, |at, _| at % 50 == 0);
            turns += 1;
        }
        assert_eq!(turns, 1250);
        assert_eq!((expiry.pop(49), expiry.pop(50), expiry.next()), (None, Some(50), Some(100)));
        // No entry is lost while a cleanup is in progress.
        expiry.rebuild((1..=5000).map(|at| (at, at)));
        expiry.tidy(100, 10, |_, _| true);
        assert_eq!(expiry.next(), Some(0));
        assert_eq!(std::iter::from_fn(|| expiry.pop(u64::MAX)).count(), 5000);
        assert_eq!(expiry.next(), None);
    }
}
