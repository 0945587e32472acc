//! The index protocol under loom: sound as it is, broken if either ordering is weakened.
//!
//! A producer and a consumer use a ring of two for three entries, with wrapping indices. loom's cells stand
//! for the entries and report any unordered access.

use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU32;
use loom::thread;

use super::{Cursor, IndexOrders, Sound};

const SIZE: u32 = 2;
const ENTRIES: u32 = 3;
const START: u32 = u32::MAX - 1;

struct Ring {
    producer: AtomicU32,
    consumer: AtomicU32,
    entries: [UnsafeCell<u32>; SIZE as usize],
}

fn produce<O: IndexOrders>(ring: &Ring) {
    let mut cursor = Cursor { own: START, other: START };
    for number in 0..ENTRIES {
        while cursor.vacant(SIZE) == 0 {
            cursor.observe::<O>(&ring.consumer);
            thread::yield_now();
        }
        ring.entries[(cursor.own % SIZE) as usize].with_mut(|entry| {
            // SAFETY: loom reports an access that is not exclusive.
            unsafe { *entry = number };
        });
        cursor.own = cursor.own.wrapping_add(1);
        cursor.publish::<O>(&ring.producer);
    }
}

fn consume<O: IndexOrders>(ring: &Ring) {
    let mut cursor = Cursor { own: START, other: START };
    for number in 0..ENTRIES {
        while cursor.filled(SIZE) == 0 {
            cursor.observe::<O>(&ring.producer);
            thread::yield_now();
        }
        ring.entries[(cursor.own % SIZE) as usize].with(|entry| {
            // SAFETY: loom reports an access concurrent with a write.
            assert_eq!(unsafe { *entry }, number);
        });
        cursor.own = cursor.own.wrapping_add(1);
        cursor.publish::<O>(&ring.consumer);
    }
}

fn run<O: IndexOrders + 'static>() {
    loom::model(|| {
        let ring = Arc::new(Ring {
            producer: AtomicU32::new(START),
            consumer: AtomicU32::new(START),
            entries: [UnsafeCell::new(0), UnsafeCell::new(0)],
        });
        let other = Arc::clone(&ring);
        let producer = thread::spawn(move || produce::<O>(&other));
        consume::<O>(&ring);
        producer.join().unwrap();
    });
}

struct PublishRelaxed;

impl IndexOrders for PublishRelaxed {
    const PUBLISH: Ordering = Ordering::Relaxed;
    const OBSERVE: Ordering = Ordering::Acquire;
}

struct ObserveRelaxed;

impl IndexOrders for ObserveRelaxed {
    const PUBLISH: Ordering = Ordering::Release;
    const OBSERVE: Ordering = Ordering::Relaxed;
}

#[test]
fn the_index_protocol_orders_all_entries() {
    run::<Sound>();
}

#[test]
#[should_panic(expected = "Causality violation")]
fn publishing_without_release_shows_an_entry_before_it_is_written() {
    run::<PublishRelaxed>();
}

#[test]
#[should_panic(expected = "Causality violation")]
fn observing_without_acquire_reads_what_is_still_written() {
    run::<ObserveRelaxed>();
}
