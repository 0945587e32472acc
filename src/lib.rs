//! Packet capture through shared-memory rings, driven by io_uring, on any async runtime.
//!
//! - **Zero copy and no allocation per packet.** A [`PacketBatch`] is an owned lease on a block of the ring:
//!   keep it, send it to another thread, or drop it at any time.
//! - **One `io_uring_enter` per turn.** One system call waits for all sockets, timers and wake-ups of a thread.
//!   Reading a ring that has packets makes no system call.
//! - **Thread-per-core shards.** Each shard has its own socket in a fanout group and its own reactor, and
//!   shares nothing; see [`Shards`].
//! - **Exact accounting.** `packets == delivered + drops`, in totals that are not reset by reading. Stopping
//!   drains the last partial block.
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use ringtap::{AsyncCapture, executor};
//!
//! fn main() -> ringtap::Result<()> {
//!     executor::block_on(async {
//!         let mut capture = AsyncCapture::open("eth0")?;
//!         while let Some(batch) = capture.next().await {
//!             for packet in &batch? {
//!                 println!("{} {} bytes", packet.timestamp(), packet.len());
//!             }
//!         }
//!         Ok(())
//!     })
//! }
//! ```
//!
//! # Where to start
//!
//! | to | use |
//! |---|---|
//! | receive packets without async | [`Capture`]: [`packets`](Capture::packets), [`batches`](Capture::batches) |
//! | receive packets in a future | [`AsyncCapture`], inside [`executor::block_on`] or on another runtime |
//! | use every core | [`Shards`] |
//! | send frames | [`Injector`], [`AsyncInjector`] |
//! | bridge two interfaces | [`Bridge`] |
//! | capture in a thread, through a queue | `ChannelCapture` (feature `channel`) |
//! | bypass the kernel's network stack | `XdpSocket`, `AsyncXdpSocket` (feature `af-xdp`) |
//! | read and write capture files | `pcap::{CaptureReader, CaptureWriter, PcapSource}` (feature `pcap`) |
//! | record packets to disk without copying them | [`record::Recorder`] (feature `record`) |
//! | follow flows, sessions and messages | `flow::FlowExt` on any of these streams (feature `flow`) |
//! | filter packets | [`BpfFilter`]: `"tcp port 443".parse()` |
//! | read statistics | [`Capture::stats`], [`StatsHandle`](capture::StatsHandle), [`Shards::stats`] |
//! | find out what works on a machine | [`doctor::examine`] |
//!
//! # Features
//!
//! No feature is enabled by default.
//!
//! | feature | adds |
//! |---|---|
//! | `af-xdp` | `XdpSocket` and related types (docs/AF_XDP.md) |
//! | `channel` | `ChannelCapture`: a capture in its own thread, with a queue |
//! | `parse` | parsing of a [`Packet`]'s headers with `etherparse` |
//! | `pcap` | writing, reading, rotating and replaying capture files (docs/TOOLBOX.md) |
//! | `record` | recording to disk from where the kernel has put packets (docs/RECORDING.md) |
//! | `gzip`, `lz4` | compressed capture files |
//! | `flow` | flows, and the streams of their bytes (docs/FLOWS.md) |
//! | `flow-dns`, `flow-http`, `flow-icmp`, `flow-tls`, or all as `flow-protocols` | parsers of messages |
//! | `flow-quic` | the hellos in QUIC |
//! | `flow-records` | records of ended flows |
//! | `serde` | keys, records and messages of flows for `serde` |
//! | `metrics` | statistics through the `metrics` facade; Prometheus text needs no feature |
//! | `tracing` | events of sockets and reactors for `tracing` |
//! | `testing` | `testing`: rings without a kernel |

#![deny(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(target_os = "linux"))]
compile_error!("ringtap works through Linux packet sockets and io_uring: it builds for Linux only");

#[cfg(not(target_pointer_width = "64"))]
compile_error!("ringtap's rings need a 64-bit address space");

mod afpacket;
#[cfg(feature = "af-xdp")]
mod afxdp;
pub mod bridge;
#[cfg(feature = "channel")]
pub mod channel;
pub mod dedup;
pub mod doctor;
pub mod error;
pub mod executor;
#[cfg(feature = "flow")]
pub mod flow;
pub mod interface;
mod io;
pub mod metrics;
mod multi;
mod options;
pub mod packet;
#[cfg(feature = "parse")]
pub mod parse;
#[cfg(feature = "pcap")]
pub mod pcap;
mod port;
pub mod reactor;
#[cfg(feature = "record")]
pub mod record;
mod ring;
pub mod shard;
pub mod stats;
mod sys;
pub mod time;
mod trace;
mod wait;

pub use self::afpacket::{Capture, Injector};
#[cfg(feature = "af-xdp")]
pub use self::afxdp::XdpSocket;
pub use self::bridge::Bridge;
pub use self::error::{Error, Result};
pub use self::io::{AsyncCapture, AsyncInjector};
pub use self::packet::Packet;
pub use self::ring::batch::PacketBatch;
pub use self::shard::Shards;
pub use self::wait::StopHandle;
pub use ringtap_filter::BpfFilter;

/// Receiving: options of a [`Capture`], its ring, its statistics, its async form.
pub mod capture {
    #[doc(no_inline)]
    pub use crate::{AsyncCapture, Capture};

    pub use crate::afpacket::{
        CaptureBuilder, CapturedPackets, FilterHandle, MAX_RING_BYTES, NetNs, RingLayout,
        RingProfile, StatsHandle, TimestampSource,
    };
    pub use crate::io::AsyncReceiver;
    pub use crate::multi::MultiCapture;
    pub use crate::port::{Batches, RxPort, TryNext};
    pub use crate::ring::batch::Packets;
    pub use crate::ring::captured::{CapturedPacket, IntoPackets};
}

/// Fanout groups: sockets that share an interface's packets (`PACKET_FANOUT`, packet(7)).
pub mod fanout {
    pub use crate::afpacket::{FanoutFlags, FanoutMode, ParseFanoutModeError};
}

/// Packet filters: the crate `ringtap-filter`.
pub mod filter {
    #[doc(no_inline)]
    pub use crate::BpfFilter;
    #[doc(no_inline)]
    pub use crate::error::{FilterError, ProgramFault};
    #[doc(no_inline)]
    pub use crate::packet::{LinkType, PacketDirection, VlanTag};

    pub use ringtap_filter::{
        Ancillary, BpfFilterBuilder, BpfInsn, FilterTarget, Headers, ListingError,
        MAX_INSTRUCTIONS, Needs, Resolver, Term,
    };
}

/// Sending: options of an [`Injector`], its slots, its async form.
pub mod inject {
    #[doc(no_inline)]
    pub use crate::{AsyncInjector, Injector};

    pub use crate::afpacket::{InjectorBuilder, TxSlot};
    pub use crate::io::{AsyncSender, AsyncTxSlot, Pacer, TxRef};
    pub use crate::port::{TryFlush, TxPort};
    pub use crate::stats::InjectorStatsHandle;
}

/// AF_XDP: sockets that bypass the kernel's network stack.
#[cfg(feature = "af-xdp")]
pub mod xdp {
    #[doc(no_inline)]
    pub use crate::XdpSocket;

    pub use crate::afxdp::{
        Attach, Bypass, BypassCounts, BypassKey, BypassVerdict, CopyMode, FlowRule, HugePages,
        InstalledRule, SymmetricRss, TxChecksum, XdpChunks, XdpHints, XdpProgram, XdpReceiver,
        XdpSender, XdpSocketBuilder, XdpStatsHandle, XdpTxSlot, XdpUmem,
    };
    pub use crate::io::{AsyncXdpReceiver, AsyncXdpSender, AsyncXdpSocket};
}

/// Rings without a kernel, for tests of what is built on this crate.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    pub use crate::ring::fake_kernel::{Peer, TestRing};

    /// Entry points for fuzzers: each reads arbitrary bytes as if the kernel had written them.
    pub mod hostile {
        pub use crate::ring::hostile::{block, descriptors, slot};
        pub use crate::sys::hostile::{control_messages, netlink_answer};
    }
}

/// The guides of the repository, as pages.
#[cfg(any(doc, doctest))]
pub mod guides {
    // Its programs use other crates: `tests/docs/pasted.rs` builds them, as it does those of all guides.
    #[cfg(not(doctest))]
    #[doc = include_str!("../docs/ASYNC_GUIDE.md")]
    pub mod async_guide {}

    #[cfg(any(not(doctest), feature = "af-xdp"))]
    #[doc = include_str!("../docs/AF_XDP.md")]
    pub mod af_xdp {}

    #[doc = include_str!("../docs/FILTERS.md")]
    pub mod filters {}

    #[cfg(any(not(doctest), all(feature = "flow-dns", feature = "flow-http")))]
    #[doc = include_str!("../docs/FLOWS.md")]
    pub mod flows {}

    #[cfg(any(not(doctest), feature = "pcap"))]
    #[doc = include_str!("../docs/TOOLBOX.md")]
    pub mod toolbox {}

    // Its program uses `ctrlc`.
    #[cfg(any(not(doctest), feature = "record"))]
    #[doc = include_str!("../docs/RECORDING.md")]
    pub mod recording {}

    // The doc tests of these two are `ringtap-tokio`'s.
    #[cfg(not(doctest))]
    #[doc = include_str!("../docs/MIGRATING_FROM_NETRING.md")]
    pub mod migrating_from_netring {}

    #[cfg(not(doctest))]
    #[doc = include_str!("../docs/MIGRATING_FROM_PCAP.md")]
    pub mod migrating_from_pcap {}
}

#[cfg(all(doctest, feature = "af-xdp", feature = "flow", feature = "record"))]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
