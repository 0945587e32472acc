//! Frames of other sockets that a socket was still sending when it was closed.
//!
//! Closing a socket does not end the kernel's use of its frames: a driver without copies reads them until its
//! queue is set up anew, and a packet on its way may refer to the UMEM's pages. Both have ended when the queue's
//! pool is gone, which the kernel's last reference to the socket frees (`xsk_destruct`, `xp_release_deferred`,
//! net/xdp). That can be seen: until then, binding another socket to the queue is EBUSY (`xp_assign_dev`).
//! Only then do the frames go home.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ring::umem::Umem;
use crate::sys::Mapping;
use crate::sys::xdp::{self, UmemSpec, Which};
use crate::{Error, Result};

/// How soon a queue is looked at again, at first and at most.
const SOON: Duration = Duration::from_millis(1);
const LATEST: Duration = Duration::from_secs(1);
/// The smallest UMEM: one chunk.
const CHUNK: u32 = 4096;

/// What closed sockets of one UMEM have left in the kernel's hands.
#[derive(Debug, Default)]
pub(super) struct Orphans(Mutex<Vec<Orphan>>);

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
    index: u32,
    queue: u32,
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
        Ok(Self { socket, index, queue, _memory: memory })
    }

    /// Whether no socket's pool is at the queue any more.
    fn is_free(&self) -> bool {
        let at = (self.index, self.queue);
        match xdp::bind(self.socket.as_fd(), at, libc::XDP_COPY, None) {
            Ok(()) => true,
            // Gone with the interface (`xsk_notifier`).
            Err(error) => matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)),
        }
    }
}

impl Orphans {
    /// Notes a socket that is about to be closed, if it was sending frames of others.
    pub(super) fn leave(&self, umem: &Umem, share: u32, probe: Option<QueueProbe>) {
        // Without a probe no other socket of the UMEM has been possible.
        let Some(probe) = probe.filter(|_| umem.has_foreign(share)) else { return };
        self.lock().push(Orphan { share, probe, look_at: Instant::now(), pause: SOON });
    }

    /// Brings home the frames of those sockets that the kernel has let go of. A queue that stays busy is looked
    /// at less and less often.
    pub(super) fn bring_home(&self, umem: &Umem) {
        let mut orphans = self.lock();
        if orphans.is_empty() {
            return;
        }
        let now = Instant::now();
        orphans.retain_mut(|orphan| {
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
    }

    /// Brings home what was left at a queue to which a socket has just been bound: no other pool is there.
    pub(super) fn let_go(&self, umem: &Umem, index: u32, queue: u32) {
        self.lock().retain(|orphan| {
            let is_there = (orphan.probe.index, orphan.probe.queue) == (index, queue);
            if is_there {
                umem.bring_home(orphan.share);
            }
            !is_there
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Orphan>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
