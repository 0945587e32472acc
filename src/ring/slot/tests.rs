//! Both directions over plain memory: order, overlap, wrap, holes, refusals. Runs under Miri.

use super::*;
use crate::packet::PacketMeta;
use crate::ring::batch::PacketBatch;
use crate::ring::peer::frame_image;

/// Three slots of 1360 bytes a block: a block that the slots do not fill.
const LAYOUT: SlotLayout = SlotLayout { block_size: 4096, frame_size: 1360, frame_count: 6 };

fn receiver(batch_limit: usize) -> (FrameRing, FrameKernelHalf) {
    let ring = FrameRing::new(Mapping::heap(2 * 4096), LAYOUT, batch_limit, Arc::default());
    let kernel = ring.kernel_half();
    (ring, kernel)
}

fn retire(kernel: &mut FrameKernelHalf, index: usize, value: u8) -> bool {
    let data = [value; 60];
    kernel.retire(index, &frame_image(&data, &PacketMeta::plain(60)), 0)
}

fn values(batch: &PacketBatch) -> Vec<u8> {
    batch
        .iter()
        .map(|packet| {
            assert_eq!(packet.data(), [packet.data()[0]; 60]);
            packet.data()[0]
        })
        .collect()
}

fn next(ring: &mut FrameRing) -> Option<PacketBatch> {
    ring.take().map(PacketBatch::from_frames)
}

#[test]
fn a_batch_is_the_run_of_ready_frames_up_to_its_limit_and_round_the_ring() {
    let (mut ring, mut kernel) = receiver(4);
    assert!(next(&mut ring).is_none());
    for index in 0..6 {
        assert!(retire(&mut kernel, index, index as u8));
    }
    let first = next(&mut ring).unwrap();
    let second = next(&mut ring).unwrap();
    assert_eq!((values(&first), values(&second)), (vec![0, 1, 2, 3], vec![4, 5]));
    assert_eq!((first.seq_num(), second.seq_num()), (1, 2));
    assert!(next(&mut ring).is_none(), "nothing is lent twice");
    drop(second);
    assert!(retire(&mut kernel, 4, 10) && retire(&mut kernel, 5, 11));
    assert!(next(&mut ring).is_none(), "the cursor stops at what is leased");
    assert!(!retire(&mut kernel, 0, 12), "and so does the kernel");
    drop(first);
    assert!(next(&mut ring).is_none());
    assert!(retire(&mut kernel, 0, 12));
    assert_eq!(values(&next(&mut ring).unwrap()), [12]);
}

#[test]
fn a_run_wraps_and_may_be_returned_by_another_thread_after_the_ring() {
    let (mut ring, mut kernel) = receiver(64);
    for index in 0..4 {
        assert!(retire(&mut kernel, index, index as u8));
    }
    drop(next(&mut ring).unwrap());
    for (index, value) in [(4, 4), (5, 5), (0, 6), (1, 7)] {
        assert!(retire(&mut kernel, index, value));
    }
    let batch = next(&mut ring).unwrap();
    drop(ring);
    std::thread::spawn(move || assert_eq!(values(&batch), [4, 5, 6, 7])).join().unwrap();
}

#[test]
fn a_detached_run_is_the_same_packets_in_memory_of_its_own() {
    let (mut ring, mut kernel) = receiver(64);
    for index in 0..3 {
        assert!(retire(&mut kernel, index, index as u8));
    }
    let batch = next(&mut ring).unwrap().detach();
    assert!(batch.is_detached());
    for index in 0..3 {
        assert!(retire(&mut kernel, index, 99), "the slots are free");
    }
    assert_eq!((values(&batch), batch.len(), batch.seq_num()), (vec![0, 1, 2], 3, 1));
    assert!(batch.iter().all(|packet| packet.rxhash().is_none()));
}

#[test]
fn a_frame_that_does_not_hold_together_is_left_out_and_counted() {
    let malformed = Arc::new(AtomicU64::new(0));
    let mut ring = FrameRing::new(Mapping::heap(2 * 4096), LAYOUT, 64, Arc::clone(&malformed));
    let mut kernel = ring.kernel_half();
    let mut bad = frame_image(&[1; 60], &PacketMeta::plain(60));
    bad[8 - SLOT_BODY_AT..12 - SLOT_BODY_AT].copy_from_slice(&5000_u32.to_ne_bytes());
    assert!(retire(&mut kernel, 0, 7) && kernel.retire(1, &bad, 0) && retire(&mut kernel, 2, 9));
    let batch = next(&mut ring).unwrap();
    assert_eq!(values(&batch), [7, 9]);
    assert_eq!(malformed.load(Ordering::Relaxed), 1);
}

fn sender() -> TxRing {
    TxRing::new(Mapping::heap(2 * 4096), LAYOUT)
}

fn put(ring: &mut TxRing, value: u8) -> bool {
    let Some(slot) = ring.vacant() else { return false };
    slot[..60].fill(value);
    ring.commit(60);
    true
}

#[test]
fn frames_are_sent_in_order_and_slots_come_back_when_they_are_sent() {
    let mut ring = sender();
    for value in 0..6 {
        assert!(put(&mut ring, value));
    }
    assert!(!put(&mut ring, 6), "full");
    for index in 0..3 {
        assert_eq!(ring.play_kernel(index, SENDING), Some(vec![index as u8; 60]));
    }
    ring.look();
    assert_eq!((ring.pending(), ring.in_use(), ring.available()), (3, 6, 0));
    // Completions may overtake each other; slots are used again in order.
    ring.slots.status(1).store(AVAILABLE, Ordering::Release);
    ring.look();
    assert_eq!(ring.available(), 0);
    ring.slots.status(0).store(libc::TP_STATUS_TS_SOFTWARE, Ordering::Release);
    ring.look();
    assert_eq!((ring.pending(), ring.available()), (3, 2), "a timestamp flag is no state");
    assert!(put(&mut ring, 6) && put(&mut ring, 7) && !put(&mut ring, 8));
    assert_eq!(ring.play_kernel(3, AVAILABLE), Some(vec![3; 60]));
    assert_eq!(ring.play_kernel(4, AVAILABLE), Some(vec![4; 60]));
}

#[test]
fn a_slot_that_was_looked_at_and_not_committed_leaves_no_hole() {
    let mut ring = sender();
    ring.vacant().unwrap()[..60].fill(0xff);
    assert!(put(&mut ring, 1));
    assert_eq!(ring.play_kernel(0, AVAILABLE), Some(vec![1; 60]));
    ring.look();
    assert_eq!((ring.committed(), ring.in_use()), (1, 0));
}

#[test]
fn a_refused_frame_is_counted_and_those_behind_it_move_up() {
    let mut ring = sender();
    for round in 0..20_u8 {
        let values = [round, round + 100, round + 50, round + 150];
        assert!(values.iter().all(|&value| put(&mut ring, value)));
        let at = ring.index(ring.handed);
        let sent = ring.play_kernel(at, AVAILABLE);
        assert_eq!(sent, Some(vec![values[0]; 60]));
        assert!(ring.play_kernel((at + 1) % 6, WRONG_FORMAT).is_some());
        ring.look();
        assert_eq!((ring.refused(), ring.pending()), (u64::from(round) + 1, 2));
        // The kernel stands at the slot it refused, and finds the next frame there.
        assert_eq!(ring.play_kernel((at + 1) % 6, AVAILABLE), Some(vec![values[2]; 60]));
        assert_eq!(ring.play_kernel((at + 2) % 6, AVAILABLE), Some(vec![values[3]; 60]));
        assert_eq!(ring.play_kernel((at + 3) % 6, AVAILABLE), None);
        ring.look();
        assert_eq!((ring.pending(), ring.in_use()), (0, 0));
    }
    assert_eq!((ring.committed(), ring.refused()), (60, 20));
}

#[test]
fn the_last_frame_in_line_may_be_the_refused_one() {
    let mut ring = sender();
    assert!(put(&mut ring, 1));
    assert!(ring.play_kernel(0, WRONG_FORMAT).is_some());
    ring.look();
    assert_eq!((ring.refused(), ring.pending(), ring.in_use()), (1, 0, 0));
    assert!(put(&mut ring, 2));
    assert_eq!(ring.play_kernel(0, AVAILABLE), Some(vec![2; 60]));
}
