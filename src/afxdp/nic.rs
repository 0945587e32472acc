//! Queries about an interface by its name.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Error, Result, Step};
use crate::interface::{queues, stripping};
use crate::packet::LinkType;
use crate::sys::netdev::{Netdev, question_socket};

pub(super) fn index_of(name: &str) -> Result<u32> {
    ask(name, "index", |asker| asker.index(name))
}

/// Returns the kind of interface (`ARPHRD_*`).
pub(super) fn hardware_of(name: &str) -> Result<u16> {
    ask(name, "kind", |asker| asker.hardware(name))
}

/// Returns an error if VLAN tags are delivered outside of the packets' bytes.
pub(super) fn check_tags(name: &str) -> Result<()> {
    ask(name, "offloads", |asker| Ok(stripping(asker, name)))?.refuse(name)
}

/// Returns the link-layer header of the interface's packets.
pub(super) fn link_of(name: &str) -> Result<Option<LinkType>> {
    hardware_of(name).map(LinkType::of_hardware)
}

/// Opens a socket for queries in the calling thread's namespace.
pub(super) fn asker() -> Result<OwnedFd> {
    question_socket().map_err(|source| Error::os(Step::QueryInterface("state"), source))
}

/// Returns the number of receive queues in use; `None` if neither the driver, sysfs nor rtnetlink reports it.
pub(super) fn queue_count(name: &str) -> Result<Option<u32>> {
    ask(name, "queues", |asker| {
        asker.index(name)?;
        Ok(queues(asker, name).map(|(rx, _)| rx))
    })
}

fn ask<T>(
    name: &str,
    what: &'static str,
    question: impl FnOnce(Netdev<'_>) -> io::Result<T>,
) -> Result<T> {
    let socket = asker().map_err(|error| error.of(name))?;
    question(Netdev(socket.as_fd())).map_err(|source| match source.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => Error::NoSuchInterface { name: name.to_owned() },
        _ => Error::os(Step::QueryInterface(what), source).of(name),
    })
}
