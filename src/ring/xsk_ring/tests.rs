//! Our two halves against each other, over plain memory. Runs under Miri.

use super::*;

const LAYOUT: IndexLayout =
    IndexLayout { producer: 0, consumer: 64, flags: 128, entries: 192, size: 4 };

/// Creates both halves of a ring whose indices start at `start`.
fn halves<T: Entry>(start: u32) -> (Producer<T>, Consumer<T>) {
    let ring = Arc::new(IndexRing::new(Mapping::heap(4096), LAYOUT));
    ring.producer().store(start, Ordering::Relaxed);
    ring.consumer().store(start, Ordering::Relaxed);
    (Producer::new(Arc::clone(&ring)), Consumer::new(ring))
}

#[test]
fn entries_come_out_in_order_round_the_ring_and_round_the_index() {
    for start in [0, u32::MAX - 1] {
        let (mut producer, mut consumer) = halves::<u64>(start);
        let (mut pushed, mut popped) = (0, 0);
        for round in 0..20 {
            let count = producer.vacant(4).min(1 + round % 4);
            for _ in 0..count {
                producer.push(pushed);
                pushed += 1;
            }
            assert_eq!(consumer.pop(), None, "nothing is published");
            producer.publish();
            assert_eq!(producer.outstanding(), count);
            while let Some(entry) = consumer.pop() {
                assert_eq!(entry, popped);
                popped += 1;
            }
            assert!(!consumer.is_ready());
            consumer.release();
        }
        assert_eq!((pushed, popped), (50, 50));
    }
}

#[test]
fn a_full_ring_takes_nothing_until_entries_are_released() {
    let (mut producer, mut consumer) = halves::<Descriptor>(u32::MAX - 1);
    assert_eq!(producer.vacant(1), 4);
    for number in 0..4 {
        producer.push(Descriptor { address: number, len: 60, options: 0 });
    }
    producer.publish();
    assert_eq!(producer.vacant(1), 0);
    assert!(consumer.is_ready());
    assert_eq!(consumer.pop().unwrap().address, 0);
    assert_eq!(producer.vacant(1), 0, "read, but not released");
    consumer.release();
    assert_eq!(producer.vacant(1), 1);
}

#[test]
fn a_frame_of_several_pieces_is_outstanding_once_until_its_last_is_taken() {
    let (mut producer, mut consumer) = halves::<Descriptor>(u32::MAX - 1);
    for options in [libc::XDP_PKT_CONTD, libc::XDP_PKT_CONTD, 0, 0] {
        producer.push(Descriptor { address: 0, len: 60, options });
    }
    producer.publish();
    for left in [2, 2, 1, 0] {
        consumer.pop().unwrap();
        consumer.release();
        assert_eq!(producer.outstanding_frames(), left);
    }
}

#[test]
fn an_index_that_cannot_be_yields_nothing() {
    let (mut producer, mut consumer) = halves::<u64>(7);
    consumer.ring.producer().store(7 + 5, Ordering::Relaxed);
    assert_eq!(consumer.pop(), None, "more than the ring holds");
    producer.ring.consumer().store(8, Ordering::Relaxed);
    assert_eq!(producer.vacant(5), 0, "more was taken than was put in");
}

#[test]
fn the_wake_up_flag_is_read_from_its_place() {
    let (producer, _consumer) = halves::<u64>(0);
    assert!(!producer.ring().needs_wakeup());
    producer.ring.word(LAYOUT.flags).store(libc::XDP_RING_NEED_WAKEUP, Ordering::Relaxed);
    assert!(producer.ring().needs_wakeup());
}

#[test]
fn two_threads_pass_every_entry_once() {
    const COUNT: u64 = if cfg!(miri) { 200 } else { 100_000 };
    let (mut producer, mut consumer) = halves::<u64>(u32::MAX - 10);
    let sending = std::thread::spawn(move || {
        for number in 0..COUNT {
            while producer.vacant(1) == 0 {
                std::thread::yield_now();
            }
            producer.push(number);
            producer.publish();
        }
    });
    for number in 0..COUNT {
        let entry = loop {
            match consumer.pop() {
                Some(entry) => break entry,
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(entry, number);
        consumer.release();
    }
    sending.join().unwrap();
}
