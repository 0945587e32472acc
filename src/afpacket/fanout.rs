//! Fanout: several sockets share the packets of one interface (packet(7), PACKET_FANOUT).

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::str::FromStr;
use std::sync::Arc;

use bitflags::bitflags;
use ringtap_filter::{BpfFilter, BpfInsn};

use super::inner_hash;
use crate::error::{Error, Result};
use crate::packet::LinkType;
use crate::sys::cbpf;
use crate::sys::sockopt;

/// How a fanout group chooses the member that gets a packet.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FanoutMode {
    /// By flow hash, the same for both directions of a flow. Suits most users.
    Hash,
    /// Round robin.
    LoadBalance,
    /// By the core on which the packet arrived.
    Cpu,
    /// The first member until it is full, then the next.
    Rollover,
    /// Randomly.
    Random,
    /// By the device queue on which the packet arrived.
    QueueMapping,
    /// By the value that a classic BPF program returns, modulo the number of members.
    ///
    /// The program sees a received packet from its network header on (`fanout_demux_bpf`, net/packet/af_packet.c).
    Cbpf(Arc<[BpfInsn]>),
    /// By the value that a loaded eBPF socket-filter program returns, modulo the number of members.
    ///
    /// The program sees a received packet from its network header on.
    Ebpf(Arc<OwnedFd>),
}

impl FanoutMode {
    /// Returns a mode in which the group's second member gets the packets that a filter accepts, and the first
    /// member all others.
    ///
    /// In a group of one, the only member gets all packets. The filter sees packets from their network header on,
    /// so it can test only IP and what it carries.
    ///
    /// # Errors
    /// [`Error::Filter`] if the filter tests anything else (`vlan`, `ether host`), or was made from a ready
    /// program.
    pub fn by_filter(filter: &BpfFilter) -> Result<Self> {
        let filter = filter.for_link(LinkType::RAW)?;
        filter.check_offline()?;
        Ok(Self::Cbpf(filter.program_returning(1).into()))
    }

    /// Returns a mode like [`Hash`](Self::Hash) that also looks into tunnels of VXLAN, Geneve and GTP-U, as well as GRE,
    /// ERSPAN, IP in IP and 6in4: both directions of a flow in a tunnel reach the same member, and the flows of one
    /// tunnel are spread over all members. For `FiveTuple::tunnels` of the feature `flow`.
    ///
    /// One tunnel is looked into, on the ports that IANA assigned to it (and 8472 for VXLAN). Packets that are not IP
    /// go to the first member. Fragments are spread by their addresses alone; add [`FanoutFlags::DEFRAG`].
    pub fn inner_hash() -> Self {
        Self::Cbpf(inner_hash::program().into())
    }

    fn number(&self) -> u32 {
        match self {
            Self::Hash => libc::PACKET_FANOUT_HASH,
            Self::LoadBalance => libc::PACKET_FANOUT_LB,
            Self::Cpu => libc::PACKET_FANOUT_CPU,
            Self::Rollover => libc::PACKET_FANOUT_ROLLOVER,
            Self::Random => libc::PACKET_FANOUT_RND,
            Self::QueueMapping => libc::PACKET_FANOUT_QM,
            Self::Cbpf(_) => libc::PACKET_FANOUT_CBPF,
            Self::Ebpf(_) => libc::PACKET_FANOUT_EBPF,
        }
    }

    fn load_program(&self, socket: BorrowedFd<'_>) -> Result<()> {
        match self {
            Self::Cbpf(program) => cbpf::fanout_classic(socket, program),
            Self::Ebpf(program) => cbpf::fanout_extended(socket, program),
            _ => Ok(()),
        }
    }
}

/// The error for an unknown name of a fanout mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseFanoutModeError(String);

impl fmt::Display for ParseFanoutModeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no fanout mode `{}`; there are hash, lb, cpu, rollover, random and qm (cbpf and ebpf \
             need a program, so they have no name)",
            self.0
        )
    }
}

impl std::error::Error for ParseFanoutModeError {}

/// Writes the short name, which [`FromStr`] reads; `cbpf` and `ebpf` are only written, as they need a program.
impl fmt::Display for FanoutMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hash => "hash",
            Self::LoadBalance => "lb",
            Self::Cpu => "cpu",
            Self::Rollover => "rollover",
            Self::Random => "random",
            Self::QueueMapping => "qm",
            Self::Cbpf(_) => "cbpf",
            Self::Ebpf(_) => "ebpf",
        })
    }
}

impl FromStr for FanoutMode {
    type Err = ParseFanoutModeError;

    fn from_str(name: &str) -> Result<Self, ParseFanoutModeError> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "hash" => Self::Hash,
            "lb" | "load-balance" => Self::LoadBalance,
            "cpu" => Self::Cpu,
            "rollover" => Self::Rollover,
            "random" => Self::Random,
            "qm" | "queue-mapping" => Self::QueueMapping,
            _ => return Err(ParseFanoutModeError(name.to_owned())),
        })
    }
}

bitflags! {
    /// Options of a fanout group.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct FanoutFlags: u16 {
        /// Packets of a full member go to the next member instead of being dropped.
        const ROLLOVER = 0x1000;
        /// The kernel chooses the group's id; [`Capture::fanout_group`](crate::Capture::fanout_group) returns it.
        const UNIQUE_ID = 0x2000;
        /// Packets that this host sends are left out.
        ///
        /// The socket option of the same name is ignored inside a group. Before Linux 6.2 the kernel ignores this
        /// flag too, and each member's filter drops those packets instead; an eBPF filter is then refused
        /// ([`Capture::attach_ebpf_filter`](crate::Capture::attach_ebpf_filter)).
        const IGNORE_OUTGOING = 0x4000;
        /// Fragments are reassembled before hashing, so that a whole datagram reaches one member.
        const DEFRAG = 0x8000;
    }
}

/// A fanout group to join, with its mode and flags.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    pub(crate) mode: FanoutMode,
    /// The group's id. `None`: a new group whose id the kernel chooses.
    pub(super) group: Option<u16>,
    pub(super) flags: FanoutFlags,
}

impl Membership {
    /// Returns whether packets that this host sends are left out.
    pub(super) fn ignores_outgoing(&self) -> bool {
        self.flags.contains(FanoutFlags::IGNORE_OUTGOING)
    }

    /// Returns this membership with the given group, if there is one.
    pub(crate) fn of_group(mut self, group: Option<u16>) -> Self {
        self.group = group.or(self.group);
        self.flags.remove(FanoutFlags::UNIQUE_ID);
        self
    }

    /// Joins the group and returns its id. A refusal carries the raw errno for the caller to explain.
    pub(super) fn join(&self, socket: BorrowedFd<'_>) -> Result<u16, JoinError> {
        let mut flags = self.flags;
        flags.set(FanoutFlags::UNIQUE_ID, self.group.is_none());
        let kind = self.mode.number() | u32::from(flags.bits());
        let argument = u32::from(self.group.unwrap_or(0)) | kind << 16;
        sockopt::try_set(socket, sockopt::FANOUT, &argument).map_err(JoinError::Refused)?;
        self.mode.load_program(socket).map_err(JoinError::Other)?;
        let joined: u32 = sockopt::get(socket, sockopt::FANOUT).map_err(JoinError::Other)?;
        Ok(joined as u16)
    }
}

/// The reason why joining failed.
#[derive(Debug)]
pub(super) enum JoinError {
    Refused(std::io::Error),
    Other(Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_have_the_names_the_command_line_uses() {
        for name in ["hash", "lb", "cpu", "rollover", "random", "qm", "QM"] {
            assert!(name.parse::<FanoutMode>().is_ok(), "{name}");
        }
        let error = "cbpf".parse::<FanoutMode>().unwrap_err();
        assert!(error.to_string().contains("need a program"));
    }

    #[test]
    fn a_mode_is_read_as_it_is_written() {
        for name in ["hash", "lb", "cpu", "rollover", "random", "qm"] {
            assert_eq!(name.parse::<FanoutMode>().unwrap().to_string(), name);
        }
        assert!("cbpf".parse::<FanoutMode>().is_err());
    }
}
