//! Names of hosts and networks in filters.

use std::net::{IpAddr, Ipv4Addr};

/// Looks up names that a filter's text contains; for [`BpfFilter::parse_with`](crate::BpfFilter::parse_with).
///
/// [`BpfFilter::parse`](crate::BpfFilter::parse) looks up nothing but ports, so that no text causes a query to the network.
/// What an implementation does not know is an error in the text.
pub trait Resolver {
    /// Returns the addresses of a host (`host NAME`).
    fn host(&self, _name: &str) -> Vec<IpAddr> {
        Vec::new()
    }

    /// Returns the address of a network and its mask (`net NAME`).
    fn network(&self, _name: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
        None
    }

    /// Returns the MAC address of a host (`ether host NAME`, `gateway NAME`; ethers(5)).
    fn ether(&self, _name: &str) -> Option<[u8; 6]> {
        None
    }

    /// Returns the index of an interface (`ifname NAME`).
    fn interface(&self, _name: &str) -> Option<u32> {
        None
    }

    /// Returns the mask of the network that packets are captured from (`ip broadcast`).
    fn netmask(&self) -> Option<Ipv4Addr> {
        None
    }
}

/// Knows no names.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NoNames;

impl Resolver for NoNames {}
