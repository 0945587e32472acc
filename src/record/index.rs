//! The index of a file: which terms the packets of each of its parts have, in so few bytes that it is read instead of them.
//!
//! ```text
//!   file:   header │ write │ write │ write │ write │ write │ ...
//!                  └───── group ────┘└───── group ──┘
//!   index:  head │ entry of the group: place, times, filter of its terms │ entry │ ...
//! ```
//!
//! What a filter has not got is in none of the group's packets; the opposite may be wrong. `docs/RECORDING.md` has the layout.

mod bloom;
mod collector;
mod piece;

use std::path::{Path, PathBuf};

use self::bloom::Bloom;
pub(super) use self::collector::Collector;
pub(super) use self::piece::Piece;
use super::parts::{Group, Part};
use crate::ring::rewrite::pcapng::Told;

/// What an index begins with; the last byte is the version.
const MAGIC: [u8; 8] = *b"RTINDEX1";
/// Bytes before the first entry.
const BEGINNING: usize = 24;
/// Bytes of an entry before its filter.
const HEAD: usize = 48;

/// Returns the path of a file's index.
pub(super) fn path_of(file: &Path) -> PathBuf {
    file.with_extension("idx")
}

/// An entry of an index that was read.
#[derive(Debug, Clone)]
pub(super) struct Entry<'a> {
    pub(super) group: Group,
    words: &'a [u8],
}

impl Entry<'_> {
    /// Whether packets of the group may have the term of this key.
    pub(super) fn has(&self, key: u64) -> bool {
        bloom::has(self.words, key)
    }
}

/// Begins an index: with the place of the first part that it is about, and a check of that part's account. By these it is
/// known whose index it is.
pub(super) fn begin(out: &mut Vec<u8>, first: &Part) {
    out.extend(MAGIC);
    out.extend(first.offset.to_le_bytes());
    out.extend(identity(first).to_le_bytes());
}

fn identity(part: &Part) -> u64 {
    let Told { packets, span, sequence, before, missing, times, run } = part.told;
    let numbers = [packets.into(), span.into(), sequence, before, missing, times.0, times.1, run];
    check(numbers.into_iter()).into()
}

/// Returns where the first part of an index begins, and whether it is this part.
pub(super) fn first_part(index: &[u8]) -> Option<(u64, impl Fn(&Part) -> bool)> {
    let head: &[u8; BEGINNING - MAGIC.len()] = index.strip_prefix(&MAGIC)?.first_chunk()?;
    let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| head[at + byte]));
    let (offset, told) = (number(0), number(8));
    Some((offset, move |part: &Part| part.offset == offset && identity(part) == told))
}

/// Appends an entry: five numbers, the number of words of the filter (u32), a check of all the rest (u32), the words. All are
/// little-endian.
fn append(out: &mut Vec<u8>, group: Group, filter: &[u64]) {
    let Group { offset, span, packets, times } = group;
    let numbers = [offset, span, packets, times.0, times.1];
    let check = check(numbers.iter().chain(filter).copied());
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    out.extend((filter.len() as u32).to_le_bytes());
    out.extend(check.to_le_bytes());
    out.extend(filter.iter().flat_map(|word| word.to_le_bytes()));
}

/// Returns the entries of an index, up to the first that is not whole.
pub(super) fn entries(bytes: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let is_ours = bytes.starts_with(&MAGIC);
    let mut rest = bytes.get(BEGINNING..).filter(|_| is_ours).unwrap_or_default();
    std::iter::from_fn(move || {
        let (head, behind) = rest.split_first_chunk::<HEAD>()?;
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| head[at + byte]));
        let [words, told] = [number(40) as u32, (number(40) >> 32) as u32];
        let len = (words as usize).checked_mul(8).filter(|_| bloom::is_size(words))?;
        let (words, behind) = behind.split_at_checked(len)?;
        rest = behind;
        let numbers = [number(0), number(8), number(16), number(24), number(32)];
        let is_whole = check(numbers.into_iter().chain(bloom::words(words))) == told;
        let [offset, span, packets, earliest, latest] = numbers;
        let group = Group { offset, span, packets, times: (earliest, latest) };
        is_whole.then_some(Entry { group, words })
    })
}

/// A check of what a torn write may have left, by FNV-1a over words.
fn check(words: impl Iterator<Item = u64>) -> u32 {
    let hash = words.fold(0xcbf2_9ce4_8422_2325_u64, |hash, word| {
        let mixed = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        mixed ^ mixed >> 29
    });
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(offset: u64) -> Group {
        Group { offset, span: 4096, packets: 3, times: (5, 7) }
    }

    fn part(before: u64) -> Part {
        let times = (5, 7);
        let told = Told { packets: 3, span: 4096, sequence: 1, before, missing: 0, times, run: 8 };
        Part { offset: 4096, told }
    }

    #[test]
    fn an_index_knows_its_file_by_the_first_account() {
        let mut index = Vec::new();
        begin(&mut index, &part(7));
        let (offset, is_it) = first_part(&index).unwrap();
        assert_eq!(offset, 4096);
        assert!(is_it(&part(7)) && !is_it(&part(8)));
        assert!(first_part(&index[..20]).is_none() && first_part(&[0; 24]).is_none());
    }

    #[test]
    fn entries_are_read_up_to_the_first_that_is_not_whole() {
        let mut index = Vec::new();
        begin(&mut index, &part(0));
        append(&mut index, group(0), &[1, 2]);
        append(&mut index, group(4096), &[3, 4, 5, 6]);
        let read = |bytes: &[u8]| entries(bytes).map(|entry| entry.group).collect::<Vec<_>>();
        assert_eq!(read(&index), [group(0), group(4096)]);
        assert_eq!(read(&index[..index.len() - 1]), [group(0)]);
        assert_eq!(read(&index[..BEGINNING + HEAD]), []);
        assert_eq!(read(b""), []);
        assert_eq!(read(b"another file of bytes"), []);
        for at in BEGINNING..index.len() {
            let mut damaged = index.clone();
            damaged[at] ^= 0x10;
            let first = BEGINNING + HEAD + 16;
            assert_eq!(read(&damaged).len(), usize::from(at >= first), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_no_harm(bytes: Vec<u8>) {
            let index = [&MAGIC[..], &bytes].concat();
            first_part(&index);
            for entry in entries(&index) {
                entry.has(7);
            }
        }
    }
}
