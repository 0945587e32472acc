//! The choice of an interface to capture on.

use std::fmt;

/// The interface or interfaces to capture on; from a name, of which `any` stands for all interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Interface {
    /// All interfaces of the network namespace, also those that appear later.
    ///
    /// Packets are cooked: they begin with a header of Linux cooked captures
    /// ([`LinkType::LINUX_SLL2`](crate::packet::LinkType::LINUX_SLL2)), which has the interface's index and hardware
    /// type, the protocol, the direction and the sender's link-layer address.
    Any,
    /// The interface with this name or alternative name.
    Named(String),
}

impl Interface {
    /// Returns the name; `any` for all interfaces.
    pub fn name(&self) -> &str {
        match self {
            Self::Any => "any",
            Self::Named(name) => name,
        }
    }
}

impl From<String> for Interface {
    fn from(name: String) -> Self {
        if name == "any" { Self::Any } else { Self::Named(name) }
    }
}

impl From<&str> for Interface {
    fn from(name: &str) -> Self {
        name.to_owned().into()
    }
}

impl From<&String> for Interface {
    fn from(name: &String) -> Self {
        name.as_str().into()
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
