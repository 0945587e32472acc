//! The transmit protocol under loom: sound as it is, broken if either ordering is weakened.
//!
//! One slot is used twice: the sender fills and commits it, the kernel reads it and reports it sent.

use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU32;
use loom::thread;

use super::{AVAILABLE, SEND_REQUEST, Sound, TxOrders, commit, tx_state};

struct Slot {
    status: AtomicU32,
    bytes: UnsafeCell<()>,
}

const ROUNDS: u32 = 2;

fn run<O: TxOrders + 'static>() {
    loom::model(|| {
        let slot = Arc::new(Slot { status: AtomicU32::new(AVAILABLE), bytes: UnsafeCell::new(()) });
        let kernel = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                for _ in 0..ROUNDS {
                    // Looks as `packet_current_frame` does, and reports as `tpacket_destruct_skb` does.
                    while slot.status.load(Ordering::Acquire) != SEND_REQUEST {
                        thread::yield_now();
                    }
                    slot.bytes.with(|_| ());
                    slot.status.store(AVAILABLE, Ordering::Release);
                }
            })
        };
        for _ in 0..ROUNDS {
            while tx_state::<O>(&slot.status) != AVAILABLE {
                thread::yield_now();
            }
            slot.bytes.with_mut(|_| ());
            commit::<O>(&slot.status);
        }
        kernel.join().unwrap();
    });
}

struct CommitRelaxed;
impl TxOrders for CommitRelaxed {
    const COMMIT: Ordering = Ordering::Relaxed;
    const RECLAIM: Ordering = Ordering::Acquire;
}

struct ReclaimRelaxed;
impl TxOrders for ReclaimRelaxed {
    const COMMIT: Ordering = Ordering::Release;
    const RECLAIM: Ordering = Ordering::Relaxed;
}

#[test]
fn the_transmit_protocol_orders_all_bytes() {
    run::<Sound>();
}

#[test]
#[should_panic(expected = "Causality violation")]
fn committing_without_release_sends_what_is_still_written() {
    run::<CommitRelaxed>();
}

#[test]
#[should_panic(expected = "Causality violation")]
fn reclaiming_without_acquire_overwrites_what_is_still_sent() {
    run::<ReclaimRelaxed>();
}
