//! What arrived: exactly once, in order, unchanged.

use std::collections::HashMap;

use crate::traffic::{Mark, Traffic};

/// Counts the frames of a [`Traffic`] as one receiver sees them.
#[derive(Debug)]
pub struct Tally {
    traffic: Traffic,
    seen: Vec<bool>,
    /// The last number seen of each flow and direction.
    last: HashMap<(u32, bool), u64>,
    received: u64,
    foreign: u64,
    faults: Vec<String>,
}

impl Tally {
    /// A tally of `count` frames.
    pub fn new(traffic: &Traffic, count: u64) -> Self {
        Self {
            traffic: traffic.clone(),
            seen: vec![false; count as usize],
            last: HashMap::new(),
            received: 0,
            foreign: 0,
            faults: Vec::new(),
        }
    }

    /// Checks one frame that arrived: known, unchanged, new, and in its flow's order.
    pub fn record(&mut self, frame: &[u8]) {
        let Some(Mark { number, stamp }) = Mark::find(frame) else {
            self.foreign += 1;
            return;
        };
        self.received += 1;
        if frame != self.traffic.arrives(number, stamp) {
            self.fault(format!("frame {number} was changed"));
        }
        match self.seen.get_mut(number as usize) {
            None => self.fault(format!("frame {number} was never sent")),
            Some(seen) if *seen => self.fault(format!("frame {number} came twice")),
            Some(seen) => *seen = true,
        }
        let key = (self.traffic.flow(number), self.traffic.is_answer(number));
        if let Some(last) = self.last.insert(key, number)
            && last >= number
        {
            self.fault(format!("frame {number} came after {last} of its flow"));
        }
    }

    /// Frames of ours that arrived.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether frame `number` arrived.
    pub fn has(&self, number: u64) -> bool {
        self.seen.get(number as usize).is_some_and(|seen| *seen)
    }

    /// Frames that were not ours.
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    /// Flows of which any frame arrived here.
    pub fn flows(&self) -> Vec<u32> {
        let mut flows: Vec<_> = self.last.keys().map(|&(flow, _)| flow).collect();
        flows.sort_unstable();
        flows.dedup();
        flows
    }

    /// Adds what another receiver of the same traffic saw.
    pub fn merge(&mut self, other: &Self) {
        for number in 0..self.seen.len() {
            if self.seen[number] && other.seen[number] {
                self.fault(format!("frame {number} came to two receivers"));
            }
            self.seen[number] |= other.seen[number];
        }
        self.received += other.received;
        self.foreign += other.foreign;
        self.faults.extend(other.faults.iter().cloned());
    }

    /// # Panics
    /// Where a frame came twice, changed or out of order.
    #[track_caller]
    pub fn assert_sound(&self) {
        assert!(self.faults.is_empty(), "{} faults, first: {:?}", self.faults.len(), self.faults);
    }

    /// # Panics
    /// Where a frame did not come, or as [`assert_sound`](Self::assert_sound).
    #[track_caller]
    pub fn assert_complete(&self) {
        self.assert_sound();
        let missing = self.seen.iter().filter(|seen| !**seen).count();
        let first = self.seen.iter().position(|seen| !seen);
        assert_eq!(missing, 0, "of {} frames, the first missing is {first:?}", self.seen.len());
    }

    fn fault(&mut self, fault: String) {
        if self.faults.len() < 10 {
            self.faults.push(fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(numbers: &[u64]) -> Tally {
        let traffic = Traffic { flows: 2, ..Traffic::default() };
        let mut tally = Tally::new(&traffic, 6);
        for &number in numbers {
            tally.record(&traffic.frame(number, 1));
        }
        tally
    }

    #[test]
    fn all_in_order_is_complete() {
        tally(&[0, 1, 3, 2, 4, 5]).assert_complete();
    }

    #[test]
    #[should_panic(expected = "came twice")]
    fn a_repeated_frame_is_seen() {
        tally(&[0, 1, 1]).assert_sound();
    }

    #[test]
    #[should_panic(expected = "came after")]
    fn a_swap_within_a_flow_is_seen() {
        tally(&[2, 0]).assert_sound();
    }

    #[test]
    #[should_panic(expected = "first missing is Some(3)")]
    fn a_missing_frame_is_seen() {
        tally(&[0, 1, 2, 4, 5]).assert_complete();
    }

    #[test]
    #[should_panic(expected = "was changed")]
    fn a_changed_byte_is_seen() {
        let traffic = Traffic { flows: 2, len: 100, ..Traffic::default() };
        let mut frame = traffic.frame(0, 1);
        *frame.last_mut().unwrap() ^= 1;
        let mut tally = Tally::new(&traffic, 1);
        tally.record(&frame);
        tally.assert_sound();
    }
}
