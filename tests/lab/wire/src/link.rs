//! Interfaces, by rtnetlink: no `ip` binary is needed.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, Prop,
};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

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
            let attributes = vec![LinkAttribute::Mtu(mtu)];
            change(name, attributes, None).unwrap_or_else(|error| panic!("MTU {mtu}: {error}"));
        }
    }

    /// Sets the MTU of the right end alone.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn set_mtu_of_right(&self, mtu: u32) {
        change(&self.right, vec![LinkAttribute::Mtu(mtu)], None)
            .unwrap_or_else(|error| panic!("MTU {mtu}: {error}"));
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
        let message = RouteNetlinkMessage::DelLink(named(&self.right));
        request(message, NLM_F_ACK).expect("a veth can be removed");
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
    let end = |name: &str| {
        let mut message = named(name);
        message.attributes.push(LinkAttribute::NumRxQueues(queues));
        message.attributes.push(LinkAttribute::NumTxQueues(queues));
        message
    };
    let mut message = end(&veth.left);
    let peer = InfoVeth::Peer(end(&veth.right));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(peer)),
    ]));
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    request(RouteNetlinkMessage::NewLink(message), flags).map(drop)
}

/// Sets an interface up or down.
///
/// # Errors
/// The kernel's.
pub fn set_up(name: &str, up: bool) -> io::Result<()> {
    change(name, Vec::new(), Some(up))
}

/// Counters of an interface.
///
/// # Errors
/// The kernel's.
pub fn stats(name: &str) -> io::Result<LinkStats> {
    let link = get(name)?;
    let stats = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Stats64(stats) => Some(LinkStats {
            sent: stats.tx_packets,
            dropped: stats.tx_dropped,
            received: stats.rx_packets,
            missed: stats.rx_dropped,
        }),
        _ => None,
    });
    stats.ok_or_else(|| io::Error::other("the kernel sent no statistics"))
}

/// The index of an interface.
///
/// # Errors
/// The kernel's.
pub fn index(name: &str) -> io::Result<u32> {
    Ok(get(name)?.header.index)
}

/// How many want the interface to be promiscuous.
///
/// # Errors
/// The kernel's.
pub fn promiscuity(name: &str) -> io::Result<u32> {
    let link = get(name)?;
    let count = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Promiscuity(count) => Some(*count),
        _ => None,
    });
    count.ok_or_else(|| io::Error::other("the kernel sent no promiscuity"))
}

/// Limits the frames that an interface splits, or has split, to so many bytes.
///
/// # Errors
/// The kernel's.
pub fn limit_segments(name: &str, bytes: u32) -> io::Result<()> {
    let attributes = [LinkAttribute::GsoMaxSize(bytes), LinkAttribute::GsoIpv4MaxSize(bytes)];
    change(name, attributes.into(), None)
}

/// Renames an interface.
///
/// # Errors
/// The kernel's.
pub fn rename(name: &str, to: &str) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index(name)?;
    message.attributes = vec![LinkAttribute::IfName(to.to_owned())];
    request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
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
    let mut message = LinkMessage::default();
    message.header.index = index(name)?;
    message.attributes = vec![LinkAttribute::PropList(vec![Prop::AltIfName(other.to_owned())])];
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    request(RouteNetlinkMessage::NewLinkProp(message), flags).map(drop)
}

/// Moves an interface into the namespace of this descriptor. It is down there.
pub fn move_to(name: &str, namespace: RawFd) -> io::Result<()> {
    change(name, vec![LinkAttribute::NetNsFd(namespace)], None)
}

/// Gives an interface an address.
pub fn add_address(name: &str, address: Ipv4Addr, prefix_len: u8) -> io::Result<()> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix_len;
    message.header.index = index(name)?;
    message.attributes =
        vec![AddressAttribute::Local(address.into()), AddressAttribute::Address(address.into())];
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    request(RouteNetlinkMessage::NewAddress(message), flags).map(drop)
}

/// Makes an interface whose driver does not say how many queues it has (an intermediate functional block).
///
/// # Errors
/// Why the kernel does not.
pub fn add_ifb(name: &str, queues: u32) -> io::Result<()> {
    let mut message = named(name);
    message.attributes.push(LinkAttribute::NumRxQueues(queues));
    message.attributes.push(LinkAttribute::NumTxQueues(queues));
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]));
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    request(RouteNetlinkMessage::NewLink(message), flags)?;
    set_up(name, true)
}

/// Makes a VXLAN interface over another one, to one remote host.
pub fn add_vxlan(name: &str, over: &str, remote: Ipv4Addr) -> io::Result<()> {
    const PORT: u16 = 4789;
    let mut message = named(name);
    let data = vec![
        InfoVxlan::Id(5),
        InfoVxlan::Link(index(over)?),
        InfoVxlan::Group(remote),
        InfoVxlan::Port(PORT),
    ];
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Vxlan),
        LinkInfo::Data(InfoData::Vxlan(data)),
    ]));
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    request(RouteNetlinkMessage::NewLink(message), flags).map(drop)
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
    let mut message = TcMessage::with_index(index(name)? as i32);
    message.header.parent = TcHandle::ROOT;
    message.header.handle = TcHandle { major: 1, minor: 0 };
    message.attributes = vec![
        TcAttribute::Kind("tbf".to_owned()),
        TcAttribute::Options(vec![
            TcOption::Other(DefaultNla::new(TCA_TBF_PARMS, parameters)),
            TcOption::Other(DefaultNla::new(TCA_TBF_BURST, burst.to_ne_bytes().to_vec())),
        ]),
    ];
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    request(RouteNetlinkMessage::NewQueueDiscipline(message), flags).map(drop)
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
    Ok(get(name)?.header.flags.contains(LinkFlags::Running | LinkFlags::LowerUp))
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn change(name: &str, attributes: Vec<LinkAttribute>, up: Option<bool>) -> io::Result<()> {
    let mut message = named(name);
    message.attributes.extend(attributes);
    if let Some(up) = up {
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    }
    request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
}

fn get(name: &str) -> io::Result<LinkMessage> {
    match request(RouteNetlinkMessage::GetLink(named(name)), 0)? {
        Some(RouteNetlinkMessage::NewLink(link)) => Ok(link),
        other => Err(io::Error::other(format!("an answer that is no link: {other:?}"))),
    }
}

/// Sends one request and reads its answer: a message, or `None` for a bare acknowledgement.
fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<Option<RouteNetlinkMessage>> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
        .map_err(|error| io::Error::other(format!("undecodable answer: {error}")))?;
    match answer.payload {
        NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(None),
    }
}
