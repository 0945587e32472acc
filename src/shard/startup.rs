//! Starting together and leaving in order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::afpacket::Socket;

/// The place where shards wait for each other while they start.
#[derive(Debug, Default)]
pub(super) struct Lineup {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the shard that opens its socket next.
    next_to_open: usize,
    /// Number of the shard that joins the group next.
    next_to_join: usize,
    /// The groups that shard 0 has created, one for each capture of a shard.
    groups: Vec<Option<u16>>,
    verdict: Option<Verdict>,
    /// Number of shards that have opened their intake, or failed to.
    under_way: usize,
}

/// Whether the shards start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Go,
    Abort,
}

impl Lineup {
    /// Opens shard `index`'s socket when it is its turn; `None` if the start was aborted.
    pub(super) fn in_turn<T>(&self, index: usize, open: impl FnOnce() -> T) -> Option<T> {
        let mut state =
            self.wait_until(|state| state.next_to_open == index || state.verdict.is_some());
        if state.verdict.is_some() {
            return None;
        }
        let opened = open();
        state.next_to_open += 1;
        self.changed.notify_all();
        Some(opened)
    }

    /// Waits for shard `index`'s turn to join. Returns the groups that shard 0 has created (empty for shard 0),
    /// or `Err` if the start was aborted.
    pub(super) fn wait_to_join(&self, index: usize) -> Result<Vec<Option<u16>>, Verdict> {
        let state = self.wait_until(|state| state.next_to_join == index || state.verdict.is_some());
        match state.verdict {
            Some(verdict) => Err(verdict),
            None => Ok(state.groups.clone()),
        }
    }

    /// Reports that the next shard in order has joined `groups`.
    pub(super) fn joined(&self, groups: Vec<Option<u16>>) {
        let mut state = self.lock();
        state.next_to_join += 1;
        state.groups = groups;
        self.changed.notify_all();
    }

    /// Waits until all have joined or one has failed.
    pub(super) fn wait_for_verdict(&self) -> Verdict {
        self.wait_until(|state| state.verdict.is_some()).verdict.expect("waited for it")
    }

    /// Sets whether the shards start; only the first call counts.
    pub(super) fn decide(&self, verdict: Verdict) {
        self.lock().verdict.get_or_insert(verdict);
        self.changed.notify_all();
    }

    /// Reports that a shard's packets come in.
    pub(super) fn under_way(&self) {
        self.lock().under_way += 1;
        self.changed.notify_all();
    }

    /// Waits until `count` shards are under way.
    pub(super) fn wait_until_under_way(&self, count: usize) {
        drop(self.wait_until(|state| state.under_way == count));
    }

    fn wait_until(&self, done: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        self.changed
            .wait_while(self.lock(), |state| !done(state))
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the sockets of ended shards in their group until the last shard ends. A member that leaves early would
/// move the flows of those that still drain.
#[derive(Debug)]
pub(super) struct Exit {
    anchors: Mutex<Vec<Vec<Arc<Socket>>>>,
    left: AtomicUsize,
}

impl Exit {
    pub(super) fn new(shards: usize) -> Self {
        Self { anchors: Mutex::new(vec![Vec::new(); shards]), left: AtomicUsize::new(shards) }
    }

    /// Reports that shard `index` has ended; `sockets` stay open until all shards have.
    pub(super) fn leave(&self, index: usize, sockets: Vec<Arc<Socket>>) {
        self.anchors.lock().unwrap_or_else(PoisonError::into_inner)[index] = sockets;
        // AcqRel: the last shard sees the anchors of all.
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut anchors = self.anchors.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(anchor) = anchors.pop() {
                drop(anchor); // last member first, so that none moves into a gap
            }
        }
    }
}
