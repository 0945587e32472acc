//! Selects the queue on which a packet arrives: a symmetric hash, and rules (`ETHTOOL_SRSSH`,
//! `ETHTOOL_SRXCLSRLINS`).

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use super::nic::{asker, index_of};
use crate::error::{Error, Result, Step};
use crate::sys::netdev::question_socket;
use crate::sys::steering::{self, FlowSpec, HashKey};

/// Makes a card's receive hash the same for both directions of a flow, as long as this value lives.
///
/// Both directions then arrive on one queue, and the shard of that queue sees whole conversations. Dropping the
/// value restores the previous key.
///
/// A Toeplitz hash with a key of a repeated 16-bit pattern gives the same result if addresses and ports are
/// swapped.
#[derive(Debug)]
pub struct SymmetricRss {
    interface: String,
    before: HashKey,
    key: Vec<u8>,
}

impl SymmetricRss {
    /// Sets a symmetric key on the card.
    ///
    /// # Errors
    /// [`Error::NoSuchInterface`]; [`Error::Os`] if the driver has no key to set, or without `CAP_NET_ADMIN`.
    pub fn set(interface: &str) -> Result<Self> {
        index_of(interface)?;
        let socket = asker()?;
        let wrap = |source| Error::os(Step::SetHashKey, source).of(interface);
        let before = steering::hash_key(socket.as_fd(), interface).map_err(wrap)?;
        let pattern = [0x6d, 0x5a];
        let key: Vec<u8> = pattern.iter().copied().cycle().take(before.key.len()).collect();
        let symmetric = HashKey { key: key.clone(), ..before.clone() };
        steering::set_hash_key(socket.as_fd(), interface, &symmetric).map_err(wrap)?;
        Ok(Self { interface: interface.to_owned(), before, key })
    }
}

impl Drop for SymmetricRss {
    fn drop(&mut self) {
        let Ok(socket) = question_socket() else { return };
        let now = steering::hash_key(socket.as_fd(), &self.interface);
        // A key that somebody else has set meanwhile stays.
        if now.is_ok_and(|now| now.key == self.key) {
            let _ = steering::set_hash_key(socket.as_fd(), &self.interface, &self.before);
        }
    }
}

/// A rule that directs packets to a queue. The card applies it before any program sees the packets.
///
/// ```no_run
/// # fn main() -> ringtap::Result<()> {
/// let rule = ringtap::xdp::FlowRule::tcp().dst_port(443).to_queue(3);
/// let _installed = rule.install("eth0")?; // removed when this is dropped
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a rule does nothing until `install`"]
pub struct FlowRule {
    spec: FlowSpec,
}

impl FlowRule {
    /// Matches IPv4 TCP packets.
    pub fn tcp() -> Self {
        Self { spec: FlowSpec::tcp() }
    }

    /// Matches IPv4 UDP packets.
    pub fn udp() -> Self {
        Self { spec: FlowSpec::udp() }
    }

    /// Matches only packets from this address.
    pub fn src_host(mut self, address: Ipv4Addr) -> Self {
        self.spec.source = Some(address);
        self
    }

    /// Matches only packets to this address.
    pub fn dst_host(mut self, address: Ipv4Addr) -> Self {
        self.spec.destination = Some(address);
        self
    }

    /// Matches only packets from this port.
    pub fn src_port(mut self, port: u16) -> Self {
        self.spec.source_port = Some(port);
        self
    }

    /// Matches only packets to this port.
    pub fn dst_port(mut self, port: u16) -> Self {
        self.spec.destination_port = Some(port);
        self
    }

    /// Sets the queue for matching packets. Default: queue 0.
    pub fn to_queue(mut self, queue: u32) -> Self {
        self.spec.queue = queue;
        self
    }

    /// Installs the rule on a card, for as long as the returned value lives.
    ///
    /// # Errors
    /// [`Error::NoSuchInterface`]; [`Error::Os`] if the driver does not support such rules, has no room for another
    /// one, or without `CAP_NET_ADMIN`.
    pub fn install(&self, interface: &str) -> Result<InstalledRule> {
        index_of(interface)?;
        let socket = asker()?;
        let location = steering::insert_rule(socket.as_fd(), interface, &self.spec)
            .map_err(|source| Error::os(Step::InsertRule, source).of(interface))?;
        Ok(InstalledRule { interface: interface.to_owned(), location })
    }
}

/// A [`FlowRule`] in effect. Dropping it removes the rule.
#[derive(Debug)]
pub struct InstalledRule {
    interface: String,
    location: u32,
}

impl InstalledRule {
    /// Returns the rule's location on the card, as `ethtool -n` lists it.
    pub fn location(&self) -> u32 {
        self.location
    }
}

impl Drop for InstalledRule {
    fn drop(&mut self) {
        if let Ok(socket) = question_socket() {
            let _ = steering::delete_rule(socket.as_fd(), &self.interface, self.location);
        }
    }
}
