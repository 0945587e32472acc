//! Leases over plain memory: order, overlap, threads, and the end of the ring. Runs under Miri.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::packet::PacketMeta;
use crate::ring::batch::PacketBatch;
use crate::ring::block_writer::BlockImage;
use crate::ring::fake_kernel::TestRing;

const HASHED: Extras = Extras { rxhash: true, offload: false, retag: false, cooked: false };

fn contents(batch: &PacketBatch) -> Vec<Vec<u8>> {
    batch.iter().map(|packet| packet.data().to_vec()).collect()
}

#[test]
fn batches_come_in_the_order_of_the_blocks_and_round_the_ring() {
    let (mut ring, mut peer) = TestRing::new(4096, 3);
    assert!(ring.next_batch().is_none());
    for round in 0_u8..10 {
        assert_eq!(peer.retire([[round; 60].as_slice()]), Some(1));
        let batch = ring.next_batch().unwrap();
        assert_eq!(batch.seq_num(), u64::from(round) + 1);
        assert_eq!(contents(&batch), [vec![round; 60]]);
        assert!(ring.next_batch().is_none());
    }
}

#[test]
fn several_leases_may_be_out_and_come_back_in_any_order() {
    let (mut ring, mut peer) = TestRing::new(4096, 3);
    for round in 0_u8..3 {
        assert!(peer.retire([[round; 60].as_slice()]).is_some());
    }
    let [first, second, third] = std::array::from_fn(|_| ring.next_batch().unwrap());
    assert!(ring.next_batch().is_none(), "no block is lent twice");
    assert_eq!(peer.retire([]), None, "the kernel owns none");
    drop(second);
    assert_eq!(peer.retire([]), None, "the kernel stops at the first it does not own");
    assert!(ring.next_batch().is_none(), "and so does the cursor");
    drop(first);
    assert_eq!(peer.retire([[7; 60].as_slice()]), Some(1));
    assert_eq!(peer.retire([[8; 60].as_slice()]), Some(1));
    assert_eq!(contents(&third), [[2; 60]]);
    assert_eq!(contents(&ring.next_batch().unwrap()), [[7; 60]]);
    assert_eq!(contents(&ring.next_batch().unwrap()), [[8; 60]]);
    assert!(ring.next_batch().is_none(), "the third is still leased");
    drop(third);
    assert!(peer.retire([]).is_some());
    assert!(ring.next_batch().unwrap().is_empty());
}

#[test]
fn a_lease_may_be_returned_by_another_thread_and_outlive_the_ring() {
    let (mut ring, mut peer) = TestRing::new(4096, 2);
    peer.retire([[1; 60].as_slice(), &[2; 61]]);
    let batch = ring.next_batch().unwrap();
    drop(ring);
    let batch = std::thread::spawn(move || {
        assert_eq!(contents(&batch), [vec![1; 60], vec![2; 61]]);
        batch
    })
    .join()
    .unwrap();
    assert_eq!(contents(&batch), [vec![1; 60], vec![2; 61]]);
}

#[test]
fn a_detached_batch_is_the_same_packets_and_frees_its_block() {
    let (mut ring, mut peer) = TestRing::new(4096, 1);
    peer.retire([[1; 60].as_slice(), &[2; 700]]);
    let batch = ring.next_batch().unwrap();
    let before = contents(&batch);
    assert_eq!(peer.retire([]), None);
    let batch = batch.detach();
    assert!(batch.is_detached());
    assert!(peer.retire([]).is_some(), "the block is free");
    assert_eq!(contents(&batch), before);
    assert_eq!(contents(&batch.detach()), before);
}

#[test]
fn threads_returning_at_random_lose_and_repeat_nothing() {
    let rounds: u32 = if cfg!(miri) { 60 } else { 20_000 };
    let (mut ring, mut peer) = TestRing::new(256, 4);
    let kernel = std::thread::spawn(move || {
        for number in 0..rounds {
            while peer.retire([number.to_ne_bytes().as_slice()]).is_none() {
                std::thread::yield_now();
            }
        }
    });
    let (lend, leases) = std::sync::mpsc::sync_channel::<PacketBatch>(2);
    let returner = std::thread::spawn(move || {
        let mut held = Vec::new();
        for batch in leases {
            held.push(batch);
            if held.len() == 2 {
                held.swap_remove(0);
            }
        }
    });
    for number in 0..rounds {
        let batch = loop {
            match ring.next_batch() {
                Some(batch) => break batch,
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(contents(&batch), [number.to_ne_bytes()]);
        lend.send(batch).unwrap();
    }
    drop(lend);
    kernel.join().unwrap();
    returner.join().unwrap();
}

#[test]
fn what_a_broken_header_leaves_out_is_counted_once() {
    let malformed = Arc::new(AtomicU64::new(0));
    let mut ring = BlockRing::new(Mapping::heap(4096), 4096, HASHED, Arc::clone(&malformed));
    let mut image = BlockImage::new(4096);
    for _ in 0..3 {
        assert!(image.push(&[1; 60], &PacketMeta::plain(60)));
    }
    let mut body = image.finish(1);
    body[..4].copy_from_slice(&9_u32.to_ne_bytes()); // nine announced, three present
    assert!(ring.kernel_half().retire(0, &body, 0));
    let batch = PacketBatch::from_block(ring.take().unwrap());
    assert_eq!(batch.iter().count(), 3);
    assert_eq!(batch.iter().count(), 3);
    assert_eq!(malformed.load(Ordering::Relaxed), 6);
}

#[test]
fn the_flags_of_a_block_are_those_of_its_status_word() {
    let mut ring = BlockRing::new(Mapping::heap(4096), 4096, HASHED, Arc::new(AtomicU64::new(0)));
    let status = libc::TP_STATUS_LOSING | libc::TP_STATUS_BLK_TMO;
    assert!(ring.kernel_half().retire(0, &BlockImage::new(4096).finish(1), status));
    let batch = PacketBatch::from_block(ring.take().unwrap());
    assert!(batch.is_losing() && batch.timed_out());
}
