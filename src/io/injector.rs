//! What an async injector has beyond other senders: transmit timestamps, and figures.

use std::future::poll_fn;
use std::task::{Poll, ready};
use std::time::Duration;

use super::transmit::AsyncSender;
use crate::afpacket::Injector;
use crate::error::Result;
use crate::packet::TxTimestamp;
use crate::stats::InjectorStats;
use crate::time;

/// Sends frames on this thread's reactor.
///
/// Committing costs no system call: the reactor's next turn hands over everything that was committed
/// meanwhile, on every socket, in the one `io_uring_enter` in which it also waits. Frames that the
/// kernel does not take at once are kept at it in the background, also while nobody awaits anything
/// here; [`kick_now`](AsyncSender::kick_now) is for those who cannot wait for the turn.
///
/// ```no_run
/// # async fn f() -> ringtap::Result<()> {
/// let mut tx = ringtap::AsyncInjector::open("eth0")?;
/// tx.send(&[0xff; 60]).await?; // committed; waits only where the ring is full
/// tx.drain().await?; // sent
/// # Ok(())
/// # }
/// ```
pub type AsyncInjector = AsyncSender<Injector>;

impl AsyncSender<Injector> {
    /// Opens an injector with the default options on an interface of this network namespace.
    ///
    /// # Errors
    /// As [`InjectorBuilder::build`](crate::inject::InjectorBuilder::build) and [`new`](Self::new).
    pub fn open(interface: &str) -> Result<Self> {
        Self::new(Injector::open(interface)?)
    }

    /// Waits for the next transmit timestamp; needs
    /// [`tx_timestamps`](crate::inject::InjectorBuilder::tx_timestamps). Cancel-safe.
    ///
    /// # Errors
    /// As [`Injector::read_tx_timestamp`].
    pub async fn tx_timestamp(&mut self) -> Result<TxTimestamp> {
        poll_fn(|cx| {
            loop {
                let stamp = self.port().read_tx_timestamp()?;
                if let Some(stamp) = stamp {
                    return Poll::Ready(Ok(stamp));
                }
                ready!(self.poll_change(cx))?;
            }
        })
        .await
    }

    /// Hands over what was committed, waits for at most `limit` until it is sent, and closes the socket; see
    /// [`Injector::close`]. Not cancel-safe: if the future is dropped, the injector is dropped too.
    pub async fn close(mut self, limit: Duration) -> InjectorStats {
        // What keeps frames from being sent, they are counted for.
        let _ = time::timeout(limit, self.drain()).await;
        self.into_inner().close(Duration::ZERO)
    }

    /// What happened so far.
    pub fn stats(&self) -> InjectorStats {
        self.look(Injector::stats)
    }

    /// See [`Injector::drop_when_down`].
    pub(crate) fn drop_when_down(&mut self, on: bool) {
        self.port().drop_when_down(on);
    }

    /// Learns the interface's MTU anew; see [`Injector::learn_mtu`].
    pub(crate) fn learn_mtu(&mut self) {
        self.port().learn_mtu();
    }
}
