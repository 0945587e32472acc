//! The XDP state: the program of an interface (rtnetlink(7)), and its driver's support for XDP
//! (Documentation/netlink/specs/netdev.yaml).

use std::io;

use rustix::net::netlink::GENERIC;

use super::{HEADER, LINK_HEADER, RTM_GETLINK, RTM_NEWLINK, ask, attribute, push};

const IFLA_XDP: u16 = 43;
const IFLA_XDP_PROG_ID: u16 = 4;

/// The generic netlink family that describes the other families (linux/genetlink.h).
const CONTROL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// Length of the header of a generic message, which follows the netlink header.
const GENERIC_HEADER: usize = 4;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_A_DEV_XDP_RX_METADATA_FEATURES: u16 = 5;
const NETDEV_A_DEV_XSK_FEATURES: u16 = 6;

/// Flag of [`DriverFeatures::actions`]: programs run in the driver (`enum netdev_xdp_act`, linux/netdev.h).
pub(crate) const XDP_ACT_BASIC: u64 = 1;
/// Flag of [`DriverFeatures::actions`]: programs can redirect to AF_XDP sockets.
pub(crate) const XDP_ACT_REDIRECT: u64 = 2;
/// Flag of [`DriverFeatures::actions`]: AF_XDP sockets are served without copying.
pub(crate) const XDP_ACT_XSK_ZEROCOPY: u64 = 8;
/// Flag of [`DriverFeatures::actions`]: packets may come in several buffers.
pub(crate) const XDP_ACT_RX_SG: u64 = 32;

/// Names of the flags of [`DriverFeatures::rx_metadata`], from the lowest (`enum netdev_xdp_rx_metadata`).
pub(crate) const RX_METADATA: [&str; 3] = ["timestamp", "hash", "VLAN tag"];
/// Names of the flags of [`DriverFeatures::tx_metadata`], from the lowest (`enum netdev_xsk_flags`).
pub(crate) const TX_METADATA: [&str; 3] = ["timestamp", "checksum", "launch time"];

/// What a driver offers to XDP programs and AF_XDP sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DriverFeatures {
    /// The `XDP_ACT_*` flags.
    pub(crate) actions: u64,
    /// What programs can ask about received packets ([`RX_METADATA`]); `None` if the kernel does not report it (before 6.8).
    pub(crate) rx_metadata: Option<u64>,
    /// What frames to send can ask for without being copied ([`TX_METADATA`]).
    pub(crate) tx_metadata: u64,
}

/// Returns the id of the XDP program attached to an interface, if there is one.
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

/// Returns the features of an interface's driver; `None` if the kernel does not report them (before 6.3).
pub(crate) fn xdp_features(index: u32) -> io::Result<Option<DriverFeatures>> {
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
    let flags = |kind| generic(&answer, kind).map(u64::from_ne_bytes);
    Ok(flags(NETDEV_A_DEV_XDP_FEATURES).map(|actions| DriverFeatures {
        actions,
        rx_metadata: flags(NETDEV_A_DEV_XDP_RX_METADATA_FEATURES),
        tx_metadata: flags(NETDEV_A_DEV_XSK_FEATURES).unwrap_or(0),
    }))
}

/// Returns an attribute of a generic message.
fn generic<const N: usize>(message: &[u8], wanted: u16) -> Option<[u8; N]> {
    attribute(message.get(HEADER + GENERIC_HEADER..)?, wanted)?.get(..N)?.try_into().ok()
}

/// Parses a message as each of the answers that this module requests.
#[cfg(any(test, feature = "testing"))]
pub(super) fn read_any(message: &[u8]) {
    let _ = parse_link(message);
    let _: Option<[u8; 8]> = generic(message, NETDEV_A_DEV_XDP_FEATURES);
    let _: Option<[u8; 2]> = generic(message, CTRL_ATTR_FAMILY_ID);
}

#[cfg(test)]
mod tests {
    use super::super::{NESTED, NLMSG_ERROR};
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
        for len in 0..message.len() {
            assert_eq!(parse_link(&message[..len]), None, "{len}");
        }
        message[4] = NLMSG_ERROR as u8;
        assert_eq!(parse_link(&message), None);
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
