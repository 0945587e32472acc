//! Async transmission, with real backpressure.
//!
//! ```text
//!   send / slot.send ──commit──► ring ──mark──► reactor ──kick, in the turn's one enter──► kernel
//!        ▲                                        │ answer
//!        └── woken ◄── TxCore::kicked ◄───────────┘   frames left: kick again, now or later
//! ```

use std::cell::{Cell, Ref, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_core::Stream;
use futures_sink::Sink;

use super::pacer::Pacer;
use super::tx_slot::AsyncTxSlot;
use crate::afpacket::{Judged, Patience, Stall};
use crate::reactor::{Kicked, Kicker, Next, Registration};
use crate::time::{self, Sleep};
use crate::{Error, Injector, InjectorStats, Reactor, Result, TxTimestamp};

/// How often an injector looks after an interface that is down.
const LINK_CHECK: Duration = Duration::from_millis(20);

/// Sends frames on this thread's reactor.
///
/// Committing costs no system call: the reactor's next turn hands over everything that was committed
/// meanwhile, on every socket, in the one `io_uring_enter` in which it also waits. Frames that the
/// kernel does not take at once are kept at it in the background, also while nobody awaits anything
/// here; [`kick_now`](Self::kick_now) is for those who cannot wait for the turn.
///
/// ```no_run
/// # async fn f() -> ringtap::Result<()> {
/// let mut tx = ringtap::AsyncInjector::open("eth0")?;
/// tx.send(&[0xff; 60]).await?; // committed; waits only where the ring is full
/// tx.drained().await?; // sent
/// # Ok(())
/// # }
/// ```
pub struct AsyncInjector {
    // Dropped before the socket: polls and kicks are cancelled while it is open.
    kicker: Kicker,
    writable: Registration,
    look_again: Option<Sleep>,
    patience: Patience,
    core: Rc<TxCore>,
}

/// What the reactor and the injector share.
struct TxCore {
    injector: RefCell<Injector>,
    /// Whom a kick's answer wakes.
    waiter: Cell<Option<Waker>>,
    patience: RefCell<Patience>,
    /// What ended the injector, for the next call to report.
    fault: Cell<Option<Error>>,
    /// Whether the next kick waits for its time: nobody else is to kick before.
    is_stalled: Cell<bool>,
}

impl Kicked for TxCore {
    fn kicked(&self, errno: i32) -> Next {
        self.is_stalled.set(false);
        // A slot that is held across a turn: look again when it is not.
        let Ok(mut injector) = self.injector.try_borrow_mut() else {
            return Next::KickAfter(Patience::LONGEST);
        };
        if errno == libc::ECANCELED {
            self.wake();
            return Next::Rest;
        }
        let answer = match errno {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        };
        let judged = injector.judge(answer);
        drop(injector);
        let mut patience = self.patience.borrow_mut();
        match judged {
            Ok(Judged { stall, has_progressed }) => {
                self.fault.set(None);
                if has_progressed {
                    *patience = Patience::new();
                }
                if has_progressed || stall == Stall::Done {
                    self.wake();
                }
                let wait = match stall {
                    Stall::Done => return Next::Rest,
                    Stall::Again => return Next::Kick,
                    Stall::Buffer | Stall::Queue => patience.next(),
                    Stall::Link => LINK_CHECK,
                };
                self.is_stalled.set(true);
                Next::KickAfter(wait)
            }
            Err(error) => {
                self.fault.set(Some(error));
                self.wake();
                Next::Rest
            }
        }
    }
}

impl TxCore {
    fn into_injector(self: Rc<Self>) -> Injector {
        let core = Rc::into_inner(self).expect("the reactor holds it only while it is called");
        core.injector.into_inner()
    }

    fn wake(&self) {
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
    }
}

impl AsyncInjector {
    /// Opens an injector with the default options on an interface of this network namespace.
    ///
    /// # Errors
    /// As [`InjectorBuilder::build`](crate::InjectorBuilder::build) and [`new`](Self::new).
    pub fn open(interface: &str) -> Result<Self> {
        Self::new(Injector::open(interface)?)
    }

    /// Registers an injector with this thread's reactor. It takes two ops.
    ///
    /// # Errors
    /// [`Error::NoReactor`], [`Error::IoUringRefused`], or [`Error::TooManyOps`].
    pub fn new(injector: Injector) -> Result<Self> {
        Self::attach(injector).map_err(|lost| lost.0)
    }

    /// As [`new`](Self::new), but a failure gives the injector back.
    pub(crate) fn attach(injector: Injector) -> Result<Self, Box<(Error, Injector)>> {
        let core = Rc::new(TxCore {
            injector: RefCell::new(injector),
            waiter: Cell::new(None),
            patience: RefCell::new(Patience::new()),
            fault: Cell::new(None),
            is_stalled: Cell::new(false),
        });
        let port: Weak<dyn Kicked> = Rc::downgrade(&core) as Weak<dyn Kicked>;
        let registered = {
            let mut injector = core.injector.borrow_mut();
            let has_pending = injector.pending() > 0;
            let fd = injector.as_fd();
            Reactor::current().and_then(|reactor| {
                let kicker = Kicker::new(&reactor, fd, port)?;
                let writable = Registration::writable(&reactor, fd)?;
                if has_pending {
                    kicker.mark()?; // what was committed elsewhere
                }
                Ok((kicker, writable))
            })
        };
        match registered {
            Ok((kicker, writable)) => {
                Ok(Self { kicker, writable, look_again: None, patience: Patience::new(), core })
            }
            Err(error) => Err(Box::new((error, core.into_injector()))),
        }
    }

    /// Commits a copy of `frame`, waiting where the ring is full. Cancel-safe: dropped before it is
    /// ready, it has committed nothing.
    ///
    /// # Errors
    /// [`Error::FrameLength`]; [`Error::InterfaceGone`] once the interface was removed. An interface
    /// that is down is none: the ring fills up, and this waits.
    pub async fn send(&mut self, frame: &[u8]) -> Result<()> {
        poll_fn(|cx| self.poll_send(cx, frame)).await
    }

    /// Waits for a free slot, to write a frame of `len` bytes into without copying it. Cancel-safe.
    ///
    /// Do not hold the slot across an `await`: frames before it stay where they are meanwhile.
    ///
    /// # Errors
    /// [`Error::FrameLength`] where `len` is above [`Injector::frame_capacity`]; else as
    /// [`send`](Self::send).
    pub async fn reserve(&mut self, len: usize) -> Result<AsyncTxSlot<'_>> {
        let most = self.get_ref().frame_capacity();
        if len > most {
            return Err(Error::FrameLength { len, least: 0, most });
        }
        poll_fn(|cx| self.poll_vacant(cx)).await?;
        Ok(self.slot(len))
    }

    /// A free slot for a frame of `len` bytes; `None` where the ring is full, or `len` is above
    /// [`Injector::frame_capacity`]. No system call. That the interface is gone is said by the methods that
    /// wait.
    pub fn try_reserve(&mut self, len: usize) -> Option<AsyncTxSlot<'_>> {
        self.core.injector.borrow_mut().allocate(len)?;
        Some(self.slot(len))
    }

    fn slot(&self, len: usize) -> AsyncTxSlot<'_> {
        let injector = self.core.injector.borrow_mut();
        AsyncTxSlot::new(injector, &self.kicker, len)
    }

    /// Waits until every committed frame was handed to the kernel. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::InterfaceGone`]. While the interface is down, this waits.
    pub async fn flush(&mut self) -> Result<()> {
        poll_fn(|cx| self.poll_until(cx, |injector| injector.pending() == 0)).await
    }

    /// Waits until every committed frame was sent. Cancel-safe.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub async fn drained(&mut self) -> Result<()> {
        poll_fn(|cx| self.poll_drained(cx)).await
    }

    /// Sends everything a stream yields, at the pace of `pacer` if there is one, and waits until the
    /// kernel has taken it: how many frames that were.
    ///
    /// # Errors
    /// As [`send`](Self::send), at the first frame that cannot be sent; those before it are sent.
    pub async fn send_stream<S>(&mut self, stream: S, mut pacer: Option<Pacer>) -> Result<u64>
    where
        S: Stream,
        S::Item: AsRef<[u8]>,
    {
        let mut stream = std::pin::pin!(stream);
        let mut sent = 0;
        while let Some(frame) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
            if let Some(pacer) = &mut pacer {
                pacer.pace(frame.as_ref().len()).await;
            }
            self.send(frame.as_ref()).await?;
            sent += 1;
        }
        self.flush().await?;
        Ok(sent)
    }

    /// Hands over now what was committed, with a system call of its own.
    ///
    /// # Errors
    /// As [`Injector::flush`], but without waiting: what the kernel does not take goes later.
    pub fn kick_now(&mut self) -> Result<()> {
        let judged = self.core.injector.borrow_mut().kick()?;
        if judged.stall != Stall::Done {
            self.kicker.mark_awaited()?;
        }
        Ok(())
    }

    /// Waits for the next transmit timestamp; needs
    /// [`tx_timestamps`](crate::InjectorBuilder::tx_timestamps). Cancel-safe.
    ///
    /// # Errors
    /// As [`Injector::read_tx_timestamp`].
    pub async fn tx_timestamp(&mut self) -> Result<TxTimestamp> {
        poll_fn(|cx| {
            loop {
                let stamp = self.core.injector.borrow_mut().read_tx_timestamp()?;
                if let Some(stamp) = stamp {
                    return Poll::Ready(Ok(stamp));
                }
                ready!(self.poll_change(cx))?;
            }
        })
        .await
    }

    /// The injector's read-only side: lengths, counts, name.
    pub fn get_ref(&self) -> Ref<'_, Injector> {
        self.core.injector.borrow()
    }

    /// What happened so far.
    pub fn stats(&self) -> InjectorStats {
        self.get_ref().stats()
    }

    /// Takes the injector back, for blocking use or for another thread's reactor.
    ///
    /// # Panics
    /// Never: nobody else holds it between two turns.
    pub fn into_inner(self) -> Injector {
        let Self { core, .. } = self;
        core.into_injector()
    }

    /// What ended the injector, if anything did.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.core.fault.take().map_or(Ok(()), Err)
    }

    /// Learns the interface's MTU anew; see [`Injector::learn_mtu`].
    pub(crate) fn learn_mtu(&mut self) {
        self.core.injector.borrow_mut().learn_mtu();
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: &[u8]) -> Poll<Result<()>> {
        self.core.injector.borrow_mut().check_frame(frame)?;
        ready!(self.poll_vacant(cx))?;
        self.core.injector.borrow_mut().send(frame)?;
        Poll::Ready(self.kicker.mark())
    }

    pub(crate) fn poll_vacant(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_until(cx, |injector| injector.available_slots() > 0)
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let count = self.get_ref().frame_count();
        self.poll_until(cx, |injector| injector.available_slots() == count)
    }

    fn poll_until(
        &mut self,
        cx: &mut Context<'_>,
        is_so: impl Fn(&mut Injector) -> bool,
    ) -> Poll<Result<()>> {
        self.check()?;
        loop {
            if is_so(&mut self.core.injector.borrow_mut()) {
                self.writable.was_of_use();
                (self.look_again, self.patience) = (None, Patience::new());
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_change(cx))?;
        }
    }

    /// Ready when the ring is worth another look: a kick was answered, a frame was sent, or, since not
    /// every end of a stall is reported, some time has passed.
    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.check()?;
        if !self.core.is_stalled.get() && self.core.injector.borrow_mut().pending() > 0 {
            self.kicker.mark_awaited()?;
        }
        self.core.waiter.set(Some(cx.waker().clone()));
        let mut changed = self.writable.poll_ready(cx).map_ok(|_| ())?.is_ready();
        let patience = &mut self.patience;
        let sleep = self.look_again.get_or_insert_with(|| time::sleep(patience.next()));
        if Pin::new(sleep).poll(cx).is_ready() {
            (self.look_again, changed) = (None, true);
        }
        if changed { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

/// Commits what it is fed; flushing hands it to the kernel, closing waits until it is sent.
impl<T: AsRef<[u8]>> Sink<T> for AsyncInjector {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_vacant(cx)
    }

    fn start_send(self: Pin<&mut Self>, frame: T) -> Result<()> {
        self.core.injector.borrow_mut().send(frame.as_ref())?;
        self.kicker.mark()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_until(cx, |injector| injector.pending() == 0)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_drained(cx)
    }
}

impl fmt::Debug for AsyncInjector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncInjector")
            .field("injector", &self.core.injector)
            .field("is_stalled", &self.core.is_stalled.get())
            .finish_non_exhaustive()
    }
}
