//! The kernel's information about a network interface, read by ioctl: sysfs would show the interfaces of the
//! network namespace it was mounted in, not those of ours.

#![allow(unsafe_code, reason = "ioctls with pointers and unions")]

use std::borrow::Cow;
use std::ffi::CStr;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::netlink;

/// Maximum length of an interface name in bytes (`IFNAMSIZ` without the terminator).
const MAX_NAME: usize = libc::IFNAMSIZ - 1;
/// Maximum length of an alternative name (`ALTIFNAMSIZ`), which no ioctl accepts.
const MAX_ALTERNATIVE: usize = 127;
/// An Ethernet header with a tag; hardly any link has a longer header outside its MTU.
const LONGEST_HEADER: usize = 18;

/// Queries about interfaces, made on any socket of the network namespace in question.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Netdev<'a>(pub(crate) BorrowedFd<'a>);

/// Returns the receive and transmit queues in use according to sysfs. Returns `None` if sysfs does not have
/// this interface: it may be mounted for another network namespace, where a different interface has this
/// name.
pub(crate) fn queues_in_sysfs(name: &str, index: u32, address: &[u8]) -> Option<(u32, u32)> {
    let folder = std::path::Path::new("/sys/class/net").join(name);
    let read = |file| std::fs::read_to_string(folder.join(file)).ok();
    let bytes: Vec<String> = address.iter().map(|byte| format!("{byte:02x}")).collect();
    if read("ifindex")?.trim().parse() != Ok(index) || read("address")?.trim() != bytes.join(":") {
        return None;
    }
    let (mut rx, mut tx) = (0, 0);
    for entry in std::fs::read_dir(folder.join("queues")).ok()? {
        let queue = entry.ok()?.file_name();
        match queue.to_str()?.split_once('-')?.0 {
            "rx" => rx += 1,
            "tx" => tx += 1,
            _ => {}
        }
    }
    Some((rx, tx))
}

impl Netdev<'_> {
    pub(crate) fn index(&self, name: &str) -> io::Result<u32> {
        Ok(rustix::net::netdevice::name_to_index(self.0, &canonical(name)?)?)
    }

    /// Returns whether an interface with this index exists.
    #[cfg(feature = "af-xdp")]
    pub(crate) fn exists(&self, index: u32) -> bool {
        rustix::net::netdevice::index_to_name(self.0, index).is_ok()
    }

    /// Returns whether the interface with this index is up, whatever its name is now.
    pub(crate) fn is_up(&self, index: u32) -> bool {
        let name = rustix::net::netdevice::index_to_name(self.0, index);
        name.is_ok_and(|name| self.flags(&name).is_ok_and(|flags| flags & libc::IFF_UP as u32 != 0))
    }

    /// Returns the MTU of the interface with this index, whatever its name is now.
    pub(crate) fn mtu_of(&self, index: u32) -> io::Result<u32> {
        self.mtu(&rustix::net::netdevice::index_to_name(self.0, index)?)
    }

    /// Returns the interface's `IFF_*` flags.
    pub(crate) fn flags(&self, name: &str) -> io::Result<u32> {
        let answer = self.ask(name, libc::SIOCGIFFLAGS as libc::Ioctl)?;
        // SAFETY: SIOCGIFFLAGS fills this member.
        let flags = unsafe { answer.ifr_ifru.ifru_flags };
        Ok(u32::from(flags as u16))
    }

    pub(crate) fn mtu(&self, name: &str) -> io::Result<u32> {
        let answer = self.ask(name, libc::SIOCGIFMTU as libc::Ioctl)?;
        // SAFETY: SIOCGIFMTU fills this member.
        let mtu = unsafe { answer.ifr_ifru.ifru_mtu };
        Ok(mtu as u32)
    }

    /// Returns the kind of interface (`ARPHRD_*`, linux/if_arp.h).
    pub(crate) fn hardware(&self, name: &str) -> io::Result<u16> {
        let answer = self.ask(name, libc::SIOCGIFHWADDR as libc::Ioctl)?;
        // SAFETY: SIOCGIFHWADDR fills this member.
        let address = unsafe { answer.ifr_ifru.ifru_hwaddr };
        Ok(address.sa_family)
    }

    /// Returns the six-byte hardware address.
    pub(crate) fn address(&self, name: &str) -> io::Result<[u8; 6]> {
        let answer = self.ask(name, libc::SIOCGIFHWADDR as libc::Ioctl)?;
        // SAFETY: SIOCGIFHWADDR fills this member.
        let data = unsafe { answer.ifr_ifru.ifru_hwaddr }.sa_data;
        Ok(std::array::from_fn(|at| data[at] as u8))
    }

    /// Returns the mask of the first IPv4 network of an interface.
    pub(crate) fn netmask(&self, name: &str) -> io::Result<Ipv4Addr> {
        let answer = self.ask(name, libc::SIOCGIFNETMASK as libc::Ioctl)?;
        // SAFETY: SIOCGIFNETMASK fills this member.
        let data = unsafe { answer.ifr_ifru.ifru_netmask }.sa_data;
        // A `sockaddr_in`: a port of two bytes, then the address.
        let [a, b, c, d] = std::array::from_fn(|at| data[2 + at] as u8);
        Ok(Ipv4Addr::new(a, b, c, d))
    }

    /// Returns the driver's name, from `ETHTOOL_GDRVINFO`.
    pub(crate) fn driver(&self, name: &str) -> io::Result<String> {
        let info = self.ethtool(name, DriverInfo { cmd: ETHTOOL_GDRVINFO, ..DriverInfo::EMPTY })?;
        let name = CStr::from_bytes_until_nul(&info.driver).unwrap_or_default();
        Ok(name.to_string_lossy().into_owned())
    }

    /// Returns the receive and transmit queues in use, from `ETHTOOL_GCHANNELS`; combined queues count as
    /// both.
    pub(crate) fn queues(&self, name: &str) -> io::Result<(u32, u32)> {
        let channels =
            self.ethtool(name, Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::EMPTY })?;
        Ok((channels.rx + channels.combined, channels.tx + channels.combined))
    }

    /// Returns the speed in Mbit/s, from `ETHTOOL_GSET`; `None` if the driver does not know it.
    pub(crate) fn speed(&self, name: &str) -> io::Result<Option<u32>> {
        let settings = self.ethtool(name, Settings { cmd: ETHTOOL_GSET, ..Settings::EMPTY })?;
        let speed = u32::from(settings.speed_high) << 16 | u32::from(settings.speed);
        Ok((speed != 0 && speed != u32::MAX && speed != u32::from(u16::MAX)).then_some(speed))
    }

    /// Returns whether received packets are merged before any socket sees them (`ETHTOOL_GGRO`).
    pub(crate) fn is_gro_on(&self, name: &str) -> io::Result<bool> {
        Ok(self.ethtool(name, Value { cmd: ETHTOOL_GGRO, data: 0 })?.data != 0)
    }

    /// Returns whether large sends are left for the card to split (`ETHTOOL_GTSO`).
    pub(crate) fn is_tso_on(&self, name: &str) -> io::Result<bool> {
        Ok(self.ethtool(name, Value { cmd: ETHTOOL_GTSO, data: 0 })?.data != 0)
    }

    /// Returns the length in bytes of the longest packet that a packet socket may be given here: limited by
    /// the MTU or, if segments are merged, or split only later, by the maximum size of an IP packet.
    pub(crate) fn longest_packet(&self, name: &str) -> io::Result<usize> {
        // A driver that does not answer has none of these features.
        let is_on =
            |cmd| self.ethtool(name, Value { cmd, data: 0 }).is_ok_and(|value| value.data != 0);
        let is_whole = [ETHTOOL_GGRO, ETHTOOL_GTSO, ETHTOOL_GGSO].into_iter().any(is_on)
            || self.offload_flags(name).is_ok_and(|flags| flags & ETH_FLAG_LRO != 0);
        let by_mtu = self.mtu(name)? as usize + LONGEST_HEADER;
        Ok(if is_whole { by_mtu.max(usize::from(u16::MAX) + LONGEST_HEADER) } else { by_mtu })
    }

    /// Returns the `ETH_FLAG_*` flags, from `ETHTOOL_GFLAGS`.
    pub(crate) fn offload_flags(&self, name: &str) -> io::Result<u32> {
        Ok(self.ethtool(name, Value { cmd: ETHTOOL_GFLAGS, data: 0 })?.data)
    }

    /// Returns whether the driver stamps received packets with the card's clock, and in software, from
    /// `ETHTOOL_GET_TS_INFO`.
    pub(crate) fn rx_stamps(&self, name: &str) -> io::Result<(bool, bool)> {
        let command = Timestamping { cmd: ETHTOOL_GET_TS_INFO, ..Timestamping::EMPTY };
        let abilities = self.ethtool(name, command)?.abilities;
        let has = |flag| abilities & flag != 0;
        Ok((has(libc::SOF_TIMESTAMPING_RX_HARDWARE), has(libc::SOF_TIMESTAMPING_RX_SOFTWARE)))
    }

    /// Returns the name of the interface with this index.
    pub(crate) fn name_of(&self, index: u32) -> io::Result<String> {
        Ok(rustix::net::netdevice::index_to_name(self.0, index)?)
    }

    /// Returns the current and the maximum number of entries of the card's receive ring, from
    /// `ETHTOOL_GRINGPARAM`.
    pub(crate) fn rx_entries(&self, name: &str) -> io::Result<(u32, u32)> {
        let rings = self.ethtool(name, Rings { cmd: ETHTOOL_GRINGPARAM, ..Rings::EMPTY })?;
        Ok((rings.rx, rings.rx_max))
    }

    /// Returns the number of the card's clock (`/dev/ptp*`), from `ETHTOOL_GET_TS_INFO`; `None` if it has
    /// none.
    pub(crate) fn hardware_clock(&self, name: &str) -> io::Result<Option<u32>> {
        let command = Timestamping { cmd: ETHTOOL_GET_TS_INFO, ..Timestamping::EMPTY };
        Ok(u32::try_from(self.ethtool(name, command)?.clock).ok())
    }

    fn ask(&self, name: &str, request: libc::Ioctl) -> io::Result<libc::ifreq> {
        let mut ifreq = named(name)?;
        self.ioctl(request, &mut ifreq)?;
        Ok(ifreq)
    }

    fn ethtool<T: Copy>(&self, name: &str, mut command: T) -> io::Result<T> {
        let mut ifreq = named(name)?;
        ifreq.ifr_ifru.ifru_data = (&raw mut command).cast();
        self.ioctl(libc::SIOCETHTOOL as libc::Ioctl, &mut ifreq)?;
        Ok(command)
    }

    /// Does what [`ethtool`](Self::ethtool) does for commands without a fixed size: the kernel reads and
    /// writes as many bytes as the command's own fields say, which must not exceed its length.
    #[cfg(feature = "af-xdp")]
    pub(crate) fn ethtool_bytes(&self, name: &str, command: &mut [u8]) -> io::Result<()> {
        let mut ifreq = named(name)?;
        ifreq.ifr_ifru.ifru_data = command.as_mut_ptr().cast();
        self.ioctl(libc::SIOCETHTOOL as libc::Ioctl, &mut ifreq)
    }

    fn ioctl(&self, request: libc::Ioctl, ifreq: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: every request passed here takes an `ifreq`, whose data pointer, if used, points to an
        // ethtool struct of the size its command has, or to bytes of the size its fields say, alive in the
        // callers above.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, std::ptr::from_mut(ifreq)) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Opens a socket for queries if there is no other.
pub(crate) fn question_socket() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::INET, SocketType::DGRAM);
    Ok(rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// Returns the names of all interfaces in the calling thread's namespace.
pub(crate) fn names() -> io::Result<Vec<String>> {
    // SAFETY: takes no arguments; the returned list is freed below.
    let list = unsafe { libc::if_nameindex() };
    if list.is_null() {
        return Err(io::Error::last_os_error());
    }
    let mut names = Vec::new();
    for at in 0.. {
        // SAFETY: the list ends with an entry of index 0, and this does not go beyond it.
        let entry = unsafe { list.add(at) };
        // SAFETY: an entry of the list, which nothing writes.
        let entry = unsafe { *entry };
        if entry.if_index == 0 {
            break;
        }
        // SAFETY: an entry that is not the last has a name.
        let name = unsafe { CStr::from_ptr(entry.if_name) };
        names.push(name.to_string_lossy().into_owned());
    }
    // SAFETY: returned by `if_nameindex`, and freed once.
    unsafe { libc::if_freenameindex(list) };
    Ok(names)
}

/// Returns a name that ioctls accept: the given one or, for a longer alternative name, the interface's own.
fn canonical(name: &str) -> io::Result<Cow<'_, str>> {
    if name.is_empty() || name.len() > MAX_ALTERNATIVE || name.contains(['\0', '/']) {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    match name.len() {
        0..=MAX_NAME => Ok(Cow::Borrowed(name)),
        _ => netlink::own_name(name).map(Cow::Owned),
    }
}

fn named(name: &str) -> io::Result<libc::ifreq> {
    let name = canonical(name)?;
    // SAFETY: a C struct of integers, arrays and pointers; all zero is valid.
    let mut ifreq: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    for (to, from) in ifreq.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(ifreq)
}

// include/uapi/linux/ethtool.h
const ETHTOOL_GSET: u32 = 0x01;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GRINGPARAM: u32 = 0x10;
const ETHTOOL_GTSO: u32 = 0x1e;
const ETHTOOL_GGSO: u32 = 0x23;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_GET_TS_INFO: u32 = 0x41;

/// Flag of [`Netdev::offload_flags`]: the card inserts tags.
pub(crate) const ETH_FLAG_TXVLAN: u32 = 1 << 7;
/// Flag of [`Netdev::offload_flags`]: the card strips tags.
pub(crate) const ETH_FLAG_RXVLAN: u32 = 1 << 8;
/// Flag of [`Netdev::offload_flags`]: the card merges packets.
pub(crate) const ETH_FLAG_LRO: u32 = 1 << 15;

#[derive(Clone, Copy)]
#[repr(C)]
struct Value {
    cmd: u32,
    data: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Rings {
    cmd: u32,
    rx_max: u32,
    other_maxima: [u32; 3],
    rx: u32,
    others: [u32; 3],
}

impl Rings {
    const EMPTY: Self = Self { cmd: 0, rx_max: 0, other_maxima: [0; 3], rx: 0, others: [0; 3] };
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Timestamping {
    cmd: u32,
    abilities: u32,
    clock: i32,
    rest: [u32; 8],
}

impl Timestamping {
    const EMPTY: Self = Self { cmd: 0, abilities: 0, clock: -1, rest: [0; 8] };
}

#[derive(Clone, Copy)]
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

impl DriverInfo {
    const EMPTY: Self = Self { cmd: 0, driver: [0; 32], rest: [0; 160] };
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Channels {
    cmd: u32,
    maxima: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

impl Channels {
    const EMPTY: Self = Self { cmd: 0, maxima: [0; 4], rx: 0, tx: 0, other: 0, combined: 0 };
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Settings {
    cmd: u32,
    modes: [u32; 2],
    speed: u16,
    rest: [u8; 14],
    speed_high: u16,
    tail: [u8; 2],
    more: [u32; 3],
}

impl Settings {
    const EMPTY: Self = Self {
        cmd: 0,
        modes: [0; 2],
        speed: 0,
        rest: [0; 14],
        speed_high: 0,
        tail: [0; 2],
        more: [0; 3],
    };
}

const _: () = assert!(size_of::<DriverInfo>() == 196); // struct ethtool_drvinfo
const _: () = assert!(size_of::<Channels>() == 36); // struct ethtool_channels
const _: () = assert!(size_of::<Settings>() == 44); // struct ethtool_cmd
const _: () = assert!(size_of::<Value>() == 8); // struct ethtool_value
const _: () = assert!(size_of::<Rings>() == 36); // struct ethtool_ringparam
const _: () = assert!(size_of::<Timestamping>() == 44); // struct ethtool_ts_info
