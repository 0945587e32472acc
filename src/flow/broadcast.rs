//! Broadcasting of one stream to several subscribers.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_broadcast::{InactiveReceiver, Receiver, RecvError, Sender, TrySendError};
use futures_core::Stream;

use crate::error::Result;

/// Items passed on per poll before other tasks get a turn.
const BUDGET: usize = 256;

/// Broadcasts each item of a stream to all subscribers; from [`FlowExt::broadcast`](super::FlowExt::broadcast).
/// It is a future that must be polled, and it completes when the stream ends.
#[must_use = "nothing is passed on unless it is polled"]
pub struct Broadcast<St, T> {
    stream: St,
    sender: Sender<Arc<T>>,
    receiver: InactiveReceiver<Arc<T>>,
}

impl<St, T> Broadcast<St, T> {
    pub(super) fn new(stream: St, buffer: usize) -> Self {
        let (mut sender, receiver) = async_broadcast::broadcast(buffer.max(1));
        sender.set_overflow(true);
        sender.set_await_active(false);
        Self { stream, sender, receiver: receiver.deactivate() }
    }

    /// Returns a subscription to all items from now on.
    pub fn subscribe(&self) -> Subscription<T> {
        Subscription(Box::pin(self.receiver.activate_cloned()))
    }

    /// Returns the inner stream.
    pub fn get_ref(&self) -> &St {
        &self.stream
    }

    /// Returns the inner stream, to stop it.
    pub fn get_mut(&mut self) -> &mut St {
        &mut self.stream
    }
}

impl<St: Stream<Item = Result<T>> + Unpin, T> Future for Broadcast<St, T> {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        for _ in 0..BUDGET {
            match std::task::ready!(Pin::new(&mut this.stream).poll_next(cx)) {
                None => {
                    this.sender.close();
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => {
                    this.sender.close();
                    return Poll::Ready(Err(error));
                }
                Some(Ok(item)) => match this.sender.try_broadcast(Arc::new(item)) {
                    // A slow subscriber gets `Lagged`; having no subscriber is not an error.
                    Ok(_) | Err(TrySendError::Inactive(_) | TrySendError::Full(_)) => {}
                    Err(TrySendError::Closed(_)) => return Poll::Ready(Ok(())),
                },
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<St, T> Unpin for Broadcast<St, T> {}

impl<St: fmt::Debug, T> fmt::Debug for Broadcast<St, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcast").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// A subscription to a [`Broadcast`], usable on any thread. A clone receives the same items from the point of
/// cloning on.
pub struct Subscription<T>(Pin<Box<Receiver<Arc<T>>>>);

/// The error of a subscriber that was too slow, with the number of items lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged(pub u64);

impl fmt::Display for Lagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} events are gone: the subscriber was too slow, or the buffer too small",
            self.0
        )
    }
}

impl std::error::Error for Lagged {}

impl<T> Stream for Subscription<T> {
    type Item = Result<Arc<T>, Lagged>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_recv(cx).map(|received| match received {
            Some(Ok(item)) => Some(Ok(item)),
            Some(Err(RecvError::Overflowed(lost))) => Some(Err(Lagged(lost))),
            Some(Err(RecvError::Closed)) | None => None,
        })
    }
}

impl<T> Clone for Subscription<T> {
    fn clone(&self) -> Self {
        Self(Box::pin(self.0.as_ref().get_ref().clone()))
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("waiting", &self.0.len()).finish_non_exhaustive()
    }
}
