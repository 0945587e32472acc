//! What a socket's halves have in common, and what it lends to sockets of other queues.

use std::sync::{Arc, Weak};

use super::bound::Bound;
use super::metadata::Asks;
use super::orphans::Orphans;
use super::stats::XdpStatsHandle;
use crate::error::Result;
use crate::ring::umem::Umem;
use crate::stats::XdpStats;

/// What a socket was opened with.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(super) umem: Arc<Umem>,
    pub(super) bound: Arc<Bound>,
    pub(super) orphans: Arc<Orphans>,
    pub(super) asks: Asks,
    pub(super) multi_buffer: bool,
}

/// The same in the hands of a builder, which does not keep that socket.
#[derive(Debug, Clone)]
pub(super) struct SharedUmem {
    pub(super) umem: Arc<Umem>,
    pub(super) bound: Weak<Bound>,
    pub(super) orphans: Arc<Orphans>,
    pub(super) asks: Asks,
    pub(super) multi_buffer: bool,
}

impl Shared {
    pub(crate) fn stats(&self) -> Result<XdpStats> {
        self.bound.stats()
    }

    pub(crate) fn stats_handle(&self) -> XdpStatsHandle {
        XdpStatsHandle::new(&self.bound)
    }

    pub(crate) fn interface(&self) -> &str {
        &self.bound.name
    }

    pub(crate) fn queue_id(&self) -> u32 {
        self.bound.queue
    }

    pub(super) fn lend(&self) -> SharedUmem {
        let Self { umem, bound, orphans, asks, multi_buffer } = self.clone();
        SharedUmem { umem, bound: Arc::downgrade(&bound), orphans, asks, multi_buffer }
    }
}
