//! Community ID, version 1: a name of a flow that other tools compute alike
//! (<https://github.com/corelight/community-id-spec>).

use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1_smol::Sha1;

/// Messages of ICMP and the replies to them: the two together are one conversation of two "ports".
const PAIRS_V4: [(u8, u8); 5] = [(8, 0), (13, 14), (15, 16), (17, 18), (10, 9)];
const PAIRS_V6: [(u8, u8); 6] =
    [(128, 129), (133, 134), (135, 136), (130, 131), (144, 145), (139, 140)];

/// What two ports, or none, tell about a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ports {
    /// The endpoints have ports.
    OfEndpoints,
    /// Type and code of an ICMP message stand for ports; the last says whether the second endpoint sent it.
    Icmp(u8, u8, bool),
    None,
}

/// Returns the Community ID of a flow, for sensors that share this seed.
pub(super) fn of(protocol: u8, endpoints: [SocketAddr; 2], ports: Ports, seed: u16) -> String {
    let [mut from, mut to] = endpoints.map(|endpoint| (endpoint.ip(), endpoint.port()));
    let mut is_one_way = false;
    if let Ports::Icmp(kind, code, is_from_second) = ports {
        if is_from_second {
            (from, to) = (to, from);
        }
        let reply = reply_of(kind, from.0.is_ipv4());
        is_one_way = reply.is_none();
        (from.1, to.1) = (kind.into(), reply.unwrap_or(code).into());
    }
    if !is_one_way && to < from {
        (from, to) = (to, from);
    }
    let mut hash = Sha1::new();
    hash.update(&seed.to_be_bytes());
    [from.0, to.0].into_iter().for_each(|address| match address {
        IpAddr::V4(address) => hash.update(&address.octets()),
        IpAddr::V6(address) => hash.update(&address.octets()),
    });
    hash.update(&[protocol, 0]);
    if ports != Ports::None {
        hash.update(&from.1.to_be_bytes());
        hash.update(&to.1.to_be_bytes());
    }
    format!("1:{}", STANDARD.encode(hash.digest().bytes()))
}

/// Returns the type of the message that answers this one, or that it answers.
fn reply_of(kind: u8, is_v4: bool) -> Option<u8> {
    let pairs = if is_v4 { &PAIRS_V4[..] } else { &PAIRS_V6[..] };
    pairs.iter().find_map(|&(query, reply)| match kind {
        _ if kind == query => Some(reply),
        _ if kind == reply => Some(query),
        _ => None,
    })
}
