//! What is done for flows besides: time, memory, and those that the tracker has forgotten.

use std::collections::VecDeque;

use flowscope::{
    EndReason, FlowExtractor, FlowSide, FlowStats, HistoryString, KeyFields, Timestamp as FlowTime,
};

use super::{Connections, TICK};
use crate::flow::consumer::{Consumer, End, Of, Wanted};
use crate::flow::reassembly::MemoryPolicy;

impl<E, S, C> Connections<E, S, C>
where
    E: FlowExtractor,
    E::Key: KeyFields,
    S: Send + 'static,
    C: Consumer<E::Key>,
{
    /// Makes room where all that waits is too much.
    #[cold]
    pub(super) fn relieve(
        &mut self,
        key: &E::Key,
        ts: FlowTime,
        end: Option<&End>,
        events: &mut VecDeque<C::Event>,
    ) {
        match self.config.policy {
            MemoryPolicy::EndFlow => {
                self.stats.short_of_memory += 1;
                let over = Wanted::Over(EndReason::BufferOverflow);
                self.heed(key, ts, over, end, events);
            }
            MemoryPolicy::PassThrough => {
                self.stats.short_of_memory += 1;
                self.flush(key, ts, None, events);
            }
            MemoryPolicy::GiveUpOldest => {
                while self.stats.held > self.config.memory_cap as u64 {
                    let Some((key, since)) = self.waiting.pop() else { return };
                    if self.waits(&key, since) {
                        self.stats.short_of_memory += 1;
                        self.flush(&key, ts, None, events);
                    }
                }
            }
        }
    }

    /// Whether a flow waits since then.
    pub(super) fn waits(&self, key: &E::Key, since: u64) -> bool {
        self.flows.get(key).is_some_and(|connection| connection.waits == Some(since))
    }

    /// Ends a flow that the tracker does not know any more.
    pub(super) fn end_unknown(&mut self, key: &E::Key, events: &mut VecDeque<C::Event>) {
        let end = End {
            reason: EndReason::ForceClosed,
            stats: FlowStats::default(),
            history: HistoryString::new(),
            l4: self.flows.get(key).and_then(|connection| connection.l4),
            ts: FlowTime::default(),
        };
        self.end(key, end, events);
    }

    /// Tells some flows the time.
    pub(super) fn tick(&mut self, most: usize, events: &mut VecDeque<C::Event>) {
        let now = self.table.clock();
        let ts = FlowTime::new((now / 1_000_000_000) as u32, (now % 1_000_000_000) as u32);
        for _ in 0..most {
            // After a step back of the clock, those of the future are told again from there on.
            if self.ticks.front().is_none_or(|(due, ..)| *due > now && *due <= now + 2 * TICK) {
                return;
            }
            let Some((_, key, serial)) = self.ticks.pop_front() else { return };
            let Some(connection) = self.flows.get_mut(&key) else { continue };
            let is_there = connection.serial == serial && !connection.is_silent;
            let Some(flow) = &mut connection.flow else { continue };
            if is_there {
                let of = Of { key: &key, side: FlowSide::Initiator, ts };
                let wanted = self.consumer.tick(of, flow, events);
                self.heed(&key, ts, wanted, None, events);
                self.ticks.push_back((now + TICK, key, serial));
            }
        }
    }

    /// Ends what the tracker has forgotten behind our back: where it is much, or at the end.
    pub(super) fn tidy(&mut self, slack: usize, events: &mut VecDeque<C::Event>) {
        if self.flows.len() <= self.table.tracker().flow_count() + slack {
            return;
        }
        let is_gone = |key: &&E::Key| self.table.tracker().get(key).is_none();
        let gone: Vec<E::Key> = self.flows.keys().filter(is_gone).cloned().collect();
        gone.iter().for_each(|key| self.end_unknown(key, events));
    }
}
