//! Runs of frames over plain memory: order, overlap, wrap, threads. Runs under Miri.

use super::super::TEST_LAYOUT as LAYOUT;
use super::*;
use crate::packet::PacketMeta;
use crate::ring::batch::PacketBatch;
use crate::ring::fake_kernel::frame_image;

fn receiver(batch_limit: usize) -> (FrameRing, FrameKernelHalf) {
    let ring = FrameRing::new(
        Mapping::heap(2 * 4096),
        LAYOUT,
        Extras::default(),
        batch_limit,
        Arc::default(),
    );
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
    let mut ring = FrameRing::new(
        Mapping::heap(2 * 4096),
        LAYOUT,
        Extras::default(),
        64,
        Arc::clone(&malformed),
    );
    let mut kernel = ring.kernel_half();
    let mut bad = frame_image(&[1; 60], &PacketMeta::plain(60));
    bad[8 - SLOT_BODY_AT..12 - SLOT_BODY_AT].copy_from_slice(&5000_u32.to_ne_bytes());
    assert!(retire(&mut kernel, 0, 7) && kernel.retire(1, &bad, 0) && retire(&mut kernel, 2, 9));
    assert!(kernel.retire(3, &bad, 0));
    let batch = next(&mut ring).unwrap();
    assert_eq!((values(&batch), values(&batch)), (vec![7, 9], vec![7, 9]));
    assert_eq!(malformed.load(Ordering::Relaxed), 2);
}
