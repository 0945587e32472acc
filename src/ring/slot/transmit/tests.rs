//! Sending over plain memory: order, reuse, holes, refusals. Runs under Miri.

use super::super::TEST_LAYOUT as LAYOUT;
use super::*;

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
    // Completions may overtake each other; slots are reused in order.
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
        // The kernel stays at the slot it refused, and finds the next frame there.
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
