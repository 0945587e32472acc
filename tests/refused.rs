//! io_uring forbidden, for real: in a child process whose seccomp filter refuses it.

use std::time::Duration;

use ringtap::executor::{block_on, spawn_local};
use ringtap::{AsyncCapture, Capture, CaptureBuilder, Error, Shards, Step, time};
use ringtap_lab::{Generator, Traffic, child as process, namespace};

ringtap_lab::test_binary!();

fn ring() -> CaptureBuilder {
    Capture::builder().block_size(1 << 16).block_count(8).block_timeout_ms(5)
}

fn in_child(test: &str, errno: i32) {
    if namespace().is_some() {
        process::run(test, &errno.to_string());
    }
}

#[test]
fn a_refused_setup_is_an_error_that_names_the_remedy_and_the_rest_works() {
    in_child("setup_is_refused", libc::EPERM);
    in_child("setup_is_refused", libc::ENOSYS);
}

#[test]
fn an_enter_refused_later_ends_every_wait_and_does_not_loop() {
    in_child("enter_is_refused", libc::EPERM);
}

/// What runs in a process of its own; as ordinary tests these do nothing.
mod child {
    use super::*;

    fn errno() -> Option<i32> {
        Some(process::value()?.parse().unwrap())
    }

    #[test]
    fn setup_is_refused() {
        let Some(errno) = errno() else { return };
        let net = ringtap_lab::Namespace::enter().unwrap();
        let veth = net.veth();
        seccomp::refuse(libc::SYS_io_uring_setup, errno);
        block_on(async {
            let mut capture = ring().interface(&veth.right).build().unwrap();
            Generator::new(&veth.left, &Traffic::default()).flood(3);
            let batch = capture.next_batch_timeout(Duration::from_secs(5)).unwrap();
            assert!(!batch.unwrap().is_empty(), "blocking capture needs no io_uring");
            let error = AsyncCapture::new(capture).unwrap_err();
            assert!(matches!(error, Error::IoUringRefused { .. }), "{error:?}");
            assert_eq!(error.raw_os_error(), Some(errno));
            assert!(error.to_string().contains("seccomp"), "{error}");
            // Timers, tasks and wake-ups from other threads go on.
            let task = spawn_local(async {
                time::sleep(Duration::from_millis(5)).await;
                1
            });
            assert_eq!(task.await.unwrap(), 1);
        });
        let error = Shards::builder()
            .interface(&veth.right)
            .capture(ring())
            .spawn(|_| async { Ok(()) })
            .unwrap_err();
        let Error::Shard { source, .. } = &error else { panic!("{error:?}") };
        assert!(matches!(**source, Error::IoUringRefused { .. }), "{error:?}");
    }

    #[test]
    fn enter_is_refused() {
        let Some(errno) = errno() else { return };
        let net = ringtap_lab::Namespace::enter().unwrap();
        let veth = net.veth();
        block_on(async {
            let capture = ring().interface(&veth.right).build().unwrap();
            let mut capture = AsyncCapture::new(capture).unwrap();
            let waiting = spawn_local(async move { capture.next_batch().await });
            time::sleep(Duration::from_millis(5)).await;
            seccomp::refuse(libc::SYS_io_uring_enter, errno);
            let error = waiting.await.unwrap().unwrap_err();
            assert!(matches!(error, Error::Os { step: Step::EnterRing, .. }), "{error:?}");
            time::sleep(Duration::from_millis(5)).await;
            let capture = ring().interface(&veth.right).build().unwrap();
            assert!(AsyncCapture::new(capture).is_err(), "and so does a new one");
        });
    }
}

mod seccomp {
    /// From now on, this thread's and its children's calls of one kind are refused.
    pub(super) fn refuse(call: i64, errno: i32) {
        let insn = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let (load, equal, ret) = (0x20, 0x15, 0x06);
        let mut program = [
            insn(load, 0, 0, 0), // seccomp_data.nr
            insn(equal, 0, 1, call as u32),
            insn(ret, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
            insn(ret, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
        // SAFETY: no memory involved.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
        // SAFETY: the program is readable; the kernel copies it.
        let set = unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        assert_eq!(set, 0);
    }
}
