//! Errors of reactors, executors and shards.

use std::future::{Future, pending};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use ringtap::capture::CaptureBuilder;
use ringtap::channel::ChannelCapture;
use ringtap::error::Step;
use ringtap::executor::{Executor, block_on, spawn_local};
use ringtap::reactor::{Driver, Hosted, Reactor, ReactorOptions, Watch};
use ringtap::shard::Cores;
use ringtap::{AsyncCapture, Capture, Error, Shards, time};
use ringtap_lab::{child as process, namespace, seccomp};

use crate::says;

fn ring(interface: &str) -> CaptureBuilder {
    Capture::builder().interface(interface).block_size(1 << 16).block_count(4)
}

#[ringtap_lab::test]
fn sockets_without_their_reactor() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let open = || ring(&veth.left).build().unwrap();
    let none = "no reactor on this thread; run inside `ringtap::executor::block_on`, in a shard, or attach one to \
                the runtime that polls this future";
    says!(AsyncCapture::new(open()), Error::NoReactor, "{none}");
    says!(Reactor::current(), Error::NoReactor, "{none}");
    let mut capture = block_on(async { AsyncCapture::new(open()).unwrap() });
    says!(
        block_on(capture.next_batch()),
        Error::ReactorGone,
        "the reactor of this thread or of this socket has ended, with its executor, its guard or the host task that \
         drove it; attach a new one, and take the socket back with `into_inner` to make a new async one there"
    );
    let (_hosted, _driver) = Hosted::attach(ReactorOptions::default()).unwrap();
    says!(
        Hosted::attach(ReactorOptions::default()),
        Error::AlreadyAttached,
        "this thread has a reactor already, which is running; attach one once, and keep the guard as long as sockets are used"
    );
}

#[ringtap_lab::test]
fn what_ends_too_early_or_is_too_much() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let open = || ring(&veth.left).build().unwrap();
    let task = std::cell::Cell::new(None);
    block_on(async { task.set(Some(spawn_local(pending::<()>()))) });
    says!(
        block_on(task.take().unwrap()),
        Error::TaskCancelled,
        "the executor ended before the awaited task was finished"
    );
    Executor::new(ReactorOptions::new().max_ops(2)).unwrap().block_on(async {
        let _kept = [open(), open()].map(|capture| AsyncCapture::new(capture).unwrap());
        says!(
            AsyncCapture::new(open()),
            Error::TooManyOps { limit: 2 },
            "all 2 op slots of this thread's reactor are taken; raise `ReactorOptions::max_ops` or use fewer sockets \
             a thread"
        );
    });
}

#[ringtap_lab::test]
fn a_child_of_a_fork() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    block_on(async {
        let mut capture = AsyncCapture::new(ring(&veth.left).build().unwrap()).unwrap();
        let _ = time::timeout(std::time::Duration::from_millis(5), capture.next_batch()).await;
        // SAFETY: the child touches only what a child may, and leaves by `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            Reactor::current().unwrap().turn();
            let mut wait = pin!(capture.next_batch());
            let polled = wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            let is_said = matches!(polled, Poll::Ready(Err(error @ Error::Forked)) if error.to_string()
                == "the process forked after its reactor was made, and an io_uring belongs to the process that \
                    made it; create reactors and async sockets after the fork");
            // SAFETY: ends the child without running its parent's destructors.
            unsafe { libc::_exit(if is_said { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: our own child.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0, "the child said something else");
    });
}

#[ringtap_lab::test]
fn shards() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let plan = || Shards::builder().capture(ring(&veth.left));
    let nothing = |_| async { Ok(()) };
    for (built, text) in [
        (plan().shards(0).spawn(nothing), "no shards: ask for one at least"),
        (
            plan().shards(257).spawn(nothing),
            "a fanout group has 1 to 256 members: ask for fewer shards",
        ),
        (
            plan().cores(Cores::First(5000)).spawn(nothing),
            "`Cores::First` asks for more cores than this process may use; see `nproc`",
        ),
        (
            plan().cores(Cores::List(vec![5000])).spawn(nothing),
            "`Cores::List` names a core that this process may not use; see `taskset -p`",
        ),
        (plan().cores(Cores::List(vec![])).spawn(nothing), "no core to run on; name at least one"),
    ] {
        says!(built, Error::ShardPlan(_), "shard plan: {text}");
    }
    let failing = plan().shards(1).spawn(|_| async { Err(Error::other("no such thing")) });
    says!(failing.unwrap().join(), Error::Shard { index: 0, .. }, "shard 0: no such thing");
    says!(Err::<(), _>(Error::other("mine")), Error::Other(_), "mine");
    let panicking = plan().shards(1).spawn(|shard| async move {
        assert!(shard.index() > 0, "on purpose");
        Ok(())
    });
    says!(
        panicking.unwrap().join(),
        Error::ShardPanicked { index: 0, .. },
        "shard 0 panicked: on purpose"
    );
    // A core that is taken away between the plan and the thread.
    let pinned = seccomp::without(libc::SYS_sched_setaffinity, None, libc::EINVAL, || {
        plan().shards(1).cores(Cores::First(1)).spawn(nothing).map(drop)
    });
    let error = pinned.expect_err("it cannot be pinned");
    let Error::Shard { index: 0, source } = error else { panic!("{error:?}") };
    let core = source.to_string();
    let core = core.split_once("(core ").unwrap().1.split_once(')').unwrap().0;
    says!(
        Err::<(), _>(*source),
        Error::Os { step: Step::PinThread, .. },
        "pinning a shard's thread to its core (core {core}): Invalid argument (os error 22); that core is offline or \
         outside this process's cpuset; see `taskset -p`"
    );
    // No thread to be had.
    let threads = seccomp::without(libc::SYS_clone3, None, libc::EAGAIN, || {
        ChannelCapture::builder(ring(&veth.left)).build().map(drop)
    });
    says!(
        threads,
        Error::Os { step: Step::SpawnThread, .. },
        "starting a thread: Resource temporarily unavailable (os error 11); raise RLIMIT_NPROC or the cgroup's \
         pids.max"
    );
}

/// A host that can watch nothing.
struct Broken;

impl Watch for Broken {
    fn poll_edge(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Err(std::io::Error::from_raw_os_error(libc::EMFILE)))
    }
}

#[ringtap_lab::test]
fn a_host_that_cannot_watch() {
    let (_hosted, driver): (Hosted, Driver) = Hosted::attach(ReactorOptions::default()).unwrap();
    let mut driver = pin!(driver.drive(Broken));
    let Poll::Ready(ended) = driver.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it ends with its watch");
    };
    says!(
        ended,
        Error::Os { step: Step::WatchEvent, .. },
        "watching the reactor's eventfd: Too many open files (os error 24); raise RLIMIT_NOFILE (`ulimit -n`)"
    );
}

#[ringtap_lab::test]
fn io_uring_that_is_refused() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    for (errno, said, remedy) in [
        (
            libc::EPERM,
            "Operation not permitted (os error 1)",
            "allow it with `sysctl kernel.io_uring_disabled=0`, or with a container seccomp profile that permits \
             io_uring_setup, io_uring_enter and io_uring_register",
        ),
        (
            libc::ENOSYS,
            "Function not implemented (os error 38)",
            "this kernel has no io_uring (5.13 or later is needed), or a seccomp profile hides it",
        ),
        (libc::EMFILE, "Too many open files (os error 24)", "raise RLIMIT_NOFILE (`ulimit -n`)"),
    ] {
        let refused = seccomp::without(libc::SYS_io_uring_setup, None, errno, || {
            Hosted::attach(ReactorOptions::default()).map(drop)
        });
        says!(refused, Error::IoUringRefused { .. }, "io_uring_setup: {said}; {remedy}");
    }
    let entered = seccomp::without(libc::SYS_io_uring_enter, None, libc::EPERM, || {
        let executor = Executor::new(ReactorOptions::new().require_io_uring(true)).unwrap();
        executor.block_on(async {
            let mut capture = AsyncCapture::new(ring(&veth.left).build().unwrap())?;
            capture.next_batch().await.map(drop)
        })
    });
    says!(
        entered,
        Error::Os { step: Step::EnterRing, .. },
        "entering the io_uring: Operation not permitted (os error 1); a seccomp profile refuses io_uring_enter; \
         permit it together with io_uring_setup"
    );
}

#[ringtap_lab::test]
fn a_socket_that_cannot_be_polled() {
    if namespace().is_some() {
        process::run(module_path!(), "not_pollable", "");
    }
}

/// What runs in a process of its own; as an ordinary test it does nothing.
#[ringtap_lab::test]
fn a_host_that_no_completion_signals() {
    process::run(module_path!(), "unsignalled", "");
}

mod child {
    use std::os::fd::{AsFd, AsRawFd, IntoRawFd};

    use super::*;

    #[ringtap_lab::test]
    fn unsignalled() {
        let Some(_) = process::value() else { return };
        // What is tried is a pipe, into which nothing comes.
        let attached = seccomp::without(libc::SYS_write, None, libc::EPERM, || {
            Hosted::attach(ReactorOptions::default()).map(drop)
        });
        says!(
            attached,
            Error::HostUnsignalled,
            "this kernel's io_uring loses the signals that another runtime waits for; the built-in executor works, and \
             so may a newer kernel"
        );
    }

    #[ringtap_lab::test]
    fn not_pollable() {
        let Some(_) = process::value() else { return };
        let net = ringtap_lab::Namespace::enter().unwrap();
        let veth = net.veth();
        block_on(async {
            let mut capture = AsyncCapture::new(ring(&veth.left).build().unwrap()).unwrap();
            let descriptor = capture.get_ref().as_fd().as_raw_fd();
            // SAFETY: nobody else is in this process to be given that number before it is a descriptor again.
            unsafe { libc::close(descriptor) };
            let outcome = capture.next_batch().await;
            let other = std::fs::File::open("/dev/null").unwrap().into_raw_fd();
            // SAFETY: makes the number a descriptor again, if it is not yet, which its owner may close.
            unsafe { libc::dup2(other, descriptor) };
            says!(
                outcome,
                Error::Os { step: Step::PollSocket, .. },
                "polling the socket through io_uring: Bad file descriptor (os error 9)"
            );
        });
    }
}
