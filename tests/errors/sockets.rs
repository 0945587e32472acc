//! Errors of packet sockets that need no refusal of the kernel's.

use std::time::Duration;

use ringtap::capture::{CaptureBuilder, NetNs, TimestampSource};
use ringtap::error::Step;
use ringtap::fanout::FanoutMode;
use ringtap::interface::interface_info;
use ringtap::packet::Offload;
use ringtap::{Bridge, Capture, Error, Injector};
use ringtap_lab::{Tun, link, namespace, skip_for_ordinary_users};

use crate::says;

fn ring(interface: &str) -> CaptureBuilder {
    Capture::builder().interface(interface).block_size(1 << 16).block_count(4)
}

#[ringtap_lab::test]
fn names() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let missing = "no interface was named; call `interface(name)` on the builder";
    says!(Capture::builder().build(), Error::InterfaceMissing, "{missing}");
    says!(Injector::builder().build(), Error::InterfaceMissing, "{missing}");
    let nowhere =
        "no interface `nowhere0` in this network namespace; `ip link` lists the interfaces";
    says!(ring("nowhere0").build(), Error::NoSuchInterface { .. }, "{nowhere}");
    let options = Capture::builder().offloads(true);
    says!(
        options.interface("any").build(),
        Error::Unusable { option: "offloads", .. },
        "`offloads` cannot be used on `any`: cooked packets have none; leave the option out"
    );
    says!(interface_info("nowhere0"), Error::NoSuchInterface { .. }, "{nowhere}");
    says!(
        Bridge::open_pair(&veth.left, &veth.left),
        Error::SameInterface { .. },
        "a bridge joins two interfaces, and both of its sides are `{}`",
        veth.left
    );
    says!(
        ring(&veth.left).netns(NetNs::name("ringtap-nowhere")).build(),
        Error::Os { step: Step::EnterNamespace, .. },
        "entering the network namespace (/run/netns/ringtap-nowhere): No such file or directory (os error 2); `ip \
         netns` lists the named namespaces"
    );
}

#[ringtap_lab::test]
fn groups() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let _first = ring(&veth.left).fanout(FanoutMode::Hash, 5).build().unwrap();
    says!(
        ring(&veth.left).fanout(FanoutMode::LoadBalance, 5).build(),
        Error::Fanout { group: Some(5), .. },
        "joining fanout group 5: Invalid argument (os error 22); a group has one mode, one set of flags and one \
         interface, and its members must all ask for the same (QueueMapping, Rollover, UNIQUEID and IGNORE_OUTGOING \
         need a kernel that has them)"
    );
}

#[ringtap_lab::test]
fn frames() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mut tx = Injector::open(&veth.left).unwrap();
    says!(
        tx.send(&[0; 5]),
        Error::FrameLength { len: 5, least: 14, most: 1514 },
        "a frame of 5 bytes cannot be sent: the interface's MTU and the injector's `frame_size` allow \
         14 to 1514 bytes"
    );
    let mut slot = tx.allocate(60).unwrap();
    slot.set_offload(Offload::checksum(34, 6));
    says!(
        slot.send(),
        Error::OffloadsDisabled,
        "a frame whose checksum or segmentation is left to the kernel needs an injector that was built with \
         `offloads(true)`, or an AF_XDP socket with `tx_checksum`"
    );
    link::set_up(&veth.left, false).unwrap();
    tx.send(&[0xff; 60]).unwrap();
    says!(
        tx.flush(),
        Error::LinkDown { .. },
        "interface `{0}` is down; set it up (`ip link set {0} up`), and what was committed goes with the next flush",
        veth.left
    );
}

#[ringtap_lab::test]
fn clocks_and_links_that_do_not_fit() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    says!(
        ring(&veth.right).timestamp_source(TimestampSource::RawHardware).build(),
        Error::NoHardwareClock { .. },
        "`{0}` has no clock that stamps received packets (`ethtool -T {0}`): its driver stamps in software; use \
         `TimestampSource::Software`",
        veth.right
    );
    let tun = match Tun::new() {
        Ok(tun) => tun,
        Err(error) => return skip_for_ordinary_users(&format!("no tun: {error}")),
    };
    says!(
        Bridge::open_pair(&tun.name, &veth.left),
        Error::DifferentLinks { .. },
        "`{}` (link type 101) and `{}` (link type 1) cannot be bridged: a frame of one cannot be sent on the other; \
         route between them, or use interfaces of one kind (a tap in place of a tun)",
        tun.name,
        veth.left
    );
}

#[ringtap_lab::test]
fn interfaces_that_go() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let mut capture = ring(&veth.left).build().unwrap();
    veth.delete();
    says!(
        capture.next_batch_timeout(Duration::from_secs(20)),
        Error::InterfaceGone { .. },
        "interface `{}` was removed; packets already in the ring were delivered, open a new socket once it exists \
         again",
        veth.left
    );
}
