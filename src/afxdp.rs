//! AF_XDP: packets received from, and sent to, a queue of an interface, bypassing the kernel's stack.
//!
//! ```text
//!   program ── redirects queue N ──► socket ──RX ring──► leases ──returned──► fill ring ──► driver
//!   reserve ──TX ring──► driver ──completion ring──► free
//! ```
//!
//! A socket has one queue. [`XdpProgram`], which runs in the kernel, redirects the queue's packets to it for as
//! long as the program is held. The socket's two halves, [`XdpReceiver`] and [`XdpSender`], share nothing but the
//! descriptor.

mod assembler;
mod bound;
mod builder;
mod bypass;
mod cbpf_to_ebpf;
mod chunks;
mod forward;
mod hints;
mod metadata;
mod nic;
mod open;
mod orphans;
mod program;
mod receiver;
mod sender;
mod socket;
mod steering;

pub use self::bound::{XdpStatsHandle, XdpUmem};
pub use self::builder::{CopyMode, HugePages, TxChecksum, XdpSocketBuilder};
pub use self::bypass::{Bypass, BypassCounts, BypassKey, BypassVerdict};
pub use self::chunks::XdpChunks;
pub(crate) use self::forward::Forwarding;
pub(crate) use self::metadata::Checksum;
pub(crate) use self::program::try_program;
pub use self::program::{Attach, XdpProgram};
pub use self::receiver::XdpReceiver;
pub use self::sender::{XdpSender, XdpTxSlot};
pub use self::socket::XdpSocket;
pub use self::steering::{FlowRule, InstalledRule, SymmetricRss};
pub use crate::ring::umem::hints::XdpHints;
