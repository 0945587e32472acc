//! Captures behind a queue, of several interfaces at once, and of other namespaces.

use std::net::Ipv4Addr;
use std::time::Duration;

use ringtap::capture::{CaptureBuilder, MultiCapture, NetNs};
use ringtap::error::Step;
use ringtap::interface::interface_info;
use ringtap::{Capture, Error, Injector, executor};
use ringtap_lab::{Generator, Host, Tally, Traffic, Veth, link, namespace};

const PATIENCE: Duration = Duration::from_secs(60);

fn small(interface: &str) -> CaptureBuilder {
    Capture::builder().interface(interface).block_size(1 << 16).block_count(512).block_timeout_ms(2)
}

#[cfg(feature = "channel")]
mod channel {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll, Wake};

    use futures_util::StreamExt;

    use ringtap::channel::{ChannelCapture, Overflow};

    use super::*;

    #[ringtap_lab::test]
    fn every_packet_comes_through_once_in_order_and_the_end_drains() {
        let Some(net) = namespace() else { return };
        let veth = net.veth();
        let traffic = Traffic { flows: 4, ..Traffic::default() };
        let capture = ChannelCapture::builder(small(&veth.right)).capacity(8).build().unwrap();
        assert!(capture.try_recv().unwrap().is_none());
        assert!(capture.recv_timeout(Duration::from_millis(5)).unwrap().is_none());
        let mut tally = Tally::new(&traffic, 20_000);
        let mut generator = Generator::new(&veth.left, &traffic);
        for round in 1..=20 {
            generator.flood(1_000);
            while tally.received() < round * 1_000 {
                let batch = capture.recv_timeout(PATIENCE).unwrap().expect("frames come");
                batch.iter().for_each(|packet| tally.record(packet.data()));
            }
        }
        tally.assert_complete();
        generator.flood(500);
        capture.stop();
        let mut left = 0;
        for batch in &capture {
            left += batch.unwrap().len();
        }
        assert_eq!(left, 500);
        assert!(capture.has_ended() && capture.recv().unwrap().is_none());
        let stats = capture.stats().unwrap();
        assert_eq!((stats.received, stats.queued, stats.dropped), (20_500, 0, 0));
        assert_eq!(stats.capture.delivered, 20_500);
        assert_eq!(capture.interface(), veth.right);
    }

    /// An executor of somebody else's: it parks its thread.
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        struct Parked(std::thread::Thread);
        impl Wake for Parked {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Arc::new(Parked(std::thread::current())).into();
        let mut future = pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(output) => return output,
                Poll::Pending => std::thread::park(),
            }
        }
    }

    #[ringtap_lab::test]
    fn tasks_of_any_executor_on_any_thread_receive_everything_once_and_the_end() {
        const COUNT: u64 = 20_000;
        let Some(net) = namespace() else { return };
        let veth = net.veth();
        let traffic = Traffic { flows: 4, ..Traffic::default() };
        let capture = ChannelCapture::builder(small(&veth.right)).build().unwrap();
        let (stop, capture) = (capture.stop_handle(), Arc::new(capture));
        let tasks = [(); 3].map(|()| {
            let (capture, mut tally) = (Arc::clone(&capture), Tally::new(&traffic, COUNT));
            std::thread::spawn(move || {
                block_on(async {
                    loop {
                        // A wait that is given up takes nothing.
                        let once = |cx: &mut Context<'_>| pin!(capture.next_batch()).poll(cx);
                        let batch = match poll_fn(|cx| Poll::Ready(once(cx))).await {
                            Poll::Ready(batch) => batch.unwrap(),
                            Poll::Pending => capture.next_batch().await.unwrap(),
                        };
                        let Some(batch) = batch else { return tally };
                        batch.iter().for_each(|packet| tally.record(packet.data()));
                    }
                })
            })
        });
        let mut generator = Generator::new(&veth.left, &traffic);
        for _ in 0..COUNT / 1_000 {
            generator.flood(1_000);
            std::thread::sleep(Duration::from_millis(2));
        }
        stop.stop();
        let mut tally = Tally::new(&traffic, COUNT);
        tasks.into_iter().for_each(|task| tally.merge(&task.join().unwrap()));
        tally.assert_complete();
        assert!(capture.has_ended());

        // As a stream; the error that ends it is its last item.
        let mut capture = ChannelCapture::builder(small(&veth.right)).build().unwrap();
        generator.flood(10);
        let items: Vec<_> = block_on(async {
            let first = capture.next().await;
            veth.delete();
            std::iter::once(first.unwrap())
                .chain(capture.by_ref().collect::<Vec<_>>().await)
                .collect()
        });
        let (last, batches) = items.split_last().unwrap();
        assert!(matches!(last, Err(Error::InterfaceGone { .. })), "{last:?}");
        let packets: usize = batches.iter().map(|batch| batch.as_ref().unwrap().len()).sum();
        assert_eq!(packets, 10);
        assert!(block_on(capture.next()).is_none());
    }

    #[ringtap_lab::test]
    fn a_full_queue_drops_and_counts_or_leaves_it_to_the_ring() {
        let Some(net) = namespace() else { return };
        let veth = net.veth();
        for overflow in [Overflow::Drop, Overflow::Block] {
            let options = ChannelCapture::builder(small(&veth.right).block_count(8));
            let capture = options.capacity(2).overflow(overflow).build().unwrap();
            let mut generator =
                Generator::new(&veth.left, &Traffic { len: 1_000, ..Traffic::default() });
            for _ in 0..30 {
                generator.flood(100);
                std::thread::sleep(Duration::from_millis(4));
            }
            capture.stop();
            let received: usize = capture.iter().map(|batch| batch.unwrap().len()).sum();
            let stats = capture.stats().unwrap();
            assert_eq!(received as u64, stats.received);
            assert_eq!(stats.received + stats.dropped, stats.capture.delivered, "{stats:?}");
            assert_eq!(stats.capture.delivered + stats.capture.drops, 3_000, "{stats:?}");
            match overflow {
                Overflow::Drop => assert!(stats.dropped > 0, "{stats:?}"),
                _ => assert!(stats.dropped == 0 && stats.capture.drops > 1_000, "{stats:?}"),
            }
        }
    }

    #[ringtap_lab::test]
    fn dropping_it_ends_it_whatever_it_is_about() {
        let Some(net) = namespace() else { return };
        let veth = net.veth();
        for round in 0..20 {
            let options = ChannelCapture::builder(small(&veth.right)).capacity(1);
            let capture = options.build().unwrap();
            // Waiting for packets, for room, or still for its first turn.
            if round % 3 > 0 {
                Generator::new(&veth.left, &Traffic::default()).flood(1_000 * (round % 3));
                std::thread::sleep(Duration::from_millis(round % 5));
            }
            drop(capture);
        }
    }

    #[ringtap_lab::test]
    fn several_threads_share_what_comes_and_a_removed_interface_is_told_once() {
        let Some(net) = namespace() else { return };
        let veth = net.veth();
        let traffic = Traffic::default();
        let capture = ChannelCapture::builder(small(&veth.right)).build().unwrap();
        let seen = Mutex::new(Vec::new());
        let failures: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let mut failures = 0;
                        while !capture.has_ended() {
                            match capture.recv_timeout(Duration::from_millis(50)) {
                                Ok(Some(batch)) => {
                                    let mark = |data| ringtap_lab::Mark::find(data).unwrap().number;
                                    let numbers = batch.iter().map(|packet| mark(packet.data()));
                                    seen.lock().unwrap().extend(numbers);
                                }
                                Ok(None) => {}
                                Err(error) => {
                                    assert!(
                                        matches!(error, Error::InterfaceGone { .. }),
                                        "{error}"
                                    );
                                    failures += 1;
                                }
                            }
                        }
                        failures
                    })
                })
                .collect();
            Generator::new(&veth.left, &traffic).flood(3_000);
            while seen.lock().unwrap().len() < 3_000 {
                std::thread::yield_now();
            }
            veth.delete();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..3_000), "each once");
        // Told to one of them, or still to be told.
        let left = usize::from(capture.recv().is_err());
        assert_eq!(failures + left, 1);
        assert!(capture.recv().unwrap().is_none());
    }

    #[ringtap_lab::test]
    fn what_cannot_be_opened_is_told_at_once() {
        let Some(_net) = namespace() else { return };
        assert!(matches!(ChannelCapture::open("nowhere0"), Err(Error::NoSuchInterface { .. })));
    }
}

#[ringtap_lab::test]
fn a_flooded_interface_holds_up_no_other_and_a_removed_one_ends_only_itself() {
    let Some(net) = namespace() else { return };
    let pairs = [net.veth(), net.veth(), net.veth()];
    executor::block_on(async {
        // Room for all: each block timeout takes a block, however long the flood is kept from its core.
        let ring = |veth: &Veth| small(&veth.right).block_count(1024).block_timeout_ms(20);
        let open = pairs.iter().map(|veth| ring(veth).build().unwrap());
        let mut captures = MultiCapture::new(open.collect::<Vec<_>>()).unwrap();
        assert_eq!((captures.len(), captures.interface(1)), (3, &*pairs[1].right));
        let traffic = Traffic::default();
        let mut tallies = [0; 3].map(|_| Tally::new(&traffic, 10_000));
        let mut generators: Vec<_> =
            pairs.iter().map(|veth| Generator::new(&veth.left, &traffic)).collect();
        generators[0].flood(10_000);
        generators[1].flood(100);
        generators[2].flood(100);
        let mut order = Vec::new();
        while order.len() < 3 || tallies[0].received() < 10_000 {
            let (number, batch) = captures.next_batch().await.unwrap().unwrap();
            batch.iter().for_each(|packet| tallies[number].record(packet.data()));
            if !order.contains(&number) {
                order.push(number);
            }
        }
        assert!(tallies.iter().map(Tally::received).eq([10_000, 100, 100]));
        // The small ones were served while the flood was.
        tallies.iter().for_each(Tally::assert_sound);
        pairs[1].delete();
        let error = captures.next_batch().await.unwrap_err();
        assert!(
            matches!(&error, Error::InterfaceGone { name } if *name == pairs[1].right),
            "{error}"
        );
        assert!(captures.capture(1).is_none() && captures.capture(2).is_some());
        generators[2].flood(50);
        captures.stop_handle().stop();
        let mut left = 0;
        while let Some((number, batch)) = captures.next_batch().await.unwrap() {
            assert_eq!(number, 2);
            left += batch.len();
        }
        assert_eq!(left, 50);
        assert_eq!(captures.stats().unwrap().delivered, 10_250);
        assert!(captures.next_batch().await.unwrap().is_none());
        assert!(matches!(MultiCapture::new([]), Err(Error::InterfaceMissing)));
    });
}

#[ringtap_lab::test]
fn a_capture_is_of_another_namespace_while_its_thread_stays_where_it_is() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let host = Host::new(&veth.right, Ipv4Addr::new(10, 9, 9, 1));
    link::wait_for_carrier(&veth.left);
    let inside = host.interface().to_owned();
    assert!(matches!(Capture::open(&inside), Err(Error::NoSuchInterface { .. })));
    let there = NetNs::path(host.namespace_file());
    let mut capture = small(&inside).netns(there.clone()).promiscuous(true).build().unwrap();
    assert!(interface_info(&inside).is_err(), "this thread is where it was");
    let traffic = Traffic::default();
    let mut tally = Tally::new(&traffic, 200);
    Generator::new(&veth.left, &traffic).flood(200);
    while tally.received() < 200 {
        let batch = capture.next_batch_timeout(PATIENCE).unwrap().expect("frames come");
        batch.iter().for_each(|packet| {
            if ringtap_lab::Mark::find(packet.data()).is_some() {
                tally.record(packet.data());
            }
        });
    }
    tally.assert_complete();
    assert!(capture.stats().unwrap().packets >= 200);
    let mut here = small(&veth.left).ignore_outgoing(true).build().unwrap();
    let mut injector = Injector::builder().interface(&inside).netns(there.clone()).build().unwrap();
    let frames: Vec<_> = (0..20).map(|number| traffic.frame(number, 0)).collect();
    frames.iter().for_each(|frame| injector.send(frame).unwrap());
    injector.flush().unwrap();
    let mut arrived = Vec::new();
    while arrived.len() < 20 {
        let batch = here.next_batch_timeout(PATIENCE).unwrap().expect("frames come");
        let marked =
            |packet: &ringtap::Packet<'_>| ringtap_lab::Mark::find(packet.data()).is_some();
        arrived.extend(batch.iter().filter(marked).map(|packet| packet.data().to_vec()));
    }
    assert_eq!(arrived, frames);
    let error = Injector::builder().interface("nowhere0").netns(there.clone()).build().unwrap_err();
    assert!(matches!(error, Error::NoSuchInterface { .. }), "{error}");
    let error = small("nowhere0").netns(there).build().unwrap_err();
    assert!(matches!(error, Error::NoSuchInterface { .. }), "{error}");
    for (netns, what) in [
        (NetNs::name("no-such-namespace"), "ip netns"),
        (NetNs::pid(u32::MAX), "ip netns"),
        (NetNs::path("/dev/null"), "is it a network namespace?"),
    ] {
        let error = small("lo").netns(netns).build().unwrap_err();
        assert!(matches!(error, Error::Os { step: Step::EnterNamespace, .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
    let own = small("lo").netns(NetNs::path("/proc/thread-self/ns/net")).build();
    assert!(own.is_ok(), "{own:?}");
}
