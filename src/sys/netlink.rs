//! Netlink queries that no ioctl answers: the interface with a long alternative name, the other end of a veth
//! pair (rtnetlink(7)), and the XDP state.

use std::io;

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink,
};

#[cfg(feature = "af-xdp")]
mod xdp;

#[cfg(feature = "af-xdp")]
pub(crate) use self::xdp::{
    RX_METADATA, TX_METADATA, XDP_ACT_BASIC, XDP_ACT_REDIRECT, XDP_ACT_RX_SG, XDP_ACT_XSK_ZEROCOPY,
    xdp_features, xdp_program_id,
};

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
/// Length of a netlink message's header.
const HEADER: usize = 16;
/// Flag in an attribute's type: the attribute contains other attributes.
const NESTED: u16 = 1 << 15;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_STATS64: u16 = 23;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_ALT_IFNAME: u16 = 53;
/// Length of the header of a link message, which follows the netlink header.
const LINK_HEADER: usize = 16;

/// Returns the index of the far end of a veth pair; `None` if that end is in another namespace.
pub(crate) fn peer(index: u32) -> io::Result<Option<u32>> {
    let mut link = vec![0; LINK_HEADER];
    link[4..8].copy_from_slice(&index.to_ne_bytes()); // any family, any type; no flags
    Ok(parse_peer(&ask(None, RTM_GETLINK, &link)?))
}

fn parse_peer(message: &[u8]) -> Option<u32> {
    if message.get(4..6)? != RTM_NEWLINK.to_ne_bytes() {
        return None;
    }
    let attributes = message.get(HEADER + LINK_HEADER..)?;
    if attribute(attributes, IFLA_LINK_NETNSID).is_some() {
        return None;
    }
    let peer = attribute(attributes, IFLA_LINK)?;
    Some(u32::from_ne_bytes(peer.get(..4)?.try_into().ok()?))
}

/// Returns the receive and transmit queues that an interface was created with, not all of which need be in
/// use.
pub(crate) fn queues(index: u32) -> io::Result<Option<(u32, u32)>> {
    let mut link = vec![0; LINK_HEADER];
    link[4..8].copy_from_slice(&index.to_ne_bytes());
    Ok(parse_queues(&ask(None, RTM_GETLINK, &link)?))
}

fn parse_queues(message: &[u8]) -> Option<(u32, u32)> {
    if message.get(4..6)? != RTM_NEWLINK.to_ne_bytes() {
        return None;
    }
    let attributes = message.get(HEADER + LINK_HEADER..)?;
    let number = |kind| {
        let value = attribute(attributes, kind)?;
        Some(u32::from_ne_bytes(value.get(..4)?.try_into().ok()?))
    };
    Some((number(IFLA_NUM_RX_QUEUES)?, number(IFLA_NUM_TX_QUEUES)?))
}

/// Returns the counters of an interface, in the order of `struct rtnl_link_stats64`.
pub(crate) fn counters(index: u32) -> io::Result<Vec<u64>> {
    let mut link = vec![0; LINK_HEADER];
    link[4..8].copy_from_slice(&index.to_ne_bytes());
    let counters = parse_counters(&ask(None, RTM_GETLINK, &link)?);
    counters.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADMSG))
}

fn parse_counters(message: &[u8]) -> Option<Vec<u64>> {
    if message.get(4..6)? != RTM_NEWLINK.to_ne_bytes() {
        return None;
    }
    let counters = attribute(message.get(HEADER + LINK_HEADER..)?, IFLA_STATS64)?;
    let (numbers, _) = counters.as_chunks();
    Some(numbers.iter().map(|number| u64::from_ne_bytes(*number)).collect())
}

/// Returns the own name of the interface with this alternative name (5.5), in the calling thread's namespace.
pub(crate) fn own_name(alternative: &str) -> io::Result<String> {
    let mut link = vec![0; LINK_HEADER];
    let name: Vec<u8> = alternative.bytes().chain([0]).collect();
    push(&mut link, IFLA_ALT_IFNAME, &name);
    let no_such = || io::Error::from_raw_os_error(libc::ENODEV);
    match ask(None, RTM_GETLINK, &link) {
        Ok(answer) => parse_name(&answer).ok_or_else(no_such),
        // Kernels without alternative names treat the request as one without any name.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Err(no_such()),
        Err(error) => Err(error),
    }
}

fn parse_name(message: &[u8]) -> Option<String> {
    if message.get(4..6)? != RTM_NEWLINK.to_ne_bytes() {
        return None;
    }
    let name = attribute(message.get(HEADER + LINK_HEADER..)?, IFLA_IFNAME)?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Some(String::from_utf8_lossy(&name[..end]).into_owned())
}

/// Sends one request and returns the bytes of the answer; without a protocol, the request concerns routes and
/// links.
fn ask(protocol: Option<Protocol>, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let (family, cloexec) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
    let socket = rustix::net::socket_with(family, SocketType::RAW, cloexec, protocol)?;
    rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
    let mut request = Vec::with_capacity(HEADER + body.len());
    request.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request.extend_from_slice(&[0; 8]); // sequence number and port
    request.extend_from_slice(body);
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    let mut answer = vec![0; 64 * 1024];
    let (len, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    answer.truncate(len);
    match refusal(&answer) {
        Some(error) => Err(error),
        None => Ok(answer),
    }
}

/// Parses a message as each of the answers that this module requests.
#[cfg(any(test, feature = "testing"))]
pub(super) fn read_any(message: &[u8]) {
    let _ = (parse_name(message), parse_peer(message), refusal(message));
    let _ = (parse_queues(message), parse_counters(message));
    #[cfg(feature = "af-xdp")]
    xdp::read_any(message);
}

/// Returns the reason for which the kernel refuses a request (`struct nlmsgerr`).
fn refusal(message: &[u8]) -> Option<io::Error> {
    if message.get(4..6)? != NLMSG_ERROR.to_ne_bytes() {
        return None;
    }
    let errno = i32::from_ne_bytes(message.get(HEADER..)?.get(..4)?.try_into().ok()?);
    Some(io::Error::from_raw_os_error(errno.wrapping_neg()))
}

fn push(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// Returns the value of the first attribute of this type.
fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..len)?;
        if kind & !NESTED == wanted {
            return Some(value);
        }
        rest = rest.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_peers_are_found_among_the_attributes_and_nothing_in_torn_ones() {
        let mut message = vec![0; HEADER + LINK_HEADER];
        message[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        push(&mut message, IFLA_IFNAME, b"eth0\0");
        assert_eq!(parse_name(&message).as_deref(), Some("eth0"));
        assert_eq!(parse_peer(&message), None);
        for len in 0..message.len() - 3 {
            assert_eq!(parse_name(&message[..len]), None, "{len}");
        }
        push(&mut message, IFLA_LINK, &5_u32.to_ne_bytes());
        assert_eq!(parse_peer(&message), Some(5));
        push(&mut message, IFLA_LINK_NETNSID, &[0; 4]);
        assert_eq!(parse_peer(&message), None, "elsewhere");
        assert_eq!(parse_counters(&message), None);
        push(&mut message, IFLA_STATS64, [3_u64, 4].map(u64::to_ne_bytes).as_flattened());
        assert_eq!(parse_counters(&message), Some(vec![3, 4]));
        push(&mut message, IFLA_NUM_TX_QUEUES, &2_u32.to_ne_bytes());
        assert_eq!(parse_queues(&message), None, "of one direction");
        push(&mut message, IFLA_NUM_RX_QUEUES, &4_u32.to_ne_bytes());
        assert_eq!(parse_queues(&message), Some((4, 2)));
    }

    #[test]
    fn a_refusal_is_an_error() {
        let mut message = vec![0; HEADER];
        message.extend_from_slice(&(-libc::ENODEV).to_ne_bytes());
        assert!(refusal(&message).is_none());
        message[4] = NLMSG_ERROR as u8;
        assert_eq!(refusal(&message).unwrap().raw_os_error(), Some(libc::ENODEV));
    }
}
