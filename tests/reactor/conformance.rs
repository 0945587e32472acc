//! The suite of every runtime: on the built-in executor, with io_uring and without, and on an executor without I/O.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use futures_executor::{LocalPool, LocalSpawner};
use futures_util::task::LocalSpawnExt;
use ringtap::reactor::{Hosted, ReactorOptions, ThreadWatch};
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

/// An executor that cannot wait for a descriptor: a thread watches the reactor for it.
#[derive(Debug, Clone, Copy, Default)]
struct Watched;

thread_local! {
    static SPAWNER: RefCell<Option<LocalSpawner>> = const { RefCell::new(None) };
}

fn spawn_beside(future: impl Future<Output = ()> + 'static) {
    SPAWNER.with_borrow(|spawner| spawner.as_ref().unwrap().spawn_local(future).unwrap());
}

impl Runtime for Watched {
    fn run<F: Future>(&self, _: Option<usize>, future: F) -> Result<F::Output> {
        let mut pool = LocalPool::new();
        SPAWNER.set(Some(pool.spawner()));
        let (hosted, driver) = Hosted::attach(ReactorOptions::default())?;
        let driving = driver.drive(ThreadWatch::new(&hosted)?);
        spawn_beside(async move { driving.await.unwrap() });
        let output = pool.run_until(future);
        drop(hosted);
        Ok(output)
    }
}

fn spawn_built_in(future: impl Future<Output = ()> + 'static) {
    executor::spawn_local(future).detach();
}

macro_rules! hosts {
    ($($host:ident $module:ident $spawn:expr;)*) => { $(
        impl Host for $host {
            fn spawn(future: impl Future<Output = ()> + 'static) {
                $spawn(future);
            }

            /// It has none of its own: tasks that wait for each other.
            async fn own_io(rounds: u32) {
                let latest = Rc::new(Cell::new(0));
                for round in 1..=rounds {
                    let tell = Rc::clone(&latest);
                    $spawn(async move {
                        time::sleep(Duration::from_micros(50)).await;
                        tell.set(round);
                    });
                    while latest.get() < round {
                        time::sleep(Duration::from_micros(20)).await;
                    }
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
hosts! { Oldest with_the_oldest_io_uring spawn_built_in; }
hosts! {
    Plain with_io_uring spawn_built_in;
    Forbidden io_uring_forbidden spawn_built_in;
    Missing io_uring_missing spawn_built_in;
    Watched watched_by_a_thread spawn_beside;
}
