//! A timing wheel: the times at which flows must be looked at.

/// Nanoseconds of a slot, as a power of two: 134 ms.
const SLOT_BITS: u32 = 27;
/// Slots: 9 minutes. What is due later is looked at by then, and goes on.
const SLOTS: usize = 1 << 12;
/// Stands for no entry.
const NONE: u32 = u32::MAX;

/// Marks a slot in place of an entry: before the first of its list, and behind the last.
const SLOT: u32 = 1 << 31;

/// The neighbours of an entry in its slot's list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Links {
    /// The neighbours, or the slot with [`SLOT`]; `NONE` if the entry is in no list.
    previous: u32,
    next: u32,
}

impl Links {
    pub(super) const NONE: Self = Self { previous: NONE, next: NONE };
}

/// Lists of entries by the time at which they are due. Packets do not touch it: when an entry's time has come, its
/// owner looks when the last packet came, and puts it where it belongs.
#[derive(Debug)]
pub(super) struct Wheel {
    /// The first and the last entry of each slot.
    ends: Vec<[u32; 2]>,
    /// A bit for each slot that has entries.
    occupied: Vec<u64>,
    /// The first slot that was not passed yet, counted from the beginning of time.
    cursor: u64,
}

fn slot_of(time: u64) -> u64 {
    time >> SLOT_BITS
}

impl Wheel {
    pub(super) fn new() -> Self {
        Self { ends: vec![[NONE; 2]; SLOTS], occupied: vec![0; SLOTS / 64], cursor: 0 }
    }

    /// Adds an entry that is due at a time, or moves it there.
    pub(super) fn schedule(&mut self, links: &mut impl Linked, entry: u32, due: u64) {
        self.remove(links, entry);
        let slot = slot_of(due).clamp(self.cursor, self.cursor + SLOTS as u64 - 1) as usize % SLOTS;
        let marker = SLOT | slot as u32;
        let [first, last] = &mut self.ends[slot];
        let previous = match *last {
            NONE => {
                *first = entry;
                marker
            }
            last => {
                links.links(last).next = entry;
                last
            }
        };
        *last = entry;
        *links.links(entry) = Links { previous, next: marker };
        self.occupied[slot / 64] |= 1 << (slot % 64);
    }

    /// Removes an entry, if it is there.
    pub(super) fn remove(&mut self, links: &mut impl Linked, entry: u32) {
        let Links { previous, next } = std::mem::replace(links.links(entry), Links::NONE);
        if previous == NONE {
            return;
        }
        let place = |link: u32| (link & SLOT != 0).then_some((link & !SLOT) as usize);
        match (place(previous), place(next)) {
            (None, None) => {
                links.links(previous).next = next;
                links.links(next).previous = previous;
            }
            (Some(slot), None) => {
                self.ends[slot][0] = next;
                links.links(next).previous = previous;
            }
            (None, Some(slot)) => {
                self.ends[slot][1] = previous;
                links.links(previous).next = next;
            }
            (Some(slot), Some(_)) => {
                self.ends[slot] = [NONE; 2];
                self.occupied[slot / 64] &= !(1 << (slot % 64));
            }
        }
    }

    /// Sets the time, for entries that are added or all scheduled again.
    pub(super) fn set_time(&mut self, now: u64) {
        self.cursor = slot_of(now);
    }

    /// Returns an entry whose slot has passed. It stays in the wheel until it is scheduled again or removed.
    #[inline]
    pub(super) fn due(&mut self, now: u64) -> Option<u32> {
        let now = slot_of(now);
        if self.cursor >= now {
            return None;
        }
        self.passed(now)
    }

    #[cold]
    fn passed(&mut self, now: u64) -> Option<u32> {
        match self.first_occupied() {
            Some(slot) if slot < now => {
                self.cursor = slot;
                Some(self.ends[slot as usize % SLOTS][0])
            }
            _ => {
                self.cursor = now;
                None
            }
        }
    }

    /// Returns the entry that is due first, or nearly so, whatever the time.
    pub(super) fn first(&self) -> Option<u32> {
        self.first_occupied().map(|slot| self.ends[slot as usize % SLOTS][0])
    }

    /// Returns the time by which the first entry must be looked at.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.first_occupied().map(|slot| (slot + 1) << SLOT_BITS)
    }

    /// Returns the first slot from the cursor on that has entries.
    fn first_occupied(&self) -> Option<u64> {
        let start = self.cursor as usize % SLOTS;
        let words = self.occupied.len();
        for step in 0..=words {
            let word = (start / 64 + step) % words;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= !0 << (start % 64);
            } else if step == words {
                bits &= (1 << (start % 64)) - 1;
            }
            if bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                return Some(self.cursor + ((slot + SLOTS - start) % SLOTS) as u64);
            }
        }
        None
    }
}

/// Where the links of entries are.
pub(super) trait Linked {
    fn links(&mut self, entry: u32) -> &mut Links;
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Linked for Vec<Links> {
        fn links(&mut self, entry: u32) -> &mut Links {
            &mut self[entry as usize]
        }
    }

    const STEP: u64 = 1 << SLOT_BITS;

    #[test]
    fn entries_are_due_in_order_and_none_before_its_slot_has_passed() {
        let (mut wheel, mut links) = (Wheel::new(), vec![Links::NONE; 10]);
        wheel.set_time(5 * STEP);
        for (entry, slot) in [(0, 9), (1, 7), (2, 7), (3, 5000)] {
            wheel.schedule(&mut links, entry, slot * STEP + 3);
        }
        assert_eq!(wheel.next_due(), Some(8 * STEP));
        assert_eq!(wheel.due(8 * STEP - 1), None);
        let mut at = |now: u64| {
            let mut all = Vec::new();
            while let Some(entry) = wheel.due(now) {
                wheel.remove(&mut links, entry);
                all.push(entry);
            }
            all
        };
        assert_eq!(at(8 * STEP), [1, 2]);
        assert_eq!(at(9 * STEP), [0; 0]);
        assert_eq!(at(10 * STEP), [0]);
        // The last slot there is, as it is due beyond.
        assert_eq!(at(4000 * STEP), [0; 0]);
        assert_eq!(at((5 + SLOTS as u64) * STEP), [3]);
        assert_eq!((wheel.first(), wheel.next_due()), (None, None));
    }

    #[test]
    fn an_entry_is_moved_and_removed_from_any_place_in_its_list() {
        let (mut wheel, mut links) = (Wheel::new(), vec![Links::NONE; 5]);
        for removed in 0..5 {
            (0..5).for_each(|entry| wheel.schedule(&mut links, entry, 0));
            wheel.remove(&mut links, removed);
            wheel.remove(&mut links, removed);
            wheel.schedule(&mut links, (removed + 1) % 5, 3 * STEP);
            let mut left = Vec::new();
            while let Some(entry) = wheel.first() {
                wheel.remove(&mut links, entry);
                left.push(entry);
            }
            assert_eq!((left.len(), left[3]), (4, (removed + 1) % 5));
        }
    }

    #[test]
    fn a_jump_of_hours_passes_every_slot_once() {
        let (mut wheel, mut links) = (Wheel::new(), vec![Links::NONE; 100]);
        wheel.set_time(STEP * 12_345);
        (0..100).for_each(|entry| {
            wheel.schedule(&mut links, entry, STEP * (12_345 + 40 * u64::from(entry)));
        });
        let mut seen = 0;
        while let Some(entry) = wheel.due(STEP * 1_000_000) {
            wheel.remove(&mut links, entry);
            seen += 1;
        }
        assert_eq!(seen, 100);
    }
}
