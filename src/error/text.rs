//! The texts of errors.

use std::{fmt, io};

use super::Error;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os { step, object, source } => {
                match object {
                    Some(object) => write!(f, "{step} ({object}): {source}")?,
                    None => write!(f, "{step}: {source}")?,
                }
                match source.raw_os_error().and_then(|errno| step.remedy(errno)) {
                    Some(remedy) => write!(f, "; {remedy}"),
                    None => Ok(()),
                }
            }
            Self::InterfaceMissing => {
                f.write_str("no interface was named; call `interface(name)` on the builder")
            }
            Self::NoSuchInterface { name } if name == "any" => f.write_str(
                "`any` is for captures alone; name one interface (`ip link` lists them)",
            ),
            Self::Unusable { option, interface, why } => {
                write!(f, "`{option}` cannot be used on `{interface}`: {why}")
            }
            Self::NoSuchInterface { name } => write!(
                f,
                "no interface `{name}` in this network namespace; `ip link` lists the interfaces"
            ),
            Self::InterfaceGone { name } => write!(
                f,
                "interface `{name}` was removed; packets already in the ring were delivered, \
                 open a new socket once it exists again"
            ),
            Self::LinkDown { name } => write!(
                f,
                "interface `{name}` is down; set it up (`ip link set {name} up`), and what was \
                 committed goes with the next flush"
            ),
            Self::FrameLength { len, least, most } => write!(
                f,
                "a frame of {len} bytes cannot be sent: the interface's MTU and the \
                 injector's `frame_size` allow {least} to {most} bytes"
            ),
            Self::AlreadyAttached => f.write_str(
                "this thread has a reactor already, which is running; attach one once, and keep the guard as \
                 long as sockets are used",
            ),
            Self::SameInterface { name } => {
                write!(f, "a bridge joins two interfaces, and both of its sides are `{name}`")
            }
            Self::FilteredByProgram => f.write_str(
                "AF_XDP sockets have no filter of their own; give them the program that `XdpProgram::filtered` returns",
            ),
            Self::OffloadsDisabled => f.write_str(
                "a frame whose checksum or segmentation is left to the kernel needs an injector \
                 that was built with `offloads(true)`, or an AF_XDP socket with `tx_checksum`",
            ),
            Self::ChecksumOutside { start, offset, len } => write!(
                f,
                "a checksum from byte {start} on, written {offset} bytes after it, does not fit into a \
                 frame of {len} bytes"
            ),
            Self::DifferentLinks { names: [a, b], links: [of_a, of_b] } => {
                let kind = |link: &Option<u16>| {
                    link.map_or("of an unknown kind".to_owned(), |link| format!("link type {link}"))
                };
                write!(
                    f,
                    "`{a}` ({}) and `{b}` ({}) cannot be bridged: a frame of one cannot be sent on the other; \
                     route between them, or use interfaces of one kind (a tap in place of a tun)",
                    kind(of_a),
                    kind(of_b)
                )
            }
            Self::TagsStripped { name, by } => {
                write!(f, "AF_XDP does not see the VLAN tags of packets received on `{name}`: ")?;
                match by {
                    Some(by) if by == name => {
                        write!(f, "the card strips them; run `ethtool -K {name} rxvlan off`")?;
                    }
                    Some(peer) => write!(
                        f,
                        "its veth peer `{peer}` leaves them to a card; run `ethtool -K {peer} txvlan off`"
                    )?,
                    None => f.write_str(
                        "its veth peer is in another namespace and may leave them to a card; run `ethtool -K PEER \
                         txvlan off` there",
                    )?,
                }
                f.write_str(", or use `XdpBridge::without_vlans` if there are no VLANs")
            }
            Self::NoHardwareClock { name, has_software } => {
                let has = if *has_software { "its driver stamps in software" } else { "the kernel stamps them" };
                write!(
                    f,
                    "`{name}` has no clock that stamps received packets (`ethtool -T {name}`): {has}; use \
                     `TimestampSource::Software`"
                )
            }
            Self::OtherInterface { program, socket } => write!(
                f,
                "the XDP program is attached to `{program}`, but the socket is on `{socket}`: no packets \
                 would arrive; attach a program there"
            ),
            Self::NoSuchQueue { name, queue, count } => write!(
                f,
                "interface `{name}` has no queue {queue}: it has {count}, from 0 on (`ethtool -l {name}`, and \
                 `-L` to change that)"
            ),
            Self::ProgramAttached { name, id } => write_attached(f, name, *id),
            Self::Geometry(error) => write!(f, "ring geometry: {error}"),
            Self::RingTooLarge { bytes, source } => write!(
                f,
                "no memory for a ring of {bytes} bytes: {source}; ask for fewer or smaller blocks \
                 (`RingProfile::LowMemory` takes 16 MiB)"
            ),
            Self::Fanout { group, source, interface_up } => {
                write_fanout(f, *group, source, *interface_up)
            }
            Self::IoUringRefused { source } => write_refused(f, source),
            Self::HostUnsignalled => f.write_str(
                "this kernel's io_uring loses the signals that another runtime waits for; the built-in executor works, \
                 and so may a newer kernel",
            ),
            Self::Filter(error) => error.fmt(f),
            #[cfg(feature = "pcap")]
            Self::File(error) => error.fmt(f),
            Self::Program(fault) => write!(f, "filter program: {fault}"),
            Self::NoReactor => f.write_str(
                "no reactor on this thread; run inside `ringtap::executor::block_on`, in a shard, \
                 or attach one to the runtime that polls this future",
            ),
            Self::ReactorGone => f.write_str(
                "the reactor of this thread or of this socket has ended, with its executor, its guard or the \
                 host task that drove it; attach a new one, and take the socket back with `into_inner` to \
                 make a new async one there",
            ),
            Self::Forked => f.write_str(
                "the process forked after its reactor was made, and an io_uring belongs to the \
                 process that made it; create reactors and async sockets after the fork",
            ),
            Self::TooManyOps { limit } => write!(
                f,
                "all {limit} op slots of this thread's reactor are taken; raise \
                 `ReactorOptions::max_ops` or use fewer sockets a thread"
            ),
            Self::TaskCancelled => {
                f.write_str("the executor ended before the awaited task was finished")
            }
            Self::ShardPlan(why) => write!(f, "shard plan: {why}"),
            Self::Shard { index, source } => write!(f, "shard {index}: {source}"),
            Self::ShardPanicked { index, message } => {
                write!(f, "shard {index} panicked: {message}")
            }
            Self::Other(source) => write!(f, "{source}"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn write_attached(f: &mut fmt::Formatter<'_>, name: &str, id: Option<u32>) -> fmt::Result {
    write!(f, "interface `{name}` has another XDP program")?;
    if let Some(id) = id {
        write!(f, ", id {id} (`bpftool prog show id {id}`; `bpftool link` shows its holder)")?;
    }
    write!(
        f,
        "; end its holder, `ip link set {name} xdp off`, or use it: \
         `XdpProgram::from_map`. Sockets of one process share a program: `XdpSocketBuilder::program`"
    )
}

fn write_fanout(
    f: &mut fmt::Formatter<'_>,
    group: Option<u16>,
    source: &io::Error,
    interface_up: bool,
) -> fmt::Result {
    match group {
        Some(group) => write!(f, "joining fanout group {group}: {source}; ")?,
        None => write!(f, "creating a fanout group: {source}; ")?,
    }
    match source.raw_os_error() {
        Some(libc::EINVAL) if !interface_up => f.write_str(
            "the interface is down, and this kernel lets a socket join only while its interface is up",
        ),
        Some(libc::EINVAL) => f.write_str(
            "a group has one mode, one set of flags and one interface, and its members must all \
             ask for the same (QueueMapping, Rollover, UNIQUEID and IGNORE_OUTGOING need a \
             kernel that has them)",
        ),
        Some(libc::ENOSPC) => f.write_str("the group is full (256 members)"),
        Some(libc::ENOMEM) => f.write_str("no free group id is left; name one with `fanout`"),
        _ => f.write_str("see packet(7), PACKET_FANOUT"),
    }
}

fn write_refused(f: &mut fmt::Formatter<'_>, source: &io::Error) -> fmt::Result {
    write!(f, "io_uring_setup: {source}; ")?;
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => f.write_str(
            "allow it with `sysctl kernel.io_uring_disabled=0`, or with a container seccomp \
             profile that permits io_uring_setup, io_uring_enter and io_uring_register",
        ),
        Some(libc::ENOSYS) => f.write_str(
            "this kernel has no io_uring (5.13 or later is needed), or a seccomp profile hides it",
        ),
        Some(libc::ENOMEM) => f.write_str("raise RLIMIT_MEMLOCK (`ulimit -l`)"),
        Some(libc::EAGAIN | libc::EOPNOTSUPP) => f.write_str(
            "this error comes from a seccomp profile or a security module, not from io_uring; permit io_uring_setup, \
             io_uring_enter and io_uring_register there",
        ),
        Some(libc::EMFILE | libc::ENFILE) => f.write_str("raise RLIMIT_NOFILE (`ulimit -n`)"),
        _ => f.write_str("kernel 5.13 or later is needed"),
    }
}
