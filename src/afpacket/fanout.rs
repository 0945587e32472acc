//! Fanout: several sockets share the packets of one interface (packet(7), PACKET_FANOUT).

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::str::FromStr;
use std::sync::Arc;

use bitflags::bitflags;

use crate::error::{Error, Result};
use crate::filter::BpfFilter;
use crate::packet::LinkType;
use crate::sys::cbpf::{self, BpfInsn};
use crate::sys::sockopt;

/// How a fanout group chooses the member that gets a packet.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FanoutMode {
    /// By flow hash, the same for both directions of a flow. What most users want.
    Hash,
    /// Round robin.
    LoadBalance,
    /// By the core the packet arrived on.
    Cpu,
    /// Fill the first member, go on to the next when it is full.
    Rollover,
    /// At random.
    Random,
    /// By the device queue the packet arrived on.
    QueueMapping,
    /// By the value a classic BPF program returns, modulo the members. The program sees a received
    /// packet from its network header on (`fanout_demux_bpf`, net/packet/af_packet.c).
    Cbpf(Arc<[BpfInsn]>),
    /// By the value a loaded eBPF socket-filter program returns, modulo the members; it sees the
    /// same bytes.
    Ebpf(Arc<OwnedFd>),
}

impl FanoutMode {
    /// The group's second member gets the packets that a filter accepts, the first one all others; in a group of one,
    /// it gets all.
    ///
    /// The filter sees packets from their network header on, so it can be about IP and what is in it only.
    ///
    /// # Errors
    /// [`Error::Filter`] where it is about anything else (`vlan`, `ether host`), or is a program from elsewhere.
    pub fn by_filter(filter: &BpfFilter) -> Result<Self> {
        let filter = filter.for_link(LinkType::RAW)?;
        filter.check_offline()?;
        Ok(Self::Cbpf(filter.program_returning(1).into()))
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

/// A name that is no fanout mode.
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
    /// What else a fanout group does.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct FanoutFlags: u16 {
        /// A full member's packets go to the next member instead of being dropped.
        const ROLLOVER = 0x1000;
        /// The kernel chooses the group's id; [`Capture::fanout_group`](crate::Capture::fanout_group)
        /// reads it back.
        const UNIQUE_ID = 0x2000;
        /// Packets that this host sends are not seen. The socket option of the same name is ignored inside a group. Before
        /// Linux 6.2 the kernel ignores this flag, too, and each member's filter leaves those packets out: a filter of
        /// extended BPF is refused there ([`Capture::attach_ebpf_filter`](crate::Capture::attach_ebpf_filter)).
        const IGNORE_OUTGOING = 0x4000;
        /// Fragments are put together before hashing, so that all of a datagram meet one member.
        const DEFRAG = 0x8000;
    }
}

/// The group to join, and how.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    pub(super) mode: FanoutMode,
    /// `None`: a new group whose id the kernel chooses.
    pub(super) group: Option<u16>,
    pub(super) flags: FanoutFlags,
}

impl Membership {
    /// Whether packets that this host sends are to be left out.
    pub(super) fn ignores_outgoing(&self) -> bool {
        self.flags.contains(FanoutFlags::IGNORE_OUTGOING)
    }

    /// The same, but of this group.
    pub(crate) fn of_group(mut self, group: Option<u16>) -> Self {
        self.group = group.or(self.group);
        self.flags.remove(FanoutFlags::UNIQUE_ID);
        self
    }

    /// Joins; returns the group's id. The raw errno, for the caller to explain.
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

/// Why joining failed.
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
}
