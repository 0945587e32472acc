use std::collections::BTreeSet;
use std::sync::Mutex;

use ringtap_lab::Directory;

use super::*;
use crate::record::{Body, Flow};
use crate::spool::Spool;

const FLOWS: u64 = 100;

/// A receiver that takes a given number of each delivery, and one in front of which it says so.
#[derive(Clone)]
struct Receiver {
    /// By shard and number.
    got: Arc<Mutex<Vec<(u16, u64)>>>,
    most: usize,
    hangs: bool,
    /// The longest delivery.
    longest: Arc<Mutex<usize>>,
}

impl Receiver {
    fn new(most: usize) -> Self {
        Self { got: Arc::default(), most, hangs: false, longest: Arc::default() }
    }

    fn got(&self, shard: u16) -> Vec<u64> {
        let got = self.got.lock().unwrap();
        got.iter().filter(|(of, _)| *of == shard).map(|(_, number)| *number).collect()
    }
}

impl Sink for Receiver {
    fn open(&mut self) -> Outcome<()> {
        Ok(())
    }

    fn held(&mut self, first: &Record, _: bool) -> Outcome<Held> {
        Ok(Held { next: 0, more: BTreeSet::from_iter(self.got(first.shard)) })
    }

    fn deliver(&mut self, records: &[Record]) -> Outcome<usize> {
        if self.hangs {
            thread::sleep(Duration::from_secs(3600));
        }
        let of = |record: &Record| (record.shard, record.sequence);
        let mut longest = self.longest.lock().unwrap();
        *longest = records.len().max(*longest);
        let mut got = self.got.lock().unwrap();
        got.extend(records.iter().take(self.most).map(of));
        // One more arrives, of which nobody hears.
        got.extend(records.get(self.most + 1).map(of));
        Ok(records.len().min(self.most))
    }
}

/// Brings it all there is in a spool, half of which was there before: whether it has all.
fn deliver(receiver: &Receiver, is_enough: fn(&Courier) -> bool) -> (bool, Arc<Delivery>) {
    let directory = Directory::new();
    let mut spool = Spool::open(directory.path(), 1 << 20, 1).unwrap();
    let flows: Vec<Body> = (0..FLOWS).map(|number| Body::Flow(Flow::sample(number))).collect();
    let (old, new) = flows.split_at(flows.len() / 2);
    assert!(spool.append(0, old).unwrap());
    drop(spool);
    let mut spool = Spool::open(directory.path(), 1 << 20, 1).unwrap();
    let reader = spool.reader("a").unwrap();
    assert!(spool.append(0, new).unwrap());
    spool.close();
    let courier = Courier::start("a".to_owned(), vec![Box::new(receiver.clone())], reader).unwrap();
    while !is_enough(&courier) {
        thread::sleep(Duration::from_millis(1));
    }
    courier.hurry();
    let delivery = Arc::clone(&courier.delivery);
    (courier.finish(Instant::now() + Duration::from_millis(100)).unwrap(), delivery)
}

#[test]
fn what_is_taken_in_part_is_delivered_once() {
    let receiver = Receiver::new(7);
    let (has_all, delivery) = deliver(&receiver, Courier::is_finished);
    assert!(has_all);
    assert_eq!(delivery.acknowledged.load(Ordering::Relaxed), FLOWS);
    let mut got = receiver.got(0);
    assert_eq!(got.len() as u64, FLOWS);
    got.sort_unstable();
    assert_eq!(got, (0..FLOWS).collect::<Vec<_>>());
}

#[test]
fn records_of_another_spool_are_not_taken_for_these() {
    let receiver = Receiver::new(7);
    // The spool has made more by then, but cannot have sent it.
    receiver.got.lock().unwrap().push((0, FLOWS / 2));
    let has_failed_twice =
        |courier: &Courier| courier.delivery.failures.load(Ordering::Relaxed) > 1;
    assert!(!deliver(&receiver, has_failed_twice).0);
    assert_eq!(receiver.got(0), [FLOWS / 2]);
}

#[test]
fn a_receiver_that_hangs_holds_up_nobody() {
    let receiver = Receiver { hangs: true, ..Receiver::new(1) };
    assert!(!deliver(&receiver, |_| true).0);
}

/// What a lane is given is no more than its sink asks for, although more was read for all of them.
#[test]
fn a_shard_that_has_all_is_delivered_in_parts() {
    const MANY: u64 = 5000;
    let (directory, receiver) = (Directory::new(), Receiver::new(1_000_000));
    let mut spool = Spool::open(directory.path(), 1 << 24, 1).unwrap();
    let reader = spool.reader("a").unwrap();
    let flows: Vec<Body> = (0..MANY).map(|number| Body::Flow(Flow::sample(number))).collect();
    flows.chunks(250).for_each(|chunk| assert!(spool.append(0, chunk).unwrap()));
    spool.close();
    let lanes = (0..4).map(|_| Box::new(receiver.clone()) as Box<dyn Sink>);
    let courier = Courier::start("a".to_owned(), lanes.collect(), reader).unwrap();
    assert!(courier.finish(Instant::now() + Duration::from_secs(60)).unwrap());
    assert_eq!(receiver.got(0), (0..MANY).collect::<Vec<_>>());
    assert_eq!(*receiver.longest.lock().unwrap(), receiver.appetite().0);
}

#[test]
fn lanes_bring_the_records_of_each_shard_in_order_and_once() {
    let (directory, receiver) = (Directory::new(), Receiver::new(1_000_000));
    let mut spool = Spool::open(directory.path(), 1 << 20, 5).unwrap();
    let reader = spool.reader("a").unwrap();
    for number in 0..FLOWS {
        for shard in 0..5 {
            assert!(spool.append(shard, &[Body::Flow(Flow::sample(number))]).unwrap());
        }
    }
    spool.close();
    let lanes = (0..3).map(|_| Box::new(receiver.clone()) as Box<dyn Sink>);
    let courier = Courier::start("a".to_owned(), lanes.collect(), reader).unwrap();
    let delivery = Arc::clone(&courier.delivery);
    assert!(courier.finish(Instant::now() + Duration::from_secs(60)).unwrap());
    assert_eq!(delivery.acknowledged.load(Ordering::Relaxed), 5 * FLOWS);
    for shard in 0..5 {
        assert_eq!(receiver.got(shard), (0..FLOWS).collect::<Vec<_>>());
    }
}
