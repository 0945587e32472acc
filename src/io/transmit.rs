//! Async transmission, with real backpressure.
//!
//! ```text
//!   send / slot.send ──commit──► ring ──mark──► reactor ──kick, in the turn's one enter──► kernel
//!        ▲                                        │ answer
//!        └── woken ◄── TxCore::kicked ◄───────────┘   frames left: kick again, now or later
//! ```

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use std::{fmt, io};

use futures_core::Stream;
use futures_sink::Sink;

use super::pacer::Pacer;
use crate::afpacket::Injector;
use crate::error::{Error, Result};
use crate::packet::{Offload, TxTimestamp};
use crate::port::TxPort;
use crate::reactor::{AfterKick, Kicker, Next, OnKick, Reactor, Registration};
use crate::stats::InjectorStats;
use crate::time::{self, Sleep};
use crate::wait::{Backoff, KickOutcome, Stall};

/// How often a sender checks an interface that is down.
const LINK_CHECK: Duration = Duration::from_millis(20);

/// A sending socket on this thread's reactor. See [`AsyncInjector`](crate::AsyncInjector).
///
/// Committing costs no system call: the reactor's next turn hands over everything committed since the last one, on
/// every socket, with the `io_uring_enter` in which it also waits. For frames that the kernel does not take at
/// once, the reactor keeps kicking in the background, even while no task awaits this sender. Use
/// [`kick_now`](Self::kick_now) if frames cannot wait for the turn.
pub struct AsyncSender<T: TxPort> {
    // Dropped before the socket: polls and kicks are cancelled while it is open.
    kicker: Kicker,
    writable: Registration,
    look_again: Option<Sleep>,
    /// How soon the waiting task looks again.
    backoff: Backoff,
    /// The port while a slot or a reference to it exists. If that was forgotten, the port is still here, and goes
    /// back at the next call.
    lent: Option<Box<T>>,
    core: Rc<TxCore<T>>,
}

/// The state that the reactor and the sender share.
struct TxCore<T> {
    /// Empty while the sender works with the port: nobody else uses it meanwhile, and no borrow can overlap
    /// another.
    port: Cell<Option<Box<T>>>,
    /// The answer to a kick that came while the port was out.
    missed: Cell<Option<i32>>,
    /// The task that a kick's answer wakes.
    waiter: Cell<Option<Waker>>,
    /// How soon the reactor kicks again.
    backoff: Cell<Backoff>,
    /// An error of a kick that no call has reported yet.
    fault: Cell<Option<Error>>,
    /// Whether the next kick waits for its time: no other kick should come before.
    is_stalled: Cell<bool>,
}

impl<T: TxPort> OnKick for TxCore<T> {
    fn kicked(&self, errno: i32) -> AfterKick {
        self.is_stalled.set(false);
        if errno == libc::ECANCELED {
            return AfterKick { next: Next::Rest, waiter: self.waiter.take() };
        }
        let Some(mut port) = self.port.take() else {
            self.missed.set(Some(errno)); // judged when the port is brought back
            return AfterKick { next: Next::Rest, waiter: None };
        };
        let answer = match errno {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        };
        let judged = port.judge(answer);
        self.port.set(Some(port));
        self.after(judged)
    }
}

impl<T> TxCore<T> {
    /// Returns the next step after a kick with this outcome, and the task to wake.
    fn after(&self, judged: Result<KickOutcome>) -> AfterKick {
        let KickOutcome { stall, has_progressed } = match judged {
            Ok(judged) => judged,
            Err(error) => {
                self.fault.set(Some(error));
                return AfterKick { next: Next::Rest, waiter: self.waiter.take() };
            }
        };
        let mut backoff = self.backoff.get();
        if has_progressed {
            backoff = Backoff::new();
        }
        let next = match stall {
            Stall::Done => Next::Rest,
            Stall::Again => Next::Kick,
            Stall::Buffer | Stall::Queue => Next::KickAfter(backoff.next()),
            Stall::Link => Next::KickAfter(LINK_CHECK),
        };
        self.backoff.set(backoff);
        self.is_stalled.set(matches!(next, Next::KickAfter(_)));
        let is_worth_a_look = has_progressed || stall == Stall::Done;
        let waiter = if is_worth_a_look { self.waiter.take() } else { None };
        AfterKick { next, waiter }
    }

    fn into_port(self: Rc<Self>) -> T {
        let core = Rc::into_inner(self).expect("the reactor holds it only while it is called");
        *core.port.into_inner().expect("brought back before")
    }
}

/// Shared access to a sender's socket, from [`AsyncSender::get_ref`].
///
/// If it is forgotten, the socket is taken back at the next call.
pub struct TxRef<'a, T: TxPort> {
    tx: &'a mut AsyncSender<T>,
}

impl<T: TxPort> Deref for TxRef<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.tx.lent()
    }
}

impl<T: TxPort> Drop for TxRef<'_, T> {
    fn drop(&mut self) {
        self.tx.take_back();
    }
}

impl<T: TxPort + fmt::Debug> fmt::Debug for TxRef<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// The port, out of its cell until this is dropped. Never handed to a user, who might forget it.
pub(super) struct Out<'a, T: TxPort> {
    port: Option<Box<T>>,
    tx: &'a AsyncSender<T>,
}

impl<T: TxPort> Deref for Out<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.port.as_ref().expect("there until it is dropped")
    }
}

impl<T: TxPort> DerefMut for Out<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.port.as_mut().expect("there until it is dropped")
    }
}

impl<T: TxPort> Drop for Out<'_, T> {
    fn drop(&mut self) {
        if let Some(port) = self.port.take() {
            self.tx.bring_back(port);
        }
    }
}

impl<T: TxPort> AsyncSender<T> {
    /// Registers a socket with this thread's reactor. This uses two ops.
    ///
    /// # Errors
    /// [`Error::NoReactor`], [`Error::IoUringRefused`], or [`Error::TooManyOps`].
    pub fn new(port: T) -> Result<Self> {
        Self::attach(port).map_err(|lost| lost.0)
    }

    /// Registers a socket like [`new`](Self::new), but returns the socket on failure.
    pub(crate) fn attach(mut port: T) -> Result<Self, Box<(Error, T)>> {
        let core = Rc::new(TxCore {
            port: Cell::new(None),
            missed: Cell::new(None),
            waiter: Cell::new(None),
            backoff: Cell::new(Backoff::new()),
            fault: Cell::new(None),
            is_stalled: Cell::new(false),
        });
        let kicked: Weak<dyn OnKick> = Rc::downgrade(&core) as Weak<dyn OnKick>;
        let has_pending = port.pending() > 0;
        let fd = port.as_fd();
        let registered = Reactor::current().and_then(|reactor| {
            let kicker = Kicker::new(&reactor, fd, kicked)?;
            let writable = Registration::writable(&reactor, fd)?;
            Ok((kicker, writable))
        });
        let (kicker, writable) = match registered {
            Ok(registered) => registered,
            Err(error) => return Err(Box::new((error, port))),
        };
        core.port.set(Some(Box::new(port)));
        let (look_again, backoff, lent) = (None, Backoff::new(), None);
        let tx = Self { kicker, writable, look_again, backoff, lent, core };
        if has_pending && let Err(error) = tx.kicker.mark() {
            return Err(Box::new((error, tx.into_inner()))); // for frames that were committed elsewhere
        }
        Ok(tx)
    }

    /// Commits a copy of `frame`; waits if the ring is full. Cancel-safe: if dropped before it completes, nothing
    /// is committed.
    ///
    /// # Errors
    /// [`Error::FrameLength`]; [`Error::InterfaceGone`] once the interface was removed. An interface that is down
    /// is not an error: the ring fills up, and this waits.
    pub async fn send(&mut self, frame: &[u8]) -> Result<()> {
        poll_fn(|cx| self.poll_send(cx, frame)).await
    }

    /// Waits for a free slot, to write a frame of `len` bytes without copying it. Cancel-safe.
    ///
    /// Do not hold the slot across an `await`: earlier frames that the kernel did not take at once wait meanwhile.
    /// A slot that is forgotten (`mem::forget`) stays free, and is taken back at the next call.
    ///
    /// # Errors
    /// [`Error::FrameLength`] if `len` exceeds the socket's `frame_capacity`; otherwise the errors of
    /// [`send`](Self::send).
    #[doc(alias = "allocate")]
    pub async fn reserve(&mut self, len: usize) -> Result<AsyncTxSlot<'_, T>> {
        let most = self.port().capacity();
        if len > most {
            return Err(Error::FrameLength { len, least: 0, most });
        }
        poll_fn(|cx| self.poll_room(cx, len)).await?;
        Ok(self.slot(len))
    }

    /// Returns a free slot for a frame of `len` bytes.
    ///
    /// Returns `None` if the ring is full, or if `len` exceeds the socket's `frame_capacity`. Makes no system call.
    /// Only the methods that wait report that the interface is gone.
    pub fn try_reserve(&mut self, len: usize) -> Option<AsyncTxSlot<'_, T>> {
        let mut port = self.port();
        let is_possible = len <= port.capacity() && port.has_room(len);
        drop(port);
        is_possible.then(|| self.slot(len))
    }

    fn slot(&mut self, len: usize) -> AsyncTxSlot<'_, T> {
        self.lend();
        AsyncTxSlot::new(self, len)
    }

    /// Waits until every committed frame has been handed to the kernel. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::InterfaceGone`]. While the interface is down, this waits.
    pub async fn flush(&mut self) -> Result<()> {
        poll_fn(|cx| self.poll_until(cx, |port| port.pending() == 0)).await
    }

    /// Waits until every committed frame has been sent, however long that takes. Cancel-safe.
    ///
    /// Use [`time::timeout`](crate::time::timeout) to limit the wait.
    ///
    /// # Errors
    /// The errors of [`flush`](Self::flush).
    pub async fn drain(&mut self) -> Result<()> {
        poll_fn(|cx| self.poll_drained(cx)).await
    }

    /// Sends every frame of a stream, at the rate of `pacer` if there is one, and waits until the kernel has taken
    /// them.
    ///
    /// Returns the number of frames. While the interface is down this waits, as every async send does:
    /// [`time::timeout`](crate::time::timeout) bounds it.
    ///
    /// Not cancel-safe: a frame that was taken from the stream and not committed is lost.
    ///
    /// # Errors
    /// The errors of [`send`](Self::send), at the first frame that cannot be sent; the frames before it are sent.
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

    /// Hands over committed frames now, with a separate system call.
    ///
    /// # Errors
    /// The errors of the socket's `flush`, but without waiting: frames that the kernel does not take are handed
    /// over later.
    pub fn kick_now(&mut self) -> Result<()> {
        let judged = self.port().kick()?;
        if judged.stall != Stall::Done {
            self.kicker.mark_awaited()?;
        }
        Ok(())
    }

    /// Borrows the socket to read lengths, counts or its name.
    ///
    /// Do not hold the reference across an `await`: frames that the kernel did not take at once wait until it is
    /// dropped.
    pub fn get_ref(&mut self) -> TxRef<'_, T> {
        self.lend();
        TxRef { tx: self }
    }

    /// Takes the socket back, for blocking use or for another thread's reactor.
    ///
    /// # Panics
    /// Never: nothing else holds the socket between two turns, nor while a waker is called.
    pub fn into_inner(mut self) -> T {
        self.take_back();
        let Self { core, .. } = self;
        core.into_port()
    }

    /// Waits until the reactor has let go of the socket.
    pub(super) async fn release(mut self) -> T {
        self.take_back();
        self.writable.release();
        poll_fn(|cx| self.writable.poll_released(cx)).await;
        self.into_inner()
    }

    /// Takes the socket out of its cell, for use inside this crate.
    pub(super) fn port(&mut self) -> Out<'_, T> {
        self.take_back();
        Out { port: self.core.port.take(), tx: self }
    }

    /// Calls `look` with the socket and returns its result.
    pub(super) fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        match &self.lent {
            Some(port) => look(port),
            None => look(&Out { port: self.core.port.take(), tx: self }),
        }
    }

    /// Moves the port here, where borrowers of the sender can reach it.
    fn lend(&mut self) {
        let Self { lent, core, .. } = self;
        lent.get_or_insert_with(|| core.port.take().expect("in its cell, or lent"));
    }

    /// Returns the lent port.
    pub(super) fn lent(&self) -> &T {
        self.lent.as_ref().expect("lent while a slot or a reference is out")
    }

    pub(super) fn lent_mut(&mut self) -> &mut T {
        self.lent.as_mut().expect("lent while a slot is out")
    }

    /// Takes the port back from a slot or reference, even a forgotten one.
    pub(super) fn take_back(&mut self) {
        if let Some(port) = self.lent.take() {
            self.bring_back(port);
        }
    }

    fn bring_back(&self, port: Box<T>) {
        self.core.port.set(Some(port));
        let Some(errno) = self.core.missed.take() else { return };
        let AfterKick { next, waiter } = self.core.kicked(errno);
        if next != Next::Rest {
            // A dead reactor is reported elsewhere.
            let _ = self.kicker.mark_awaited();
        }
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Marks the socket for a kick: something was committed.
    pub(super) fn mark(&self) -> Result<()> {
        self.kicker.mark()
    }

    /// Returns the error of a kick that was not reported yet, if there is one.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.core.fault.take().map_or(Ok(()), Err)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: &[u8]) -> Poll<Result<()>> {
        self.port().check_frame(frame)?;
        ready!(self.poll_room(cx, frame.len()))?;
        self.port().copy(frame)?;
        Poll::Ready(self.kicker.mark())
    }

    /// Completes when there is room for a frame of `len` bytes.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<Result<()>> {
        self.poll_until(cx, |port| port.has_room(len))
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_until(cx, T::is_drained)
    }

    pub(super) fn poll_until(
        &mut self,
        cx: &mut Context<'_>,
        is_so: impl Fn(&mut T) -> bool,
    ) -> Poll<Result<()>> {
        self.check()?;
        loop {
            if is_so(&mut self.port()) {
                self.writable.was_of_use();
                (self.look_again, self.backoff) = (None, Backoff::new());
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_change(cx))?;
        }
    }

    /// Completes when the ring is worth another look: a kick was answered, a frame was sent, or some time has
    /// passed, since not every end of a stall is reported.
    pub(super) fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.check()?;
        if !self.core.is_stalled.get() && self.port().pending() > 0 {
            self.kicker.mark_awaited()?;
        }
        self.core.waiter.set(Some(cx.waker().clone()));
        let mut changed = self.writable.poll_ready(cx).map_ok(|_| ())?.is_ready();
        let backoff = &mut self.backoff;
        let sleep = self.look_again.get_or_insert_with(|| time::sleep(backoff.next()));
        if Pin::new(sleep).poll(cx).is_ready() {
            (self.look_again, changed) = (None, true);
        }
        if changed { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

/// Commits the frames it is fed; flushing hands them to the kernel, closing waits until they are sent.
impl<T: TxPort, F: AsRef<[u8]>> Sink<F> for AsyncSender<T> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let most = self.port().most();
        self.poll_room(cx, most)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: F) -> Result<()> {
        let mut port = self.port();
        port.check_frame(frame.as_ref())?;
        port.copy(frame.as_ref())?;
        drop(port);
        self.kicker.mark()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_until(cx, |port| port.pending() == 0)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_drained(cx)
    }
}

impl<T: TxPort + fmt::Debug> fmt::Debug for AsyncSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.look(|port| format!("{port:?}"));
        f.debug_struct("AsyncSender")
            .field("port", &format_args!("{port}"))
            .field("is_stalled", &self.core.is_stalled.get())
            .finish_non_exhaustive()
    }
}

/// A free slot of an async sender: write a frame into it and [`send`](Self::send) it.
///
/// If dropped without sending, it stays free.
pub struct AsyncTxSlot<'a, T: TxPort = Injector> {
    tx: &'a mut AsyncSender<T>,
    len: usize,
    extra: T::Extra,
}

impl<'a, T: TxPort> AsyncTxSlot<'a, T> {
    /// Creates a slot of a sender whose port is lent.
    pub(super) fn new(tx: &'a mut AsyncSender<T>, len: usize) -> Self {
        Self { tx, len, extra: T::Extra::default() }
    }

    /// Returns the bytes of the frame, with the length requested.
    pub fn data(&self) -> &[u8] {
        self.tx.lent().vacant_ref(self.len)
    }

    /// Returns the bytes of the frame for writing.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.tx.lent_mut().vacant_bytes(self.len)
    }

    /// Changes the length of the frame, limited to the socket's `frame_capacity`.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.tx.lent().capacity());
    }

    /// Commits the frame.
    ///
    /// # Errors
    /// [`Error::FrameLength`](crate::Error::FrameLength), and the errors that the setters of this slot name; the
    /// slot then stays free.
    pub fn send(self) -> Result<()> {
        self.tx.lent_mut().commit(self.len, self.extra)?;
        self.tx.take_back();
        self.tx.mark()
    }

    pub(super) fn extra_mut(&mut self) -> &mut T::Extra {
        &mut self.extra
    }
}

impl AsyncTxSlot<'_, Injector> {
    pub(crate) fn offload(&self) -> Offload {
        self.extra
    }

    /// Sets the work that is left to the kernel or the card; see
    /// [`TxSlot::set_offload`](crate::inject::TxSlot::set_offload).
    pub fn set_offload(&mut self, offload: Offload) {
        *self.extra_mut() = offload;
    }
}

impl<T: TxPort> Drop for AsyncTxSlot<'_, T> {
    fn drop(&mut self) {
        self.tx.take_back();
    }
}

impl<T: TxPort> fmt::Debug for AsyncTxSlot<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncTxSlot").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Sends frames on this thread's reactor.
///
/// Committing costs no system call: the reactor's next turn hands over everything committed since the last one, on
/// every socket, with the `io_uring_enter` in which it also waits. For frames that the kernel does not take at
/// once, the reactor keeps kicking in the background, even while no task awaits this sender. Use
/// [`kick_now`](AsyncSender::kick_now) if frames cannot wait for the turn.
///
/// ```no_run
/// # async fn f() -> ringtap::Result<()> {
/// let mut tx = ringtap::AsyncInjector::open("eth0")?;
/// tx.send(&[0xff; 60]).await?; // committed; waits only if the ring is full
/// tx.drain().await?; // sent
/// # Ok(())
/// # }
/// ```
pub type AsyncInjector = AsyncSender<Injector>;

impl AsyncSender<Injector> {
    /// Opens an injector with the default options on an interface of this network namespace.
    ///
    /// # Errors
    /// The errors of [`InjectorBuilder::build`](crate::inject::InjectorBuilder::build) and [`new`](Self::new).
    pub fn open(interface: &str) -> Result<Self> {
        Self::new(Injector::open(interface)?)
    }

    /// Waits for the next transmit timestamp. Cancel-safe.
    ///
    /// This requires [`tx_timestamps`](crate::inject::InjectorBuilder::tx_timestamps).
    ///
    /// # Errors
    /// The errors of [`Injector::read_tx_timestamp`].
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

    /// Hands over committed frames, waits up to `limit` until they are sent, and closes the socket; see
    /// [`Injector::close`].
    ///
    /// Not cancel-safe: if the future is dropped, the injector is dropped too.
    pub async fn close(mut self, limit: Duration) -> InjectorStats {
        // Frames that an error keeps from being sent are counted. An older error keeps none.
        let _ = self.check();
        let _ = time::timeout(limit, self.drain()).await;
        self.release().await.close(Duration::ZERO)
    }

    /// Returns the running totals.
    pub fn stats(&self) -> InjectorStats {
        self.look(Injector::stats)
    }

    /// Sets whether frames are discarded while the interface is down; see [`Injector::drop_when_down`].
    pub(crate) fn drop_when_down(&mut self, on: bool) {
        self.port().drop_when_down(on);
    }

    /// Reads the interface's MTU again; see [`Injector::learn_mtu`].
    pub(crate) fn learn_mtu(&mut self) {
        self.port().learn_mtu();
    }
}
