//! Wakers may do anything: poll in place, turn the reactor, take a socket apart. And what safe code forgets does no
//! harm.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::far_end::FarEnd;
use ringtap::executor::block_on;
use ringtap::reactor::{Hosted, Reactor, ReactorOptions};
use ringtap::{AsyncCapture, AsyncInjector, time};
use ringtap_lab::{Tally, Traffic, namespace};

/// Runs its action when woken, and counts the wake-ups.
struct Act {
    act: fn(),
    woken: AtomicU32,
}

impl Act {
    fn new(act: fn()) -> Arc<Self> {
        Arc::new(Self { act, woken: AtomicU32::new(0) })
    }
}

impl Wake for Act {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Relaxed);
        (self.act)();
    }
}

thread_local! {
    static TX: RefCell<Option<AsyncInjector>> = const { RefCell::new(None) };
}

/// Polls for the end of everything that was sent, in place, and turns the reactor.
fn poll_and_turn() {
    TX.with(|tx| {
        if let Ok(mut tx) = tx.try_borrow_mut()
            && let Some(tx) = tx.as_mut()
        {
            let mut context = Context::from_waker(Waker::noop());
            let _ = pin!(tx.drain()).as_mut().poll(&mut context);
        }
    });
    if let Ok(reactor) = Reactor::current() {
        reactor.turn();
    }
}

fn take_apart() {
    let Some(tx) = TX.take() else { return };
    drop(tx.into_inner());
}

/// Sends one frame with `waker` waiting for it to be sent, and turns until that is woken.
async fn woken_by_a_kick(mut tx: AsyncInjector, frame: &[u8], waker: &Arc<Act>) {
    tx.send(frame).await.unwrap();
    let context = Waker::from(Arc::clone(waker));
    let first = pin!(tx.flush()).as_mut().poll(&mut Context::from_waker(&context));
    assert!(first.is_pending(), "nothing was kicked yet");
    TX.set(Some(tx));
    for _ in 0..1000 {
        Reactor::current().unwrap().turn();
        if waker.woken.load(Relaxed) > 0 {
            return;
        }
        time::sleep(Duration::from_millis(1)).await;
    }
    panic!("nobody was woken");
}

#[ringtap_lab::test]
fn a_waker_may_poll_turn_the_reactor_or_take_the_socket_apart() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    let far = FarEnd::new(&veth, Tally::new(&traffic, 2));
    for (number, act) in [poll_and_turn as fn(), take_apart].into_iter().enumerate() {
        let act = Act::new(act);
        block_on(async {
            let tx = AsyncInjector::open(&veth.left).unwrap();
            woken_by_a_kick(tx, &traffic.frame(number as u64, 0), &act).await;
            TX.take();
        });
    }
    far.wait_until(2);
    far.finish().assert_complete();
}

#[ringtap_lab::test]
fn a_driver_that_is_dropped_wakes_those_who_poll_in_place() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let (hosted, driver) = Hosted::attach(ReactorOptions::new()).unwrap();
    let mut tx = AsyncInjector::open(&veth.left).unwrap();
    veth.down();
    let mut context = Context::from_waker(Waker::noop());
    let sent = pin!(tx.send(&Traffic::default().frame(0, 0))).as_mut().poll(&mut context);
    assert!(matches!(sent, Poll::Ready(Ok(()))), "committed: {sent:?}");
    let act = Act::new(poll_and_turn);
    let waker = Waker::from(Arc::clone(&act));
    assert!(pin!(tx.drain()).as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    TX.set(Some(tx));
    drop(driver);
    assert!(act.woken.load(Relaxed) > 0, "it learns that there is no driver");
    let mut tx = TX.take().unwrap();
    let after = pin!(tx.drain()).as_mut().poll(&mut context);
    assert!(matches!(after, Poll::Ready(Err(_))), "{after:?}");
    drop(hosted);
}

#[ringtap_lab::test]
fn a_slot_that_is_forgotten_is_free_and_frames_before_and_after_it_arrive() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let traffic = Traffic::default();
    let far = FarEnd::new(&veth, Tally::new(&traffic, 4));
    block_on(async {
        let mut tx = AsyncInjector::open(&veth.left).unwrap();
        tx.send(&traffic.frame(0, 0)).await.unwrap();
        std::mem::forget(tx.reserve(60).await.unwrap());
        std::mem::forget(tx.get_ref());
        assert_eq!(tx.stats().committed, 1);
        let before = Reactor::current().unwrap().stats().turns;
        time::sleep(Duration::from_millis(200)).await;
        far.wait_until(1);
        let turns = Reactor::current().unwrap().stats().turns - before;
        assert!(turns < 20, "nothing is looked at again and again: {turns} turns");
        std::mem::forget(tx.try_reserve(60).expect("the slot is free"));
        let frame = traffic.frame(1, 0);
        let mut slot = tx.try_reserve(frame.len()).expect("still");
        slot.data_mut().copy_from_slice(&frame);
        slot.send().unwrap();
        tx.send(&traffic.frame(2, 0)).await.unwrap();
        tx.flush().await.unwrap();
        std::mem::forget(tx.try_reserve(60).unwrap());
        let mut tx = tx.into_inner();
        tx.send(&traffic.frame(3, 0)).unwrap();
        tx.flush().unwrap();
    });
    far.wait_until(4);
    far.finish().assert_complete();
}

#[ringtap_lab::test]
fn a_waker_that_panics_keeps_no_other_from_being_woken() {
    if namespace().is_none() {
        return;
    }
    block_on(async {
        let bad = Act::new(|| std::panic::resume_unwind(Box::new("a waker's")));
        let good = Act::new(|| ());
        let sleeps = [(1, &bad), (2, &good)].map(|(ms, waker)| {
            let mut sleep = Box::pin(time::sleep(Duration::from_millis(ms)));
            let waker = Waker::from(Arc::clone(waker));
            assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            sleep
        });
        std::thread::sleep(Duration::from_millis(10));
        let reactor = Reactor::current().unwrap();
        let turn = std::panic::AssertUnwindSafe(|| reactor.turn());
        let panic = std::panic::catch_unwind(turn).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"a waker's"));
        assert_eq!((bad.woken.load(Relaxed), good.woken.load(Relaxed)), (1, 1));
        drop(sleeps);
        time::sleep(Duration::from_millis(1)).await; // the reactor goes on
    });
}

#[ringtap_lab::test]
fn an_idle_capture_does_not_count_as_waiting_for_a_disk() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let report = ringtap::doctor::examine(None);
    let mut findings = report.findings().iter();
    let idle = findings.find(|finding| finding.subject == "idle waits").expect("it is looked at");
    if idle.verdict != ringtap::doctor::Verdict::Works {
        return ringtap_lab::skip("this kernel's io_uring counts each wait as one for a disk");
    }
    block_on(async {
        let mut capture = AsyncCapture::open(&veth.right).unwrap();
        let blocked = std::thread::spawn(|| {
            // Other processes of the machine may wait for a disk now and then, but not all the time.
            (0..400).any(|_| {
                std::thread::sleep(Duration::from_millis(5));
                let stat = std::fs::read_to_string("/proc/stat").unwrap();
                stat.lines().any(|line| line == "procs_blocked 0")
            })
        });
        let watching = async {
            while !blocked.is_finished() {
                let _ = time::timeout(Duration::from_millis(700), capture.next_batch()).await;
            }
        };
        watching.await;
        assert!(blocked.join().unwrap(), "somebody waits for a disk all the time");
    });
}
