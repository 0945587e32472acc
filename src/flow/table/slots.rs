//! The memory of a table: entries, their index, and the wheel that they are in.

use std::hash::Hash;

use ahash::RandomState;
use flowscope::L4Proto;

use super::buckets::Buckets;
use super::entry::{Cold, Entry};
use super::wheel::{Linked, Links, Wheel};

/// Entries by key and by time. A slot is the number of an entry; it is another flow's once its flow was removed.
#[derive(Debug)]
pub(super) struct Slots<K> {
    pub(super) entries: Vec<Entry<K>>,
    pub(super) cold: Vec<Cold>,
    pub(super) wheel: Wheel,
    buckets: Buckets,
    /// The first of the free slots, and how many there are. Each says in `word` which is the next.
    free: (u32, usize),
    hasher: RandomState,
    most: usize,
}

impl Linked for Vec<Cold> {
    #[inline]
    fn links(&mut self, entry: u32) -> &mut Links {
        &mut self[entry as usize].links
    }
}

impl<K: Eq + Hash> Slots<K> {
    /// Creates room for this number of entries. Memory that was never used is not touched.
    pub(super) fn new(most: usize) -> Self {
        let entries = Vec::with_capacity(most);
        crate::sys::huge_pages(&entries);
        Self {
            entries,
            cold: Vec::with_capacity(most),
            wheel: Wheel::new(),
            buckets: Buckets::new(most),
            free: (0, 0),
            hasher: RandomState::new(),
            most,
        }
    }

    /// Returns the number of entries, including those of flows whose end was told.
    pub(super) fn used(&self) -> usize {
        self.entries.len() - self.free.1
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.used() >= self.most
    }

    #[inline]
    pub(super) fn hash(&self, key: &K) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Brings the place where a key with this hash would be found into the cache.
    #[inline]
    pub(super) fn prefetch_bucket(&self, hash: u64) {
        self.buckets.prefetch(hash);
    }

    /// Brings the entry that a key with this hash probably has into the cache.
    #[inline]
    pub(super) fn prefetch_entry(&self, hash: u64) {
        if let Some(slot) = self.buckets.likely(hash)
            && let Some(entry) = self.entries.get(slot as usize)
        {
            crate::sys::prefetch(entry);
        }
    }

    #[inline]
    pub(super) fn find(&self, key: &K, hash: u64) -> Option<u32> {
        self.buckets.find(hash, |slot| {
            self.entries.get(slot as usize).is_some_and(|entry| entry.key.as_ref() == Some(key))
        })
    }

    /// Adds a flow whose key is not there. The caller schedules it.
    pub(super) fn insert(
        &mut self,
        key: K,
        hash: u64,
        l4: Option<L4Proto>,
        is_reversed: bool,
        now: u64,
    ) -> u32 {
        let started = [(now / 1_000_000_000) as u32, (now % 1_000_000_000) as u32];
        let cold = Cold { links: Links::NONE, started, word: 0 };
        let entry = Entry::new(key, l4, is_reversed, now);
        let slot = match self.free {
            (slot, count @ 1..) => {
                self.free = (self.cold[slot as usize].word, count - 1);
                self.entries[slot as usize] = entry;
                self.cold[slot as usize] = cold;
                slot
            }
            (_, 0) => {
                self.entries.push(entry);
                self.cold.push(cold);
                (self.entries.len() - 1) as u32
            }
        };
        self.buckets.insert(hash, slot);
        slot
    }

    /// Removes a flow, and returns its key.
    pub(super) fn remove(&mut self, slot: u32) -> Option<K> {
        let key = self.entries[slot as usize].key.take()?;
        self.buckets.remove(self.hasher.hash_one(&key), slot);
        self.wheel.remove(&mut self.cold, slot);
        self.cold[slot as usize].word = self.free.0;
        self.free = (slot, self.free.1 + 1);
        Some(key)
    }

    pub(super) fn schedule(&mut self, slot: u32, due: u64) {
        self.wheel.schedule(&mut self.cold, slot, due);
    }

    /// Schedules all flows anew, as the time has changed.
    pub(super) fn schedule_all(&mut self, now: u64, due: impl Fn(&Entry<K>) -> u64) {
        self.wheel = Wheel::new();
        self.wheel.set_time(now);
        for slot in 0..self.entries.len() {
            self.cold[slot].links = Links::NONE;
            if self.entries[slot].key.is_some() {
                self.schedule(slot as u32, due(&self.entries[slot]));
            }
        }
    }

    /// Changes how many entries there may be. There may be more for the moment.
    pub(super) fn set_most(&mut self, most: usize) {
        self.most = most;
        let more = most.saturating_sub(self.entries.len());
        self.entries.reserve_exact(more);
        self.cold.reserve_exact(more);
        crate::sys::huge_pages(&self.entries);
        self.buckets = Buckets::new(most.max(self.used()));
        for (slot, entry) in self.entries.iter().enumerate() {
            if let Some(key) = &entry.key {
                self.buckets.insert(self.hasher.hash_one(key), slot as u32);
            }
        }
    }

    /// Returns the flows that have an entry, with their slots.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &K, &Entry<K>)> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(slot, entry)| Some((slot as u32, entry.key.as_ref()?, entry)))
    }

    /// Returns the bytes that a full table takes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let each = size_of::<Entry<K>>() + size_of::<Cold>();
        self.entries.capacity() * each + self.buckets.bytes()
    }
}
