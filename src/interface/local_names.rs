//! Names in filters that this machine knows by itself.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use ringtap_filter::Resolver;

use crate::sys::netdev::{Netdev, question_socket};

/// Looks up names of interfaces in a filter's text (`ifname eth0`) and, if an interface is given, the mask of its network
/// (`ip broadcast`); for [`BpfFilter::parse_with`](crate::BpfFilter::parse_with).
///
/// It asks the kernel about the calling thread's network namespace, and nobody else;
/// [`NetNs::within`](crate::capture::NetNs::within) is for others.
///
/// ```no_run
/// use ringtap::BpfFilter;
/// use ringtap::interface::LocalNames;
///
/// # fn main() -> ringtap::Result<()> {
/// let filter = BpfFilter::parse_with("not ifname lo and udp", &LocalNames::default())?;
/// let capture = ringtap::Capture::builder().interface("any").filter(filter).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct LocalNames {
    interface: Option<String>,
}

impl LocalNames {
    /// Knows the mask of this interface's network, too.
    pub fn of(interface: impl Into<String>) -> Self {
        Self { interface: Some(interface.into()) }
    }
}

impl Resolver for LocalNames {
    fn interface(&self, name: &str) -> Option<u32> {
        Netdev(question_socket().ok()?.as_fd()).index(name).ok()
    }

    fn netmask(&self) -> Option<Ipv4Addr> {
        Netdev(question_socket().ok()?.as_fd()).netmask(self.interface.as_deref()?).ok()
    }
}
