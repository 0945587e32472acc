//! The steps at which a system call can fail.

use std::fmt;

/// The step during which a system call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// `socket(AF_PACKET)`.
    OpenSocket,
    /// Setting the named socket option.
    SetOption(&'static str),
    /// Reading the named socket option.
    GetOption(&'static str),
    /// Creating the ring (`PACKET_RX_RING`).
    CreateRing,
    /// Mapping the ring (`mmap`).
    MapRing,
    /// Attaching or detaching a classic BPF program.
    SetFilter,
    /// `bind` to the interface.
    Bind,
    /// Asking an interface for the named property.
    QueryInterface(&'static str),
    /// Telling the kernel to look at a transmit ring (a kick).
    Kick,
    /// Reading a transmit timestamp.
    ReadTimestamp,
    /// Waiting in `poll`.
    Wait,
    /// Creating or reading an `eventfd`, or the pipe of a stop handle.
    EventFd,
    /// `io_uring_enter`.
    EnterRing,
    /// `IORING_OP_POLL_ADD` on a socket.
    PollSocket,
    /// Watching the reactor's eventfd from a host runtime.
    WatchEvent,
    /// `socket(AF_XDP)`.
    OpenXdpSocket,
    /// Getting huge pages for the UMEM.
    MapHugePages,
    /// Binding the UMEM's memory to a NUMA node.
    BindMemory,
    /// Registering the UMEM (`XDP_UMEM_REG`).
    RegisterUmem,
    /// Registering the UMEM with transmit metadata, when registering it without would succeed.
    RegisterTxMetadata,
    /// Binding an AF_XDP socket to its queue.
    BindQueue,
    /// Binding an AF_XDP socket in zero-copy mode, when binding it in copy mode would succeed.
    BindZeroCopy,
    /// Binding an AF_XDP socket with multi-buffer packets, when binding it without would succeed.
    BindMultiBuffer,
    /// Telling a driver to send in zero-copy mode while no XDP program is attached.
    KickWithoutProgram,
    /// Creating the map of sockets, or loading the XDP program, with `bpf(2)`.
    LoadProgram,
    /// Attaching an XDP program that asks the driver for packets' times, hashes and tags.
    AskDriver,
    /// Adding, removing or reading a flow that an XDP program bypasses.
    BypassFlow,
    /// Attaching the XDP program to the interface.
    AttachProgram,
    /// Opening a pinned map of sockets.
    OpenPinnedMap,
    /// Adding a socket to the program's map.
    RegisterSocket,
    /// Setting the key of a card's receive hash.
    SetHashKey,
    /// Inserting a rule that steers packets to a queue.
    InsertRule,
    /// Starting a shard's thread.
    SpawnThread,
    /// Pinning a shard's thread to its core.
    PinThread,
    /// Entering another network namespace.
    EnterNamespace,
}

impl Step {
    /// The remedy for this step failing with `errno`, if known.
    pub(crate) fn remedy(self, errno: i32) -> Option<&'static str> {
        Some(match (self, errno) {
            (Self::OpenSocket, libc::EPERM | libc::EACCES) => {
                "needs CAP_NET_RAW: run `setcap cap_net_raw+ep BINARY`, run as root, or enter a user and network \
                 namespace of your own"
            }
            (Self::OpenSocket, libc::EAFNOSUPPORT) => {
                "this kernel has no packet sockets (CONFIG_PACKET)"
            }
            (Self::SetOption(name), libc::EPERM) if name.contains("BUSY_POLL") => {
                "raising busy polling above the system default needs CAP_NET_ADMIN"
            }
            (Self::EnterNamespace, libc::EPERM | libc::EACCES) => {
                "needs CAP_SYS_ADMIN, in this user namespace and in that of the other one"
            }
            (Self::EnterNamespace, libc::ENOENT) => "`ip netns` lists the named namespaces",
            (Self::EnterNamespace, libc::EINVAL) => "is it a network namespace?",
            (Self::SetFilter, libc::EOPNOTSUPP) => {
                "before Linux 6.2, a group drops outgoing packets by a filter, which an eBPF filter would replace: drop \
                 them in the eBPF filter instead, without `IGNORE_OUTGOING`"
            }
            (Self::SetFilter, libc::EPERM) => "the filter is locked (`lock_filter`), for good",
            (Self::LoadProgram, libc::EINVAL) => {
                "packets in several buffers (`multi_buffer`) need Linux 5.18 at least"
            }
            (Self::SetFilter, libc::ENOMEM) => {
                "this filter, and the one it replaces, take more memory than a socket may use: raise \
                 net.core.optmem_max, or shorten the filter"
            }
            (Self::SetOption(_), libc::ENOPROTOOPT) => "this kernel does not have that option",
            (Self::MapRing, libc::ENOMEM) => {
                "no address space or memory is left to map the ring; ask for a smaller one"
            }
            (Self::Bind, libc::ENODEV) => "the interface vanished while it was being opened",
            (Self::EnterRing, libc::EAGAIN | libc::EBUSY | libc::EINTR) => {
                "refused repeatedly: the kernel is out of memory, or a seccomp profile refuses io_uring_enter"
            }
            (Self::EnterRing, libc::EPERM | libc::ENOSYS) => {
                "a seccomp profile refuses io_uring_enter; permit it together with io_uring_setup"
            }
            (Self::OpenXdpSocket, libc::EPERM) => {
                "needs CAP_NET_RAW: run `setcap cap_net_raw+ep BINARY`, or run as root"
            }
            (Self::OpenXdpSocket, libc::EAFNOSUPPORT) => {
                "this kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS)"
            }
            (Self::LoadProgram | Self::AttachProgram, libc::EPERM) => {
                "receiving through AF_XDP needs CAP_BPF and CAP_NET_ADMIN in the initial namespace \
                 (setcap cap_net_raw,cap_bpf,cap_net_admin+ep), or root"
            }
            (Self::LoadProgram, libc::EACCES) => {
                "the kernel's verifier refuses it; a program with a filter or with flows to bypass needs CAP_PERFMON too \
                 (setcap cap_net_raw,cap_bpf,cap_net_admin,cap_perfmon+ep)"
            }
            (Self::OpenPinnedMap, libc::ENOENT) => {
                "nothing is pinned there; `bpftool map` lists maps, and `bpftool map pin` pins them"
            }
            (Self::OpenPinnedMap, libc::EPERM | libc::EACCES) => {
                "this takes CAP_BPF, and the rights to the file"
            }
            (Self::OpenPinnedMap, libc::EINVAL) => {
                "it is no map of AF_XDP sockets (BPF_MAP_TYPE_XSKMAP)"
            }
            (Self::BypassFlow, libc::EAFNOSUPPORT) => {
                "source and destination must be of one version of IP"
            }
            (Self::AskDriver, libc::ENOENT) => {
                "this kernel does not describe its functions (CONFIG_DEBUG_INFO_BTF, /sys/kernel/btf/vmlinux); packets \
                 have the time of their batch, and neither hash nor tag"
            }
            (Self::AskDriver, libc::ENOSYS) => {
                "this takes Linux 6.3; packets have the time of their batch, and neither hash nor tag"
            }
            (Self::AskDriver, libc::EINVAL) => {
                "before Linux 6.7, a program that gets packets of several buffers cannot ask; packets have the time of their \
                 batch, and neither hash nor tag"
            }
            (Self::AskDriver, libc::EOPNOTSUPP) => {
                "the driver does not tell, or the program runs in the stack (`Attach::Generic`); packets have the time of \
                 their batch, and neither hash nor tag"
            }
            (Self::AttachProgram, libc::EOPNOTSUPP) => {
                "the driver runs no XDP programs; ask for `Attach::Generic`"
            }
            (Self::AttachProgram, libc::EINVAL | libc::ERANGE) => {
                "is the MTU, or the far end's, too large for XDP? try `multi_buffer(true)`, or \
                 `Attach::Generic`"
            }
            (Self::MapHugePages, libc::ENOMEM) => {
                "raise vm.nr_hugepages, or ask for `HugePages::Try`"
            }
            (Self::BindMemory, libc::EINVAL) => "no such node; `numactl -H` lists them",
            (Self::RegisterTxMetadata, _) => "`tx_timestamps` and `tx_checksum` need Linux 6.8",
            (Self::RegisterSocket, libc::EEXIST) => {
                "another socket has this queue in the map; drop that first"
            }
            (Self::RegisterSocket, libc::E2BIG) => {
                "the map has fewer entries than this queue's number"
            }
            (Self::RegisterSocket, libc::EINVAL | libc::EBADF | libc::EOPNOTSUPP) => {
                "is it a map of AF_XDP sockets (BPF_MAP_TYPE_XSKMAP)?"
            }
            (Self::RegisterUmem, libc::ENOBUFS | libc::ENOMEM) => {
                "raise RLIMIT_MEMLOCK (`ulimit -l`), or ask for fewer frames"
            }
            (Self::BindQueue, libc::EBUSY) => {
                "another AF_XDP socket has this queue, here or in another process; `ss -f xdp -p` shows \
                 which"
            }
            (Self::BindQueue | Self::BindZeroCopy, libc::EOPNOTSUPP) => {
                "the driver has no zero-copy; ask for `CopyMode::Auto`"
            }
            (Self::BindQueue, libc::EINVAL) => {
                "does the interface have such a queue? `ethtool -l` shows how many there are"
            }
            (Self::BindZeroCopy, _) => {
                "with copies it can be bound: ask for `CopyMode::Auto`, or see `dmesg` for what the driver lacks"
            }
            (Self::BindMultiBuffer, _) => {
                "the queue can be bound without `multi_buffer(true)`, which needs Linux 6.6 and driver support"
            }
            (Self::KickWithoutProgram, _) => {
                "this driver sends without copies only beside an XDP program: open a socket with both halves, \
                 give a `program`, or copy (`CopyMode::Auto`, of the first socket if a UMEM is shared)"
            }
            (Self::SetHashKey, libc::EOPNOTSUPP) => {
                "this driver cannot; a fanout group spreads packets without it"
            }
            (Self::InsertRule, libc::EOPNOTSUPP) => {
                "this driver has no such rules, or they are off (`ethtool -K INTERFACE ntuple on`)"
            }
            (Self::InsertRule, libc::EINVAL) => "this driver has rules of other kinds only",
            (Self::SetHashKey | Self::InsertRule, libc::EPERM) => "needs CAP_NET_ADMIN",
            (Self::InsertRule, libc::ENOSPC) => "the card has no room for another rule",
            (Self::PinThread, libc::EINVAL) => {
                "that core is offline or outside this process's cpuset; see `taskset -p`"
            }
            (Self::SpawnThread, libc::EAGAIN) => "raise RLIMIT_NPROC or the cgroup's pids.max",
            (_, libc::EPERM | libc::EACCES) => {
                "a capability is missing, or a seccomp profile or security module forbids it: \
                 `ringtap::doctor` tells the first, the audit log (`dmesg`) the others"
            }
            (_, libc::EMFILE) => "raise RLIMIT_NOFILE (`ulimit -n`)",
            (_, libc::ENFILE) => "the system's table of files is full: raise fs.file-max",
            (_, libc::ENOMEM | libc::ENOBUFS) => "the kernel has no memory for it",
            _ => return None,
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenSocket => f.write_str("opening a packet socket"),
            Self::SetOption(name) => write!(f, "setting {name}"),
            Self::GetOption(name) => write!(f, "reading {name}"),
            Self::CreateRing => f.write_str("creating the ring"),
            Self::MapRing => f.write_str("mapping the ring"),
            Self::SetFilter => f.write_str("setting the socket filter"),
            Self::Bind => f.write_str("binding to the interface"),
            Self::QueryInterface(what) => write!(f, "asking the interface for its {what}"),
            Self::Kick => f.write_str("handing frames to the kernel"),
            Self::ReadTimestamp => f.write_str("reading a transmit timestamp"),
            Self::Wait => f.write_str("waiting for packets"),
            Self::EventFd => f.write_str("creating an eventfd"),
            Self::EnterRing => f.write_str("entering the io_uring"),
            Self::OpenXdpSocket => f.write_str("opening an AF_XDP socket"),
            Self::MapHugePages => f.write_str("getting huge pages for the UMEM"),
            Self::BindMemory => f.write_str("binding the UMEM to its NUMA node"),
            Self::RegisterUmem => f.write_str("registering the UMEM"),
            Self::RegisterTxMetadata => f.write_str("registering the UMEM with transmit metadata"),
            Self::BindQueue => f.write_str("binding to the queue"),
            Self::BindZeroCopy => f.write_str("binding to the queue without copies"),
            Self::BindMultiBuffer => f.write_str("binding to the queue with multi-buffer packets"),
            Self::KickWithoutProgram => f.write_str("handing frames to the driver"),
            Self::LoadProgram => f.write_str("loading the XDP program"),
            Self::OpenPinnedMap => f.write_str("opening the pinned map of sockets"),
            Self::RegisterSocket => f.write_str("entering the socket into the program's map"),
            Self::AskDriver => f.write_str("asking the driver for times, hashes and tags"),
            Self::BypassFlow => f.write_str("bypassing a flow"),
            Self::AttachProgram => f.write_str("attaching the XDP program"),
            Self::SetHashKey => f.write_str("setting the receive hash's key"),
            Self::InsertRule => f.write_str("inserting a flow rule"),
            Self::WatchEvent => f.write_str("watching the reactor's eventfd"),
            Self::PollSocket => f.write_str("polling the socket through io_uring"),
            Self::SpawnThread => f.write_str("starting a thread"),
            Self::EnterNamespace => f.write_str("entering the network namespace"),
            Self::PinThread => f.write_str("pinning a shard's thread to its core"),
        }
    }
}
