//! Properties of network interfaces.

mod counters;
mod local_names;
mod names;
mod selector;

use std::io;
use std::os::fd::AsFd;

pub use self::counters::{InterfaceCounters, interface_counters};
pub use self::local_names::LocalNames;
pub use self::names::InterfaceNames;
pub use self::selector::Interface;

use crate::error::{Error, Result, Step};
use crate::packet::LinkType;
use crate::sys::netdev::{self, ETH_FLAG_RXVLAN, ETH_FLAG_TXVLAN, Netdev, question_socket};
use crate::sys::netlink;

/// Properties of an interface, as read by [`interface_info`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterfaceInfo {
    /// Name of the interface.
    pub name: String,
    /// Index of the interface, unique in its network namespace.
    pub index: u32,
    /// Largest payload of a frame in bytes, not counting the link-layer header.
    pub mtu: u32,
    /// Speed in Mbit/s; `None` if the driver does not report it.
    pub speed_mbps: Option<u32>,
    /// Name of the driver; `None` if there is none (loopback).
    pub driver: Option<String>,
    /// Number of receive queues in use; `None` if unknown. If the driver does not report them (no
    /// `get_channels`), this is the number that sysfs shows, or that the interface was created with.
    pub rx_queues: Option<u32>,
    /// Number of transmit queues in use; determined as [`rx_queues`](Self::rx_queues).
    pub tx_queues: Option<u32>,
    /// `IFF_*` flags (netdevice(7)).
    pub flags: u32,
    /// Link type of its packets; `None` if unknown.
    pub link_type: Option<LinkType>,
    /// Whether VLAN tags of received packets may be kept outside of the packet's bytes. Packet sockets still
    /// report such tags; AF_XDP sockets lose them where the driver does not tell them
    /// ([`XdpHints::VLAN`](crate::xdp::XdpHints::VLAN)). True if the card strips the tags, if the veth peer leaves
    /// them to a card, or if the peer is in another namespace and cannot be queried.
    pub strips_tags: bool,
}

/// The interface whose offload moves VLAN tags of received packets out of the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stripping {
    /// No interface.
    No,
    /// The interface with this name: the interface itself, or its veth peer.
    By(String),
    /// The veth peer, which is in another namespace, so that its setting cannot be queried.
    Elsewhere,
}

impl Stripping {
    /// Returns an error if tags may be lost, for callers that need them.
    #[cfg(feature = "af-xdp")]
    pub(crate) fn refuse(self, name: &str) -> Result<()> {
        let by = match self {
            Self::No => return Ok(()),
            Self::By(by) => Some(by),
            Self::Elsewhere => None,
        };
        Err(Error::TagsStripped { name: name.to_owned(), by })
    }
}

/// The interface that may move the tags of received packets out of their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TagTaker {
    /// The interface itself, with this index.
    Card(u32),
    /// The veth peer, whose packets arrive as it sends them (`veth_xmit`, drivers/net/veth.c); `None` if it is
    /// in another namespace.
    Peer(Option<u32>),
}

impl TagTaker {
    /// Determines the interface for `name`, which must be in the namespace of the calling thread, as must
    /// `asker`.
    pub(crate) fn of(asker: Netdev<'_>, name: &str, index: u32) -> Self {
        match asker.driver(name).is_ok_and(|driver| driver == "veth") {
            true => Self::Peer(netlink::peer(index).ok().flatten()),
            false => Self::Card(index),
        }
    }

    /// Checks whose offload moves the tags now. May be called from any thread.
    pub(crate) fn stripping(self, asker: Netdev<'_>) -> Stripping {
        let (index, flag) = match self {
            Self::Card(index) => (index, ETH_FLAG_RXVLAN),
            Self::Peer(Some(index)) => (index, ETH_FLAG_TXVLAN),
            Self::Peer(None) => return Stripping::Elsewhere,
        };
        // A driver that does not report the setting strips nothing.
        let Ok(name) = asker.name_of(index) else { return Stripping::No };
        match asker.offload_flags(&name).is_ok_and(|flags| flags & flag != 0) {
            true => Stripping::By(name),
            false => Stripping::No,
        }
    }
}

/// Checks whose offload moves tags out of the bytes of an interface's packets. The interface and `asker` must
/// be in the calling thread's namespace.
pub(crate) fn stripping(asker: Netdev<'_>, name: &str) -> Stripping {
    let taker = asker.index(name).map(|index| TagTaker::of(asker, name, index));
    taker.map_or(Stripping::No, |taker| taker.stripping(asker))
}

/// Returns the numbers of receive and transmit queues of an interface in the calling thread's namespace, which
/// `asker` must be in as well.
pub(crate) fn queues(asker: Netdev<'_>, name: &str) -> Option<(u32, u32)> {
    if let Ok(queues) = asker.queues(name) {
        return Some(queues);
    }
    let index = asker.index(name).ok()?;
    let name = asker.name_of(index).ok()?; // its own name, not an alternative one
    let address = asker.address(&name).unwrap_or_default();
    let in_use = netdev::queues_in_sysfs(&name, index, &address);
    in_use.or_else(|| netlink::queues(index).ok().flatten())
}

impl InterfaceInfo {
    /// Returns whether the administrator has brought the interface up (`IFF_UP`).
    pub fn is_up(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }

    /// Returns whether the interface has a carrier and can pass packets (`IFF_RUNNING`).
    pub fn has_carrier(&self) -> bool {
        self.flags & libc::IFF_RUNNING as u32 != 0
    }

    /// Returns whether this is the loopback, which shows each packet twice: once outgoing and once incoming.
    pub fn is_loopback(&self) -> bool {
        self.flags & libc::IFF_LOOPBACK as u32 != 0
    }
}

/// Queries an interface of the calling thread's network namespace.
///
/// Needs no capability. The properties are read by ioctl (netdevice(7), `SIOCETHTOOL`) and rtnetlink, so they
/// are those of the thread's namespace. `/sys/class/net`, which may show another namespace, is used only for
/// the number of queues, and only if it shows this very interface.
///
/// # Errors
/// [`Error::NoSuchInterface`], or [`Error::Os`] if the kernel refuses.
pub fn interface_info(name: &str) -> Result<InterfaceInfo> {
    let socket = question_socket().map_err(|source| ask("index", source).of(name))?;
    let asker = Netdev(socket.as_fd());
    let index = asker.index(name).map_err(|source| named(name, "index", source))?;
    let queues = queues(asker, name);
    Ok(InterfaceInfo {
        name: name.to_owned(),
        index,
        mtu: asker.mtu(name).map_err(|source| named(name, "MTU", source))?,
        speed_mbps: asker.speed(name).ok().flatten(),
        driver: asker.driver(name).ok(),
        rx_queues: queues.map(|(rx, _)| rx),
        tx_queues: queues.map(|(_, tx)| tx),
        flags: asker.flags(name).map_err(|source| named(name, "flags", source))?,
        link_type: asker.hardware(name).ok().and_then(LinkType::of_hardware),
        strips_tags: stripping(asker, name) != Stripping::No,
    })
}

/// Queries all interfaces of the calling thread's network namespace, each as by [`interface_info`].
///
/// An interface that disappears meanwhile is left out.
///
/// # Errors
/// [`Error::Os`] if the kernel refuses.
pub fn interfaces() -> Result<Vec<InterfaceInfo>> {
    let names = netdev::names().map_err(|source| ask("name", source))?;
    let infos = names.iter().map(|name| interface_info(name));
    infos.filter(|info| !matches!(info, Err(Error::NoSuchInterface { .. }))).collect()
}

fn named(name: &str, what: &'static str, source: io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => Error::NoSuchInterface { name: name.to_owned() },
        _ => ask(what, source).of(name),
    }
}

fn ask(what: &'static str, source: io::Error) -> Error {
    Error::os(Step::QueryInterface(what), source)
}
