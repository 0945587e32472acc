//! Frames of other sockets that a socket was still sending when it was closed.
//!
//! Closing a socket does not end the kernel's use of its frames: a driver without copies reads them until its
//! queue is set up anew, and a packet on its way may refer to the UMEM's pages. Both have ended when the queue's
//! pool is gone, which the kernel's last reference to the socket frees (`xsk_destruct`, `xp_release_deferred`,
//! net/xdp). That can be seen: until then, binding another socket to the queue is EBUSY (`xp_assign_dev`).
//! Only then do the frames go home.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::ring::umem::Umem;
use crate::sys::xdp::{self, UmemSpec, Which};
use crate::sys::{Mapping, sockopt};

/// How soon a queue is looked at again, at first and at most.
const SOON: Duration = Duration::from_millis(1);
const LATEST: Duration = Duration::from_secs(1);
/// The smallest UMEM: one chunk.
const CHUNK: u32 = 4096;

/// What closed sockets of one UMEM have left in the kernel's hands.
#[derive(Debug)]
pub(super) struct Orphans {
    umem: Weak<Umem>,
    list: Mutex<Vec<Orphan>>,
    /// How many are in the list.
    count: AtomicUsize,
}

/// Those of all UMEMs of this process: whoever binds to a queue knows that the kernel has let go of it.
static ALL: Mutex<Vec<Weak<Orphans>>> = Mutex::new(Vec::new());

/// A queue of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The cookie of the interface's namespace, in which its index is its own; `None` if the kernel tells none (before
    /// 5.14).
    namespace: Option<u64>,
    index: u32,
    queue: u32,
}

impl Place {
    /// The place of a socket that is in the interface's namespace.
    pub(super) fn new(socket: BorrowedFd<'_>, index: u32, queue: u32) -> Self {
        Self { namespace: sockopt::get(socket, sockopt::NETNS_COOKIE).ok(), index, queue }
    }
}

/// A closed socket whose frames have not come home.
#[derive(Debug)]
struct Orphan {
    share: u32,
    probe: QueueProbe,
    look_at: Instant,
    pause: Duration,
}

/// A socket that is bound to a queue in order to see whether the kernel has let go of another one.
///
/// Made while the other one is opened, in its namespace and with its privileges.
#[derive(Debug)]
pub(super) struct QueueProbe {
    socket: OwnedFd,
    place: Place,
    /// Behind the socket, which has it for a UMEM.
    _memory: Mapping,
}

impl QueueProbe {
    pub(super) fn new(index: u32, queue: u32) -> Result<Self> {
        let socket = xdp::open()?;
        let memory = Mapping::anonymous(CHUNK as usize, false)
            .map_err(|source| Error::RingTooLarge { bytes: CHUNK as usize, source })?;
        let spec = UmemSpec {
            base: memory.base().as_ptr() as u64,
            len: u64::from(CHUNK),
            chunk_size: CHUNK,
            headroom: 0,
            metadata: 0,
            software_checksums: false,
        };
        xdp::register_umem(socket.as_fd(), &spec)?;
        for which in [Which::Fill, Which::Completion, Which::Tx] {
            xdp::set_ring(socket.as_fd(), which, 2)?; // never mapped: nothing is sent
        }
        let place = Place::new(socket.as_fd(), index, queue);
        Ok(Self { socket, place, _memory: memory })
    }

    /// Binds the probe with these flags (`XDP_*`), which works once.
    pub(super) fn bind(&self, flags: u16) -> io::Result<()> {
        xdp::bind(self.socket.as_fd(), (self.place.index, self.place.queue), flags, None)
    }

    /// Whether no socket's pool is at the queue any more.
    fn is_free(&self) -> bool {
        match self.bind(libc::XDP_COPY) {
            Ok(()) => true,
            // Gone with the interface (`xsk_notifier`).
            Err(error) => matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)),
        }
    }
}

impl Orphans {
    pub(super) fn new(umem: &Arc<Umem>) -> Arc<Self> {
        let (umem, list, count) = (Arc::downgrade(umem), Mutex::default(), AtomicUsize::new(0));
        let orphans = Arc::new(Self { umem, list, count });
        let mut all = lock(&ALL);
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(&orphans));
        drop(all);
        orphans
    }

    /// Notes a socket that is about to be closed, if it was sending frames of others.
    pub(super) fn leave(&self, umem: &Umem, share: u32, probe: Option<QueueProbe>) {
        // Without a probe, the UMEM cannot have had another socket.
        let Some(probe) = probe.filter(|_| umem.has_foreign(share)) else { return };
        let orphan = Orphan { share, probe, look_at: Instant::now(), pause: SOON };
        self.change(|list| list.push(orphan));
    }

    /// Brings home the frames of those sockets that the kernel has let go of. A queue that stays busy is looked
    /// at less and less often.
    pub(super) fn bring_home(&self, umem: &Umem) {
        // Relaxed: one that is added meanwhile is seen the next time.
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let now = Instant::now();
        self.change(|list| {
            list.retain_mut(|orphan| {
                if now < orphan.look_at {
                    return true;
                }
                if orphan.probe.is_free() {
                    umem.bring_home(orphan.share);
                    return false;
                }
                orphan.look_at = now + orphan.pause;
                orphan.pause = (2 * orphan.pause).min(LATEST);
                true
            });
        });
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Orphan>)) {
        let mut list = lock(&self.list);
        change(&mut list);
        self.count.store(list.len(), Ordering::Relaxed);
    }
}

/// Brings home what closed sockets of any UMEM had left at a queue to which a socket has just been bound: no other pool is
/// there. If the kernel does not tell namespaces apart, their probes have to find out.
pub(super) fn let_go(place: Place) {
    if place.namespace.is_none() {
        return;
    }
    let all: Vec<_> = lock(&ALL).iter().filter_map(Weak::upgrade).collect();
    for orphans in all {
        let Some(umem) = orphans.umem.upgrade() else { continue };
        orphans.change(|list| {
            list.retain(|orphan| {
                let is_there = orphan.probe.place == place;
                if is_there {
                    umem.bring_home(orphan.share);
                }
                !is_there
            });
        });
    }
}

fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}
