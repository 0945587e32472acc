//! The built-in executor: tasks, wakers, timers, and its end.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use ringtap::executor::{Executor, block_on, spawn_local, yield_now};
use ringtap::reactor::{Backend, Reactor, ReactorOptions};
use ringtap::{Error, time};

/// Is ready when it was woken from outside.
#[derive(Clone, Default)]
struct Gate(Arc<(AtomicBool, Mutex<Option<Waker>>)>);

impl Gate {
    fn open(&self) {
        self.0.0.store(true, Ordering::SeqCst);
        if let Some(waker) = self.0.1.lock().unwrap().take() {
            waker.wake();
        }
    }
}

impl Future for Gate {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        *self.0.1.lock().unwrap() = Some(cx.waker().clone());
        if self.0.0.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[ringtap_lab::test]
fn a_parked_executor_is_woken_from_another_thread() {
    for _ in 0..200 {
        let gate = Gate::default();
        let opener = gate.clone();
        let thread = std::thread::spawn(move || opener.open());
        block_on(gate);
        thread.join().unwrap();
    }
}

#[ringtap_lab::test]
fn tasks_run_alongside_and_give_their_values() {
    let sum = block_on(async {
        let tasks = (0..100).map(|number| {
            spawn_local(async move {
                yield_now().await;
                number
            })
        });
        join_all(tasks.collect::<Vec<_>>()).await.into_iter().map(Result::unwrap).sum::<u32>()
    });
    assert_eq!(sum, 4950);
}

#[ringtap_lab::test]
fn a_task_that_is_always_ready_starves_neither_tasks_nor_timers() {
    block_on(async {
        let stop = Rc::new(Cell::new(false));
        let stopped = Rc::clone(&stop);
        let busy = spawn_local(async move {
            while !stopped.get() {
                yield_now().await;
            }
        });
        let other = spawn_local(async { 7 });
        time::sleep(Duration::from_millis(5)).await;
        assert_eq!(other.await.unwrap(), 7);
        stop.set(true);
        busy.await.unwrap();
    });
}

#[ringtap_lab::test]
fn dropping_a_handle_cancels_the_task_and_detaching_does_not() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let note = |name: &'static str| {
        let log = Rc::clone(&log);
        async move {
            time::sleep(Duration::from_millis(5)).await;
            log.borrow_mut().push(name);
        }
    };
    block_on(async {
        drop(spawn_local(note("dropped")));
        spawn_local(note("detached")).detach();
        let kept = spawn_local(note("kept"));
        assert!(!kept.is_finished());
        kept.await.unwrap();
        time::sleep(Duration::from_millis(5)).await;
    });
    let mut log = log.take();
    log.sort_unstable();
    assert_eq!(log, ["detached", "kept"]);
}

#[ringtap_lab::test]
fn a_task_may_drop_its_own_handle() {
    block_on(async {
        let own = Rc::new(RefCell::new(None));
        let inside = Rc::clone(&own);
        let went_on = Rc::new(Cell::new(false));
        let witness = Rc::clone(&went_on);
        *own.borrow_mut() = Some(spawn_local(async move {
            drop(inside.borrow_mut().take());
            yield_now().await;
            witness.set(true);
        }));
        time::sleep(Duration::from_millis(5)).await;
        assert!(!went_on.get(), "it ended where it next yielded");
        assert_eq!(Rc::strong_count(&went_on), 1, "and was dropped");
    });
}

#[ringtap_lab::test]
fn unfinished_tasks_are_dropped_with_the_executor_and_their_handles_say_so() {
    let alive = Rc::new(());
    let witness = Rc::clone(&alive);
    let handle = Cell::new(None);
    block_on(async {
        handle.set(Some(spawn_local(async move {
            let _held = witness;
            std::future::pending::<()>().await;
        })));
    });
    let handle = handle.take().unwrap();
    assert_eq!(Rc::strong_count(&alive), 1);
    assert!(matches!(block_on(handle), Err(Error::TaskCancelled)));
}

#[ringtap_lab::test]
fn a_task_whose_destructor_spawns_does_not_keep_the_executor_alive() {
    struct Spawner;
    impl Drop for Spawner {
        fn drop(&mut self) {
            spawn_local(async {}).detach();
        }
    }
    block_on(async {
        let spawner = Spawner;
        spawn_local(async move {
            let _spawner = spawner;
            std::future::pending::<()>().await;
        })
        .detach();
        yield_now().await;
    });
}

#[ringtap_lab::test(should_panic = "deliberate")]
fn the_panic_of_a_task_is_the_panic_of_its_executor() {
    block_on(async {
        spawn_local(async { panic!("deliberate") }).detach();
        time::sleep(Duration::from_secs(5)).await;
    });
}

#[ringtap_lab::test]
fn executors_leave_no_descriptor_behind_whatever_was_queued_at_their_end() {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let late = Gate::default();
    let before = descriptors();
    for _ in 0..500 {
        let waiting = late.clone();
        block_on(async {
            spawn_local(async {}).detach();
            spawn_local(waiting).detach();
        });
    }
    late.open();
    // Other tests of this process have a handful open at any time.
    assert!(descriptors() < before + 100, "{} then, {} now", before, descriptors());
}

#[ringtap_lab::test]
fn a_sleep_that_outlives_its_reactor_goes_on_with_the_next() {
    let mut sleep = Box::pin(time::sleep(Duration::from_millis(20)));
    block_on(poll_fn(|cx| {
        assert!(sleep.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    }));
    block_on(sleep);
}

#[ringtap_lab::test]
fn executors_of_one_thread_share_a_reactor_that_ends_with_the_last() {
    let first = Executor::new(ReactorOptions::default()).unwrap();
    let second = Executor::new(ReactorOptions::default()).unwrap();
    drop(first);
    second.block_on(time::sleep(Duration::from_millis(2)));
    drop(second);
    assert!(Reactor::current().is_err());
}

#[ringtap_lab::test(should_panic = "does not run inside itself")]
fn an_executor_inside_itself_is_refused() {
    let executor = Rc::new(Executor::new(ReactorOptions::default()).unwrap());
    let inner = Rc::clone(&executor);
    executor.block_on(async move { inner.block_on(async {}) });
}

#[ringtap_lab::test]
fn a_panic_forgets_no_other_task() {
    let executor = Executor::new(ReactorOptions::default()).unwrap();
    let ran = Rc::new(Cell::new(false));
    let witness = Rc::clone(&ran);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        executor.block_on(async {
            spawn_local(async { panic!("deliberate") }).detach();
            spawn_local(async move { witness.set(true) }).detach();
            std::future::pending::<()>().await;
        });
    }));
    assert!(panicked.is_err() && !ran.get());
    executor.block_on(yield_now());
    assert!(ran.get());
}

#[ringtap_lab::test]
fn rings_that_are_being_freed_take_none_from_the_next() {
    // The memory of a closed ring counts against RLIMIT_MEMLOCK until the kernel's worker frees it.
    for _ in 0..2_000 {
        let executor = Executor::new(ReactorOptions::default()).unwrap();
        executor.block_on(async {
            let reactor = Reactor::current().unwrap();
            assert_eq!(reactor.backend().unwrap(), Backend::IoUring);
        });
    }
}

#[ringtap_lab::test]
fn waking_a_task_of_the_same_thread_costs_no_system_call() {
    block_on(async {
        let reactor = Reactor::current().unwrap();
        yield_now().await;
        let before = reactor.stats();
        for _ in 0..1_000 {
            yield_now().await;
        }
        assert_eq!(reactor.stats().delta_since(&before).enters, 0);
    });
}

#[ringtap_lab::test]
fn one_executor_runs_one_future_after_another_and_keeps_its_tasks() {
    let executor = Executor::new(ReactorOptions::default()).unwrap();
    let gate = Gate::default();
    let waiting = gate.clone();
    let task = Cell::new(None);
    executor.block_on(async {
        task.set(Some(spawn_local(async move {
            waiting.await;
            5
        })));
        yield_now().await;
    });
    let task = task.take().unwrap();
    gate.open();
    assert_eq!(executor.block_on(task).unwrap(), 5);
}

#[ringtap_lab::test]
fn an_inner_block_on_shares_the_reactor_and_the_outer_tasks_wait() {
    block_on(async {
        let ran = Rc::new(Cell::new(false));
        let witness = Rc::clone(&ran);
        let task = spawn_local(async move { witness.set(true) });
        let outer = Reactor::current().unwrap().stats();
        block_on(async {
            time::sleep(Duration::from_millis(2)).await;
            assert!(Reactor::current().unwrap().stats().turns > outer.turns);
        });
        assert!(!ran.get(), "the outer task waited");
        task.await.unwrap();
    });
    assert!(matches!(Reactor::current(), Err(Error::NoReactor)));
}

#[ringtap_lab::test]
fn sleeps_end_in_the_order_of_their_deadlines_and_never_early() {
    let order = Rc::new(RefCell::new(Vec::new()));
    block_on(async {
        let start = Instant::now();
        let tasks: Vec<_> = [30_u64, 10, 20, 0]
            .into_iter()
            .map(|ms| {
                let order = Rc::clone(&order);
                spawn_local(async move {
                    time::sleep(Duration::from_millis(ms)).await;
                    assert!(start.elapsed() >= Duration::from_millis(ms));
                    order.borrow_mut().push(ms);
                })
            })
            .collect();
        join_all(tasks).await;
    });
    assert_eq!(order.take(), [0, 10, 20, 30]);
}

#[ringtap_lab::test]
fn a_timeout_ends_what_is_late_and_lets_through_what_is_not() {
    block_on(async {
        let late = time::timeout(Duration::from_millis(2), std::future::pending::<()>()).await;
        assert_eq!(late, Err(time::Elapsed));
        assert_eq!(time::timeout(Duration::from_secs(60), async { 3 }).await, Ok(3));
        assert_eq!(time::timeout(Duration::ZERO, async { 3 }).await, Ok(3));
        assert_eq!(time::timeout(Duration::MAX, async { 3 }).await, Ok(3));
    });
}

#[ringtap_lab::test]
fn an_interval_ticks_on_its_grid_and_skips_what_was_missed() {
    block_on(async {
        let start = Instant::now();
        let period = Duration::from_millis(4);
        let mut ticks = time::interval(period);
        let first = ticks.tick().await;
        assert!(first >= start + period);
        std::thread::sleep(3 * period);
        let second = ticks.tick().await;
        let third = ticks.next().await.unwrap();
        for tick in [second, third] {
            let since = (tick - first).as_nanos();
            assert_eq!(since % period.as_nanos(), 0, "on the grid");
        }
        assert!(third > second, "a missed tick comes once");
    });
}

#[ringtap_lab::test]
fn timers_near_and_far_end_while_wake_ups_never_stop() {
    let start = Instant::now();
    let waker = Arc::new(Mutex::new(None::<Waker>));
    let (known, over) = (Arc::clone(&waker), Arc::new(AtomicBool::new(false)));
    let ended = Arc::clone(&over);
    let waking = std::thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            let waker = known.lock().unwrap().take();
            waker.iter().for_each(Waker::wake_by_ref);
            std::thread::sleep(Duration::from_micros(50));
        }
    });
    block_on(async {
        let woken = spawn_local(poll_fn(move |cx| -> Poll<()> {
            assert!(start.elapsed() < Duration::from_secs(20), "a timer was lost");
            *waker.lock().unwrap() = Some(cx.waker().clone());
            Poll::Pending
        }));
        let slept = |millis| async move {
            time::sleep(Duration::from_millis(millis)).await;
            assert!(start.elapsed() >= Duration::from_millis(millis));
        };
        let far = [60, 30, 90].map(|millis| spawn_local(slept(millis)));
        for millis in [1, 10, 3, 1, 20, 5] {
            // Each before those that are set already; and one that is taken back.
            let limit = Duration::from_millis(millis);
            time::timeout(limit, std::future::pending::<()>()).await.unwrap_err();
            time::timeout(Duration::from_millis(15), yield_now()).await.unwrap();
        }
        for timer in far {
            timer.await.unwrap();
        }
        drop(woken);
    });
    over.store(true, Ordering::Relaxed);
    waking.join().unwrap();
}

#[ringtap_lab::test]
fn a_sleep_that_moved_to_another_task_wakes_that_one() {
    block_on(async {
        let mut sleep = Box::pin(time::sleep(Duration::from_millis(5)));
        poll_fn(|cx| {
            let _ = sleep.as_mut().poll(cx);
            Poll::Ready(())
        })
        .await;
        spawn_local(sleep).await.unwrap();
    });
}

#[ringtap_lab::test]
fn a_million_timers_made_and_dropped_leave_none_behind() {
    block_on(async {
        for _ in 0..1_000_000 {
            let mut sleep = std::pin::pin!(time::sleep(Duration::from_secs(3600)));
            let polled = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
        }
        time::sleep(Duration::from_millis(1)).await;
    });
}
