//! A hosted reactor, turned by hand: what its driver promises.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use ringtap::capture::{CaptureBuilder, RingLayout};
use ringtap::error::Step;
use ringtap::reactor::{
    Coalesce, Hosted, IoUringFeatures, Reactor, ReactorOptions, ThreadWatch, Watch,
};
use ringtap::{AsyncCapture, AsyncInjector, Capture, Error, executor, time};
use ringtap_lab::{Generator, Namespace, Tally, Traffic, Veth, namespace};
use rustix::event::{PollFd, PollFlags};

/// Says nothing: the test polls the driver when it likes.
struct Silent;

impl Watch for Silent {
    fn poll_edge(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

struct Broken;

impl Watch for Broken {
    fn poll_edge(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::Error::from_raw_os_error(libc::EBADF)))
    }
}

fn ring(interface: &str) -> CaptureBuilder {
    Capture::builder()
        .interface(interface)
        .block_size(1 << 16)
        .block_count(64)
        .block_timeout_ms(5)
        .frame_size(2048)
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls both, again and again, until the future is ready.
fn run<F: Future>(
    driver: Pin<&mut impl Future<Output = ringtap::Result<()>>>,
    future: F,
) -> F::Output {
    let (mut driver, mut future) = (driver, pin!(future));
    let start = std::time::Instant::now();
    loop {
        assert!(poll(driver.as_mut()).is_pending(), "the driver goes on");
        if let Poll::Ready(output) = poll(future.as_mut()) {
            return output;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "it ends in time");
        std::thread::sleep(Duration::from_micros(100));
    }
}

#[ringtap_lab::test]
fn whoever_waits_learns_that_the_driver_was_dropped_or_cannot_watch() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    for is_broken in [false, true] {
        let (hosted, driver) = Hosted::attach(ReactorOptions::default()).unwrap();
        let mut capture = AsyncCapture::new(ring(&veth.right).build().unwrap()).unwrap();
        let mut waiting = pin!(capture.next_batch());
        assert!(poll(waiting.as_mut()).is_pending());
        if is_broken {
            let mut driver = pin!(driver.drive(Broken));
            let Poll::Ready(Err(Error::Os { step: Step::WatchEvent, .. })) = poll(driver.as_mut())
            else {
                panic!("the driver ends with its watch");
            };
            // Dropped at the end of this block, as a task that has ended.
        } else {
            drop(driver);
        }
        let Poll::Ready(ended) = poll(waiting.as_mut()) else { panic!("it would wait for ever") };
        assert!(matches!(ended, Err(Error::ReactorGone)), "{ended:?}");
        drop(hosted);
        assert!(matches!(Reactor::current(), Err(Error::NoReactor)));
    }
}

#[ringtap_lab::test]
fn a_reactor_whose_host_is_gone_is_replaced() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let (first, driver) = Hosted::attach(ReactorOptions::default()).unwrap();
    let again = Hosted::attach(ReactorOptions::default()).map(drop);
    assert!(matches!(again, Err(Error::AlreadyAttached)), "{again:?}");
    let mut stale = AsyncCapture::new(ring(&veth.right).build().unwrap()).unwrap();
    drop(driver); // as a runtime that ends drops its tasks; the guard lives on
    let refused = AsyncCapture::new(ring(&veth.right).build().unwrap()).map(drop);
    assert!(matches!(refused, Err(Error::ReactorGone)), "{refused:?}");

    let (second, driver) = Hosted::attach(ReactorOptions::default()).unwrap();
    let mut driver = pin!(driver.drive(Silent));
    let ended = poll(pin!(stale.next_batch()));
    assert!(matches!(ended, Poll::Ready(Err(Error::ReactorGone))), "{ended:?}");
    drop(first); // ends the one that is gone, and not the new one
    let mut capture = AsyncCapture::new(stale.into_inner()).unwrap();
    Generator::new(&veth.left, &Traffic::default()).flood(1);
    let batch = run(driver.as_mut(), capture.next_batch()).unwrap().expect("a batch");
    assert_eq!(batch.len(), 1);
    drop(capture);
    drop(second);
    assert!(matches!(Reactor::current(), Err(Error::NoReactor)));

    // The built-in executor does not work with one that is gone either.
    let (_gone, driver) = Hosted::attach(ReactorOptions::default()).unwrap();
    drop(driver);
    executor::block_on(time::sleep(Duration::from_millis(1)));
}

#[ringtap_lab::test]
fn an_executor_inside_of_a_host_shares_its_reactor_and_leaves_it_quiet() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    for coalesce in [Coalesce::Off, Coalesce::Fixed(Duration::from_micros(100))] {
        let options = ReactorOptions::new().coalesce(coalesce);
        let (_hosted, driver) = Hosted::attach(options).unwrap();
        let mut driver = pin!(driver.drive(Silent));
        let mut capture = AsyncCapture::new(ring(&veth.right).build().unwrap()).unwrap();
        // Parks in the host's ring, and is woken from another thread.
        executor::block_on(async {
            time::sleep(Duration::from_millis(2)).await;
            let (tell, told) = std::sync::mpsc::channel::<Waker>();
            let waking = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(5));
                told.recv().unwrap().wake();
            });
            let mut has_told = false;
            std::future::poll_fn(|cx| {
                if std::mem::replace(&mut has_told, true) {
                    return Poll::Ready(());
                }
                tell.send(cx.waker().clone()).unwrap();
                Poll::Pending
            })
            .await;
            waking.join().unwrap();
        });
        run(driver.as_mut(), time::sleep(Duration::from_millis(5)));
        let before = Reactor::current().unwrap().stats();
        for _ in 0..100 {
            assert!(poll(driver.as_mut()).is_pending());
        }
        let quiet = Reactor::current().unwrap().stats().delta_since(&before);
        assert!(quiet.enters <= 2, "{coalesce:?}: {quiet:?}");
        Generator::new(&veth.left, &Traffic::default()).flood(2);
        // Not always in one block.
        let mut count = 0;
        while count < 2 {
            let batch = run(driver.as_mut(), capture.next_batch());
            count += batch.unwrap().expect("a batch").len();
        }
        assert_eq!(count, 2);
    }
}

#[ringtap_lab::test]
fn a_sleep_set_later_for_earlier_ends_first() {
    let Some(_net) = namespace() else { return };
    let (_hosted, driver) = Hosted::attach(ReactorOptions::default()).unwrap();
    let mut driver = pin!(driver.drive(Silent));
    let mut long = pin!(time::sleep(Duration::from_secs(1000)));
    assert!(poll(long.as_mut()).is_pending());
    assert!(poll(driver.as_mut()).is_pending());
    for _ in 0..200 {
        let start = std::time::Instant::now();
        run(driver.as_mut(), time::sleep(Duration::from_micros(300)));
        assert!(start.elapsed() >= Duration::from_micros(300));
    }
    assert!(poll(long.as_mut()).is_pending());
}

/// A waker that counts.
#[derive(Default)]
struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Captures of `count` interfaces wait, a frame comes to the first, and the driver is polled once: how many
/// were woken, and how often the ring was entered for it.
fn wake_by_one_frame(net: &Namespace, count: usize, options: ReactorOptions) -> (usize, u64) {
    let (hosted, driver) = Hosted::attach(options).unwrap();
    let mut driver = pin!(driver.drive(Silent));
    let veths: Vec<_> = (0..count).map(|_| net.veth()).collect();
    let open = |veth: &Veth| {
        let capture = ring(&veth.right).layout(RingLayout::Frames).build().unwrap();
        AsyncCapture::new(capture).unwrap()
    };
    let mut captures: Vec<_> = veths.iter().map(open).collect();
    let wakers: Vec<_> = captures.iter().map(|_| Arc::new(Woken::default())).collect();
    let mut waits: Vec<_> = captures.iter_mut().map(|one| Box::pin(one.next_batch())).collect();
    for (wait, woken) in waits.iter_mut().zip(&wakers) {
        let waker = Waker::from(Arc::clone(woken));
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert!(poll(driver.as_mut()).is_pending());
    let mut generator = Generator::new(&veths[0].left, &Traffic::default());
    generator.flood(1);
    let mut watched = [PollFd::from_borrowed_fd(hosted.event(), PollFlags::IN)];
    rustix::event::poll(&mut watched, None).unwrap();
    let before = hosted.reactor().stats();
    assert!(poll(driver.as_mut()).is_pending());
    let enters = hosted.reactor().stats().delta_since(&before).enters;
    let woken = wakers.iter().filter(|woken| woken.0.load(Relaxed) > 0).count();
    assert_eq!(run(driver.as_mut(), waits[0].as_mut()).unwrap().expect("a batch").len(), 1);
    drop(waits);
    for round in 0..100 {
        generator.flood(1);
        let batch = run(driver.as_mut(), captures[0].next_batch()).unwrap().expect("a batch");
        assert_eq!(batch.len(), 1, "round {round}: each frame once");
    }
    (woken, enters)
}

/// Whether completions are posted when the ring is entered, and only announced before.
fn is_work_deferred(options: ReactorOptions) -> bool {
    let (hosted, _driver) = Hosted::attach(options).unwrap();
    hosted.reactor().io_uring_features().contains(IoUringFeatures::DEFERRED_WORK)
}

#[ringtap_lab::test]
fn the_few_who_wait_are_woken_before_the_kernel_is_asked_for_whom() {
    let Some(net) = namespace() else { return };
    let one = Coalesce::Fixed(Duration::from_micros(50));
    let best = ReactorOptions::new();
    #[cfg(feature = "testing")]
    let best_and_older = [best, best.without(IoUringFeatures::DEFERRED_WORK)];
    #[cfg(not(feature = "testing"))]
    let best_and_older = [best];
    for options in best_and_older {
        let outcomes = [(1, Coalesce::Off), (8, Coalesce::Off), (9, Coalesce::Off), (1, one)]
            .map(|(count, coalesce)| wake_by_one_frame(&net, count, options.coalesce(coalesce)));
        let expected = match is_work_deferred(options) {
            // On suspicion; but nine are too many for that.
            true => [(1, 0), (8, 0), (1, 1), (1, 1)],
            // To wait for the event has posted the completion, so the ring says for whom it is.
            false => [(1, 0); 4],
        };
        assert_eq!(outcomes, expected, "{options:?}");
    }
}

#[ringtap_lab::test]
fn what_was_sent_is_submitted_before_anybody_is_woken_on_suspicion() {
    let Some(net) = namespace() else { return };
    let (veth, other) = (net.veth(), net.veth());
    let (hosted, driver) = Hosted::attach(ReactorOptions::default()).unwrap();
    let mut driver = pin!(driver.drive(Silent));
    let ring = ring(&veth.right).layout(RingLayout::Frames);
    let mut capture = AsyncCapture::new(ring.build().unwrap()).unwrap();
    let mut wait = pin!(capture.next_batch());
    let mut tx = AsyncInjector::open(&other.left).unwrap();
    assert!(poll(wait.as_mut()).is_pending() && poll(driver.as_mut()).is_pending());
    Generator::new(&veth.left, &Traffic::default()).flood(1);
    rustix::event::poll(&mut [PollFd::from_borrowed_fd(hosted.event(), PollFlags::IN)], None)
        .unwrap();
    let before = hosted.reactor().stats();
    assert!(matches!(poll(pin!(tx.send(&[0xff; 60]))), Poll::Ready(Ok(()))));
    assert!(poll(driver.as_mut()).is_pending());
    assert_eq!(hosted.reactor().stats().delta_since(&before).enters, 1);
    assert_eq!(run(driver.as_mut(), wait).unwrap().expect("a batch").len(), 1);
}

#[ringtap_lab::test]
fn timers_alone_wake_no_socket() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let (_hosted, driver) = Hosted::attach(ReactorOptions::default()).unwrap();
    let mut driver = pin!(driver.drive(Silent));
    let mut capture = AsyncCapture::new(ring(&veth.right).build().unwrap()).unwrap();
    let mut wait = pin!(capture.next_batch());
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    for _ in 0..100 {
        run(driver.as_mut(), time::sleep(Duration::from_micros(500)));
    }
    assert_eq!(woken.0.load(Relaxed), 0);
}

#[ringtap_lab::test]
fn a_sleep_ends_also_where_nobody_turns_the_reactor() {
    let Some(_net) = namespace() else { return };
    let ends = |mut sleep: Pin<&mut time::Sleep>| {
        let start = std::time::Instant::now();
        while poll(sleep.as_mut()).is_pending() {
            assert!(start.elapsed() < Duration::from_secs(20), "its time is long up");
        }
    };
    executor::block_on(async { ends(pin!(time::sleep(Duration::from_millis(5)))) });
    let (_hosted, driver) = Hosted::attach(ReactorOptions::default()).unwrap();
    let mut sleep = pin!(time::sleep(Duration::from_millis(5)));
    assert!(poll(sleep.as_mut()).is_pending());
    drop(driver);
    ends(sleep);
}

#[ringtap_lab::test]
fn a_sleep_wakes_whoever_polled_it_last() {
    let Some(_net) = namespace() else { return };
    let (_hosted, driver) = Hosted::attach(ReactorOptions::default()).unwrap();
    let mut driver = pin!(driver.drive(Silent));
    let mut sleep = pin!(time::sleep(Duration::from_millis(5)));
    let [first, last] = [Arc::new(Woken::default()), Arc::new(Woken::default())];
    for woken in [&first, &first, &last] {
        let waker = Waker::from(Arc::clone(woken));
        assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    run(driver.as_mut(), time::sleep(Duration::from_millis(10)));
    assert_eq!((first.0.load(Relaxed), last.0.load(Relaxed)), (0, 1));
    assert!(poll(sleep.as_mut()).is_ready());
}

#[ringtap_lab::test]
fn a_forked_child_cannot_drive_its_parents_reactor_and_does_not_harm_it() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let (hosted, driver) = Hosted::attach(ReactorOptions::default()).unwrap();
    let mut driver = pin!(driver.drive(Silent));
    let mut capture = AsyncCapture::new(ring(&veth.right).build().unwrap()).unwrap();
    let mut wait = Box::pin(capture.next_batch());
    assert!(poll(wait.as_mut()).is_pending() && poll(driver.as_mut()).is_pending());
    Generator::new(&veth.left, &Traffic::default()).flood(4); // announced, by the time of the fork
    let event = PollFd::from_borrowed_fd(hosted.event(), PollFlags::IN);
    rustix::event::poll(&mut [event], None).unwrap();
    // SAFETY: the child touches only what a child may, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let is_refused = matches!(poll(driver.as_mut()), Poll::Ready(Err(Error::Forked)));
        // SAFETY: ends the child without running its parent's destructors.
        unsafe { libc::_exit(if is_refused { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: our own child.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0, "the child was refused");
    let batch = run(driver.as_mut(), wait.as_mut()).unwrap().expect("a batch");
    assert_eq!(batch.len(), 4);
}

/// A loop that polls one future, and knows nothing else: as pollster's.
fn poll_alone<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park_timeout(Duration::from_secs(20));
    }
}

#[ringtap_lab::test]
fn an_executor_without_io_captures_and_sends() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    let count = 2000;
    let tally = poll_alone(ringtap::reactor::run_anywhere(async {
        let mut capture = AsyncCapture::new(ring(&veth.right).build().unwrap()).unwrap();
        let mut injector = AsyncInjector::open(&veth.left).unwrap();
        let mut tally = Tally::new(&traffic, count);
        for number in 0..count {
            injector.send(&traffic.frame(number, 0)).await.unwrap();
            if number % 100 == 99 {
                while tally.received() <= number {
                    let batch = capture.next_batch().await.unwrap().expect("it goes on");
                    batch.iter().for_each(|packet| tally.record(packet.data()));
                }
            }
        }
        assert!(matches!(Hosted::attach(ReactorOptions::default()), Err(Error::AlreadyAttached)));
        let late = time::timeout(Duration::from_millis(5), capture.next_batch()).await;
        assert!(late.is_err(), "the timers run as well");
        tally
    }));
    tally.unwrap().assert_complete();
    assert!(Reactor::current().is_err(), "it ends with its future");
    let names = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
    assert!(
        !names.into_iter().any(|name| name.starts_with("ringtap-watch")),
        "its thread has ended"
    );
}

#[ringtap_lab::test]
fn two_who_watch_one_reactor_both_hear_and_end() {
    for _ in 0..20 {
        let (hosted, driver) = Hosted::attach(ReactorOptions::default()).unwrap();
        let beside = ThreadWatch::new(&hosted).unwrap();
        let watch = ThreadWatch::new(&hosted).unwrap();
        let mut driven = pin!(driver.drive_beside(watch, async {
            for _ in 0..20 {
                time::sleep(Duration::from_micros(200)).await;
            }
        }));
        let start = std::time::Instant::now();
        while poll(driven.as_mut()).is_pending() {
            assert!(start.elapsed() < Duration::from_secs(20), "it ends in time");
            std::thread::sleep(Duration::from_micros(50));
        }
        drop(beside); // waits for its thread, which must not be left in a read
    }
}
