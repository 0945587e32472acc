//! Errors of AF_XDP.

use ringtap::error::Step;
use ringtap::xdp::{
    Attach, BypassKey, BypassVerdict, CopyMode, FlowRule, HugePages, SymmetricRss, TxChecksum,
    XdpProgram,
};
use ringtap::{BpfFilter, Error, Shards, XdpSocket};
use ringtap_lab::seccomp::without;
use ringtap_lab::{child as process, namespace, xdp};

use crate::setup::{privileged, sender, socket};
use crate::{FORBIDDEN, says};

#[ringtap_lab::test]
fn sockets_that_send() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let v = &veth.left;
    let tx = || sender(v);
    let build =
        |call, argument, errno| without(call, argument, errno, || tx().build_sender().map(drop));
    says!(
        XdpSocket::builder().build(),
        Error::InterfaceMissing,
        "no interface was named; call `interface(name)` on the builder"
    );
    says!(
        tx().queue_id(7).build_sender(),
        Error::NoSuchQueue { queue: 7, count: 1, .. },
        "interface `{v}` has no queue 7: it has 1, from 0 on (`ethtool -l {v}`, and `-L` to change that)"
    );
    says!(
        build(libc::SYS_socket, Some((0, i64::from(libc::AF_XDP))), libc::EPERM),
        Error::Os { step: Step::OpenXdpSocket, .. },
        "opening an AF_XDP socket ({v}, queue 0): Operation not permitted (os error 1); needs CAP_NET_RAW: run \
         `setcap cap_net_raw+ep BINARY`, or run as root"
    );
    says!(
        build(libc::SYS_setsockopt, Some((2, i64::from(libc::XDP_UMEM_REG))), libc::ENOBUFS),
        Error::Os { step: Step::RegisterUmem, .. },
        "registering the UMEM ({v}, queue 0): No buffer space available (os error 105); raise RLIMIT_MEMLOCK \
         (`ulimit -l`), or ask for fewer frames"
    );
    let register = (libc::SYS_setsockopt, Some((2, i64::from(libc::XDP_UMEM_REG))));
    says!(
        without(register.0, register.1, libc::EOPNOTSUPP, || tx()
            .tx_timestamps(true)
            .build_sender()),
        Error::Os { step: Step::RegisterTxMetadata, .. },
        "registering the UMEM with transmit metadata ({v}, queue 0): Operation not supported (os error 95); \
         `tx_timestamps` and `tx_checksum` need Linux 6.8"
    );
    says!(
        tx().copy_mode(CopyMode::ZeroCopy).build_sender(),
        Error::Os { step: Step::BindZeroCopy, .. },
        "binding to the queue without copies ({v}, queue 0): Operation not supported (os error 95); the driver has no \
         zero-copy; ask for `CopyMode::Auto`"
    );
    let huge = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB);
    let pages = without(libc::SYS_mmap, Some((3, huge)), libc::ENOMEM, || {
        tx().huge_pages(HugePages::Require).build_sender().map(drop)
    });
    says!(
        pages,
        Error::Os { step: Step::MapHugePages, .. },
        "getting huge pages for the UMEM ({v}, queue 0): Cannot allocate memory (os error 12); raise vm.nr_hugepages, \
         or ask for `HugePages::Try`"
    );
    let node =
        without(libc::SYS_mbind, None, libc::EINVAL, || tx().numa_node(9).build_sender().map(drop));
    says!(
        node,
        Error::Os { step: Step::BindMemory, .. },
        "binding the UMEM to its NUMA node ({v}, queue 0): Invalid argument (os error 22); no such node; `numactl -H` \
         lists them"
    );
    let mut first = tx().tx_checksum(TxChecksum::Software).build_sender().unwrap();
    says!(
        tx().build_sender(),
        Error::Os { step: Step::BindQueue, .. },
        "binding to the queue ({v}, queue 0): Device or resource busy (os error 16); another AF_XDP socket has this \
         queue, here or in another process; `ss -f xdp -p` shows which"
    );
    let mut slot = first.reserve(60).unwrap();
    slot.set_checksum(50, 20);
    says!(
        slot.send(),
        Error::ChecksumOutside { start: 50, offset: 20, len: 60 },
        "a checksum from byte 50 on, written 20 bytes after it, does not fit into a frame of 60 bytes"
    );
    first.send(&[0xff; 60]).unwrap();
    says!(
        without(libc::SYS_sendto, None, libc::EPERM, || first.flush()),
        Error::Os { step: Step::Kick, .. },
        "handing frames to the kernel ({v}, queue 0): Operation not permitted (os error 1); {FORBIDDEN}"
    );
}

#[ringtap_lab::test]
fn cards_that_cannot_steer() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let v = &veth.left;
    let remedy = "this driver cannot; a fanout group spreads packets without it";
    says!(
        SymmetricRss::set(v),
        Error::Os { step: Step::SetHashKey, .. },
        "setting the receive hash's key ({v}): Operation not supported (os error 95); {remedy}"
    );
    let remedy =
        "this driver has no such rules, or they are off (`ethtool -K INTERFACE ntuple on`)";
    says!(
        FlowRule::tcp().dst_port(443).install(v),
        Error::Os { step: Step::InsertRule, .. },
        "inserting a flow rule ({v}): Operation not supported (os error 95); {remedy}"
    );
}

#[ringtap_lab::test]
fn programs() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let v = &veth.left;
    let attach = || XdpProgram::redirect_all(v, Attach::Generic).map(drop);
    says!(
        without(libc::SYS_bpf, None, libc::EPERM, attach),
        Error::Os { step: Step::LoadProgram, .. },
        "loading the XDP program ({v}): Operation not permitted (os error 1); receiving through AF_XDP needs CAP_BPF \
         and CAP_NET_ADMIN in the initial namespace (setcap cap_net_raw,cap_bpf,cap_net_admin+ep), or root"
    );
}

#[ringtap_lab::test]
fn programs_that_the_verifier_refuses() {
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let v = &veth.left;
    let attach = || XdpProgram::redirect_with_bypass(v, Attach::Generic, 8).map(drop);
    const PROG_LOAD: i64 = 5;
    says!(
        without(libc::SYS_bpf, Some((0, PROG_LOAD)), libc::EACCES, attach),
        Error::Os { step: Step::LoadProgram, .. },
        "loading the XDP program ({v}): Permission denied (os error 13); the kernel's verifier refuses it; a program with a \
         filter or with flows to bypass needs CAP_PERFMON too (setcap cap_net_raw,cap_bpf,cap_net_admin,cap_perfmon+ep)"
    );
}

#[ringtap_lab::test]
fn programs_that_load() {
    const LINK_CREATE: i64 = 28;
    const MAP_UPDATE_ELEM: i64 = 2;
    let Some(net) = privileged() else { return };
    let veth = net.veth();
    let v = &veth.left;
    says!(
        without(libc::SYS_bpf, Some((0, LINK_CREATE)), libc::EOPNOTSUPP, || {
            XdpProgram::redirect_all(v, Attach::Native).map(drop)
        }),
        Error::Os { step: Step::AttachProgram, .. },
        "attaching the XDP program ({v}): Operation not supported (os error 95); the driver runs no XDP programs; ask \
         for `Attach::Generic`"
    );
    says!(
        XdpProgram::from_pinned(v, false, "/sys/fs/bpf/ringtap-nowhere"),
        Error::Os { step: Step::OpenPinnedMap, .. },
        "opening the pinned map of sockets (/sys/fs/bpf/ringtap-nowhere): No such file or directory (os error 2); \
         nothing is pinned there; `bpftool map` lists maps, and `bpftool map pin` pins them"
    );
    let program = XdpProgram::redirect_all(v, Attach::Generic).unwrap();
    let unasked = program.hints().unwrap_err();
    assert!(matches!(unasked, Error::Os { step: Step::AskDriver, .. }));
    assert_eq!(
        unasked.to_string(),
        format!(
            "asking the driver for times, hashes and tags ({v}): Operation not supported (os error 95); the driver does \
             not tell, or the program runs in the stack (`Attach::Generic`); packets have the time of their batch, and \
             neither hash nor tag"
        )
    );
    let other = net.veth();
    let bypassing = XdpProgram::redirect_with_bypass(&other.right, Attach::Generic, 8).unwrap();
    let mixed = BypassKey::new(([10, 0, 0, 1], 1).into(), ([0_u16; 8], 1).into(), 6);
    says!(
        bypassing.bypass().unwrap().insert(mixed, BypassVerdict::Drop),
        Error::Os { step: Step::BypassFlow, .. },
        "bypassing a flow: Address family not supported by protocol (os error 97); source and destination must be of one \
         version of IP"
    );
    let error = XdpProgram::redirect_all(v, Attach::Generic).unwrap_err();
    let Error::ProgramAttached { id: Some(id), .. } = error else { panic!("{error:?}") };
    says!(
        Err::<(), _>(error),
        Error::ProgramAttached { .. },
        "interface `{v}` has another XDP program, id {id} (`bpftool prog show id {id}`; `bpftool link` shows its \
         holder); end its holder, `ip link set {v} xdp off`, or use it: `XdpProgram::from_map`. Sockets of one process share a program: `XdpSocketBuilder::program`"
    );
    says!(
        socket(&other.left).program(program.clone()).build(),
        Error::OtherInterface { .. },
        "the XDP program is attached to `{v}`, but the socket is on `{}`: no packets would arrive; attach a program \
         there",
        other.left
    );
    says!(
        without(libc::SYS_bpf, Some((0, MAP_UPDATE_ELEM)), libc::EEXIST, || {
            socket(v).program(program.clone()).build().map(drop)
        }),
        Error::Os { step: Step::RegisterSocket, .. },
        "entering the socket into the program's map ({v}, queue 0): File exists (os error 17); another socket has \
         this queue in the map; drop that first"
    );
    let shards = Shards::xdp(socket(&net.veth().right)).spawn(|mut shard| async move {
        while shard.capture.next_batch().await?.is_some() {}
        Ok(())
    });
    let shards = shards.unwrap();
    says!(
        shards.set_filter(&"udp".parse().unwrap()),
        Error::FilteredByProgram,
        "AF_XDP sockets have no filter of their own; give them the program that `XdpProgram::filtered` returns"
    );
    drop(shards);
    let filter: BpfFilter = "vlan 5".parse().unwrap();
    says!(
        XdpProgram::filtered(&other.right, Attach::Auto, &filter),
        Error::TagsStripped { .. },
        "AF_XDP does not see the VLAN tags of packets received on `{}`: its veth peer `{1}` leaves them to a card; run \
         `ethtool -K {1} txvlan off`, or use `XdpBridge::without_vlans` if there are no VLANs",
        other.right,
        other.left
    );
    let small = XdpProgram::from_map(&other.left, true, xdp::xskmap(1).unwrap()).unwrap();
    assert!(small.is_generic());
}

#[ringtap_lab::test]
fn a_queue_that_is_refused_with_multi_buffer_packets() {
    process::run(module_path!(), "multi_buffer", "");
}

mod child {
    use std::os::fd::AsRawFd;

    use super::*;

    #[ringtap_lab::test]
    fn multi_buffer() {
        let Some(_) = process::value() else { return };
        let net = ringtap_lab::Namespace::enter().unwrap();
        let veth = net.veth();
        let v = &veth.left;
        // Nobody else opens anything here: the socket has the number behind that of the one that asks.
        let next = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
        let refused = without(libc::SYS_bind, Some((0, i64::from(next) + 1)), libc::EINVAL, || {
            sender(v).multi_buffer(true).build_sender().map(drop)
        });
        says!(
            refused,
            Error::Os { step: Step::BindMultiBuffer, .. },
            "binding to the queue with multi-buffer packets ({v}, queue 0): Invalid argument (os error 22); the queue \
             can be bound without `multi_buffer(true)`, which needs Linux 6.6 and driver support"
        );
    }
}
