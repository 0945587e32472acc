//! The stack of returned chunks and the claim of a sent one under loom: sound as they are, broken if
//! weakened.

use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU32;
use loom::thread;

use super::given::{Claimable, Holder, claim};
use super::stack::{Head, NONE, ReturnOrders, Sound, push, take_all};

impl Head for AtomicU32 {
    fn look(&self) -> u32 {
        self.load(Ordering::Relaxed)
    }

    fn swap(&self, value: u32, ordering: Ordering) -> u32 {
        AtomicU32::swap(self, value, ordering)
    }

    fn replace(&self, current: u32, new: u32, ordering: Ordering) -> Result<u32, u32> {
        self.compare_exchange(current, new, ordering, Ordering::Relaxed)
    }
}

struct Stack {
    head: AtomicU32,
    /// The links, which stand for the chunks' bytes as well: loom reports any unordered access.
    next: [UnsafeCell<u32>; 2],
}

fn run<O: ReturnOrders + 'static>() {
    loom::model(|| {
        let next = [UnsafeCell::new(NONE), UnsafeCell::new(NONE)];
        let stack = Arc::new(Stack { head: AtomicU32::new(NONE), next });
        let pushing: Vec<_> = (0..2_u32)
            .map(|chunk| {
                let stack = Arc::clone(&stack);
                thread::spawn(move || {
                    push::<O>(&stack.head, chunk, |head| {
                        // SAFETY: loom reports an access that is not exclusive.
                        stack.next[chunk as usize].with_mut(|next| unsafe { *next = head });
                    });
                })
            })
            .collect();
        let take = || {
            let (mut taken, mut next) = (0, take_all::<O>(&stack.head));
            while next != NONE {
                taken += 1;
                // SAFETY: loom reports an access concurrent with a write.
                next = stack.next[next as usize].with_mut(|link| unsafe { *link });
            }
            taken
        };
        let early = take();
        pushing.into_iter().for_each(|pusher| pusher.join().unwrap());
        assert_eq!(early + take(), 2);
    });
}

struct PushRelaxed;

impl ReturnOrders for PushRelaxed {
    const PUSH: Ordering = Ordering::Relaxed;
    const TAKE: Ordering = Ordering::Acquire;
}

struct TakeRelaxed;

impl ReturnOrders for TakeRelaxed {
    const PUSH: Ordering = Ordering::Release;
    const TAKE: Ordering = Ordering::Relaxed;
}

#[test]
fn every_chunk_that_is_returned_is_taken_once() {
    run::<Sound>();
}

#[test]
#[should_panic(expected = "Causality violation")]
fn pushing_without_release_gives_away_what_is_still_read() {
    run::<PushRelaxed>();
}

#[test]
#[should_panic(expected = "Causality violation")]
fn taking_without_acquire_uses_what_is_still_read() {
    run::<TakeRelaxed>();
}

struct Exchanged(AtomicU32);

impl Claimable for Exchanged {
    fn replace(&self, current: u32, new: u32) -> bool {
        self.0.compare_exchange(current, new, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

struct LoadedAndStored(AtomicU32);

impl Claimable for LoadedAndStored {
    fn replace(&self, current: u32, new: u32) -> bool {
        let is_there = self.0.load(Ordering::Relaxed) == current;
        if is_there {
            self.0.store(new, Ordering::Relaxed);
        }
        is_there
    }
}

/// A socket has ended; its chunk is named by its completion ring and found by the sweep at the same time.
fn claimed_by_two<W: Claimable + Send + Sync + 'static>(word: fn(AtomicU32) -> W) {
    loom::model(move || {
        let holder = Holder::tx(1);
        let word = Arc::new(word(AtomicU32::new(holder.number())));
        let sweep = {
            let word = Arc::clone(&word);
            thread::spawn(move || u32::from(claim(&*word, holder)))
        };
        let gathered = u32::from(claim(&*word, holder));
        assert_eq!(gathered + sweep.join().unwrap(), 1, "a chunk has one owner");
    });
}

#[test]
fn a_chunk_that_two_ask_for_goes_to_one() {
    claimed_by_two(Exchanged);
}

#[test]
#[should_panic(expected = "a chunk has one owner")]
fn without_an_exchange_two_have_the_same_chunk() {
    claimed_by_two(LoadedAndStored);
}
