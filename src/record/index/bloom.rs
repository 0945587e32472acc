//! A Bloom filter that is filled at its largest size, and folded to what its content needs.
//!
//! Where a term's bits are is taken modulo the size, which is a power of two: one half laid over the other is the filter of
//! half the size. So nothing has to be known beforehand about how many terms there will be, and none is kept.

/// The bits of a term. Five are wrong once in 240 times in a filter that is a third full.
const PROBES: u32 = 5;
/// The most words: 4 KiB. More would be more than a hundredth of most groups.
const MOST: usize = 1 << 9;

/// A filter that is filled.
#[derive(Debug)]
pub(super) struct Bloom {
    words: Box<[u64]>,
}

impl Bloom {
    pub(super) fn new() -> Self {
        Self { words: vec![0; MOST].into() }
    }

    #[inline]
    pub(super) fn add(&mut self, key: u64) {
        for bit in bits(key) {
            let bit = bit as usize % (64 * MOST);
            self.words[bit / 64] |= 1 << (bit % 64);
        }
    }

    /// Folds the filter while it stays less than a third full, and further until it has at most this number of words. Returns
    /// its words.
    pub(super) fn fold(&mut self, most: usize) -> &[u64] {
        let mut len = MOST;
        while len > 1 {
            let (low, high) = self.words[..len].split_at(len / 2);
            let full: u32 = low.iter().zip(high).map(|(low, high)| (low | high).count_ones()).sum();
            if len <= most && full as usize * 3 > len / 2 * 64 {
                break;
            }
            let (low, high) = self.words[..len].split_at_mut(len / 2);
            low.iter_mut().zip(high).for_each(|(low, high)| *low |= *high);
            len /= 2;
        }
        &self.words[..len]
    }

    pub(super) fn clear(&mut self) {
        self.words.fill(0);
    }
}

/// The places of a term's bits, before the size is known.
#[inline]
fn bits(key: u64) -> impl Iterator<Item = u32> {
    let (from, step) = (key as u32, (key >> 32) as u32 | 1);
    (0..PROBES).map(move |probe| from.wrapping_add(probe.wrapping_mul(step)))
}

/// Whether a filter has this number of words.
pub(super) fn is_size(words: u32) -> bool {
    words.is_power_of_two() && words as usize <= MOST
}

/// The words of a filter that was read.
pub(super) fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes
        .chunks_exact(8)
        .filter_map(|word| word.first_chunk().map(|word| u64::from_le_bytes(*word)))
}

/// Whether a term of this key may have been added. In bytes, a bit's place does not depend on the size of a word.
pub(super) fn has(bytes: &[u8], key: u64) -> bool {
    bits(key).all(|bit| {
        let bit = bit as usize % (8 * bytes.len()).max(1);
        bytes.get(bit / 8).is_some_and(|byte| byte & 1 << (bit % 8) != 0)
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use ringtap_filter::Term;

    use super::*;

    fn host(number: u32) -> u64 {
        Term::Host(Ipv4Addr::from_bits(number).into()).key()
    }

    #[test]
    fn what_was_added_is_found_at_any_size_and_little_else() {
        for (count, most) in
            [(0, MOST), (1, MOST), (10, 64), (800, MOST), (2000, MOST), (7000, MOST), (800, 64)]
        {
            let mut bloom = Bloom::new();
            (0..count).for_each(|number| bloom.add(host(number)));
            let words = bloom.fold(most);
            assert!(is_size(words.len() as u32) && words.len() <= most);
            let full: u32 = words.iter().map(|word| word.count_ones()).sum();
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            assert!((0..count).all(|number| has(&bytes, host(number))), "{count} in {most}");
            let wrong =
                (1 << 30..).take(10_000).filter(|number| has(&bytes, host(*number))).count();
            // By its fullness, with room for chance.
            let share = (f64::from(full) / (64 * words.len()) as f64).powi(PROBES as i32);
            assert!(wrong as f64 <= 10_000.0 * share * 1.5 + 20.0, "{count} in {most}: {wrong}");
            assert!(
                count > 2000 || most < MOST || full as usize * 3 <= 64 * words.len(),
                "{count}: {full}"
            );
            bloom.clear();
            assert_eq!(bloom.fold(1), [0]);
        }
        assert!(!has(&[], 7));
    }
}
