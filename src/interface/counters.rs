//! The counters that an interface has of its own, for all of its users together.

use std::os::fd::AsFd;

use super::{ask, named};
use crate::error::Result;
use crate::sys::netdev::{Netdev, question_socket};
use crate::sys::netlink;

/// Counters of an interface since it was made, as read by [`interface_counters`] (`struct rtnl_link_stats64`,
/// Documentation/networking/statistics.rst).
///
/// What a card drops was never seen by any socket. If the socket takes all that the interface receives:
/// received by the card = delivered + dropped by the socket + [`card_drops`](Self::card_drops).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct InterfaceCounters {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets that were received damaged.
    pub rx_errors: u64,
    /// Packets that the card dropped because the host gave it no buffers in time.
    pub rx_missed: u64,
    /// Packets that the card dropped because they did not fit into its buffers; some drivers count
    /// events instead.
    pub rx_fifo: u64,
    /// Packets that the driver or the kernel received and dropped, before any socket saw them or because nobody wanted
    /// them.
    pub rx_dropped: u64,
    /// Packets that could not be sent for lack of room.
    pub tx_dropped: u64,
    /// Packets of protocols that no part of this host takes.
    pub rx_no_handler: u64,
}

impl InterfaceCounters {
    /// Returns how many packets the card dropped for lack of buffers: those missed and those that did not fit.
    pub fn card_drops(&self) -> u64 {
        self.rx_missed.saturating_add(self.rx_fifo)
    }

    /// Returns the difference between this reading and an `earlier` one of the same interface.
    #[must_use]
    pub fn delta_since(&self, earlier: &Self) -> Self {
        let less = |now: fn(&Self) -> u64| now(self).saturating_sub(now(earlier));
        Self {
            rx_packets: less(|all| all.rx_packets),
            rx_bytes: less(|all| all.rx_bytes),
            tx_packets: less(|all| all.tx_packets),
            tx_bytes: less(|all| all.tx_bytes),
            rx_errors: less(|all| all.rx_errors),
            rx_missed: less(|all| all.rx_missed),
            rx_fifo: less(|all| all.rx_fifo),
            rx_dropped: less(|all| all.rx_dropped),
            tx_dropped: less(|all| all.tx_dropped),
            rx_no_handler: less(|all| all.rx_no_handler),
        }
    }

    /// Reads the numbers of a `struct rtnl_link_stats64`, of which older kernels have fewer.
    fn of(numbers: &[u64]) -> Self {
        let number = |at: usize| numbers.get(at).copied().unwrap_or(0);
        Self {
            rx_packets: number(0),
            tx_packets: number(1),
            rx_bytes: number(2),
            tx_bytes: number(3),
            rx_errors: number(4),
            rx_dropped: number(6),
            tx_dropped: number(7),
            rx_fifo: number(14),
            rx_missed: number(15),
            rx_no_handler: number(23),
        }
    }
}

/// Reads the counters of an interface of the calling thread's network namespace, by rtnetlink. Needs no capability.
///
/// # Errors
/// [`Error::NoSuchInterface`](crate::Error::NoSuchInterface), or [`Error::Os`](crate::Error::Os) if the kernel refuses.
pub fn interface_counters(name: &str) -> Result<InterfaceCounters> {
    let socket = question_socket().map_err(|source| ask("index", source).of(name))?;
    let index = Netdev(socket.as_fd()).index(name);
    let index = index.map_err(|source| named(name, "index", source))?;
    let numbers = netlink::counters(index).map_err(|source| named(name, "counters", source))?;
    Ok(InterfaceCounters::of(&numbers))
}
