//! The suite of every runtime, on the built-in executor, with io_uring and without.

use std::future::Future;

use ringtap::reactor::{Hosted, ReactorOptions};
use ringtap::shard::{BuiltIn, Runtime};
use ringtap::{Error, Result, executor, time};
use ringtap_conformance::Host;
use ringtap_lab::seccomp;

#[derive(Debug, Clone, Copy, Default)]
struct Plain;

/// io_uring with nothing that came after what there must be.
#[cfg(feature = "testing")]
#[derive(Debug, Clone, Copy, Default)]
struct Oldest;

/// io_uring refused, as by a container's seccomp profile …
#[derive(Debug, Clone, Copy, Default)]
struct Forbidden;

/// … and as by a kernel without.
#[derive(Debug, Clone, Copy, Default)]
struct Missing;

fn without<F: Future>(errno: i32, core: Option<usize>, future: F) -> Result<F::Output> {
    seccomp::refuse(libc::SYS_io_uring_setup, errno);
    BuiltIn::default().run(core, async {
        let backend = ringtap::reactor::Reactor::current()?.backend()?;
        assert_eq!(backend, ringtap::reactor::Backend::Poll);
        Ok(future.await)
    })?
}

impl Runtime for Plain {
    fn run<F: Future>(&self, core: Option<usize>, future: F) -> Result<F::Output> {
        BuiltIn::default().run(core, future)
    }
}

#[cfg(feature = "testing")]
impl Runtime for Oldest {
    fn run<F: Future>(&self, core: Option<usize>, future: F) -> Result<F::Output> {
        let all = ringtap::reactor::IoUringFeatures::all();
        BuiltIn::new(ReactorOptions::new().without(all)).run(core, async {
            let used = ringtap::reactor::Reactor::current()?.io_uring_features();
            assert!(used.is_empty(), "{used:?}");
            Ok(future.await)
        })?
    }
}

impl Runtime for Forbidden {
    fn run<F: Future>(&self, core: Option<usize>, future: F) -> Result<F::Output> {
        without(libc::EPERM, core, future)
    }
}

impl Runtime for Missing {
    fn run<F: Future>(&self, core: Option<usize>, future: F) -> Result<F::Output> {
        without(libc::ENOSYS, core, future)
    }
}

macro_rules! hosts {
    ($($host:ident $module:ident,)*) => { $(
        impl Host for $host {
            fn spawn(future: impl Future<Output = ()> + 'static) {
                executor::spawn_local(future).detach();
            }

            /// It has none of its own: tasks that wake each other.
            async fn own_io(rounds: u32) {
                for round in 0..rounds {
                    let task = executor::spawn_local(async move {
                        time::sleep(std::time::Duration::from_micros(50)).await;
                        round
                    });
                    assert_eq!(task.await.unwrap(), round);
                }
            }

            fn attach_again() -> Option<Error> {
                Hosted::attach(ReactorOptions::default()).err()
            }
        }

        mod $module {
            use super::$host;

            ringtap_conformance::suite!($host);
        }
    )* };
}

#[cfg(feature = "testing")]
hosts! { Oldest with_the_oldest_io_uring, }
hosts! { Plain with_io_uring, Forbidden io_uring_forbidden, Missing io_uring_missing, }
