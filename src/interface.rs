//! What the kernel knows of an interface.

use std::io;
use std::os::fd::AsFd;

use crate::error::{Error, Result, Step};
use crate::packet::LinkType;
use crate::sys::netdev::{self, ETH_FLAG_RXVLAN, ETH_FLAG_TXVLAN, Netdev, question_socket};
use crate::sys::netlink;

/// An interface, as [`interface_info`] found it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterfaceInfo {
    /// Its name.
    pub name: String,
    /// Its index, unique in its network namespace.
    pub index: u32,
    /// Largest payload of a frame in bytes, the link-layer header not counted.
    pub mtu: u32,
    /// Mbit/s; `None` where the driver does not say.
    pub speed_mbps: Option<u32>,
    /// The driver's name; `None` where there is none (loopback).
    pub driver: Option<String>,
    /// Receive queues in use; `None` where nobody says. Of a driver that does not (no `get_channels`), those that
    /// sysfs shows, or that the interface was made with.
    pub rx_queues: Option<u32>,
    /// Transmit queues in use; as [`rx_queues`](Self::rx_queues).
    pub tx_queues: Option<u32>,
    /// `IFF_*` flags (netdevice(7)).
    pub flags: u32,
    /// What its packets begin with; `None` where that is not known.
    pub link_type: Option<LinkType>,
    /// Whether VLAN tags of received packets may be kept outside of the packet's bytes: packet sockets still report them,
    /// AF_XDP sockets lose them. True if the card strips them, if the veth peer leaves them to a card, or if the peer is in
    /// another namespace and cannot be asked.
    pub strips_tags: bool,
}

/// Whose offload puts VLAN tags of packets that come in beside their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stripping {
    /// Nobody's.
    No,
    /// That of the interface with this name: itself, or the far end of a veth pair.
    By(String),
    /// The far end's of a veth pair, in another namespace; whether it is on cannot be asked.
    Elsewhere,
}

impl Stripping {
    /// As the error of somebody who needs the tags.
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

/// Where tags of an interface's packets may be taken out of their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TagTaker {
    /// The interface with this index, itself.
    Card(u32),
    /// A veth's far end, whose packets come as it sends them (`veth_xmit`, drivers/net/veth.c); `None` if that is in
    /// another namespace.
    Peer(Option<u32>),
}

impl TagTaker {
    /// Of an interface of the calling thread's namespace, which the asker is of as well.
    pub(crate) fn of(asker: Netdev<'_>, name: &str, index: u32) -> Self {
        match asker.driver(name).is_ok_and(|driver| driver == "veth") {
            true => Self::Peer(netlink::peer(index).ok().flatten()),
            false => Self::Card(index),
        }
    }

    /// Whose offload takes them out now, in any thread.
    pub(crate) fn stripping(self, asker: Netdev<'_>) -> Stripping {
        let (index, flag) = match self {
            Self::Card(index) => (index, ETH_FLAG_RXVLAN),
            Self::Peer(Some(index)) => (index, ETH_FLAG_TXVLAN),
            Self::Peer(None) => return Stripping::Elsewhere,
        };
        // A driver that does not say strips nothing.
        let Ok(name) = asker.name_of(index) else { return Stripping::No };
        match asker.offload_flags(&name).is_ok_and(|flags| flags & flag != 0) {
            true => Stripping::By(name),
            false => Stripping::No,
        }
    }
}

/// Whose offload takes the tags of an interface's packets out of their bytes; both are of the calling thread's namespace.
pub(crate) fn stripping(asker: Netdev<'_>, name: &str) -> Stripping {
    let taker = asker.index(name).map(|index| TagTaker::of(asker, name, index));
    taker.map_or(Stripping::No, |taker| taker.stripping(asker))
}

/// Receive and transmit queues of an interface of the calling thread's namespace, which the asker is of as well.
pub(crate) fn queues(asker: Netdev<'_>, name: &str) -> Option<(u32, u32)> {
    if let Ok(queues) = asker.queues(name) {
        return Some(queues);
    }
    let index = asker.index(name).ok()?;
    let name = asker.name_of(index).ok()?; // its own, not an alternative one
    let address = asker.address(&name).unwrap_or_default();
    let in_use = netdev::queues_in_sysfs(&name, index, &address);
    in_use.or_else(|| netlink::queues(index).ok().flatten())
}

impl InterfaceInfo {
    /// Whether the interface was set up by its administrator (`IFF_UP`).
    pub fn is_up(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }

    /// Whether it has a carrier and can pass packets (`IFF_RUNNING`).
    pub fn has_carrier(&self) -> bool {
        self.flags & libc::IFF_RUNNING as u32 != 0
    }

    /// Whether it is the loopback, which shows each packet twice: going out and coming in.
    pub fn is_loopback(&self) -> bool {
        self.flags & libc::IFF_LOOPBACK as u32 != 0
    }
}

/// Asks the kernel about an interface of the calling thread's network namespace.
///
/// Needs no capability. Reads by ioctl (netdevice(7), `SIOCETHTOOL`) and rtnetlink, so it answers for the namespace that
/// the thread is in. `/sys/class/net`, which may be of another one, is asked only how many queues an interface has, and
/// only if it knows that very interface.
///
/// # Errors
/// [`Error::NoSuchInterface`], or [`Error::Os`] where the kernel refuses.
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

/// All interfaces of the calling thread's network namespace, as [`interface_info`] tells of each.
///
/// One that goes while they are looked at is left out.
///
/// # Errors
/// [`Error::Os`] where the kernel refuses.
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
