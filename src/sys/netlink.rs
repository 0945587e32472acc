//! Questions by netlink that no ioctl answers: whose a long alternative name is, which XDP program an interface has
//! (rtnetlink(7)), and what its driver does for XDP (Documentation/netlink/specs/netdev.yaml).

use std::io;

use rustix::net::netlink::{self, GENERIC};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
/// A netlink message's header.
const HEADER: usize = 16;
/// In an attribute's type: there are attributes in it.
const NESTED: u16 = 1 << 15;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_XDP_PROG_ID: u16 = 4;
/// The header of a link message, behind the other.
const LINK_HEADER: usize = 16;

/// The family that knows of families (linux/genetlink.h).
const CONTROL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// The header of a generic message, behind the other.
const GENERIC_HEADER: usize = 4;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

/// Of [`xdp_features`]: programs run in the driver (`enum netdev_xdp_act`, linux/netdev.h).
pub(crate) const XDP_ACT_BASIC: u64 = 1;
/// Of [`xdp_features`]: they can redirect to AF_XDP sockets.
pub(crate) const XDP_ACT_REDIRECT: u64 = 2;
/// Of [`xdp_features`]: AF_XDP sockets are served without copying.
pub(crate) const XDP_ACT_XSK_ZEROCOPY: u64 = 8;
/// Of [`xdp_features`]: packets may come in several buffers.
pub(crate) const XDP_ACT_RX_SG: u64 = 32;

/// The id of the XDP program attached to an interface, if there is one.
pub(crate) fn xdp_program_id(index: u32) -> io::Result<Option<u32>> {
    let mut link = vec![0; LINK_HEADER];
    link[4..8].copy_from_slice(&index.to_ne_bytes()); // any family, any type; no flags
    Ok(parse_link(&ask(None, RTM_GETLINK, &link)?))
}

fn parse_link(message: &[u8]) -> Option<u32> {
    if message.get(4..6)? != RTM_NEWLINK.to_ne_bytes() {
        return None;
    }
    let xdp = attribute(message.get(HEADER + LINK_HEADER..)?, IFLA_XDP)?;
    let id = attribute(xdp, IFLA_XDP_PROG_ID)?;
    Some(u32::from_ne_bytes(id.get(..4)?.try_into().ok()?))
}

/// The far end of a veth pair, by its index; `None` where it is in another namespace.
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

/// The own name of the interface that has this alternative one (5.5), in the calling thread's namespace.
pub(crate) fn own_name(alternative: &str) -> io::Result<String> {
    let mut link = vec![0; LINK_HEADER];
    let name: Vec<u8> = alternative.bytes().chain([0]).collect();
    push(&mut link, IFLA_ALT_IFNAME, &name);
    let no_such = || io::Error::from_raw_os_error(libc::ENODEV);
    match ask(None, RTM_GETLINK, &link) {
        Ok(answer) => parse_name(&answer).ok_or_else(no_such),
        // Kernels without such names take the request for one without any.
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

/// What an interface's driver does for XDP; `None` where the kernel does not tell (before 6.3).
pub(crate) fn xdp_features(index: u32) -> io::Result<Option<u64>> {
    let mut family = vec![CTRL_CMD_GETFAMILY, 1, 0, 0];
    push(&mut family, CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    let answer = match ask(Some(GENERIC), CONTROL, &family) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        answer => answer?,
    };
    let Some(id) = generic(&answer, CTRL_ATTR_FAMILY_ID) else { return Ok(None) };
    let mut device = vec![NETDEV_CMD_DEV_GET, 1, 0, 0];
    push(&mut device, NETDEV_A_DEV_IFINDEX, &index.to_ne_bytes());
    let answer = ask(Some(GENERIC), u16::from_ne_bytes(id), &device)?;
    Ok(generic(&answer, NETDEV_A_DEV_XDP_FEATURES).map(u64::from_ne_bytes))
}

/// An attribute of a generic message.
fn generic<const N: usize>(message: &[u8], wanted: u16) -> Option<[u8; N]> {
    attribute(message.get(HEADER + GENERIC_HEADER..)?, wanted)?.get(..N)?.try_into().ok()
}

/// Sends one request and returns the answer's bytes; without a protocol it is about routes and links.
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

/// Reads a message as each of the answers that are asked for.
#[cfg(any(test, feature = "testing"))]
pub(super) fn read_any(message: &[u8]) {
    let _ = (parse_link(message), parse_name(message), parse_peer(message), refusal(message));
    let _: Option<[u8; 8]> = generic(message, NETDEV_A_DEV_XDP_FEATURES);
    let _: Option<[u8; 2]> = generic(message, CTRL_ATTR_FAMILY_ID);
}

/// Why the kernel does not answer (`struct nlmsgerr`).
fn refusal(message: &[u8]) -> Option<io::Error> {
    if message.get(4..6)? != NLMSG_ERROR.to_ne_bytes() {
        return None;
    }
    let errno = i32::from_ne_bytes(message.get(HEADER..)?.get(..4)?.try_into().ok()?);
    Some(io::Error::from_raw_os_error(-errno))
}

fn push(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// The value of the first attribute of this type.
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
    fn a_programs_id_is_found_among_the_attributes_and_nothing_in_torn_ones() {
        let mut xdp = Vec::new();
        push(&mut xdp, 2, &[1]);
        push(&mut xdp, IFLA_XDP_PROG_ID, &77_u32.to_ne_bytes());
        let mut message = vec![0; HEADER + LINK_HEADER];
        message[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        push(&mut message, 3, b"eth0\0");
        push(&mut message, IFLA_XDP | NESTED, &xdp);
        assert_eq!(parse_link(&message), Some(77));
        assert_eq!(parse_name(&message).as_deref(), Some("eth0"));
        assert_eq!(parse_peer(&message), None);
        let mut paired = message.clone();
        push(&mut paired, IFLA_LINK, &5_u32.to_ne_bytes());
        assert_eq!(parse_peer(&paired), Some(5));
        push(&mut paired, IFLA_LINK_NETNSID, &[0; 4]);
        assert_eq!(parse_peer(&paired), None, "elsewhere");
        for len in 0..message.len() {
            assert_eq!(parse_link(&message[..len]), None, "{len}");
        }
        message[4] = NLMSG_ERROR as u8;
        assert_eq!(parse_link(&message), None);
    }

    #[test]
    fn a_refusal_is_an_error() {
        let mut message = vec![0; HEADER];
        message.extend_from_slice(&(-libc::ENODEV).to_ne_bytes());
        assert!(refusal(&message).is_none());
        message[4] = NLMSG_ERROR as u8;
        assert_eq!(refusal(&message).unwrap().raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn the_features_of_a_driver_are_found_and_nothing_in_torn_answers() {
        let mut message = vec![0; HEADER + GENERIC_HEADER];
        push(&mut message, NETDEV_A_DEV_IFINDEX, &3_u32.to_ne_bytes());
        push(&mut message, NETDEV_A_DEV_XDP_FEATURES, &35_u64.to_ne_bytes());
        let features = |message: &[u8]| generic(message, NETDEV_A_DEV_XDP_FEATURES);
        assert_eq!(features(&message).map(u64::from_ne_bytes), Some(35));
        for len in 0..message.len() {
            assert_eq!(features(&message[..len]), None, "{len}");
        }
    }
}
