//! An interface without a link-layer header: packets are written to a file, and come in.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;

use crate::link;

/// A tun interface (Documentation/networking/tuntap.rst), set up; gone when this is dropped.
#[derive(Debug)]
pub struct Tun {
    /// Its name.
    pub name: String,
    file: File,
}

impl Tun {
    /// Makes one in the calling thread's namespace.
    ///
    /// # Errors
    /// Where `/dev/net/tun` is not for everybody, or there is none.
    pub fn new() -> io::Result<Self> {
        const TUN: i16 = 0x0001;
        const NO_PACKET_INFORMATION: i16 = 0x1000;
        const SET_INTERFACE: libc::Ioctl = 0x4004_54ca;
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
        let name = "tun0";
        // SAFETY: a C struct of integers and a union of such; all zero is valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = TUN | NO_PACKET_INFORMATION;
        // SAFETY: TUNSETIFF reads and writes an `ifreq`.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), SET_INTERFACE, &raw mut request) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        link::set_up(name, true)?;
        Ok(Self { name: name.to_owned(), file })
    }

    /// Has it be of another kind (`ARPHRD_*`).
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn set_kind(&self, kind: u16) {
        const SET_KIND: libc::Ioctl = 0x4004_54cd;
        link::set_up(&self.name, false).expect("a tun can be set down");
        // SAFETY: TUNSETLINK takes a number.
        let result =
            unsafe { libc::ioctl(self.file.as_raw_fd(), SET_KIND, libc::c_ulong::from(kind)) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        link::set_up(&self.name, true).expect("and up");
    }

    /// Has an IP packet come in.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn receive(&mut self, packet: &[u8]) {
        self.file.write_all(packet).expect("a tun takes packets");
    }
}
