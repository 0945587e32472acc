//! A reactor on a thread that another runtime runs: it never sleeps, and tells its host when it has work.
//!
//! ```text
//!   kernel ──completion──► eventfd ──host's own readiness──► Watch::poll_edge ─┐
//!   a task registers, kicks, sets a timer ──► wake ───────────────────────────┤
//!                                                         drive: turn ◄────────┘
//! ```
//!
//! A turn submits with the eventfd masked, because requests that complete during this call are reaped right
//! after it. It then looks again, because work announced while the eventfd was masked has signalled nothing.

use std::future::{Future, poll_fn};
use std::os::fd::BorrowedFd;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::{fmt, io};

use super::host::Host;
use super::turn::{self, Inner};
use super::wake::wake_all;
use super::{Attached, Reactor};
use crate::error::{Error, Result, Step};
use crate::options::ReactorOptions;

/// The host runtime's part: reporting that the reactor's eventfd was signalled.
pub trait Watch {
    /// Returns ready if [`Hosted::event`] was signalled since this was last ready. Reporting too often is
    /// harmless, missing a signal is not. The eventfd need not be read if its edges are watched (`EPOLLET`).
    ///
    /// # Errors
    /// The error that keeps the runtime from watching; it ends [`Driver::drive`].
    fn poll_edge(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// A reactor attached to a thread that another runtime runs.
///
/// An adapter needs nothing but this and [`Watch`]: attach the reactor, give the runtime a descriptor to
/// watch, and spawn [`Driver::drive`] on it. Dropping it detaches the reactor: it cancels what is in flight,
/// waits a bounded time for the kernel to release it, fails all waiters, and ends the driver.
#[derive(Debug)]
pub struct Hosted {
    attached: Rc<Attached>,
}

/// The driver of a [`Hosted`] reactor; from [`Hosted::attach`]. Without it the reactor makes no progress;
/// dropping it before the reactor is detached fails all waiters.
#[must_use = "a reactor that is not driven stands still"]
pub struct Driver {
    shared: Weak<Inner>,
}

impl Hosted {
    /// Attaches a new reactor to this thread and returns it with its driver, which the runtime has to run
    /// there beside its other tasks.
    ///
    /// # Errors
    /// [`Error::AlreadyAttached`] if a reactor is attached, unless its driver has ended: that one is replaced.
    /// [`Error::IoUringRefused`], since `poll(2)` cannot wake a host; [`Error::Os`] if the process has no descriptor left.
    pub fn attach(options: ReactorOptions) -> Result<(Self, Driver)> {
        if Attached::current_alive().is_some() {
            return Err(Error::AlreadyAttached);
        }
        let shared = Rc::new(Inner::new(&options, Some(Host::new()?))?);
        shared.state.borrow().check()?;
        let driver = Driver { shared: Rc::downgrade(&shared) };
        Ok((Self { attached: Attached::install(shared) }, driver))
    }

    /// Returns the eventfd to watch. It is signalled when the reactor has work. A read blocks until then; no
    /// read is needed if edges are watched.
    pub fn event(&self) -> BorrowedFd<'_> {
        let host = self.shared().host.as_ref();
        host.expect("made with one").event()
    }

    /// Returns the reactor.
    pub fn reactor(&self) -> &Reactor {
        self.attached.reactor()
    }

    fn shared(&self) -> &Rc<Inner> {
        &self.attached.reactor().shared
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        // The driver ends when it finds no reactor, or goes on if an executor on this thread still holds it.
        if let Some(host) = &self.shared().host {
            host.wake_driver();
        }
    }
}

impl Driver {
    /// Turns the reactor like [`drive`](Self::drive) for as long as `future` takes, in the same task, and returns its output.
    /// After that nothing turns the reactor any more, so it ends here, as when it is detached: sockets that were dropped with
    /// the future are closed when this returns.
    ///
    /// # Errors
    /// After the future has ended, the error that had ended the reactor earlier, if one did: see [`drive`](Self::drive).
    pub async fn drive_beside<W: Watch, F: Future>(
        self,
        mut watch: W,
        future: F,
    ) -> Result<F::Output> {
        let mut future = pin!(Some(future));
        let mut ended = None;
        let output = poll_fn(|cx| {
            // The future first: the turn after it submits what it asks for.
            if let Some(future) = future.as_mut().as_pin_mut()
                && let Poll::Ready(output) = future.poll(cx)
            {
                return Poll::Ready(output);
            }
            if ended.is_none()
                && let Poll::Ready(end) = self.poll(cx, &mut watch)
            {
                ended = Some(end);
                self.give_up();
                cx.waker().wake_by_ref(); // its sockets have failed, which it sees when it is polled
            }
            Poll::Pending
        })
        .await;
        future.set(None);
        if let Some(shared) = self.shared.upgrade() {
            shared.shut_down();
        }
        ended.unwrap_or(Ok(())).map(|()| output)
    }

    /// Turns the reactor whenever `watch` or a task reports work. Completes when the reactor is detached.
    ///
    /// # Errors
    /// [`Error::Os`] if `watch` fails; all waiters then fail too. If the kernel ended the ring, the reason
    /// for that; all waiters on the ring have failed with it.
    pub async fn drive<W: Watch>(self, mut watch: W) -> Result<()> {
        poll_fn(|cx| self.poll(cx, &mut watch)).await
    }

    fn poll(&self, cx: &mut Context<'_>, watch: &mut impl Watch) -> Poll<Result<()>> {
        for _ in 0..turn::ROUNDS {
            let Some(shared) = self.shared.upgrade() else { return Poll::Ready(Ok(())) };
            let Some(host) = &shared.host else { return Poll::Ready(Ok(())) };
            // Set before the turn, so that requests made from here on wake this task again.
            let waker = cx.waker().clone();
            let replaced = host.driver.replace(Some(waker));
            drop(replaced);
            if shared.guess(host) {
                break; // turn only after the woken tasks have run
            }
            let has_more = shared.hosted_turn();
            let ended = shared.state.borrow().check();
            match ended {
                Ok(()) if has_more => break,
                Ok(()) => {}
                Err(Error::ReactorGone) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
            drop(shared);
            match watch.poll_edge(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => self.looked(),
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(Error::os(Step::WatchEvent, error)));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Driver {
    /// Wakes the tasks that let the host look at its own I/O, which it has done.
    fn looked(&self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let Some(host) = &shared.host else { return };
        let mut wakers = host.looked();
        drop(shared);
        wake_all(&mut wakers).go_on();
    }
}

impl Driver {
    /// Fails all waiters, as nothing turns the reactor any more.
    fn give_up(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.give_up();
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}
