//! Queries for the flows of running shards.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::config::FlowTableStats;
use super::event::FlowStats;

/// How long a query waits for busy shards.
const PATIENCE: Duration = Duration::from_secs(2);

/// A snapshot of the flows of one shard.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FlowSnapshot<K> {
    /// Number of current flows.
    pub active: usize,
    /// Numbers of flows that began, ended and were evicted, and of packets that belong to no flow.
    pub stats: FlowTableStats,
    /// Flows with the most bytes, largest first; empty if the shard has ended.
    pub top: Vec<(K, FlowStats)>,
}

/// Snapshots of all shards, taken at about the same time; from [`FlowShards::flows`](super::FlowShards::flows).
#[derive(Debug, Clone)]
pub struct FlowSnapshots<K> {
    shards: Vec<Option<FlowSnapshot<K>>>,
}

impl<K: Clone> FlowSnapshots<K> {
    /// Returns the snapshot of each shard, by index. It is `None` if the shard was too busy to answer within
    /// two seconds, or dropped its stream before the end.
    pub fn shards(&self) -> &[Option<FlowSnapshot<K>>] {
        &self.shards
    }

    /// Returns the number of current flows in all shards.
    pub fn active(&self) -> usize {
        self.shards.iter().flatten().map(|shard| shard.active).sum()
    }

    /// Returns how many flows began, ended and were evicted in all shards, and how many packets belong to no
    /// flow.
    pub fn total(&self) -> FlowTableStats {
        let mut total = FlowTableStats::default();
        for shard in self.shards.iter().flatten() {
            total.flows_created += shard.stats.flows_created;
            total.flows_ended += shard.stats.flows_ended;
            total.flows_evicted += shard.stats.flows_evicted;
            total.packets_unmatched += shard.stats.packets_unmatched;
            total.late_packets += shard.stats.late_packets;
        }
        total
    }

    /// Returns the `most` flows with the most bytes in all shards, largest first. Each shard contributes at
    /// most the number of flows that was queried.
    pub fn top(&self, most: usize) -> Vec<(K, FlowStats)> {
        let mut all: Vec<_> =
            self.shards.iter().flatten().flat_map(|shard| shard.top.iter().cloned()).collect();
        greatest(&mut all, most);
        all
    }
}

fn bytes(stats: &FlowStats) -> u64 {
    stats.total_bytes()
}

fn greatest<K>(flows: &mut Vec<(K, FlowStats)>, most: usize) {
    flows.sort_by_key(|(_, stats)| std::cmp::Reverse(bytes(stats)));
    flows.truncate(most);
}

/// Returns the `most` flows with the most bytes.
pub(super) fn top<'a, K: Clone + 'a>(
    flows: impl Iterator<Item = (&'a K, FlowStats)>,
    most: usize,
) -> Vec<(K, FlowStats)> {
    let mut all: Vec<(&K, FlowStats)> = flows.collect();
    let least = |flow: &(&K, FlowStats)| std::cmp::Reverse(bytes(&flow.1));
    if most > 0 && all.len() > most {
        all.select_nth_unstable_by_key(most - 1, least);
    }
    all.truncate(most);
    let mut top = all.into_iter().map(|(key, stats)| (key.clone(), stats)).collect();
    greatest(&mut top, most);
    top
}

/// The place at which queries are posted and answered.
pub(super) struct Board<K> {
    /// Held during a query, so that there is only one at a time.
    asking: Mutex<()>,
    /// Number of queries so far.
    asked: AtomicU64,
    most: Mutex<usize>,
    answers: Mutex<Vec<Answer<K>>>,
    answered: Condvar,
}

struct Answer<K> {
    /// Number of the query that is answered.
    to: u64,
    flows: Option<FlowSnapshot<K>>,
    has_ended: bool,
}

impl<K> Board<K> {
    pub(super) fn new(shards: usize) -> Self {
        let none = || Answer { to: 0, flows: None, has_ended: false };
        Self {
            asking: Mutex::new(()),
            asked: AtomicU64::new(0),
            most: Mutex::new(0),
            answers: Mutex::new((0..shards).map(|_| none()).collect()),
            answered: Condvar::new(),
        }
    }

    fn answers(&self) -> MutexGuard<'_, Vec<Answer<K>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queries all shards, and waits for their answers up to a time limit.
    pub(super) fn ask(&self, most: usize) -> FlowSnapshots<K>
    where
        K: Clone,
    {
        let _one_at_a_time = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        *self.most.lock().unwrap_or_else(PoisonError::into_inner) = most;
        let mut answers = self.answers();
        let question = self.asked.fetch_add(1, Ordering::Release) + 1;
        let deadline = Instant::now() + PATIENCE;
        let is_there = |answer: &Answer<K>| answer.to >= question || answer.has_ended;
        while !answers.iter().all(is_there)
            && let Some(left) = deadline.checked_duration_since(Instant::now())
        {
            let woken = self.answered.wait_timeout(answers, left);
            answers = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        let shards = answers.iter().map(|answer| answer.flows.clone().filter(|_| is_there(answer)));
        FlowSnapshots { shards: shards.collect() }
    }
}

/// The end of a shard, which answers queries.
pub(super) struct ShardResponder<K> {
    board: Arc<Board<K>>,
    number: usize,
    answered: u64,
}

impl<K> ShardResponder<K> {
    pub(super) fn new(board: Arc<Board<K>>, number: usize) -> Self {
        Self { board, number, answered: 0 }
    }

    /// Returns the number of flows asked for, if there is a new query.
    #[inline]
    pub(super) fn question(&mut self) -> Option<usize> {
        // Acquire: pairs with the Release of the query, before which the number of flows was set.
        let asked = self.board.asked.load(Ordering::Acquire);
        if asked == self.answered {
            return None;
        }
        self.answered = asked;
        Some(*self.board.most.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn answer(&self, flows: FlowSnapshot<K>, has_ended: bool) {
        let mut answers = self.board.answers();
        answers[self.number] = Answer { to: self.answered, flows: Some(flows), has_ended };
        self.board.answered.notify_all();
    }
}

impl<K> Drop for ShardResponder<K> {
    fn drop(&mut self) {
        let mut answers = self.board.answers();
        let answer = &mut answers[self.number];
        if !std::mem::replace(&mut answer.has_ended, true) {
            answer.flows = None; // it ended without answering
        }
        drop(answers);
        self.board.answered.notify_all();
    }
}

impl<K> fmt::Debug for Board<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").finish_non_exhaustive()
    }
}
