//! One question by netlink that no ioctl answers: which XDP program an interface has (rtnetlink(7)).

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_PROG_ID: u16 = 4;
/// A netlink message's header, and a link message's behind it.
const HEADER: usize = 16;
const LINK_HEADER: usize = 16;
/// In an attribute's type: there are attributes in it.
const NESTED: u16 = 1 << 15;

/// The id of the XDP program attached to an interface, if there is one.
pub(crate) fn xdp_program_id(index: u32) -> io::Result<Option<u32>> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // NETLINK_ROUTE is 0
    )?;
    let mut request = Vec::with_capacity(HEADER + LINK_HEADER);
    request.extend_from_slice(&((HEADER + LINK_HEADER) as u32).to_ne_bytes());
    request.extend_from_slice(&RTM_GETLINK.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request.extend_from_slice(&[0; 8]); // sequence number and port
    request.extend_from_slice(&[0; 4]); // any family, any type
    request.extend_from_slice(&index.to_ne_bytes());
    request.extend_from_slice(&[0; 8]); // flags, and which of them to change
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    let mut answer = vec![0; 64 * 1024];
    let (len, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    Ok(parse(&answer[..len]))
}

fn parse(message: &[u8]) -> Option<u32> {
    if message.get(4..6)? != RTM_NEWLINK.to_ne_bytes() {
        return None;
    }
    let xdp = attribute(message.get(HEADER + LINK_HEADER..)?, IFLA_XDP)?;
    let id = attribute(xdp, IFLA_XDP_PROG_ID)?;
    Some(u32::from_ne_bytes(id.get(..4)?.try_into().ok()?))
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

    fn push(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
        to.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        to.extend_from_slice(&kind.to_ne_bytes());
        to.extend_from_slice(value);
        to.resize(to.len().next_multiple_of(4), 0);
    }

    #[test]
    fn a_programs_id_is_found_among_the_attributes_and_nothing_in_torn_ones() {
        let mut xdp = Vec::new();
        push(&mut xdp, 2, &[1]);
        push(&mut xdp, IFLA_XDP_PROG_ID, &77_u32.to_ne_bytes());
        let mut message = vec![0; HEADER + LINK_HEADER];
        message[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        push(&mut message, 3, b"eth0\0");
        push(&mut message, IFLA_XDP | NESTED, &xdp);
        assert_eq!(parse(&message), Some(77));
        for len in 0..message.len() {
            assert_eq!(parse(&message[..len]), None, "{len}");
        }
        message[4] = 2; // NLMSG_ERROR
        assert_eq!(parse(&message), None);
    }
}
