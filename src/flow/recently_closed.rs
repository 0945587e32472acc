//! Recently closed connections, for which packets may still arrive.

use std::collections::HashMap;
use std::hash::Hash;

use super::expiry::Expiry;

/// How long connections are remembered, in nanoseconds. A retransmission may be on its way for this long (RFC
/// 9293, 3.4.2: twice the maximum segment lifetime, with the value that systems use).
const LINGER: u64 = 60_000_000_000;

/// The keys of closed connections. A packet for one of them is late, unless it opens a new connection.
#[derive(Debug)]
pub(super) struct Closed<K> {
    until: HashMap<K, u64>,
    order: Expiry<K>,
    /// Maximum number of keys remembered.
    most: usize,
    late: u64,
}

impl<K: Eq + Hash + Clone> Closed<K> {
    pub(super) fn new(most: usize) -> Self {
        Self { until: HashMap::new(), order: Expiry::new(0), most: most.max(1), late: 0 }
    }

    pub(super) fn set_most(&mut self, most: usize) {
        self.most = most.max(1);
    }

    pub(super) fn insert(&mut self, key: K, now: u64) {
        let until = now.saturating_add(LINGER);
        self.until.insert(key.clone(), until);
        self.order.push(until, key);
        self.forget(now, 4);
        while self.until.len() > self.most {
            self.forget(u64::MAX, 1);
        }
    }

    /// Forgets at most `some` connections that were closed long ago.
    pub(super) fn forget(&mut self, now: u64, some: usize) {
        let Self { order, until, .. } = self;
        order.tidy(until.len(), some, |key, at| until.get(key) == Some(&at));
        for _ in 0..some {
            let Some(key) = self.order.pop(now) else { return };
            // Keep connections that were closed again since.
            if self.until.get(&key).is_some_and(|until| *until <= now) {
                self.until.remove(&key);
            }
        }
    }

    /// Returns whether a packet that would begin a flow is late. A packet that opens a connection is not.
    pub(super) fn is_late(&mut self, key: &K, opens: bool, now: u64) -> bool {
        if opens {
            self.until.remove(key);
            return false;
        }
        let is_late = self.until.get(key).is_some_and(|until| now < *until);
        self.late += u64::from(is_late);
        is_late
    }

    /// Returns the number of late packets.
    pub(super) fn late(&self) -> u64 {
        self.late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_packets_are_told_for_a_while_and_until_a_connection_is_opened_anew() {
        let mut closed = Closed::new(10);
        closed.insert(1, 0);
        assert!(closed.is_late(&1, false, 9) && !closed.is_late(&2, false, 9));
        assert!(!closed.is_late(&1, false, LINGER), "long after");
        assert!(!closed.is_late(&1, true, 9) && !closed.is_late(&1, false, 9));
        closed.insert(1, 5);
        closed.insert(1, 7);
        closed.forget(LINGER + 6, 10);
        assert!(closed.is_late(&1, false, LINGER + 6), "closed again since");
        closed.forget(LINGER + 7, 10);
        assert!(closed.until.is_empty());
        (0..1000).for_each(|key| closed.insert(key, 9));
        assert!(closed.until.len() <= 10);
        // The same connection again and again.
        for now in 0..100_000 {
            closed.insert(1, now);
            assert!(!closed.is_late(&1, true, now));
        }
        assert!(closed.order.len() < 3000, "{}", closed.order.len());
        assert_eq!(closed.late(), 2);
    }
}
