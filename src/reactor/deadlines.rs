//! Deadlines in a binary heap. Entries know their position, so one that is dropped leaves the heap at once: a
//! timeout around every batch must not pile up.

use std::time::Instant;

use slab::Slab;

/// Names a deadline until it is taken, and nothing afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeadlineId {
    key: usize,
    serial: u64,
}

#[derive(Debug)]
struct Entry<T> {
    deadline: Instant,
    serial: u64,
    value: T,
    /// The entry's position in `heap`.
    position: usize,
}

/// Values that are each due at some time. All changes take a time that is logarithmic in their number.
#[derive(Debug)]
pub(super) struct Deadlines<T> {
    entries: Slab<Entry<T>>,
    /// Keys of `entries`; no entry is due before its parent, at `(position - 1) / 2`.
    heap: Vec<usize>,
    serial: u64,
    /// Entries that were moved, for the test of growth.
    #[cfg(test)]
    steps: usize,
}

impl<T> Default for Deadlines<T> {
    fn default() -> Self {
        Self {
            entries: Slab::new(),
            heap: Vec::new(),
            serial: 0,
            #[cfg(test)]
            steps: 0,
        }
    }
}

impl<T> Deadlines<T> {
    pub(super) fn insert(&mut self, deadline: Instant, value: T) -> DeadlineId {
        self.serial += 1;
        let position = self.heap.len();
        let entry = Entry { deadline, serial: self.serial, value, position };
        let key = self.entries.insert(entry);
        self.heap.push(key);
        self.rise(position);
        DeadlineId { key, serial: self.serial }
    }

    /// Returns a value, if it has not been taken.
    pub(super) fn get(&self, id: DeadlineId) -> Option<&T> {
        let entry = self.entries.get(id.key).filter(|entry| entry.serial == id.serial)?;
        Some(&entry.value)
    }

    /// Replaces a value and returns the previous one, or the new one as an error if the value was taken.
    pub(super) fn replace(&mut self, id: DeadlineId, value: T) -> Result<T, T> {
        match self.entries.get_mut(id.key) {
            Some(entry) if entry.serial == id.serial => {
                Ok(std::mem::replace(&mut entry.value, value))
            }
            _ => Err(value),
        }
    }

    /// Takes a value, if it has not been taken.
    pub(super) fn remove(&mut self, id: DeadlineId) -> Option<T> {
        let entry = self.entries.get(id.key).filter(|entry| entry.serial == id.serial)?;
        Some(self.take_at(entry.position))
    }

    /// Takes all values, in no particular order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.heap.clear();
        self.entries.drain().map(|entry| entry.value)
    }

    /// Returns the earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.first().map(|&key| self.entries[key].deadline)
    }

    /// Takes the value that is due first, if it is due at `now`.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<T> {
        let is_due = self.next().is_some_and(|deadline| deadline <= now);
        is_due.then(|| self.take_at(0))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    fn take_at(&mut self, position: usize) -> T {
        let key = self.heap.swap_remove(position);
        if position < self.heap.len() {
            self.entries[self.heap[position]].position = position;
            let position = self.rise(position);
            self.sink(position);
        }
        self.entries.remove(key).value
    }

    fn deadline_at(&self, position: usize) -> Instant {
        self.entries[self.heap[position]].deadline
    }

    fn swap(&mut self, one: usize, other: usize) {
        #[cfg(test)]
        {
            self.steps += 1;
        }
        self.heap.swap(one, other);
        self.entries[self.heap[one]].position = one;
        self.entries[self.heap[other]].position = other;
    }

    fn rise(&mut self, mut position: usize) -> usize {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.deadline_at(parent) <= self.deadline_at(position) {
                break;
            }
            self.swap(parent, position);
            position = parent;
        }
        position
    }

    fn sink(&mut self, mut position: usize) {
        loop {
            let children = 2 * position + 1..(2 * position + 3).min(self.heap.len());
            let Some(earliest) = children.min_by_key(|&child| self.deadline_at(child)) else {
                return;
            };
            if self.deadline_at(position) <= self.deadline_at(earliest) {
                return;
            }
            self.swap(position, earliest);
            position = earliest;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn expired(deadlines: &mut Deadlines<u64>, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| deadlines.take_due(now)).collect()
    }

    #[test]
    fn an_id_whose_value_was_taken_touches_no_other() {
        let mut deadlines = Deadlines::default();
        let start = Instant::now();
        let first = deadlines.insert(start, 1);
        assert_eq!(expired(&mut deadlines, start), [1]);
        let second = deadlines.insert(start, 2);
        assert_eq!(deadlines.replace(first, 9), Err(9));
        assert_eq!(deadlines.get(first), None);
        assert_eq!(deadlines.remove(first), None);
        assert_eq!(deadlines.replace(second, 3), Ok(2));
        assert_eq!(deadlines.get(second), Some(&3));
        assert_eq!(expired(&mut deadlines, start), [3]);
        assert!(deadlines.is_empty() && deadlines.next().is_none());
    }

    #[test]
    fn steps_grow_with_the_number_of_deadlines_and_its_logarithm() {
        let start = Instant::now();
        let count = 10_000_u64;
        let mut deadlines = Deadlines::default();
        // The worst for a heap: each new one is due before all others.
        let when = |number: u64| start + Duration::from_millis(count - number);
        let ids: Vec<_> = (0..count).map(|number| deadlines.insert(when(number), number)).collect();
        for id in &ids[..ids.len() / 2] {
            assert!(deadlines.remove(*id).is_some());
        }
        assert_eq!(expired(&mut deadlines, when(0)).len(), ids.len() / 2);
        let most = 2 * count as usize * count.ilog2() as usize;
        assert!(deadlines.steps <= most, "{} of {most}", deadlines.steps);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

        /// Compares with a sorted list: at each step the same are due, in order, whatever is removed in between.
        #[test]
        fn deadlines_are_taken_as_from_a_sorted_list(
            steps in prop::collection::vec((0_u64..50, any::<bool>(), 0_usize..8), 1..80)
        ) {
            let start = Instant::now();
            let mut deadlines = Deadlines::default();
            let mut model: Vec<(u64, DeadlineId)> = Vec::new();
            for (now, (delay, remove, which)) in steps.into_iter().enumerate() {
                let now = now as u64;
                let deadline = now + delay;
                let at = start + Duration::from_millis(deadline);
                model.push((deadline, deadlines.insert(at, deadline)));
                if remove {
                    let (deadline, id) = model.remove(which % model.len());
                    prop_assert_eq!(deadlines.remove(id), Some(deadline));
                }
                let due = model.iter().map(|(deadline, _)| *deadline);
                let mut due: Vec<_> = due.filter(|deadline| *deadline <= now).collect();
                due.sort_unstable();
                model.retain(|(deadline, _)| *deadline > now);
                let now = start + Duration::from_millis(now);
                prop_assert_eq!(expired(&mut deadlines, now), due);
                let next = model.iter().map(|(deadline, _)| *deadline).min();
                let next = next.map(|next| start + Duration::from_millis(next));
                prop_assert_eq!(deadlines.next(), next);
            }
        }
    }
}
