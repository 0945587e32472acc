//! A reactor on a thread that another runtime runs: it never sleeps, its host is told when it has work.
//!
//! ```text
//!   kernel ──completion──► eventfd ──host's own readiness──► Watch::poll_edge ─┐
//!   a task registers, kicks, sets a timer ──► wake ───────────────────────────┤
//!                                                         drive: turn ◄────────┘
//! ```
//!
//! The turn submits with the eventfd masked, since what completes in this very call is reaped right
//! after; and looks again afterwards, since work that was announced while it was masked has signalled
//! nobody.

use std::future::poll_fn;
use std::os::fd::BorrowedFd;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::{fmt, io};

use super::host::Host;
use super::turn::{self, Inner};
use super::{Attached, Reactor};
use crate::error::{Error, Result, Step};
use crate::options::ReactorOptions;

/// What a runtime must do for its guest: say when the reactor's eventfd was signalled.
pub trait Watch {
    /// Ready when [`Hosted::event`] was signalled since this was last ready; too often does no harm, too
    /// rarely does. Nobody needs to read the eventfd where its edges are watched (`EPOLLET`).
    ///
    /// # Errors
    /// What keeps the runtime from watching: [`Driver`] ends with it.
    fn poll_edge(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// A reactor attached to a thread that another runtime runs.
///
/// This and [`Watch`] are all that an adapter needs: attach, give the runtime a descriptor to watch, and
/// spawn [`Driver::drive`] on it. Dropping it detaches: what is in flight is cancelled, a bounded time is
/// waited for the kernel to let go, everybody who waits is told, and the driver ends.
#[derive(Debug)]
pub struct Hosted {
    attached: Rc<Attached>,
}

/// What turns a [`Hosted`] reactor; from [`Hosted::attach`]. Without it the reactor stands still: dropped
/// before the reactor is detached, it has everybody who waits learn that there is none any more.
#[must_use = "a reactor that is not driven stands still"]
pub struct Driver {
    shared: Weak<Inner>,
}

impl Hosted {
    /// Attaches a new reactor to this thread; the driver is what the runtime is to run there, beside its
    /// other tasks.
    ///
    /// # Errors
    /// [`Error::AlreadyAttached`] where one is attached; [`Error::IoUringRefused`], since `poll(2)` cannot
    /// wake a host; [`Error::Os`] where the process has no descriptor left.
    pub fn attach(options: ReactorOptions) -> Result<(Self, Driver)> {
        if Reactor::current().is_ok() {
            return Err(Error::AlreadyAttached);
        }
        let shared = Rc::new(Inner::new(&options, Some(Host::new()?))?);
        shared.state.borrow().check()?;
        let driver = Driver { shared: Rc::downgrade(&shared) };
        Ok((Self { attached: Attached::install(shared) }, driver))
    }

    /// The eventfd to watch: it is signalled when the reactor has something to do. A read of it waits for
    /// that; no read is needed where edges are watched.
    pub fn event(&self) -> BorrowedFd<'_> {
        let host = self.shared().host.as_ref();
        host.expect("made with one").event()
    }

    /// The reactor.
    pub fn reactor(&self) -> &Reactor {
        self.attached.reactor()
    }

    fn shared(&self) -> &Rc<Inner> {
        &self.attached.reactor().shared
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        // The driver sees that there is no reactor any more, or, should an executor within this thread
        // still hold it, goes on.
        if let Some(host) = &self.shared().host {
            host.wake_driver();
        }
    }
}

impl Driver {
    /// Turns the reactor whenever `watch` or a task says that there is something to do; ready when the
    /// reactor is detached.
    ///
    /// # Errors
    /// [`Error::Os`] where `watch` fails: everybody who waits learns that there is no reactor. What ended the ring, where the
    /// kernel did: everybody who waits on it was told.
    pub async fn drive<W: Watch>(self, mut watch: W) -> Result<()> {
        poll_fn(|cx| self.poll(cx, &mut watch)).await
    }

    fn poll(&self, cx: &mut Context<'_>, watch: &mut impl Watch) -> Poll<Result<()>> {
        for _ in 0..turn::ROUNDS {
            let Some(shared) = self.shared.upgrade() else { return Poll::Ready(Ok(())) };
            let Some(host) = &shared.host else { return Poll::Ready(Ok(())) };
            // Before the turn: what is asked for from here on wakes this task again.
            let waker = cx.waker().clone();
            let replaced = host.driver.replace(Some(waker));
            drop(replaced);
            if shared.guess(host) {
                break; // the turn comes after those who were woken
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
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(Error::os(Step::WatchEvent, error)));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Nobody turns the reactor any more: whoever waits is to learn so.
        if let Some(shared) = self.shared.upgrade() {
            shared.give_up();
        }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}
