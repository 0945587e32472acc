//! A waiter of the user's own, by the public protocol of `RxPort` and `TxPort` alone, on `poll(2)`.

use std::os::fd::AsFd;
use std::time::Duration;

use ringtap::capture::{RxPort, TryNext};
use ringtap::inject::{TryFlush, TxPort};
use ringtap::{Capture, Error, Injector, Result};
use ringtap_lab::{Generator, Tally, Traffic, link, namespace};
use rustix::event::{PollFd, PollFlags, Timespec};

/// What ended a wait, and how many waits there were.
struct Ended {
    tally: Tally,
    outcome: Result<()>,
    waits: u32,
}

/// Reads until the end, and calls `each` after every batch.
fn read<S: RxPort>(socket: &mut S, mut tally: Tally, mut each: impl FnMut(&Tally)) -> Ended {
    let mut waits = 0;
    loop {
        let next = match socket.try_next() {
            Ok(next) => next,
            Err(error) => return Ended { tally, outcome: Err(error), waits },
        };
        let (at_most, stop) = match next {
            TryNext::Batch(batch) => {
                batch.iter().for_each(|packet| tally.record(packet.data()));
                drop(batch);
                each(&tally);
                continue;
            }
            TryNext::Wait { at_most, stop, .. } => (at_most, stop),
            _ => return Ended { tally, outcome: Ok(()), waits },
        };
        waits += 1;
        let handle = socket.known_stop().filter(|_| stop).cloned();
        let mut fds = vec![PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)];
        fds.extend(handle.as_ref().map(|stop| PollFd::new(stop, PollFlags::IN)));
        let limit = at_most.unwrap_or(Duration::from_secs(30));
        rustix::event::poll(&mut fds, Some(&Timespec::try_from(limit).unwrap())).unwrap();
        let has_error = fds[0].revents().contains(PollFlags::ERR);
        if has_error && let Err(error) = socket.check_error() {
            return Ended { tally, outcome: Err(error), waits };
        }
    }
}

fn capture(interface: &str) -> Capture {
    let ring = Capture::builder().interface(interface).block_size(1 << 16).block_count(64);
    ring.block_timeout_ms(5).ignore_outgoing(true).build().unwrap()
}

#[ringtap_lab::test]
fn all_is_delivered_and_a_stop_is_seen_whenever_it_comes() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    for _ in 0..20 {
        let mut capture = capture(&veth.right);
        let stop = RxPort::stop_handle(&mut capture).unwrap();
        let mut generator = Generator::new(&veth.left, &traffic);
        let stopping = std::thread::spawn({
            let stop = stop.clone();
            move || {
                std::thread::sleep(Duration::from_millis(3));
                stop.stop();
            }
        });
        generator.flood(200);
        let Ended { tally, outcome, waits } = read(&mut capture, Tally::new(&traffic, 200), |_| {});
        outcome.unwrap();
        let stats = capture.stats().unwrap();
        assert_eq!((stats.pending(), tally.received()), (0, stats.packets), "{stats:?}");
        assert!(waits < 1000, "it spins: {waits} waits");
        assert!(matches!(capture.try_next(), Ok(TryNext::End)), "it stays over");
        stopping.join().unwrap();
    }
}

#[ringtap_lab::test]
fn a_link_that_went_down_and_a_removed_interface_are_told_apart() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    let mut generator = Generator::new(&veth.left, &traffic);
    let mut capture = capture(&veth.right);
    generator.flood(5);
    let Ended { tally, outcome, waits } =
        read(&mut capture, Tally::new(&traffic, 10), |tally| match tally.received() {
            5 => {
                veth.down();
                veth.up();
                generator.flood(5);
            }
            10 => veth.delete(),
            _ => {}
        });
    tally.assert_complete();
    assert!(matches!(outcome, Err(Error::InterfaceGone { .. })), "{outcome:?}");
    assert!(waits < 1000, "it spins: {waits} waits");
}

#[ringtap_lab::test]
fn what_to_wait_for_before_frames_go_on_is_told() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    let mut capture = capture(&veth.right);
    let few = Injector::builder().interface(&veth.left).frame_count(8);
    let mut injector = few.build().unwrap();
    assert_eq!(injector.try_flush().unwrap(), TryFlush::Done);
    link::set_up(&veth.left, false).unwrap();
    let mut number = 0;
    while injector.try_send(&traffic.frame(number, 0)).unwrap() {
        number += 1;
    }
    assert_eq!((number, injector.has_room(60)), (8, false));
    assert_eq!(injector.try_flush().unwrap(), TryFlush::LinkDown);
    assert_eq!(TxPort::pending(&mut injector), 8);
    let long = injector.try_send(&vec![0; injector.most() + 1]);
    assert!(matches!(long, Err(Error::FrameLength { .. })), "{long:?}");

    veth.up();
    while !injector.is_drained() {
        assert_ne!(injector.try_flush().unwrap(), TryFlush::LinkDown);
        std::thread::sleep(Duration::from_micros(100));
    }
    let stop = capture.stop_handle().unwrap();
    let Ended { tally, outcome, .. } = read(&mut capture, Tally::new(&traffic, 8), |tally| {
        if tally.received() == 8 {
            stop.stop();
        }
    });
    outcome.unwrap();
    tally.assert_complete();

    veth.delete();
    assert!(injector.try_send(&[0xff; 60]).unwrap());
    let gone = injector.try_flush();
    assert!(matches!(gone, Err(Error::InterfaceGone { .. })), "{gone:?}");
}
