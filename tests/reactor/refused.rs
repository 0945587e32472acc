//! io_uring forbidden, for real: in a child process whose seccomp filter refuses it.

use std::time::Duration;

use ringtap::capture::{CaptureBuilder, RingProfile};
use ringtap::error::Step;
use ringtap::executor::{Executor, block_on, spawn_local, yield_now};
use ringtap::reactor::{Backend, Hosted, Reactor, ReactorOptions};
use ringtap::shard::BuiltIn;
use ringtap::{AsyncCapture, AsyncInjector, Capture, Error, Shards, time};
use ringtap_lab::{Generator, Traffic, child as process, namespace, seccomp};

fn ring() -> CaptureBuilder {
    Capture::builder().block_size(1 << 16).block_count(64).block_timeout_ms(5)
}

fn in_child(test: &str, errno: i32) {
    if namespace().is_some() {
        process::run(module_path!(), test, &errno.to_string());
    }
}

#[ringtap_lab::test]
fn a_refused_setup_is_gone_without_or_is_an_error_that_names_the_remedy() {
    for errno in [libc::EPERM, libc::ENOSYS, libc::EAGAIN, libc::EOPNOTSUPP, libc::EMFILE] {
        in_child("setup_is_refused", errno);
    }
}

#[ringtap_lab::test]
fn an_enter_refused_later_is_gone_without_or_ends_every_wait() {
    for errno in [libc::EPERM, libc::ENOSYS, libc::EAGAIN, libc::EBUSY, libc::EINTR] {
        in_child("enter_is_refused", errno); // the last three say that it may go on, and it never does
    }
}

#[ringtap_lab::test]
fn without_registration_the_ring_works_and_is_closed() {
    in_child("register_is_refused", libc::EPERM);
    in_child("register_is_refused", libc::EINVAL);
}

#[ringtap_lab::test]
fn a_ring_whose_pages_cannot_be_moved_ends_with_its_batches_unharmed() {
    in_child("moving_pages_is_refused", libc::ENOMEM);
    in_child("moving_pages_is_refused", libc::EPERM);
}

/// What runs in a process of its own; as ordinary tests these do nothing.
mod child {
    use super::*;

    #[ringtap_lab::test]
    fn moving_pages_is_refused() {
        let Some(errno) = errno() else { return };
        let net = ringtap_lab::Namespace::enter().unwrap();
        let veth = net.veth();
        let traffic = Traffic::default();
        let frames = CaptureBuilder::profile(Capture::builder(), RingProfile::LowLatency);
        let mut captures =
            [ring(), frames].map(|builder| builder.interface(&veth.right).build().unwrap());
        Generator::new(&veth.left, &traffic).flood(1);
        let batches = captures
            .each_mut()
            .map(|capture| capture.next_batch_timeout(Duration::from_secs(2)).unwrap().unwrap());
        seccomp::refuse(libc::SYS_mremap, errno);
        drop(captures);
        for batch in batches {
            let packet = batch.iter().next().expect("one was sent");
            let mark = ringtap_lab::Mark::find(packet.data()).expect("a frame of ours");
            assert_eq!(packet.data(), traffic.arrives(mark.number, mark.stamp));
        }
    }

    /// So many packets, in however many batches: a block's time may be up in the middle.
    async fn receive(capture: &mut AsyncCapture, count: usize) {
        let mut received = 0;
        while received < count {
            received += capture.next_batch().await.unwrap().unwrap().len();
        }
        assert_eq!(received, count);
    }

    fn errno() -> Option<i32> {
        Some(process::value()?.parse().unwrap())
    }

    #[ringtap_lab::test]
    fn setup_is_refused() {
        let Some(errno) = errno() else { return };
        let net = ringtap_lab::Namespace::enter().unwrap();
        let veth = net.veth();
        seccomp::refuse(libc::SYS_io_uring_setup, errno);
        let capture = || ring().interface(&veth.right).build().unwrap();
        block_on(async {
            let backend = Reactor::current().unwrap().backend().unwrap();
            assert_eq!(backend, Backend::Poll);
            let mut capture = AsyncCapture::new(capture()).unwrap();
            Generator::new(&veth.left, &Traffic::default()).flood(3);
            receive(&mut capture, 3).await;
        });
        let executor = Executor::new(ReactorOptions::new().require_io_uring(true)).unwrap();
        executor.block_on(async {
            let error = AsyncCapture::new(capture()).unwrap_err();
            assert!(matches!(error, Error::IoUringRefused { .. }), "{error:?}");
            assert_eq!(error.raw_os_error(), Some(errno));
            let remedy = if errno == libc::EMFILE { "RLIMIT_NOFILE" } else { "seccomp" };
            assert!(error.to_string().contains(remedy), "{error}");
            // Timers, tasks and wake-ups from other threads go on.
            let task = spawn_local(async {
                time::sleep(Duration::from_millis(5)).await;
                1
            });
            assert_eq!(task.await.unwrap(), 1);
        });
        drop(executor);
        let options = ReactorOptions::new().require_io_uring(true);
        let shards = Shards::builder().interface(&veth.right).capture(ring());
        let started = shards.runtime(BuiltIn::new(options)).spawn(|_| async { Ok(()) });
        let error = started.unwrap_err();
        let Error::Shard { source, .. } = &error else { panic!("{error:?}") };
        assert!(matches!(**source, Error::IoUringRefused { .. }), "{error:?}");
        // A host cannot be woken without.
        let hosted = Hosted::attach(ReactorOptions::default()).unwrap_err();
        assert!(matches!(hosted, Error::IoUringRefused { .. }), "{hosted:?}");
    }

    #[ringtap_lab::test]
    fn register_is_refused() {
        let Some(errno) = errno() else { return };
        let net = ringtap_lab::Namespace::enter().unwrap();
        let veth = net.veth();
        let round = |number| {
            block_on(async {
                assert_eq!(Reactor::current().unwrap().backend().unwrap(), Backend::IoUring);
                let mut capture =
                    AsyncCapture::new(ring().interface(&veth.right).build().unwrap()).unwrap();
                Generator::new(&veth.left, &Traffic::default()).flood(number);
                receive(&mut capture, number as usize).await;
                capture.close().await;
            });
        };
        // More rings than a thread may have registered at once.
        (1..40).for_each(round);
        let rings = || {
            let open = std::fs::read_dir("/proc/self/fd").unwrap();
            let names = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
            names.filter(|name| name.to_string_lossy().contains("io_uring")).count()
        };
        assert_eq!(rings(), 0);
        seccomp::refuse(libc::SYS_io_uring_register, errno);
        round(3);
        assert_eq!(rings(), 0);
    }

    #[ringtap_lab::test]
    fn enter_is_refused() {
        let Some(errno) = errno() else { return };
        let net = ringtap_lab::Namespace::enter().unwrap();
        let veth = net.veth();
        let capture = || ring().interface(&veth.right).build().unwrap();
        let options = ReactorOptions::new();
        let executor = Executor::new(options.require_io_uring(true)).unwrap();
        let strict = executor.block_on(async {
            let mut capture = AsyncCapture::new(capture()).unwrap();
            let mut tx = AsyncInjector::open(&veth.left).unwrap();
            // A timer that was left to the ring when that is lost: something else has ended the sleep.
            let timer = spawn_local(time::sleep(Duration::from_millis(200)));
            let left = veth.left.clone();
            let sending = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(5));
                Generator::new(&left, &Traffic::default()).flood(1);
            });
            capture.next_batch().await.unwrap().unwrap();
            sending.join().unwrap();
            let waiting = spawn_local(async move { capture.next_batch().await });
            yield_now().await;
            seccomp::refuse(libc::SYS_io_uring_enter, errno);
            tx.send(&Traffic::default().frame(0, 0)).await.unwrap();
            let _ = tx.flush().await;
            let error = waiting.await.unwrap().unwrap_err();
            timer.await.unwrap();
            error
        });
        assert!(matches!(strict, Error::Os { step: Step::EnterRing, .. }), "{strict:?}");
        drop(executor);

        // A ring that can be made and not entered; one that went on without would be found so as well.
        block_on(async {
            let reactor = Reactor::current().unwrap();
            assert_eq!(reactor.backend().unwrap(), Backend::IoUring);
            time::sleep(Duration::from_millis(5)).await;
            let mut capture = AsyncCapture::new(capture()).unwrap();
            let mut tx = AsyncInjector::open(&veth.left).unwrap();
            for number in 0..3 {
                tx.send(&Traffic::default().frame(number, 0)).await.unwrap();
                tx.drain().await.unwrap();
                assert_eq!(capture.next_batch().await.unwrap().unwrap().len(), 1);
                assert_eq!(reactor.backend().unwrap(), Backend::Poll);
            }
            capture.close().await;
        });
    }
}
