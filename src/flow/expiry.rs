//! When flows are due to be looked at, so that nobody has to look at all of them.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Flows by the time at which they have been idle long enough, if nothing comes for them until then. Each is in it once
/// or twice: what is due may have gone, or have had packets since.
#[derive(Debug)]
pub(super) struct Expiry<K>(BinaryHeap<Due<K>>);

#[derive(Debug)]
struct Due<K> {
    /// Nanoseconds since the epoch, of the packets' clock.
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
    /// The earliest is the greatest: a heap gives that first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl<K> Expiry<K> {
    pub(super) fn new() -> Self {
        Self(BinaryHeap::new())
    }

    pub(super) fn push(&mut self, at: u64, key: K) {
        self.0.push(Due { at, key });
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<u64> {
        self.0.peek().map(|due| due.at)
    }

    /// The next that is due by then.
    pub(super) fn pop(&mut self, by: u64) -> Option<K> {
        if self.next()? > by {
            return None;
        }
        self.0.pop().map(|due| due.key)
    }

    /// Whether it holds so much of flows that are gone that it is to be made anew.
    pub(super) fn is_stale(&self, flows: usize) -> bool {
        self.0.len() > 2 * flows + 1024
    }

    pub(super) fn rebuild(&mut self, flows: impl Iterator<Item = (u64, K)>) {
        let mut all = std::mem::take(&mut self.0).into_vec();
        all.clear();
        all.extend(flows.map(|(at, key)| Due { at, key }));
        self.0 = all.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_nothing_before_its_time() {
        let mut expiry = Expiry::new();
        for at in [5, 3, 9, 3] {
            expiry.push(at, at);
        }
        assert_eq!(expiry.pop(2), None);
        assert_eq!([expiry.pop(3), expiry.pop(8), expiry.pop(8)], [Some(3), Some(3), Some(5)]);
        assert_eq!((expiry.pop(8), expiry.next()), (None, Some(9)));
        assert!(!expiry.is_stale(0));
        expiry.rebuild((0..5000).map(|at| (at, at)));
        assert!(expiry.is_stale(1000) && !expiry.is_stale(2000));
        assert_eq!(expiry.next(), Some(0));
    }
}
