//! What shards tell of their flows when they are asked.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flowscope::{FlowStats, FlowTrackerStats};

/// The longest that a question waits for shards that are busy.
const PATIENCE: Duration = Duration::from_secs(2);

/// A shard's flows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FlowSnapshot<K> {
    /// Flows that there are.
    pub active: usize,
    /// How many began, ended and were evicted, and packets that are of none.
    pub tracker: FlowTrackerStats,
    /// Packets that came late, for connections that were closed.
    pub late_packets: u64,
    /// Those with the most bytes, the greatest first; none of a shard that has ended.
    pub top: Vec<(K, FlowStats)>,
}

/// The flows of all shards, at about the same time; from [`FlowShards::flows`](super::FlowShards::flows).
#[derive(Debug, Clone)]
pub struct FlowSnapshots<K> {
    shards: Vec<Option<FlowSnapshot<K>>>,
}

impl<K: Clone> FlowSnapshots<K> {
    /// Each shard's, by number; `None` of one that was too busy to answer within two seconds, or that has dropped its
    /// stream before the end.
    pub fn shards(&self) -> &[Option<FlowSnapshot<K>>] {
        &self.shards
    }

    /// Flows that there are, in all shards.
    pub fn active(&self) -> usize {
        self.shards.iter().flatten().map(|shard| shard.active).sum()
    }

    /// How many began, ended and were evicted, in all shards, and packets that are of none.
    pub fn total(&self) -> FlowTrackerStats {
        let mut total = FlowTrackerStats::default();
        for shard in self.shards.iter().flatten() {
            total.flows_created += shard.tracker.flows_created;
            total.flows_ended += shard.tracker.flows_ended;
            total.flows_evicted += shard.tracker.flows_evicted;
            total.packets_unmatched += shard.tracker.packets_unmatched;
        }
        total
    }

    /// Those with the most bytes of all shards, the greatest first: as many as were asked for.
    pub fn top(&self, most: usize) -> Vec<(K, FlowStats)> {
        let mut all: Vec<_> =
            self.shards.iter().flatten().flat_map(|shard| shard.top.iter().cloned()).collect();
        greatest(&mut all, most);
        all
    }
}

fn bytes(stats: &FlowStats) -> u64 {
    stats.bytes_initiator + stats.bytes_responder
}

fn greatest<K>(flows: &mut Vec<(K, FlowStats)>, most: usize) {
    flows.sort_by_key(|(_, stats)| std::cmp::Reverse(bytes(stats)));
    flows.truncate(most);
}

/// The greatest of many flows.
pub(super) fn top<'a, K: Clone + 'a>(
    flows: impl Iterator<Item = (&'a K, &'a FlowStats)>,
    most: usize,
) -> Vec<(K, FlowStats)> {
    let mut all: Vec<(&K, &FlowStats)> = flows.collect();
    let least = |flow: &(&K, &FlowStats)| std::cmp::Reverse(bytes(flow.1));
    if most > 0 && all.len() > most {
        all.select_nth_unstable_by_key(most - 1, least);
    }
    all.truncate(most);
    let mut top = all.into_iter().map(|(key, stats)| (key.clone(), stats.clone())).collect();
    greatest(&mut top, most);
    top
}

/// Where questions are asked and answers put.
pub(super) struct Board<K> {
    /// Held by who asks, until he has his answers.
    asking: Mutex<()>,
    /// Counts the questions.
    asked: AtomicU64,
    most: Mutex<usize>,
    answers: Mutex<Vec<Answer<K>>>,
    answered: Condvar,
}

struct Answer<K> {
    /// To which question.
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

    /// Asks all shards, and waits for those that are not too busy.
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

/// A shard's place at the board.
pub(super) struct ShardResponder<K> {
    board: Arc<Board<K>>,
    number: usize,
    answered: u64,
}

impl<K> ShardResponder<K> {
    pub(super) fn new(board: Arc<Board<K>>, number: usize) -> Self {
        Self { board, number, answered: 0 }
    }

    /// How many flows are asked for, where something new is.
    #[inline]
    pub(super) fn question(&mut self) -> Option<usize> {
        // Acquire: pairs with the question, whose number of flows was set before.
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
            answer.flows = None; // it ended without a word
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
