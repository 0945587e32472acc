//! Packet capture through shared-memory rings, driven by io_uring, on any async runtime.
//!
//! - **Zero copy, zero allocation a packet.** A [`PacketBatch`] is an owned lease on a block of the
//!   ring that the kernel filled: keep it, send it to another thread, drop it whenever.
//! - **One `io_uring_enter` a turn.** Sockets, timers and wake-ups of a thread are waited for
//!   together; reading a ready ring makes no system call at all.
//! - **Thread-per-core shards.** Each has its own socket of a fanout group, its own reactor, its own
//!   everything; see [`Shards`].
//! - **Exact accounting.** `packets == delivered + drops`, in totals that reading never resets, and
//!   stopping drains the last partial block.
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
//! # Which way in
//!
//! | you want | use |
//! |---|---|
//! | packets, no async | [`Capture`]: [`next_batch_timeout`](Capture::next_batch_timeout), [`batches`](Capture::batches) |
//! | packets in a future | [`AsyncCapture`], inside [`executor::block_on`] or on another runtime |
//! | every core | [`Shards`] |
//! | frames out | [`Injector`], [`AsyncInjector`] |
//! | two interfaces joined | [`Bridge`] |
//! | a plain thread behind a queue | `ChannelCapture` (feature `channel`) |
//! | the kernel's stack out of the way | `XdpSocket`, `AsyncXdpSocket` (feature `af-xdp`) |
//! | capture files | `pcap::{CaptureReader, CaptureWriter, PcapSource}` (feature `pcap`) |
//! | flows, sessions, messages | `flow::FlowExt` on any of these streams (feature `flow`) |
//! | some packets only | [`BpfFilter`]: `"tcp port 443".parse()` |
//! | figures | [`Capture::stats`], [`StatsHandle`], [`ShardsHandle::stats`] |
//! | to know what works here, and why not | [`doctor::examine`] |
//!
//! # Layers
//!
//! Arrows point down only; `tests/layers.rs` enforces it.
//!
//! ```text
//! error  packet  stats  options          vocabulary
//!     sys                                every system call but io_uring's
//!         ring  wait  interface  filter  shared memory as data structures; which packets
//!             afpacket  afxdp  reactor   sockets; io_uring
//!                 executor  time         tasks; timers
//!                     io                 async sockets
//!                         shard          one thread a core
//!                             bridge     two interfaces joined; beside it channel, dedup,
//!                                        doctor, multi, parse, pcap; above, flow and metrics
//! ```
//!
//! # Features
//!
//! None by default.
//!
//! | feature | adds |
//! |---|---|
//! | `af-xdp` | `XdpSocket` and its kin (docs/AF_XDP.md) |
//! | `channel` | `ChannelCapture`: a capture in a thread of its own, behind a queue |
//! | `parse` | [`Packet`]'s headers, by `etherparse` |
//! | `pcap`; `gzip`, `lz4` | capture files: written, read, rotated, played (docs/TOOLBOX.md); the same compressed |
//! | `flow`; `flow-dns`, `flow-http`, `flow-icmp`, `flow-tls`, or all as `flow-protocols` | flows and sessions, by `flowscope` (docs/FLOWS.md); its parsers |
//! | `flow-records` | records of flows that have ended |
//! | `metrics` | statistics through the facade `metrics`; Prometheus' text needs no feature |
//! | `tracing` | what happens to sockets and reactors, told to `tracing` |
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
mod bridge;
#[cfg(feature = "channel")]
mod channel;
mod dedup;
pub mod doctor;
mod error;
pub mod executor;
mod filter;
#[cfg(feature = "flow")]
pub mod flow;
mod interface;
mod io;
pub mod metrics;
mod multi;
mod options;
mod packet;
#[cfg(feature = "parse")]
pub mod parse;
#[cfg(feature = "pcap")]
pub mod pcap;
mod reactor;
mod ring;
mod shard;
mod stats;
mod sys;
pub mod time;
mod trace;
mod wait;

pub use self::afpacket::FilterHandle;
pub use self::afpacket::{
    Batches, Capture, CaptureBuilder, FanoutFlags, FanoutMode, Injector, InjectorBuilder,
    InjectorStatsHandle, MAX_RING_BYTES, NetNs, RingLayout, RingProfile, StatsHandle,
    TimestampSource, TxSlot, UnknownFanoutMode,
};
#[cfg(feature = "af-xdp")]
pub use self::afxdp::{
    Attach, CopyMode, FlowRule, HugePages, InstalledRule, SymmetricRss, TxChecksum, XdpChunks,
    XdpMode, XdpProgram, XdpReceiver, XdpSender, XdpSocket, XdpSocketBuilder, XdpStatsHandle,
    XdpTxSlot,
};
#[cfg(feature = "af-xdp")]
pub use self::bridge::XdpBridge;
pub use self::bridge::{
    Bridge, BridgeAction, BridgeBuilder, BridgeDirection, BridgeFilter, BridgeFrame, BridgeHandles,
    BridgeLaneStats, BridgeStats, BridgeStatsHandle,
};
#[cfg(feature = "channel")]
pub use self::channel::{ChannelCapture, ChannelCaptureBuilder, ChannelStats, Overflow, Received};
pub use self::dedup::{Dedup, DedupExt, DedupMode, DedupStats, DedupStream, DedupedBatch};
pub use self::error::{Error, FilterError, GeometryError, ProgramFault, Result, Step};
#[cfg(feature = "pcap")]
pub use self::error::{FileError, FileFault};
pub use self::filter::{Ancillary, BpfFilter, BpfFilterBuilder, Target};
pub use self::interface::{InterfaceInfo, interface_info, interfaces};
pub use self::io::{
    Async, AsyncCapture, AsyncInjector, AsyncTx, AsyncTxSlot, Pacer, Port, TxPort, TxRef,
};
#[cfg(feature = "af-xdp")]
pub use self::io::{AsyncXdpReceiver, AsyncXdpSender, AsyncXdpSocket};
pub use self::multi::MultiCapture;
pub use self::options::{BusyPoll, Coalesce, Cores, IoUringFeatures, ReactorOptions};
pub use self::packet::{
    Clock, LinkAddress, LinkType, Offload, OwnedPacket, Packet, PacketDirection, PacketStatus,
    Segments, Timestamp, TxTimestamp, VlanTag,
};
pub use self::reactor::{Backend, Driver, Hosted, Reactor, ReactorStatsHandle, Watch};
pub use self::ring::batch::{PacketBatch, Packets};
pub use self::shard::{
    BuiltIn, OnShardFailure, Runtime, Shard, ShardPlan, ShardSpec, ShardStats, Shards,
    ShardsBuilder, ShardsHandle, ShardsReport, ShardsStats, Source,
};
#[cfg(feature = "af-xdp")]
pub use self::shard::{Queues, XdpShardsBuilder};
#[cfg(feature = "af-xdp")]
pub use self::stats::XdpStats;
pub use self::stats::{CaptureStats, InjectorStats, ReactorStats};
pub use self::sys::bpf::BpfInsn;
pub use self::wait::StopHandle;

/// Rings without a kernel, for tests of what is built on this crate.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    pub use crate::ring::peer::{Peer, TestRing};

    /// Entry points for fuzzers: each reads arbitrary bytes as if the kernel had written them.
    pub mod hostile {
        pub use crate::ring::hostile::{block, descriptors, slot};
        pub use crate::sys::hostile::{control_messages, netlink_answer};
    }
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

#[cfg(doctest)]
#[doc = include_str!("../docs/ASYNC_GUIDE.md")]
struct GuideExamples;

#[cfg(doctest)]
#[doc = include_str!("../docs/FILTERS.md")]
struct FilterExamples;

#[cfg(doctest)]
#[doc = include_str!("../docs/FLOWS.md")]
struct FlowExamples;

#[cfg(doctest)]
#[doc = include_str!("../docs/TOOLBOX.md")]
struct ToolboxExamples;

#[cfg(all(doctest, feature = "af-xdp"))]
#[doc = include_str!("../docs/AF_XDP.md")]
struct XdpExamples;
