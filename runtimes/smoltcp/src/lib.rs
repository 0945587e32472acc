//! ringtap as a device of [smoltcp]: a TCP/IP stack in user space, on the kernel's packet rings.
//!
//! [`Device`] lends smoltcp each packet where it lies in the ring, and lets it write frames into the transmit ring: nothing is
//! copied between. [`Device::wait`] sends what was written, and sleeps until there is something to do:
//!
//! ```no_run
//! use ringtap_smoltcp::{Device, now};
//! use smoltcp::iface::{Config, Interface, SocketSet};
//! use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};
//!
//! fn main() -> ringtap::Result<()> {
//!     let capture = ringtap::Capture::builder().interface("eth0").ignore_outgoing(true).build()?;
//!     let mut device = Device::new(capture, ringtap::Injector::open("eth0")?)?;
//!     let address = HardwareAddress::Ethernet(EthernetAddress([2, 0, 0, 0, 0, 1]));
//!     let mut interface = Interface::new(Config::new(address), &mut device, now());
//!     interface.update_ip_addrs(|all| {
//!         all.push(IpCidr::new(IpAddress::v4(10, 0, 0, 2), 24)).expect("it is the first");
//!     });
//!     let mut sockets = SocketSet::new(Vec::new());
//!     loop {
//!         interface.poll(now(), &mut device, &mut sockets);
//!         // Read from the sockets and write to them.
//!         let delay = interface.poll_delay(now(), &sockets);
//!         device.wait(delay.map(Into::into))?;
//!     }
//! }
//! ```
//!
//! With AF_PACKET the kernel's own stack sees all packets as well: give smoltcp addresses that the interface does not have. With
//! AF_XDP it sees none of the queue's packets.
//!
//! [smoltcp]: https://docs.rs/smoltcp

mod device;

pub use self::device::{Device, DeviceStats, ReceiveToken, TransmitToken};

/// Returns the time for smoltcp.
pub fn now() -> smoltcp::time::Instant {
    smoltcp::time::Instant::now()
}
