//! The lease protocol under loom: sound as it is, broken if any one ordering is weakened.
//!
//! There are three parties: the kernel fills a block twice, the reader takes it, and a third thread gives it
//! back. loom's cell stands for the block's bytes and reports any unordered access.

use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicU32;
use loom::sync::{Arc, mpsc};
use loom::thread;

use super::{LeaseOrders, STATUS_KERNEL, STATUS_USER, Sound, give_back, try_take};

struct Block {
    status: AtomicU32,
    leased: AtomicU32,
    bytes: UnsafeCell<()>,
    /// How often the kernel has filled the block; provides no ordering.
    fills: AtomicU32,
}

const ROUNDS: u32 = 2;

fn kernel(block: &Block) {
    for _ in 0..ROUNDS {
        // Looks as `prb_curr_blk_in_use` and `prb_open_block` do, and publishes as `prb_close_block` does.
        while block.status.load(Ordering::Acquire) != STATUS_KERNEL {
            thread::yield_now();
        }
        block.bytes.with_mut(|_| ());
        block.fills.fetch_add(1, Ordering::Relaxed);
        block.status.store(STATUS_USER, Ordering::Release);
    }
}

fn run<O: LeaseOrders + 'static>() {
    loom::model(|| {
        let block = Arc::new(Block {
            status: AtomicU32::new(STATUS_KERNEL),
            leased: AtomicU32::new(0),
            bytes: UnsafeCell::new(()),
            fills: AtomicU32::new(0),
        });
        let (lend, leases) = mpsc::channel();
        let filler = {
            let block = Arc::clone(&block);
            thread::spawn(move || kernel(&block))
        };
        let returner = {
            let block = Arc::clone(&block);
            thread::spawn(move || {
                for _ in 0..ROUNDS {
                    let () = leases.recv().unwrap();
                    block.bytes.with(|_| ());
                    give_back::<O>(&block.status, &block.leased);
                }
            })
        };
        for round in 1..=ROUNDS {
            while try_take::<O>(&block.status, &block.leased).is_none() {
                thread::yield_now();
            }
            block.bytes.with(|_| ());
            assert!(block.fills.load(Ordering::Relaxed) >= round, "a block was lent twice");
            lend.send(()).unwrap();
        }
        filler.join().unwrap();
        returner.join().unwrap();
    });
}

macro_rules! weakened {
    ($name:ident: $take:ident $ret:ident $check:ident $end:ident) => {
        struct $name;
        impl LeaseOrders for $name {
            const TAKE: Ordering = Ordering::$take;
            const RETURN: Ordering = Ordering::$ret;
            const CHECK_LEASE: Ordering = Ordering::$check;
            const END_LEASE: Ordering = Ordering::$end;
        }
    };
}

weakened!(TakeRelaxed: Relaxed Release Acquire Release);
weakened!(ReturnRelaxed: Acquire Relaxed Acquire Release);
weakened!(CheckRelaxed: Acquire Release Relaxed Release);
weakened!(EndRelaxed: Acquire Release Acquire Relaxed);

#[test]
fn the_block_protocol_lends_each_fill_once_and_orders_all_bytes() {
    run::<Sound>();
}

#[test]
#[should_panic(expected = "Causality violation")]
fn taking_without_acquire_reads_what_the_kernel_still_writes() {
    run::<TakeRelaxed>();
}

#[test]
#[should_panic(expected = "Causality violation")]
fn returning_without_release_lets_the_kernel_write_what_we_still_read() {
    run::<ReturnRelaxed>();
}

#[test]
#[should_panic]
fn looking_at_the_lease_without_acquire_lends_a_block_twice() {
    run::<CheckRelaxed>();
}

#[test]
#[should_panic]
fn ending_a_lease_without_release_lends_a_block_twice() {
    run::<EndRelaxed>();
}
