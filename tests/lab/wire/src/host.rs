//! A host on the far end of a cable: a network namespace with a protocol stack of its own.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::thread::JoinHandle;

use crate::{link, namespace};

/// A network namespace with one interface and an address. It goes when this and the last thread in it do.
#[derive(Debug)]
pub struct Host {
    namespace: File,
    interface: String,
}

impl Host {
    /// Moves `interface`, an end of a veth pair of the calling thread's namespace, into a host with
    /// `address`, of a network of 24 bits. It has a carrier then; what is to be sent from the other end waits for that
    /// one's ([`link::wait_for_carrier`]).
    ///
    /// # Panics
    /// Where the kernel refuses: it has given a namespace to the calling thread already.
    pub fn new(interface: &str, address: Ipv4Addr) -> Self {
        let namespace = std::thread::spawn(|| {
            namespace::unshare().expect("another namespace");
            namespace::current().expect("a thread has a namespace")
        });
        let interface = interface.to_owned();
        let host = Self { namespace: namespace.join().unwrap(), interface: interface.clone() };
        link::move_to(&interface, host.namespace.as_raw_fd()).expect("an interface can be moved");
        host.run(move || {
            link::set_up("lo", true).expect("the loopback can be set up");
            link::add_address(&interface, address, 24).expect("an address can be added");
            link::set_up(&interface, true).expect("an interface can be set up");
            link::wait_for_carrier(&interface);
        })
        .join()
        .unwrap();
        host
    }

    /// Has the host compute the checksums of what it sends, as one with a card that cannot.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn finish_checksums(&self) {
        let interface = self.interface.clone();
        self.run(move || link::finish_checksums(&interface).expect("veth can do without"))
            .join()
            .unwrap();
    }

    /// Gives the host a VXLAN tunnel to another one, with an address of its own of a network of 24 bits.
    ///
    /// # Errors
    /// Where the kernel has no VXLAN.
    ///
    /// # Panics
    /// Where it refuses otherwise.
    pub fn tunnel_to(&self, remote: Ipv4Addr, address: Ipv4Addr) -> std::io::Result<()> {
        let over = self.interface.clone();
        let tunnel = self.run(move || {
            link::add_vxlan("vx0", &over, remote)?;
            link::add_address("vx0", address, 24).expect("an address can be added");
            link::set_up("vx0", true).expect("an interface can be set up");
            Ok(())
        });
        tunnel.join().unwrap()
    }

    /// A file that stands for its namespace while it lives.
    pub fn namespace_file(&self) -> std::path::PathBuf {
        format!("/proc/self/fd/{}", self.namespace.as_raw_fd()).into()
    }

    /// The name of its interface.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Runs `work` in a thread of the host.
    ///
    /// # Panics
    /// Where there can be no thread.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let namespace = self.namespace.try_clone().expect("a descriptor is left");
        std::thread::spawn(move || {
            namespace::enter(&namespace).expect("root may enter a namespace");
            work()
        })
    }
}
