//! The hosts, and how each runs a future.

use std::cell::RefCell;
use std::future::Future;

use futures_executor::{LocalPool, LocalSpawner};
use futures_util::task::LocalSpawnExt;
use ringtap::Result;
use ringtap::reactor::{Hosted, ReactorOptions, ThreadWatch};
use ringtap::shard::{BuiltIn, Runtime};
use ringtap_compio::Compio;
use ringtap_glommio::Glommio;
use ringtap_monoio::Monoio;
use ringtap_smol::Smol;
use ringtap_tokio::Tokio;
use ringtap_tokio_uring::TokioUring;
use tokio::task::spawn_local;

/// A runtime, and what waits for packets on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// No runtime: a blocking capture.
    Blocking,
    BuiltIn,
    Tokio,
    /// [`ringtap_tokio::Capture`], in a task that may change threads.
    AnyTask,
    TokioUring,
    Smol,
    Glommio,
    Compio,
    Monoio,
    /// An executor without I/O, whose reactor a thread watches.
    NoIo,
}

impl Way {
    /// Those that host a capture.
    pub(crate) const HOSTS: [Self; 9] = [
        Self::BuiltIn,
        Self::Tokio,
        Self::AnyTask,
        Self::TokioUring,
        Self::Smol,
        Self::Glommio,
        Self::Compio,
        Self::Monoio,
        Self::NoIo,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Blocking => "`poll(2)`, blocking",
            Self::BuiltIn => "built-in executor",
            Self::Tokio => "tokio",
            Self::AnyTask => "tokio, in any task",
            Self::TokioUring => "tokio-uring",
            Self::Smol => "smol",
            Self::Glommio => "glommio",
            Self::Compio => "compio",
            Self::Monoio => "monoio",
            Self::NoIo => "no I/O: `LocalPool`",
        }
    }

    /// The folder of its adapter and the file that is its seam; none where it is in the core.
    pub(crate) fn adapter(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Blocking | Self::BuiltIn | Self::NoIo => None,
            Self::Tokio => Some(("tokio", "lib.rs")),
            Self::AnyTask => Some(("tokio", "receiver.rs")),
            Self::TokioUring => Some(("tokio-uring", "lib.rs")),
            Self::Smol => Some(("smol", "lib.rs")),
            Self::Glommio => Some(("glommio", "lib.rs")),
            Self::Compio => Some(("compio", "lib.rs")),
            Self::Monoio => Some(("monoio", "lib.rs")),
        }
    }

    /// The package, the test binary and the tests that show its behaviours.
    pub(crate) fn conformance(self) -> [&'static str; 3] {
        match self {
            Self::Blocking | Self::BuiltIn => ["ringtap", "reactor", "conformance::with_io_uring"],
            Self::NoIo => ["ringtap", "reactor", "conformance::watched_by_a_thread"],
            Self::Tokio => ["ringtap-tokio", "conformance", "plain::"],
            Self::AnyTask => ["ringtap-tokio", "any_task", ""],
            Self::TokioUring => ["ringtap-tokio-uring", "conformance", ""],
            Self::Smol => ["ringtap-smol", "conformance", ""],
            Self::Glommio => ["ringtap-glommio", "conformance", ""],
            Self::Compio => ["ringtap-compio", "conformance", ""],
            Self::Monoio => ["ringtap-monoio", "conformance", ""],
        }
    }

    /// Runs a future there, in a task of its own, as applications do: where tokio's outermost future is woken, tokio asks
    /// the kernel once more before it sleeps.
    pub(crate) fn run<T: 'static>(self, future: impl Future<Output = T> + 'static) -> Result<T> {
        match self {
            Self::Blocking | Self::NoIo => watched(future),
            Self::BuiltIn => BuiltIn::default().run(None, future),
            Self::Tokio => Tokio::default().run(None, local(future)),
            Self::AnyTask => Tokio::default().run(None, future), // which spawns
            Self::TokioUring => TokioUring::default().run(None, local(future)),
            Self::Smol => {
                Smol::default().run(None, async { ringtap_smol::spawn_local(future).await })
            }
            Self::Glommio => {
                Glommio::default().run(None, async { glommio::spawn_local(future).await })
            }
            Self::Compio => Compio::default()
                .run(None, async { compio::runtime::spawn(future).await.expect("no panic") }),
            Self::Monoio => Monoio::default().run(None, async { monoio::spawn(future).await }),
        }
    }
}

async fn local<T: 'static>(future: impl Future<Output = T> + 'static) -> T {
    spawn_local(future).await.expect("no panic")
}

thread_local! {
    static SPAWNER: RefCell<Option<LocalSpawner>> = const { RefCell::new(None) };
}

/// Spawns a task of [`Way::NoIo`].
pub(crate) fn beside(future: impl Future<Output = ()> + 'static) {
    SPAWNER.with_borrow(|spawner| {
        spawner.as_ref().expect("it runs").spawn_local(future).expect("it runs");
    });
}

/// Runs a future on an executor that cannot wait for a descriptor: a thread watches the reactor.
fn watched<T>(future: impl Future<Output = T>) -> Result<T> {
    let mut pool = LocalPool::new();
    SPAWNER.set(Some(pool.spawner()));
    let (hosted, driver) = Hosted::attach(ReactorOptions::default())?;
    let driving = driver.drive(ThreadWatch::new(&hosted)?);
    beside(async move { driving.await.expect("it is driven to its end") });
    let output = pool.run_until(future);
    drop(hosted);
    Ok(output)
}
