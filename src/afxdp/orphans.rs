//! Frames of other sockets that a socket was still sending when it was closed.
//!
//! Closing a socket does not end the kernel's use of its frames: a zero-copy driver reads them until its queue is
//! set up again, and a packet in flight may refer to the UMEM's pages. Both have ended when the queue's pool is
//! gone; the pool is freed with the kernel's last reference to the socket (`xsk_destruct`, `xp_release_deferred`,
//! net/xdp). This is observable: until then, binding another socket to the queue fails with EBUSY
//! (`xp_assign_dev`). Only then are the frames returned to their owners.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::ring::umem::Umem;
use crate::sys::xdp::{self, UmemSpec, Which};
use crate::sys::{Mapping, sockopt};

/// The pause before a queue is checked again, at first and at most.
const SOON: Duration = Duration::from_millis(1);
const LATEST: Duration = Duration::from_secs(1);
/// The smallest UMEM: one chunk.
const CHUNK: u32 = 4096;

/// Frames of one UMEM that closed sockets have left with the kernel.
#[derive(Debug)]
pub(super) struct Orphans {
    umem: Weak<Umem>,
    list: Mutex<Vec<Orphan>>,
    /// Number of orphans in the list.
    count: AtomicUsize,
}

/// The orphans of all UMEMs of this process: a successful bind to a queue proves that the kernel has released it.
static ALL: Mutex<Vec<Weak<Orphans>>> = Mutex::new(Vec::new());

/// The queues whose sockets this process has closed lately.
static CLOSED: Mutex<Vec<(Place, Instant)>> = Mutex::new(Vec::new());

/// How long the kernel may take to free the queue of a closed socket. It needs more than some ms on a very busy machine only.
pub(super) const FREED_WITHIN: Duration = Duration::from_secs(3);

/// Notes that a socket at this queue is about to be closed.
pub(super) fn note_closed(place: Place) {
    let mut closed = lock(&CLOSED);
    closed.retain(|(other, at)| *other != place && at.elapsed() < FREED_WITHIN);
    closed.push((place, Instant::now()));
}

/// Returns whether the queue may be busy only because this process has just closed its socket.
pub(super) fn was_just_closed(place: Place) -> bool {
    lock(&CLOSED).iter().any(|(other, at)| *other == place && at.elapsed() < FREED_WITHIN)
}

/// A queue of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The cookie of the namespace that gives the interface's index its meaning; `None` if the kernel does not
    /// report it (before 5.14).
    namespace: Option<u64>,
    index: u32,
    queue: u32,
}

impl Place {
    /// Returns the place of a socket that is in the interface's namespace.
    pub(super) fn new(socket: BorrowedFd<'_>, index: u32, queue: u32) -> Self {
        Self { namespace: sockopt::get(socket, sockopt::NETNS_COOKIE).ok(), index, queue }
    }
}

/// A closed socket whose frames have not been returned.
#[derive(Debug)]
struct Orphan {
    share: u32,
    probe: QueueProbe,
    look_at: Instant,
    pause: Duration,
}

/// A socket that is bound to a queue to find out whether the kernel has released another socket.
///
/// It is created while the other socket is opened, in its namespace and with its privileges.
#[derive(Debug)]
pub(super) struct QueueProbe {
    socket: OwnedFd,
    place: Place,
    /// Dropped after the socket, whose UMEM it is.
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

    /// Binds the probe with these flags (`XDP_*`). This works only once.
    pub(super) fn bind(&self, flags: u16) -> io::Result<()> {
        xdp::bind(self.socket.as_fd(), (self.place.index, self.place.queue), flags, None)
    }

    /// Returns the queue.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Takes the queue if no socket's pool is left there, and returns whether it was free. To be dropped then.
    pub(super) fn try_take(&self) -> bool {
        match self.bind(libc::XDP_COPY) {
            Ok(()) => true,
            // The queue is gone, with the interface (`xsk_notifier`) or because there are fewer now (EINVAL).
            Err(error) => {
                matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO | libc::EINVAL))
            }
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

    /// Records a socket that is about to be closed, if it was sending frames of other sockets.
    pub(super) fn leave(&self, umem: &Umem, share: u32, probe: Option<QueueProbe>) {
        // Without a probe, the UMEM cannot have had another socket.
        let Some(probe) = probe.filter(|_| umem.has_foreign(share)) else { return };
        let orphan = Orphan { share, probe, look_at: Instant::now(), pause: SOON };
        self.change(|list| list.push(orphan));
    }

    /// Brings back the frames of closed sockets that the kernel has released. A queue that stays busy is checked
    /// less and less often.
    pub(super) fn bring_home(&self, umem: &Umem) {
        // Relaxed: an orphan added meanwhile is seen the next time.
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let now = Instant::now();
        self.change(|list| {
            list.retain_mut(|orphan| {
                if now < orphan.look_at {
                    return true;
                }
                if orphan.probe.try_take() {
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

/// Brings back the frames that closed sockets of any UMEM had left at a queue to which a socket has just been
/// bound: no other pool is there.
///
/// If the kernel does not tell namespaces apart, this is left to the sockets' probes.
pub(super) fn let_go(place: Place) {
    lock(&CLOSED).retain(|(other, _)| *other != place);
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
