//! Names of interfaces by index, for packets of all interfaces.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use super::ask;
use crate::error::Result;
use crate::sys::netdev::{Netdev, question_socket};

/// The names of the interfaces of a network namespace, each looked up once; for
/// [`Packet::interface_index`](crate::Packet::interface_index).
///
/// ```no_run
/// # fn main() -> ringtap::Result<()> {
/// let mut names = ringtap::interface::InterfaceNames::new()?;
/// for packet in ringtap::Capture::open("any")?.packets() {
///     let packet = packet?;
///     println!("{} {}", names.of(packet.packet().interface_index().unwrap_or(0)), packet.data().len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct InterfaceNames {
    socket: OwnedFd,
    known: HashMap<u32, String>,
}

impl InterfaceNames {
    /// Creates an empty cache for the calling thread's network namespace;
    /// [`NetNs::within`](crate::capture::NetNs::within) is for others.
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) if there is no descriptor left.
    pub fn new() -> Result<Self> {
        let socket = question_socket().map_err(|source| ask("name", source))?;
        Ok(Self { socket, known: HashMap::new() })
    }

    /// Returns the name of the interface with this index: the one that it had when it was first asked for. An
    /// interface that is gone by then is called by its number, such as `if7`.
    pub fn of(&mut self, index: u32) -> &str {
        let Self { socket, known } = self;
        known.entry(index).or_insert_with(|| {
            Netdev(socket.as_fd()).name_of(index).unwrap_or_else(|_| format!("if{index}"))
        })
    }
}
