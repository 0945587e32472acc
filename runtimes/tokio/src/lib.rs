//! Two ways to use ringtap on tokio.
//!
//! **Sockets for any task**, `tokio::spawn` included: [`Capture`], [`Injector`] and the halves of an AF_XDP socket wait with
//! tokio's own readiness. They need nothing else:
//!
//! ```no_run
//! #[tokio::main]
//! async fn main() -> ringtap::Result<()> {
//!     let mut capture = ringtap_tokio::Capture::open("eth0")?;
//!     let counting = tokio::spawn(async move {
//!         let mut packets = 0;
//!         while let Some(batch) = capture.next_batch().await? {
//!             packets += batch.len();
//!         }
//!         Ok::<_, ringtap::Error>(packets)
//!     });
//!     println!("{} packets", counting.await.expect("it does not panic")?);
//!     Ok(())
//! }
//! ```
//!
//! **A reactor for a thread**, for everything else that ringtap has: bridges, flow streams, timers, sends that are handed over in
//! the background, shards. [`run`] attaches it to a future:
//!
//! ```no_run
//! #[tokio::main]
//! async fn main() -> ringtap::Result<()> {
//!     ringtap_tokio::run(async {
//!         let mut capture = ringtap::AsyncCapture::open("eth0")?;
//!         while let Some(batch) = capture.next_batch().await? {
//!             tokio::spawn(async move { println!("{} packets", batch.len()) }); // batches are `Send`
//!         }
//!         Ok(())
//!     })
//!     .await?
//! }
//! ```
//!
//! [`attach_in`] attaches it to a `LocalSet`, and [`attach`] to the one that is running.

#[cfg(doctest)]
mod documents;

mod attach;
mod receiver;
mod sender;

use std::os::fd::{AsFd, OwnedFd};

use ringtap::{Error, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

pub use self::attach::{Attached, Tokio, attach, attach_in, attach_with, run, run_with};
pub use self::receiver::{Batches, Receiver};
pub use self::sender::Sender;

/// Captures packets in any task.
///
/// ```
/// fn send<T: Send + 'static>() {}
/// send::<ringtap_tokio::Capture>();
/// send::<ringtap_tokio::Injector>();
/// ```
pub type Capture = Receiver<ringtap::Capture>;

/// Sends packets from any task.
pub type Injector = Sender<ringtap::Injector>;

/// The receiving half of an AF_XDP socket, in any task: `XdpSocket::into_split` of ringtap makes the halves.
#[cfg(feature = "af-xdp")]
pub type XdpReceiver = Receiver<ringtap::xdp::XdpReceiver>;

/// The sending half of an AF_XDP socket, in any task.
#[cfg(feature = "af-xdp")]
pub type XdpSender = Sender<ringtap::xdp::XdpSender>;

impl Capture {
    /// Opens a capture with the default options; for others, give a socket that ringtap's builder made to
    /// [`new`](Self::new).
    ///
    /// # Errors
    /// The errors of `ringtap::Capture::open` and [`new`](Self::new).
    ///
    /// # Panics
    /// As [`new`](Self::new) does.
    pub fn open(interface: &str) -> Result<Self> {
        Self::new(ringtap::Capture::open(interface)?)
    }
}

impl Injector {
    /// Opens an injector with the default options.
    ///
    /// # Errors
    /// The errors of `ringtap::Injector::open` and [`new`](Self::new).
    ///
    /// # Panics
    /// As [`new`](Self::new) does.
    pub fn open(interface: &str) -> Result<Self> {
        Self::new(ringtap::Injector::open(interface)?)
    }
}

/// Lets tokio watch a duplicate of a descriptor.
fn watch(fd: impl AsFd, interest: Interest) -> Result<AsyncFd<OwnedFd>> {
    if Handle::try_current().is_err() {
        return Err(Error::other(
            "no tokio runtime is entered: call this inside one, or inside `tokio_uring::start`",
        ));
    }
    let fd = fd.as_fd().try_clone_to_owned().map_err(Error::other)?;
    #[allow(deprecated, reason = "an OwnedFd stays open, as the successor demands")]
    AsyncFd::with_interest(fd, interest).map_err(Error::other)
}
