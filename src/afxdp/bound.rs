//! The part that both halves of a socket share: the descriptor, and its interface and queue.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use super::metadata::Asks;
use super::orphans::{self, Orphans, Place, QueueProbe};
use super::program::XdpProgram;
use crate::error::{Error, Result, Step};
use crate::interface::TagTaker;
use crate::packet::{Framing, Timestamp};
use crate::ring::batch::Seen;
use crate::ring::umem::{Completions, Umem};
use crate::stats::{Counter, XdpStats};
use crate::sys::clock;
use crate::sys::netdev::Netdev;
use crate::sys::xdp;

/// A bound AF_XDP socket.
#[derive(Debug)]
pub(super) struct Bound {
    /// Kept for receivers of its frames, even after its sender is gone. Dropped before the socket, as the mapped
    /// ring keeps the socket open.
    completions: OnceLock<Arc<Completions>>,
    socket: OwnedFd,
    umem: Arc<Umem>,
    share: u32,
    orphans: Arc<Orphans>,
    /// Present if the UMEM has more than one socket.
    probe: Option<QueueProbe>,
    /// Present if the program must stay attached until the queue is free.
    leaving: Option<QueueProbe>,
    /// A socket for queries in the same namespace: an AF_XDP socket cannot answer them itself.
    asker: OwnedFd,
    /// Whether the program redirects packets to this socket.
    is_open: AtomicBool,
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) queue: u32,
    /// The kind of interface (`ARPHRD_*`).
    pub(super) hardware: u16,
    /// Where VLAN tags of its packets may be removed.
    tag_taker: TagTaker,
    /// The frame lengths that the interface accepts, relative to its MTU.
    pub(super) framing: Framing,
    pub(super) is_zerocopy: bool,
    /// Whether its program may leave hints before packets.
    has_hints: bool,
    /// Whether it has an RX ring.
    pub(super) receives: bool,
    /// Whether the UMEM is in huge pages.
    pub(super) has_huge_pages: bool,
    pub(super) program: Option<XdpProgram>,
    pub(super) figures: Arc<Figures>,
    /// The requests that frames may make, in bytes that precede them.
    pub(super) asks: Asks,
    /// Whether packets may span several frames.
    pub(super) multi_buffer: bool,
    /// Whether the driver may sleep until it is woken.
    pub(super) need_wakeup: bool,
    /// Keeps the interface promiscuous.
    pub(super) _membership: Option<OwnedFd>,
}

/// The parts from which a [`Bound`] is built.
pub(super) struct Parts {
    pub(super) socket: OwnedFd,
    pub(super) asker: OwnedFd,
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) queue: u32,
    pub(super) hardware: u16,
    pub(super) tag_taker: TagTaker,
    pub(super) is_zerocopy: bool,
    pub(super) receives: bool,
    pub(super) has_huge_pages: bool,
    pub(super) program: Option<XdpProgram>,
    pub(super) asks: Asks,
    pub(super) multi_buffer: bool,
    pub(super) need_wakeup: bool,
    pub(super) membership: Option<OwnedFd>,
    pub(super) probe: Option<QueueProbe>,
    pub(super) leaving: Option<QueueProbe>,
}

impl Bound {
    pub(super) fn new(parts: Parts, umem: &Arc<Umem>, share: u32, orphans: &Arc<Orphans>) -> Self {
        let has_hints = parts
            .program
            .as_ref()
            .is_some_and(|program| program.hints().is_ok_and(|hints| !hints.is_empty()));
        let Parts { socket, asker, name, index, queue, is_zerocopy, has_huge_pages, .. } = parts;
        Self {
            completions: OnceLock::new(),
            socket,
            umem: Arc::clone(umem),
            share,
            orphans: Arc::clone(orphans),
            probe: parts.probe,
            leaving: parts.leaving,
            asker,
            is_open: AtomicBool::new(false),
            name,
            index,
            queue,
            hardware: parts.hardware,
            tag_taker: parts.tag_taker,
            framing: Framing::of_hardware(parts.hardware),
            is_zerocopy,
            has_hints,
            receives: parts.receives,
            has_huge_pages,
            program: parts.program,
            figures: Arc::default(),
            asks: parts.asks,
            multi_buffer: parts.multi_buffer,
            need_wakeup: parts.need_wakeup,
            _membership: parts.membership,
        }
    }

    pub(super) fn umem(&self) -> Arc<Umem> {
        Arc::clone(&self.umem)
    }

    pub(super) fn keep(&self, completions: &Arc<Completions>) {
        self.completions.get_or_init(|| Arc::clone(completions));
    }

    /// Brings back this UMEM's frames from closed sockets once the kernel has released them.
    pub(super) fn bring_home(&self) {
        self.orphans.bring_home(&self.umem);
    }

    /// Returns an error if VLAN tags are delivered outside of the packets' bytes.
    pub(super) fn check_tags(&self) -> Result<()> {
        self.tag_taker.stripping(Netdev(self.asker.as_fd())).refuse(&self.name)
    }

    /// Returns the origin of its packets, as far as it is the same for all.
    pub(super) fn seen_now(&self) -> Seen {
        let tai_offset = self.has_hints.then(clock::tai_offset);
        let (hardware, interface_index) = (self.hardware, self.index);
        Seen { time: Timestamp::now(), hardware, interface_index, tai_offset }
    }

    /// Returns the interface's MTU: the most bytes after a frame's link-layer header.
    pub(super) fn mtu(&self) -> Result<u32> {
        Netdev(self.asker.as_fd())
            .mtu_of(self.index)
            .map_err(|source| self.failed(Step::QueryInterface("MTU"), source))
    }

    /// Returns an error that names this socket.
    pub(super) fn failed(&self, step: Step, source: io::Error) -> Error {
        Error::os(step, source).of(format_args!("{}, queue {}", self.name, self.queue))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Checks whether the interface still exists, even under another name.
    pub(super) fn check_link(&self) -> Result<()> {
        match Netdev(self.asker.as_fd()).exists(self.index) {
            true => Ok(()),
            false => Err(Error::InterfaceGone { name: self.name.clone() }),
        }
    }

    /// Makes the program redirect this queue's packets here.
    pub(super) fn open_intake(&self) -> Result<()> {
        let Some(program) = &self.program else { return Ok(()) };
        program.register(self.queue, self.fd())?;
        self.is_open.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Stops the program from redirecting packets here.
    pub(super) fn close_intake(&self) {
        if let Some(program) = &self.program
            && self.is_open.swap(false, Ordering::Relaxed)
        {
            program.unregister(self.queue); // other sockets may still use the program
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.close_intake();
        self.figures.keep(self.kernel_stats().unwrap_or_default());
        orphans::note_closed(Place::new(self.fd(), self.index, self.queue));
        self.orphans.leave(&self.umem, self.share, self.probe.take());
        if let (Some(program), Some(probe)) = (&self.program, self.leaving.take()) {
            program.outlive(probe);
        }
    }
}

/// The counters of both halves of a socket.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) delivered: Counter,
    pub(super) batches: Counter,
    pub(super) rx_malformed: Counter,
    pub(super) committed: Counter,
    /// Frames that were never committed.
    pub(super) not_forwarded: Counter,
    /// Committed frames that the kernel took but did not send.
    pub(super) send_failed: Counter,
    /// Committed frames that the kernel had not taken at the end.
    pub(super) abandoned: Counter,
    pub(super) kicks: Counter,
    pub(super) tx_malformed: Counter,
    /// The kernel's counters when the socket was closed.
    last: OnceLock<XdpStats>,
}

impl Figures {
    pub(super) fn with(&self, kernel: XdpStats) -> XdpStats {
        XdpStats {
            delivered: self.delivered.get(),
            batches: self.batches.get(),
            committed: self.committed.get(),
            send_failed: self.send_failed.get(),
            not_forwarded: self.not_forwarded.get(),
            abandoned: self.abandoned.get(),
            kicks: self.kicks.get(),
            malformed: self.rx_malformed.get() + self.tx_malformed.get(),
            ..kernel
        }
    }

    pub(super) fn keep(&self, kernel: XdpStats) {
        self.last.get_or_init(|| kernel);
    }

    /// Waits until the thread that drops the socket has stored the kernel's counters, and returns them.
    fn last(&self) -> XdpStats {
        loop {
            match self.last.get() {
                Some(last) => return *last,
                None => std::thread::yield_now(),
            }
        }
    }
}

/// Reads an AF_XDP socket's statistics from any thread, even after the socket is gone.
#[derive(Debug, Clone)]
pub struct XdpStatsHandle {
    figures: Arc<Figures>,
    /// Weak, so that an observer does not keep the queue in use.
    bound: Weak<Bound>,
}

impl XdpStatsHandle {
    pub(super) fn new(bound: &Arc<Bound>) -> Self {
        Self { figures: Arc::clone(&bound.figures), bound: Arc::downgrade(bound) }
    }

    /// Returns the running totals of both halves. Makes one system call and resets nothing.
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) if the kernel refuses `XDP_STATISTICS`.
    pub fn stats(&self) -> Result<XdpStats> {
        match self.bound.upgrade() {
            Some(bound) => bound.stats(),
            None => Ok(self.figures.with(self.figures.last())),
        }
    }
}

impl Bound {
    pub(super) fn stats(&self) -> Result<XdpStats> {
        Ok(self.figures.with(self.kernel_stats()?))
    }

    pub(super) fn kernel_stats(&self) -> Result<XdpStats> {
        let kernel = xdp::statistics(self.fd())?;
        Ok(XdpStats {
            rx_dropped: kernel.rx_dropped,
            rx_invalid: kernel.rx_invalid_descs,
            tx_invalid: kernel.tx_invalid_descs,
            rx_ring_full: kernel.rx_ring_full,
            // The fill ring of a socket that only sends is always empty.
            fill_ring_empty: if self.receives { kernel.rx_fill_ring_empty_descs } else { 0 },
            tx_ring_empty: kernel.tx_ring_empty_descs,
            ..XdpStats::default()
        })
    }
}

/// The UMEM of a socket, for sockets of other queues or interfaces to share; see
/// [`XdpSocketBuilder::shared_umem`](crate::xdp::XdpSocketBuilder::shared_umem).
///
/// Holding it does not keep the socket open. Cheap to clone.
#[derive(Debug, Clone)]
pub struct XdpUmem {
    pub(super) umem: Arc<Umem>,
    pub(super) bound: Weak<Bound>,
    pub(super) orphans: Arc<Orphans>,
    pub(super) asks: Asks,
    pub(super) multi_buffer: bool,
    pub(super) need_wakeup: bool,
}

/// The properties that a socket and each of its halves have of the queue they are bound to.
macro_rules! of_its_queue {
    ($socket:ident, $($bound:ident).+) => {
        impl $socket {
            /// Returns the running totals of the socket. Makes one system call and resets nothing.
            ///
            /// # Errors
            /// [`Os`](crate::Error::Os) if the kernel refuses `XDP_STATISTICS`.
            pub fn stats(&self) -> $crate::error::Result<$crate::stats::XdpStats> {
                self.$($bound).+.stats()
            }

            /// Returns a handle to read the statistics from other threads.
            pub fn stats_handle(&self) -> $crate::afxdp::XdpStatsHandle {
                $crate::afxdp::XdpStatsHandle::new(&self.$($bound).+)
            }

            /// Returns the name of the interface, as it was when the socket was opened.
            pub fn interface(&self) -> &str {
                &self.$($bound).+.name
            }

            /// Returns the number of the queue.
            pub fn queue_id(&self) -> u32 {
                self.$($bound).+.queue
            }

            /// Returns the type of header that packets begin with; [`LinkType::UNKNOWN`] if it is not known.
            ///
            /// [`LinkType::UNKNOWN`]: crate::packet::LinkType::UNKNOWN
            pub fn link_type(&self) -> $crate::packet::LinkType {
                let kind = self.$($bound).+.hardware;
                $crate::packet::LinkType::of_hardware(kind).unwrap_or($crate::packet::LinkType::UNKNOWN)
            }

            /// Returns whether packets are passed between the driver and the UMEM without being copied.
            pub fn is_zerocopy(&self) -> bool {
                self.$($bound).+.is_zerocopy
            }

            /// Returns whether the UMEM is in huge pages.
            pub fn has_huge_pages(&self) -> bool {
                self.$($bound).+.has_huge_pages
            }

            /// Returns the program that redirects packets here, for sockets of other queues to share. A socket that
            /// only sends has none, unless one was set.
            pub fn program(&self) -> Option<&$crate::afxdp::XdpProgram> {
                self.$($bound).+.program.as_ref()
            }

            /// Returns the UMEM, for other sockets to share.
            pub fn umem(&self) -> $crate::afxdp::XdpUmem {
                self.$($bound).+.lend_umem()
            }
        }
    };
}
pub(super) use of_its_queue;

impl Bound {
    pub(super) fn lend_umem(self: &Arc<Self>) -> XdpUmem {
        let (umem, orphans) = (Arc::clone(&self.umem), Arc::clone(&self.orphans));
        let (asks, multi_buffer) = (self.asks, self.multi_buffer);
        let (bound, need_wakeup) = (Arc::downgrade(self), self.need_wakeup);
        XdpUmem { umem, bound, orphans, asks, multi_buffer, need_wakeup }
    }
}
