//! The index of a table: from the hash of a key to the entry that has it.

/// Entries that a bucket holds.
const ROOM: usize = 10;
/// Words of a bucket: tags, two in a word; entries; the number of entries that had to go on to the next bucket.
/// Together they are a cache line.
const WORDS: usize = 16;
/// Entries of a table that is small.
const SMALL: usize = 4096;
const TAGS: usize = ROOM / 2;
const OVERFLOW: usize = TAGS + ROOM;

type Bucket = [u32; WORDS];

/// Hash buckets of one cache line each.
///
/// The memory is zeroed by the system when it is first touched, so that a large table costs nothing before it is
/// used; and it is never moved, so that no packet waits for a table to grow.
#[derive(Debug)]
pub(super) struct Buckets {
    words: Vec<u32>,
    /// Place of the first bucket, at the beginning of a cache line.
    first: usize,
    mask: usize,
}

/// Returns the part of a hash that tells entries of a bucket apart; never 0.
#[inline]
fn tag_of(hash: u64) -> u32 {
    (hash >> 48) as u32 | 1
}

/// Returns the tag of a place in a bucket; 0 if it is free.
#[inline]
fn tag_at(bucket: &Bucket, place: usize) -> u32 {
    bucket[place / 2] >> (place % 2 * 16) & 0xffff
}

#[inline]
fn set(bucket: &mut Bucket, place: usize, tag: u32, entry: u32) {
    let shift = place % 2 * 16;
    bucket[place / 2] = bucket[place / 2] & !(0xffff << shift) | tag << shift;
    bucket[TAGS + place] = entry;
}

/// Returns a bit for each place with this tag.
#[inline]
fn matching(bucket: &Bucket, tag: u32) -> u32 {
    let tags = |low: usize, high: usize| u64::from(bucket[low]) | u64::from(bucket[high]) << 32;
    let tag = u64::from(tag) * 0x0001_0001_0001_0001;
    let last = equal_halves(u64::from(bucket[4]) ^ tag) & 3;
    equal_halves(tags(0, 1) ^ tag) | equal_halves(tags(2, 3) ^ tag) << 4 | last << 8
}

/// Returns a bit for each of the four halves of words that is 0.
#[inline]
fn equal_halves(halves: u64) -> u32 {
    const LOW: u64 = 0x7fff_7fff_7fff_7fff;
    // The highest bit of each half that is 0; no carry goes from one half to the next.
    let zero = !(((halves & LOW) + LOW) | halves | LOW);
    // Brings the bits 15, 31, 47 and 63 side by side.
    ((zero >> 15).wrapping_mul(0x0000_2000_4000_8001) >> 45 & 0xf) as u32
}

impl Buckets {
    /// Creates an index with room for this number of entries. When they are all there, it is between two and four
    /// fifths full; a small one, in which all buckets might overflow, half as full.
    pub(super) fn new(entries: usize) -> Self {
        let each = if entries <= SMALL { 4 } else { 8 };
        let count = (entries / each).next_power_of_two();
        let words = vec![0; (count + 1) * WORDS];
        crate::sys::huge_pages(&words);
        let first = words.as_ptr().align_offset(64).min(WORDS);
        Self { words, first, mask: count - 1 }
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        hash as usize & self.mask
    }

    #[inline]
    fn bucket(&self, number: usize) -> &Bucket {
        self.words[self.first + number * WORDS..]
            .first_chunk()
            .expect("the mask is below their number")
    }

    #[inline]
    fn bucket_mut(&mut self, number: usize) -> &mut Bucket {
        let at = self.first + number * WORDS;
        self.words[at..].first_chunk_mut().expect("the mask is below their number")
    }

    /// Brings the bucket of a hash into the cache.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        crate::sys::prefetch(self.bucket(self.home(hash)));
    }

    /// Returns the entry that most probably has the key with this hash, to bring it into the cache.
    #[inline]
    pub(super) fn likely(&self, hash: u64) -> Option<u32> {
        let bucket = self.bucket(self.home(hash));
        let places = matching(bucket, tag_of(hash));
        (places != 0).then(|| bucket[TAGS + places.trailing_zeros() as usize])
    }

    /// Returns the entry with this hash that `is_it` accepts.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let (tag, mut number) = (tag_of(hash), self.home(hash));
        // Entries of any bucket may have gone on to the next: then the last one is before the first.
        for _ in 0..=self.mask {
            let bucket = self.bucket(number);
            let mut places = matching(bucket, tag);
            while places != 0 {
                let entry = bucket[TAGS + places.trailing_zeros() as usize];
                if is_it(entry) {
                    return Some(entry);
                }
                places &= places - 1;
            }
            if bucket[OVERFLOW] == 0 {
                return None;
            }
            number = (number + 1) & self.mask;
        }
        None
    }

    /// Adds an entry. There must be room for it.
    pub(super) fn insert(&mut self, hash: u64, entry: u32) {
        let mut number = self.home(hash);
        loop {
            let mask = self.mask;
            let bucket = self.bucket_mut(number);
            let free = matching(bucket, 0);
            if free != 0 {
                return set(bucket, free.trailing_zeros() as usize, tag_of(hash), entry);
            }
            bucket[OVERFLOW] += 1;
            number = (number + 1) & mask;
        }
    }

    /// Removes an entry that was added with this hash.
    pub(super) fn remove(&mut self, hash: u64, entry: u32) {
        let mut number = self.home(hash);
        for _ in 0..=self.mask {
            let mask = self.mask;
            let bucket = self.bucket_mut(number);
            let place = (0..ROOM)
                .find(|&place| tag_at(bucket, place) != 0 && bucket[TAGS + place] == entry);
            if let Some(place) = place {
                return set(bucket, place, 0, 0);
            }
            bucket[OVERFLOW] = bucket[OVERFLOW].saturating_sub(1);
            number = (number + 1) & mask;
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.words.len() * 4
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn entries_are_found_whatever_their_hashes_have_in_common() {
        let mut buckets = Buckets::new(200);
        let mut known = HashMap::new();
        let mut state = 7_u64;
        for entry in 0..20_000_u32 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // Few buckets and few tags: they overflow, and share tags.
            let hash = ((state >> 33) % 3) | (((state >> 40) % 3) << 48);
            if known.len() < 200 {
                buckets.insert(hash, entry);
                known.insert(entry, hash);
            } else {
                let gone = *known.keys().nth((state >> 20) as usize % 200).unwrap();
                let hash = known.remove(&gone).unwrap();
                buckets.remove(hash, gone);
                assert_eq!(buckets.find(hash, |entry| entry == gone), None);
            }
            if entry % 100 == 0 {
                for (entry, hash) in &known {
                    assert_eq!(buckets.find(*hash, |found| found == *entry), Some(*entry));
                }
            }
        }
        known.into_iter().for_each(|(entry, hash)| buckets.remove(hash, entry));
        assert!(
            buckets
                .words
                .iter()
                .skip(buckets.first)
                .take((buckets.mask + 1) * WORDS)
                .enumerate()
                .all(|(at, word)| at % WORDS >= TAGS && at % WORDS < OVERFLOW || *word == 0)
        );
    }

    #[test]
    fn a_search_ends_where_all_buckets_have_overflowed() {
        let mut buckets = Buckets::new(8);
        assert_eq!(buckets.mask, 1);
        // The second bucket overflows into the first, and then the first into a place of the second.
        (0..11).for_each(|entry| buckets.insert(1, entry));
        (11..20).for_each(|entry| buckets.insert(0, entry));
        buckets.remove(1, 0);
        buckets.insert(0, 20);
        assert!([0, 1].iter().all(|number| buckets.bucket(*number)[OVERFLOW] > 0));
        assert_eq!(buckets.find(0x7777 << 48, |_| true), None);
        assert_eq!(buckets.find(0, |entry| entry == 20), Some(20));
        assert_eq!(buckets.find(1, |entry| entry == 10), Some(10));
    }

    #[test]
    fn a_bucket_begins_a_cache_line() {
        for entries in [1, 100, 100_000] {
            let buckets = Buckets::new(entries);
            assert_eq!(std::ptr::from_ref(buckets.bucket(0)).addr() % 64, 0);
            assert!(buckets.bucket(buckets.mask).len() == WORDS);
        }
    }
}
