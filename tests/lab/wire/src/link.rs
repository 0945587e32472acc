//! Interfaces, by rtnetlink: no `ip` binary is needed.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use crate::netlink::{Answer, Request};

/// Bytes of `struct ifinfomsg`.
const LINK: usize = 16;
/// Makes something new; an error if it exists.
const CREATE: libc::c_int = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
// Of linux/if_link.h.
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;

/// A veth pair: what goes into one end comes out of the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Veth {
    /// The end that tests send into.
    pub left: String,
    /// The end that tests capture on.
    pub right: String,
}

impl Veth {
    /// Sets both ends up and waits for the carrier.
    ///
    /// # Panics
    /// Where the kernel refuses, or after 10 s without a carrier.
    pub fn up(&self) {
        for name in [&self.left, &self.right] {
            set_up(name, true).unwrap_or_else(|error| panic!("setting {name} up: {error}"));
        }
        for name in [&self.left, &self.right] {
            wait_for_carrier(name);
        }
    }

    /// Sets the right end down.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn down(&self) {
        set_up(&self.right, false).expect("a veth can be set down");
    }

    /// Sets the MTU of both ends.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn set_mtu(&self, mtu: u32) {
        for name in [&self.left, &self.right] {
            set_mtu(name, mtu).unwrap_or_else(|error| panic!("MTU {mtu}: {error}"));
        }
    }

    /// Sets the MTU of the right end alone.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn set_mtu_of_right(&self, mtu: u32) {
        set_mtu(&self.right, mtu).unwrap_or_else(|error| panic!("MTU {mtu}: {error}"));
    }

    /// Has both ends write VLAN tags into the bytes; see [`write_tags`].
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn write_tags(&self) {
        write_tags(&self.left);
        write_tags(&self.right);
    }

    /// Removes both ends.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn delete(&self) {
        let request = link(libc::RTM_DELLINK, libc::NLM_F_ACK, &self.right);
        request.send().expect("a veth can be removed");
    }

    /// Frames that went into the left end and were lost before the right one could see them.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn lost(&self) -> u64 {
        let sent = stats(&self.left).expect("a veth has statistics");
        let seen = stats(&self.right).expect("a veth has statistics");
        sent.dropped + seen.missed
    }
}

/// Counters of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkStats {
    /// Frames sent.
    pub sent: u64,
    /// Frames that could not be sent.
    pub dropped: u64,
    /// Frames received.
    pub received: u64,
    /// Frames that arrived and were dropped before any socket saw them.
    pub missed: u64,
}

pub(crate) fn create_veth(veth: &Veth, queues: u32) -> io::Result<()> {
    const PEER: u16 = 1; // VETH_INFO_PEER
    let with_queues = |request: Request| {
        request
            .with_number(libc::IFLA_NUM_RX_QUEUES, queues)
            .with_number(libc::IFLA_NUM_TX_QUEUES, queues)
    };
    let peer = |request: Request| {
        request.with_nested(PEER, &[0; LINK], |request| {
            with_queues(request.with_text(libc::IFLA_IFNAME, &veth.right))
        })
    };
    let request = with_queues(link(libc::RTM_NEWLINK, CREATE, &veth.left));
    with_info(request, "veth", peer).send().map(drop)
}

/// Adds the kind of a new interface.
fn with_info(request: Request, kind: &str, data: impl FnOnce(Request) -> Request) -> Request {
    request.with_nested(libc::IFLA_LINKINFO, &[], |request| {
        request.with_text(INFO_KIND, kind).with_nested(INFO_DATA, &[], data)
    })
}

fn set_mtu(name: &str, mtu: u32) -> io::Result<()> {
    change(name).with_number(libc::IFLA_MTU, mtu).send().map(drop)
}

/// Sets an interface up or down.
///
/// # Errors
/// The kernel's.
pub fn set_up(name: &str, up: bool) -> io::Result<()> {
    let up = if up { libc::IFF_UP as u32 } else { 0 };
    let body = link_body(0, up, libc::IFF_UP as u32);
    let request = Request::new(libc::RTM_SETLINK, libc::NLM_F_ACK, &body);
    request.with_text(libc::IFLA_IFNAME, name).send().map(drop)
}

/// Counters of an interface.
///
/// # Errors
/// The kernel's.
pub fn stats(name: &str) -> io::Result<LinkStats> {
    let link = get(name)?;
    let stats = link.attribute(LINK, libc::IFLA_STATS64);
    // struct rtnl_link_stats64: packets received and sent, bytes, errors, and dropped packets.
    let number =
        |at: usize| Some(u64::from_ne_bytes(stats?.get(8 * at..)?.get(..8)?.try_into().ok()?));
    let stats = || {
        Some(LinkStats {
            sent: number(1)?,
            dropped: number(7)?,
            received: number(0)?,
            missed: number(6)?,
        })
    };
    stats().ok_or_else(|| io::Error::other("the kernel sent no statistics"))
}

/// The index of an interface.
///
/// # Errors
/// The kernel's.
pub fn index(name: &str) -> io::Result<u32> {
    let cut_off = || io::Error::other("an interface without an index");
    get(name)?.number_at(4).ok_or_else(cut_off)
}

/// How many want the interface to be promiscuous.
///
/// # Errors
/// The kernel's.
pub fn promiscuity(name: &str) -> io::Result<u32> {
    let link = get(name)?;
    let count =
        link.attribute(LINK, libc::IFLA_PROMISCUITY).and_then(|value| value.try_into().ok());
    let count = count.ok_or_else(|| io::Error::other("the kernel sent no promiscuity"))?;
    Ok(u32::from_ne_bytes(count))
}

/// Limits the frames that an interface splits, or has split, to so many bytes.
///
/// # Errors
/// The kernel's.
pub fn limit_segments(name: &str, bytes: u32) -> io::Result<()> {
    const GSO_MAX_SIZE: u16 = 41;
    const GSO_IPV4_MAX_SIZE: u16 = 63;
    let request = change(name).with_number(GSO_MAX_SIZE, bytes);
    request.with_number(GSO_IPV4_MAX_SIZE, bytes).send().map(drop)
}

/// Renames an interface.
///
/// # Errors
/// The kernel's.
pub fn rename(name: &str, to: &str) -> io::Result<()> {
    let body = link_body(index(name)?, 0, 0);
    let request = Request::new(libc::RTM_SETLINK, libc::NLM_F_ACK, &body);
    request.with_text(libc::IFLA_IFNAME, to).send().map(drop)
}

/// Has the kernel compute the checksums of what is sent on an interface (`ETHTOOL_STXCSUM`).
///
/// # Errors
/// The kernel's.
pub fn finish_checksums(name: &str) -> io::Result<()> {
    const SET_TX_CHECKSUMS: u32 = 0x17;
    ethtool(name, [SET_TX_CHECKSUMS, 0]).map(drop)
}

/// Has an interface write VLAN tags into the bytes of what it sends, instead of leaving them to a card: so they are there
/// when they come out of the other end of a veth pair (`ethtool -K … txvlan off`).
///
/// # Panics
/// Where the kernel refuses.
pub fn write_tags(name: &str) {
    const GET_FLAGS: u32 = 0x25;
    const SET_FLAGS: u32 = 0x26;
    const TX_VLAN: u32 = 1 << 7;
    let [_, flags] = ethtool(name, [GET_FLAGS, 0]).expect("an interface has offloads");
    ethtool(name, [SET_FLAGS, flags & !TX_VLAN]).expect("tags need not be left to a card");
}

/// An ethtool command that takes or gives one number.
fn ethtool(name: &str, mut command: [u32; 2]) -> io::Result<[u32; 2]> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    // SAFETY: a C struct of integers and pointers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = command.as_mut_ptr().cast();
    // SAFETY: the request and the command it points to are alive and of the sizes this ioctl has.
    let result = unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut request)
    };
    if result == 0 { Ok(command) } else { Err(io::Error::last_os_error()) }
}

/// Gives an interface another name beside its own, which may be as long as 127 bytes.
///
/// # Errors
/// The kernel's.
pub fn add_name(name: &str, other: &str) -> io::Result<()> {
    const NEW_LINK_PROPERTY: u16 = 108;
    const PROPERTIES: u16 = 52;
    const OTHER_NAME: u16 = 53;
    let request = Request::new(NEW_LINK_PROPERTY, CREATE, &link_body(index(name)?, 0, 0));
    let names = |request: Request| request.with_text(OTHER_NAME, other);
    request.with_nested(PROPERTIES, &[], names).send().map(drop)
}

/// Moves an interface into the namespace of this descriptor. It is down there.
pub fn move_to(name: &str, namespace: RawFd) -> io::Result<()> {
    change(name).with_number(libc::IFLA_NET_NS_FD, namespace as u32).send().map(drop)
}

/// Gives an interface an address.
pub fn add_address(name: &str, address: Ipv4Addr, prefix_len: u8) -> io::Result<()> {
    // struct ifaddrmsg: the family, bits of the network, flags, scope, the interface.
    let mut body = [0; 8];
    body[..2].copy_from_slice(&[libc::AF_INET as u8, prefix_len]);
    body[4..].copy_from_slice(&index(name)?.to_ne_bytes());
    Request::new(libc::RTM_NEWADDR, CREATE, &body)
        .with(libc::IFA_LOCAL, &address.octets())
        .with(libc::IFA_ADDRESS, &address.octets())
        .send()
        .map(drop)
}

/// Makes an interface whose driver does not say how many queues it has (an intermediate functional block).
///
/// # Errors
/// Why the kernel does not.
pub fn add_ifb(name: &str, queues: u32) -> io::Result<()> {
    let request = link(libc::RTM_NEWLINK, CREATE, name)
        .with_number(libc::IFLA_NUM_RX_QUEUES, queues)
        .with_number(libc::IFLA_NUM_TX_QUEUES, queues);
    with_info(request, "ifb", |request| request).send()?;
    set_up(name, true)
}

/// Makes a VXLAN interface over another one, to one remote host.
pub fn add_vxlan(name: &str, over: &str, remote: Ipv4Addr) -> io::Result<()> {
    const ID: u16 = 1;
    const GROUP: u16 = 2;
    const OVER: u16 = 3;
    const PORT: u16 = 15;
    let over = index(over)?;
    let data = |request: Request| {
        request
            .with_number(ID, 5)
            .with_number(OVER, over)
            .with(GROUP, &remote.octets())
            .with(PORT, &4789_u16.to_be_bytes())
    };
    with_info(link(libc::RTM_NEWLINK, CREATE, name), "vxlan", data).send().map(drop)
}

/// Makes a bridge of the kernel's between interfaces. What it forwards has its VLAN tag beside its bytes, if the
/// interface that it goes out on leaves tags to a card.
///
/// # Errors
/// The kernel's, which may have no bridges.
pub fn add_bridge(name: &str, between: &[&str]) -> io::Result<()> {
    with_info(link(libc::RTM_NEWLINK, CREATE, name), "bridge", |request| request).send()?;
    for one in between {
        let request = link(libc::RTM_SETLINK, libc::NLM_F_ACK, one);
        request.with_number(libc::IFLA_MASTER, index(name)?).send()?;
    }
    set_up(name, true)
}

/// Limits what an interface sends to `rate` bytes a second, `burst` bytes at once, with room for `queue`
/// bytes that wait (a token bucket, tc-tbf(8)).
///
/// A timer sends what waited, on whichever core: see
/// [`stay_on_this_core`](crate::limits::stay_on_this_core) for what that does to order.
///
/// # Errors
/// The kernel's.
pub fn limit_rate(name: &str, rate: u32, burst: u32, queue: u32) -> io::Result<()> {
    const TCA_TBF_PARMS: u16 = 1;
    const TCA_TBF_BURST: u16 = 6;
    // struct tc_tbf_qopt: two struct tc_ratespec of 12 bytes, limit, buffer, mtu.
    let mut parameters = vec![0; 36];
    parameters[1] = 1; // TC_LINKLAYER_ETHERNET: no rate table is needed
    parameters[8..12].copy_from_slice(&rate.to_ne_bytes());
    parameters[24..28].copy_from_slice(&queue.to_ne_bytes());
    // struct tcmsg: the interface, the discipline's handle, and where it is put.
    let mut body = [0; 20];
    body[4..8].copy_from_slice(&index(name)?.to_ne_bytes());
    body[8..12].copy_from_slice(&(1_u32 << 16).to_ne_bytes());
    body[12..16].copy_from_slice(&u32::MAX.to_ne_bytes()); // TC_H_ROOT
    let options = |request: Request| {
        request.with(TCA_TBF_PARMS, &parameters).with_number(TCA_TBF_BURST, burst)
    };
    Request::new(libc::RTM_NEWQDISC, CREATE, &body)
        .with_text(libc::TCA_KIND, "tbf")
        .with_nested(libc::TCA_OPTIONS, &[], options)
        .send()
        .map(drop)
}

/// Waits until an interface of this namespace has a carrier: before, what is sent is lost without a word.
///
/// # Panics
/// After 10 s without one.
pub fn wait_for_carrier(name: &str) {
    let give_up = Instant::now() + Duration::from_secs(10);
    while !has_carrier(name).unwrap_or(false) {
        assert!(Instant::now() < give_up, "{name} has no carrier after 10 s");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn has_carrier(name: &str) -> io::Result<bool> {
    const CARRIER: u32 = libc::IFF_RUNNING as u32 | libc::IFF_LOWER_UP as u32;
    Ok(get(name)?.number_at(8).is_some_and(|flags| flags & CARRIER == CARRIER))
}

/// `struct ifinfomsg`.
fn link_body(index: u32, flags: u32, mask: u32) -> [u8; LINK] {
    let mut body = [0; LINK];
    for (at, number) in [(4, index), (8, flags), (12, mask)] {
        body[at..at + 4].copy_from_slice(&number.to_ne_bytes());
    }
    body
}

/// A request that concerns the interface of this name.
fn link(kind: u16, flags: libc::c_int, name: &str) -> Request {
    Request::new(kind, flags, &link_body(0, 0, 0)).with_text(libc::IFLA_IFNAME, name)
}

fn change(name: &str) -> Request {
    link(libc::RTM_SETLINK, libc::NLM_F_ACK, name)
}

fn get(name: &str) -> io::Result<Answer> {
    let answer = link(libc::RTM_GETLINK, 0, name).send()?;
    answer.ok_or_else(|| io::Error::other("an answer that is no link"))
}
