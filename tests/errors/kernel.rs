//! Refusals by the kernel, step by step; a seccomp filter in the test stands in for it.

use std::time::Duration;

use ringtap::capture::CaptureBuilder;
use ringtap::error::Step;
use ringtap::interface::interface_info;
use ringtap::{Capture, Error, Injector};
use ringtap_lab::seccomp::without;
use ringtap_lab::{Veth, namespace};

use crate::{FORBIDDEN, says};

const SETSOCKOPT: i64 = libc::SYS_setsockopt;
/// Of a system call's arguments: which option.
const OPTION: u32 = 2;

/// What `poll(2)` is: not every machine has it besides `ppoll`.
#[cfg(target_arch = "x86_64")]
const POLL: i64 = libc::SYS_poll;
#[cfg(not(target_arch = "x86_64"))]
const POLL: i64 = libc::SYS_ppoll;

fn ring(veth: &Veth) -> CaptureBuilder {
    Capture::builder().interface(&veth.left).block_size(1 << 16).block_count(4)
}

fn option(number: i32) -> Option<(u32, i64)> {
    Some((OPTION, i64::from(number)))
}

#[ringtap_lab::test]
fn opening() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let v = &veth.left;
    let open =
        |call, argument, errno| without(call, argument, errno, || ring(&veth).build().map(drop));
    says!(
        open(libc::SYS_socket, Some((0, i64::from(libc::AF_PACKET))), libc::EPERM),
        Error::Os { step: Step::OpenSocket, .. },
        "opening a packet socket ({v}): Operation not permitted (os error 1); needs CAP_NET_RAW: run \
         `setcap cap_net_raw+ep BINARY`, run as root, or enter a user and network namespace of your own"
    );
    says!(
        open(libc::SYS_socket, Some((0, i64::from(libc::AF_PACKET))), libc::EAFNOSUPPORT),
        Error::Os { step: Step::OpenSocket, .. },
        "opening a packet socket ({v}): Address family not supported by protocol (os error 97); this kernel has no \
         packet sockets (CONFIG_PACKET)"
    );
    says!(
        open(libc::SYS_socket, Some((0, i64::from(libc::AF_PACKET))), libc::EMFILE),
        Error::Os { step: Step::OpenSocket, .. },
        "opening a packet socket ({v}): Too many open files (os error 24); raise RLIMIT_NOFILE (`ulimit -n`)"
    );
    says!(
        open(SETSOCKOPT, option(libc::PACKET_VERSION), libc::ENOPROTOOPT),
        Error::Os { step: Step::SetOption("PACKET_VERSION"), .. },
        "setting PACKET_VERSION ({v}): Protocol not available (os error 92); this kernel does not have that option"
    );
    says!(
        open(SETSOCKOPT, option(libc::PACKET_RX_RING), libc::EPERM),
        Error::Os { step: Step::CreateRing, .. },
        "creating the ring ({v}): Operation not permitted (os error 1); {FORBIDDEN}"
    );
    says!(
        open(SETSOCKOPT, option(libc::PACKET_RX_RING), libc::ENOMEM),
        Error::RingTooLarge { bytes: 262_144, .. },
        "no memory for a ring of 262144 bytes: Cannot allocate memory (os error 12); ask for fewer or smaller blocks \
         (`RingProfile::LowMemory` takes 16 MiB)"
    );
    says!(
        open(libc::SYS_mmap, Some((3, i64::from(libc::MAP_SHARED))), libc::EACCES),
        Error::Os { step: Step::MapRing, .. },
        "mapping the ring ({v}): Permission denied (os error 13); {FORBIDDEN}"
    );
    says!(
        open(SETSOCKOPT, option(libc::SO_ATTACH_FILTER), libc::ENOMEM),
        Error::Os { step: Step::SetFilter, .. },
        "setting the socket filter ({v}): Cannot allocate memory (os error 12); this filter, and the one it replaces, \
         take more memory than a socket may use: raise net.core.optmem_max, or shorten the filter"
    );
    says!(
        open(libc::SYS_bind, None, libc::EACCES),
        Error::Os { step: Step::Bind, .. },
        "binding to the interface ({v}): Permission denied (os error 13); {FORBIDDEN}"
    );
    let asked = without(libc::SYS_ioctl, None, libc::EPERM, || interface_info(v).map(drop));
    says!(
        asked,
        Error::Os { step: Step::QueryInterface("index"), .. },
        "asking the interface for its index ({v}): Operation not permitted (os error 1); {FORBIDDEN}"
    );
}

#[ringtap_lab::test]
fn running() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let v = &veth.left;
    let mut capture = ring(&veth).build().unwrap();
    says!(
        without(libc::SYS_getsockopt, None, libc::EPERM, || capture.stats().map(drop)),
        Error::Os { step: Step::GetOption("PACKET_STATISTICS"), .. },
        "reading PACKET_STATISTICS ({v}): Operation not permitted (os error 1); {FORBIDDEN}"
    );
    let locked = ring(&veth).build().unwrap();
    locked.lock_filter().unwrap();
    says!(
        locked.clear_filter(),
        Error::Os { step: Step::SetFilter, .. },
        "setting the socket filter ({v}): Operation not permitted (os error 1); the filter is locked (`lock_filter`), \
         for good"
    );
    let wait = || capture.next_batch_timeout(Duration::from_secs(1)).map(drop);
    says!(
        without(POLL, None, libc::EPERM, || without(libc::SYS_ppoll, None, libc::EPERM, wait)),
        Error::Os { step: Step::Wait, .. },
        "waiting for packets ({v}): Operation not permitted (os error 1); {FORBIDDEN}"
    );
    let stop = || capture.stop_handle().map(drop);
    says!(
        without(libc::SYS_eventfd2, None, libc::EMFILE, || without(
            libc::SYS_pipe2,
            None,
            libc::EMFILE,
            stop
        )),
        Error::Os { step: Step::EventFd, .. },
        "creating an eventfd: Too many open files (os error 24); raise RLIMIT_NOFILE (`ulimit -n`)"
    );
    let mut tx = Injector::builder().interface(v).tx_timestamps(true).build().unwrap();
    tx.send(&[0xff; 60]).unwrap();
    says!(
        without(libc::SYS_sendto, None, libc::EPERM, || tx.flush()),
        Error::Os { step: Step::Kick, .. },
        "handing frames to the kernel ({v}): Operation not permitted (os error 1); {FORBIDDEN}"
    );
    tx.flush().unwrap();
    says!(
        without(libc::SYS_recvmsg, None, libc::EPERM, || tx.read_tx_timestamp().map(drop)),
        Error::Os { step: Step::ReadTimestamp, .. },
        "reading a transmit timestamp ({v}): Operation not permitted (os error 1); {FORBIDDEN}"
    );
}
