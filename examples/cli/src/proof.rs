//! Whether a receiver has every record that sensors have numbered, and what was never in one.

use std::collections::BTreeMap;

use crate::record::Counts;

/// What a record says of itself, wherever it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Evidence {
    pub(crate) sensor: String,
    pub(crate) shard: u16,
    pub(crate) sequence: u64,
    pub(crate) body: Tells,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tells {
    /// Of a flow, from and to when, in nanoseconds since the epoch.
    Flow {
        start: u64,
        end: u64,
    },
    Counts(Counts),
}

/// Collects records, in any order.
#[derive(Debug, Default)]
pub(crate) struct Proof(BTreeMap<(String, u16), Shard>);

#[derive(Debug, Default)]
struct Shard {
    /// Runs of numbers that are there, by the first of each.
    runs: BTreeMap<u64, Run>,
    twice: u64,
    /// By number.
    counts: BTreeMap<u64, Counts>,
}

/// Numbers without a gap.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// Behind the last.
    end: u64,
    times: Option<(u64, u64)>,
}

/// Records that are not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The first, and the last.
    pub(crate) numbers: (u64, u64),
    /// The end of the last flow before, and the beginning of the first one behind.
    pub(crate) times: (Option<u64>, Option<u64>),
}

/// The judgement on one shard of a sensor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Verdict {
    pub(crate) sensor: String,
    pub(crate) shard: u16,
    pub(crate) records: u64,
    pub(crate) flows: u64,
    /// The lowest and the highest number.
    pub(crate) numbers: (u64, u64),
    /// The beginning of the first flow, and the end of the last.
    pub(crate) times: Option<(u64, u64)>,
    pub(crate) gaps: Vec<Gap>,
    /// Records that are there once more.
    pub(crate) twice: u64,
    /// Numbers of counts that tell of another number of flows than there are.
    pub(crate) wrong: Vec<u64>,
    /// Flows that are in no record, by what became of them.
    pub(crate) overflowed: u64,
    pub(crate) refused: u64,
    pub(crate) lost: u64,
    /// Packets that the kernel has dropped.
    pub(crate) drops: u64,
    /// Records behind the last counts, for which nothing vouches yet.
    pub(crate) open: u64,
}

impl Verdict {
    /// Whether every record is there, once, and there is no flow or packet that is in none.
    pub(crate) fn is_complete(&self) -> bool {
        let missing = self.overflowed + self.refused + self.lost + self.drops;
        self.gaps.is_empty() && self.wrong.is_empty() && self.twice + missing == 0
    }
}

impl Proof {
    pub(crate) fn add(&mut self, told: Evidence) {
        let Evidence { sensor, shard, sequence, body } = told;
        self.0.entry((sensor, shard)).or_default().add(sequence, body);
    }

    /// Returns the judgement on each shard, by sensor and number.
    pub(crate) fn judge(self) -> Vec<Verdict> {
        self.0
            .into_iter()
            .map(|((sensor, shard), of)| Verdict { sensor, shard, ..of.judge() })
            .collect()
    }
}

impl Shard {
    fn add(&mut self, number: u64, body: Tells) {
        let times = match body {
            Tells::Flow { start, end } => Some((start, end)),
            Tells::Counts(_) => None,
        };
        let before = self.runs.range_mut(..=number).next_back();
        let mut run = Run { end: number.saturating_add(1), times };
        let mut begin = number;
        if let Some((first, former)) = before {
            if number < former.end {
                self.twice += 1;
                return;
            }
            if number == former.end {
                (begin, run.times) = (*first, both(former.times, times));
            }
        }
        if let Some(next) = self.runs.remove(&run.end) {
            run = Run { end: next.end, times: both(run.times, next.times) };
        }
        self.runs.insert(begin, run);
        if let Tells::Counts(counts) = body {
            self.counts.insert(number, counts);
        }
    }

    fn judge(&self) -> Verdict {
        let mut verdict = Verdict { twice: self.twice, ..Verdict::default() };
        let mut former: Option<Run> = None;
        for (&first, run) in &self.runs {
            verdict.records += run.end - first;
            verdict.times = both(verdict.times, run.times);
            match former {
                None => verdict.numbers.0 = first,
                Some(former) => {
                    let times = (former.times.map(|of| of.1), run.times.map(|of| of.0));
                    verdict.gaps.push(Gap { numbers: (former.end, first - 1), times });
                }
            }
            verdict.numbers.1 = run.end - 1;
            former = Some(*run);
        }
        verdict.flows = verdict.records - self.counts.len() as u64;
        self.look_at_counts(&mut verdict);
        verdict
    }

    /// Adds what counts tell, and finds those that do not fit what is between them.
    fn look_at_counts(&self, verdict: &mut Verdict) {
        let mut former: Option<(u64, Counts)> = None;
        for (&number, &counts) in &self.counts {
            let (begin, flows) = former.map_or((0, 0), |(number, of)| (number + 1, of.flows));
            // What is between two of them are flows, if nothing is missing; before the first there may be other counts.
            let is_whole =
                self.runs.range(..=begin).next_back().is_some_and(|(_, run)| run.end > number);
            let is_first_of_all = former.is_none() && verdict.numbers.0 == 0;
            if is_whole
                && (former.is_some() || is_first_of_all)
                && flows + (number - begin) != counts.flows
            {
                verdict.wrong.push(number);
            }
            if let Some((_, of)) = former
                && (counts.packets < of.packets || counts.drops < of.drops)
            {
                verdict.drops += of.drops; // a run has ended there
            }
            former = Some((number, counts));
        }
        if let Some((number, last)) = former {
            verdict.drops += last.drops;
            (verdict.overflowed, verdict.refused, verdict.lost) =
                (last.overflowed, last.refused, last.lost);
            verdict.open = verdict.numbers.1.saturating_sub(number);
        } else {
            verdict.open = verdict.records;
        }
    }
}

fn both(one: Option<(u64, u64)>, other: Option<(u64, u64)>) -> Option<(u64, u64)> {
    match (one, other) {
        (Some((from, to)), Some((also_from, also_to))) => {
            Some((from.min(also_from), to.max(also_to)))
        }
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(sequence: u64) -> Evidence {
        let body = Tells::Flow { start: sequence * 10, end: sequence * 10 + 5 };
        Evidence { sensor: "a".to_owned(), shard: 1, sequence, body }
    }

    fn counts(sequence: u64, counts: Counts) -> Evidence {
        Evidence { body: Tells::Counts(counts), ..flow(sequence) }
    }

    fn judge(all: impl IntoIterator<Item = Evidence>) -> Verdict {
        let mut proof = Proof::default();
        all.into_iter().for_each(|told| proof.add(told));
        let [verdict] = &proof.judge()[..] else { panic!("one shard") };
        verdict.clone()
    }

    /// Ten flows, their counts, five flows, and counts.
    fn whole() -> Vec<Evidence> {
        let mut all: Vec<_> = (0..10).map(flow).collect();
        all.push(counts(10, Counts { flows: 10, packets: 50, ..Counts::default() }));
        all.extend((11..16).map(flow));
        all.push(counts(16, Counts { flows: 15, packets: 80, ..Counts::default() }));
        all
    }

    #[test]
    fn all_of_it_in_any_order_is_complete() {
        let mut all = whole();
        let verdict = judge(all.clone());
        assert!(verdict.is_complete(), "{verdict:?}");
        assert_eq!((verdict.records, verdict.flows, verdict.numbers), (17, 15, (0, 16)));
        assert_eq!((verdict.times, verdict.open), (Some((0, 155)), 0));
        all.reverse();
        assert_eq!(judge(all.clone()), verdict);
        all.sort_by_key(|told| told.sequence * 7 % 17);
        assert_eq!(judge(all), verdict);
    }

    #[test]
    fn what_is_missing_and_what_is_there_twice_is_named() {
        let mut all = whole();
        all.drain(3..5);
        all.push(flow(12));
        let verdict = judge(all);
        assert_eq!(verdict.gaps, [Gap { numbers: (3, 4), times: (Some(25), Some(50)) }]);
        assert_eq!((verdict.twice, verdict.flows), (1, 13));
        assert!(!verdict.is_complete() && verdict.wrong.is_empty());
        // Before the first one nothing is known to be missing.
        let verdict = judge(whole().split_off(4));
        assert!(verdict.is_complete(), "{verdict:?}");
        assert_eq!(verdict.numbers, (4, 16));
    }

    #[test]
    fn counts_that_do_not_fit_are_named_and_what_was_never_sent_is_added_up() {
        let mut all = whole();
        all[16] = counts(16, Counts { flows: 16, packets: 80, ..Counts::default() });
        assert_eq!(judge(all.clone()).wrong, [16]);
        all[16] = flow(16);
        all.push(flow(17));
        let verdict = judge(all.clone());
        assert_eq!((verdict.open, verdict.is_complete()), (7, true));
        // A run with two drops, and one with three.
        all[10] = counts(10, Counts { flows: 10, packets: 50, drops: 2, ..Counts::default() });
        let last = Counts { flows: 17, overflowed: 4, refused: 1, lost: 7, packets: 9, drops: 3 };
        all.push(counts(18, last));
        let verdict = judge(all);
        assert_eq!((verdict.overflowed, verdict.refused, verdict.lost), (4, 1, 7));
        assert_eq!((verdict.drops, verdict.wrong.len()), (5, 0));
        assert!(!verdict.is_complete());
        // The second run had more packets at its first counts than the first one ever.
        let mut all = whole();
        all[10] = counts(10, Counts { flows: 10, packets: 50, drops: 5, ..Counts::default() });
        assert_eq!(judge(all).drops, 5);
    }
}
