//! Checks of one interface: its state, and what its card does to packets before they are captured.

use std::os::fd::AsFd;

use super::Finding;
use crate::interface::{InterfaceInfo, Stripping, interface_counters, interface_info, stripping};
use crate::sys::netdev::{ETH_FLAG_LRO, Netdev, question_socket};

pub(super) fn look(name: &str) -> Vec<Finding> {
    let info = match interface_info(name) {
        Ok(info) => info,
        Err(error) => return vec![Finding::failed("link", &error)],
    };
    let mut findings = vec![link(&info), queues(&info), drops(&info)];
    if let Ok(socket) = question_socket() {
        findings.extend(card(Netdev(socket.as_fd()), name));
    }
    #[cfg(feature = "af-xdp")]
    findings.extend(xdp(&info));
    findings
}

fn link(info: &InterfaceInfo) -> Finding {
    let InterfaceInfo { name, mtu, .. } = info;
    let driver = info.driver.as_deref().unwrap_or("no driver");
    let speed = info.speed_mbps.map_or(String::new(), |mbps| format!(", {mbps} Mbit/s"));
    let detail = format!("{driver}, MTU {mtu}{speed}");
    if !info.is_up() {
        let remedy = format!("`ip link set {name} up`");
        return Finding::limited("link", format!("{detail}; it is down"), &remedy);
    }
    if !info.has_carrier() {
        let remedy = "look at the cable, or the far end";
        return Finding::limited("link", format!("{detail}; it has no carrier"), remedy);
    }
    match info.is_loopback() {
        false => Finding::works("link", detail),
        true => {
            let remedy = "`ignore_outgoing(true)`, or `Dedup::loopback`";
            Finding::limited("link", format!("{detail}; loopback shows each packet twice"), remedy)
        }
    }
}

fn queues(info: &InterfaceInfo) -> Finding {
    let cores = crate::sys::thread::allowed_cores().map_or(1, |cores| cores.len() as u32);
    match info.rx_queues {
        None => Finding::unknown("queues", "nobody says how many it has"),
        Some(queues) if queues < cores => {
            let detail = format!(
                "{queues} receive, for {cores} cores: the kernel's part is done by as many"
            );
            let remedy = format!(
                "`ethtool -L {} combined {cores}` where the card has that many, or RPS",
                info.name
            );
            Finding::limited("queues", detail, &remedy)
        }
        Some(queues) => Finding::works("queues", format!("{queues} receive, for {cores} cores")),
    }
}

fn drops(info: &InterfaceInfo) -> Finding {
    match interface_counters(&info.name) {
        Err(error) => Finding::failed("drops of the card", &error),
        // Since the interface was made: a few of some day long ago ask for nothing.
        Ok(counters) if counters.card_drops().saturating_mul(1_000) <= counters.rx_packets => {
            let (drops, packets) = (counters.card_drops(), counters.rx_packets);
            Finding::works("drops of the card", format!("{drops} of {packets} packets"))
        }
        Ok(counters) => {
            let detail = format!(
                "{} for lack of the host's buffers, {} for lack of its own, beside {} packets received",
                counters.rx_missed, counters.rx_fifo, counters.rx_packets
            );
            let remedy = format!(
                "larger rings (`ethtool -G {} rx …`), more queues, or more cores",
                info.name
            );
            Finding::limited("drops of the card", detail, &remedy)
        }
    }
}

fn card(asker: Netdev<'_>, name: &str) -> Vec<Finding> {
    let flags = asker.offload_flags(name).ok();
    let has = |flag: u32| flags.map(|flags| flags & flag != 0);
    let unknown = |subject| Finding::unknown(subject, "the driver does not say");
    let gathered = |subject, is_on: Option<bool>, option: &str| match is_on {
        None => unknown(subject),
        Some(false) => Finding::works(subject, "off: nothing is put together here"),
        Some(true) => Finding::limited(
            subject,
            "on: received packets of a connection are put together, up to 64 KiB",
            &format!("`ethtool -K {name} {option} off`, where each is wanted by itself"),
        ),
    };
    let whole = match asker.is_tso_on(name) {
        Err(_) => unknown("TSO"),
        Ok(false) => Finding::works("TSO", "off: this machine's packets are seen as they go out"),
        Ok(true) => Finding::limited(
            "TSO",
            "on: this machine's own large sends are seen whole, up to 64 KiB, and so they come out of a veth",
            &format!("`ethtool -K {name} tso off gso off`, where that matters"),
        ),
    };
    let lost = |by: &str, remedy: &str| {
        let detail = format!(
            "taken out of the bytes by {by}: `Packet::vlan` has them, and `vlan_reinsert(true)` puts them back; AF_XDP \
             does not see them"
        );
        Finding::limited("VLAN tags", detail, &format!("`{remedy}`, for AF_XDP"))
    };
    let vlan = match (stripping(asker, name), flags) {
        (Stripping::By(by), _) if by == name => {
            lost("the card", &format!("ethtool -K {name} rxvlan off"))
        }
        (Stripping::By(peer), _) => {
            lost("its peer's offload", &format!("ethtool -K {peer} txvlan off"))
        }
        (Stripping::Elsewhere, _) => lost(
            "perhaps its peer's offload (the peer is in another namespace)",
            "ethtool -K PEER txvlan off",
        ),
        (Stripping::No, None) => unknown("VLAN tags"),
        (Stripping::No, Some(_)) => {
            Finding::works("VLAN tags", "left in the bytes by the card, taken out by the kernel")
        }
    };
    let ring = match asker.rx_entries(name) {
        Err(_) => unknown("card's ring"),
        Ok((now, most)) if now < most => Finding::limited(
            "card's ring",
            format!("{now} entries of {most}"),
            &format!("`ethtool -G {name} rx {most}`, where bursts are lost before they are seen"),
        ),
        Ok((now, _)) => Finding::works("card's ring", format!("{now} entries, as many as it has")),
    };
    let clock = match asker.hardware_clock(name) {
        Err(_) => unknown("clock"),
        Ok(Some(number)) => Finding::works("clock", format!("its own (/dev/ptp{number})")),
        Ok(None) => Finding::works("clock", "the kernel's: it has none of its own"),
    };
    vec![
        gathered("GRO", asker.is_gro_on(name).ok(), "gro"),
        gathered("LRO", has(ETH_FLAG_LRO), "lro"),
        whole,
        vlan,
        ring,
        clock,
    ]
}

/// Checks the driver's support for AF_XDP, and whether an XDP program is already attached.
#[cfg(feature = "af-xdp")]
fn xdp(info: &InterfaceInfo) -> Vec<Finding> {
    use super::Verdict;
    use crate::sys::netlink;

    let verdict = |is_so, detail: &str, remedy: &str| match is_so {
        true => (Verdict::Works, detail.to_owned(), None),
        false => (Verdict::Limited, format!("no: {detail}"), Some(remedy.to_owned())),
    };
    let mut findings = match netlink::xdp_features(info.index) {
        Err(_) | Ok(None) => {
            vec![Finding::unknown("XDP", "the kernel does not say what the driver does (6.3 does)")]
        }
        Ok(Some(features)) => {
            let has = |wanted: u64| features.actions & wanted == wanted;
            let native = has(netlink::XDP_ACT_BASIC | netlink::XDP_ACT_REDIRECT);
            let mut findings = Vec::from(
                [
                    (
                        "XDP",
                        native,
                        "programs run in the driver",
                        "`Attach::Generic` runs them in the stack",
                    ),
                    (
                        "zero copy",
                        has(netlink::XDP_ACT_XSK_ZEROCOPY),
                        "the driver offers AF_XDP without copying; `doctor --report` tries it",
                        "`CopyMode::Auto` copies; a card with zero copy does not have to",
                    ),
                    (
                        "several buffers",
                        has(netlink::XDP_ACT_RX_SG),
                        "packets longer than a buffer reach XDP",
                        "an MTU of at most some 3,500, or `Attach::Generic`",
                    ),
                ]
                .map(|(subject, is_so, detail, remedy)| {
                    let (verdict, detail, remedy) = verdict(is_so, detail, remedy);
                    Finding { remedy, ..Finding::new(subject, verdict, detail) }
                }),
            );
            let hints = features.rx_metadata.unwrap_or(0);
            findings.push(told("XDP hints", hints, netlink::RX_METADATA));
            findings.push(told("XDP requests", features.tx_metadata, netlink::TX_METADATA));
            findings
        }
    };
    findings.push(match netlink::xdp_program_id(info.index) {
        Err(_) => {
            Finding::unknown("XDP program", "the kernel does not say whether one is attached")
        }
        Ok(None) => Finding::works("XDP program", "none is attached yet"),
        Ok(Some(id)) => Finding::limited(
            "XDP program",
            format!("one is attached already, id {id}"),
            &format!("end its holder (`bpftool link`), or `ip link set {} xdp off`", info.name),
        ),
    });
    findings
}

/// Lists what a driver can tell or do, by the names of its flags.
#[cfg(feature = "af-xdp")]
fn told(subject: &'static str, flags: u64, names: [&str; 3]) -> Finding {
    let of: Vec<&str> =
        (0..).zip(names).filter(|(bit, _)| flags >> bit & 1 == 1).map(|(_, name)| name).collect();
    match of.is_empty() {
        true => Finding::works(subject, "the driver has none"),
        false => Finding::works(subject, of.join(", ")),
    }
}
