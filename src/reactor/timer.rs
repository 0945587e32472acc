//! Deadlines in a binary heap. Entries know their position, so a dropped timer leaves the heap at once: a
//! timeout around every batch must not pile up.

use std::task::Waker;
use std::time::Instant;

use slab::Slab;

/// Names a timer until it fires or is removed, and nothing afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimerId {
    key: usize,
    serial: u64,
}

#[derive(Debug)]
struct Timer {
    deadline: Instant,
    serial: u64,
    waker: Waker,
    /// The timer's position in `heap`.
    position: usize,
}

/// The timers of a reactor.
#[derive(Debug, Default)]
pub(super) struct Timers {
    timers: Slab<Timer>,
    /// Keys of `timers`; no entry is due before its parent, at `(position - 1) / 2`.
    heap: Vec<usize>,
    serial: u64,
}

impl Timers {
    pub(super) fn insert(&mut self, deadline: Instant, waker: Waker) -> TimerId {
        self.serial += 1;
        let position = self.heap.len();
        let key = self.timers.insert(Timer { deadline, serial: self.serial, waker, position });
        self.heap.push(key);
        self.rise(position);
        TimerId { key, serial: self.serial }
    }

    /// Returns the waker of a timer, if it has not fired.
    pub(super) fn waker(&self, id: TimerId) -> Option<&Waker> {
        let timer = self.timers.get(id.key).filter(|timer| timer.serial == id.serial)?;
        Some(&timer.waker)
    }

    /// Changes the waker of a timer and returns the previous one, or the new one as an error if the timer has
    /// fired.
    pub(super) fn set_waker(&mut self, id: TimerId, waker: Waker) -> Result<Waker, Waker> {
        match self.timers.get_mut(id.key) {
            Some(timer) if timer.serial == id.serial => {
                Ok(std::mem::replace(&mut timer.waker, waker))
            }
            _ => Err(waker),
        }
    }

    /// Removes a timer, if it has not fired, and returns its waker.
    pub(super) fn remove(&mut self, id: TimerId) -> Option<Waker> {
        let timer = self.timers.get(id.key).filter(|timer| timer.serial == id.serial)?;
        Some(self.take_at(timer.position))
    }

    /// Removes all timers, and moves their wakers to `wakers`.
    pub(super) fn drain(&mut self, wakers: &mut Vec<Waker>) {
        self.heap.clear();
        wakers.extend(self.timers.drain().map(|timer| timer.waker));
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.heap.first().map(|&key| self.timers[key].deadline)
    }

    /// Moves the wakers of all timers due at `now` to `wakers`, earliest first.
    pub(super) fn expire(&mut self, now: Instant, wakers: &mut Vec<Waker>) {
        while self.next_deadline().is_some_and(|deadline| deadline <= now) {
            wakers.push(self.take_at(0));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    fn take_at(&mut self, position: usize) -> Waker {
        let key = self.heap.swap_remove(position);
        if position < self.heap.len() {
            self.timers[self.heap[position]].position = position;
            let position = self.rise(position);
            self.sink(position);
        }
        self.timers.remove(key).waker
    }

    fn deadline_at(&self, position: usize) -> Instant {
        self.timers[self.heap[position]].deadline
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        self.timers[self.heap[one]].position = one;
        self.timers[self.heap[other]].position = other;
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

    fn expired(timers: &mut Timers, now: Instant) -> usize {
        let mut wakers = Vec::new();
        timers.expire(now, &mut wakers);
        wakers.len()
    }

    #[test]
    fn an_id_whose_timer_fired_touches_no_other() {
        let mut timers = Timers::default();
        let start = Instant::now();
        let first = timers.insert(start, Waker::noop().clone());
        assert_eq!(expired(&mut timers, start), 1);
        let second = timers.insert(start, Waker::noop().clone());
        assert!(timers.remove(first).is_none());
        assert!(timers.set_waker(first, Waker::noop().clone()).is_err());
        assert!(timers.set_waker(second, Waker::noop().clone()).is_ok());
        assert_eq!(expired(&mut timers, start), 1);
        assert!(timers.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

        /// Compares with a sorted list: at each step as many timers are due, whatever is removed in between.
        #[test]
        fn timers_fire_as_a_sorted_list_would(
            steps in prop::collection::vec((0_u64..50, any::<bool>(), 0_usize..8), 1..80)
        ) {
            let start = Instant::now();
            let mut timers = Timers::default();
            let mut model: Vec<(u64, TimerId)> = Vec::new();
            for (now, (delay, remove, which)) in steps.into_iter().enumerate() {
                let now = now as u64;
                let deadline = now + delay;
                let at = start + Duration::from_millis(deadline);
                model.push((deadline, timers.insert(at, Waker::noop().clone())));
                if remove {
                    let (_, id) = model.remove(which % model.len());
                    prop_assert!(timers.remove(id).is_some());
                }
                let due = model.iter().filter(|(deadline, _)| *deadline <= now).count();
                model.retain(|(deadline, _)| *deadline > now);
                prop_assert_eq!(expired(&mut timers, start + Duration::from_millis(now)), due);
                let next = model.iter().map(|(deadline, _)| *deadline).min();
                let next = next.map(|next| start + Duration::from_millis(next));
                prop_assert_eq!(timers.next_deadline(), next);
            }
        }
    }
}
