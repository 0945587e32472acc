//! Flows: which packets belong together, and what became of them.
//!
//! ```text
//!   stream of batches ──► Pump: packet by packet, bounded ──► events
//!                           │
//!                           ├─ FlowTable     flowscope's tracker; when each flow is due; late packets; fragments
//!                           ├─ Connections   the same, and two HalfStreams a connection of TCP, for who consumes bytes:
//!                           │                  Sessions (parsers), Talking (conversations), Reassemblers (futures)
//!                           └─ Recorder      the same, and bytes of IP a flow
//! ```
//!
//! Tracking is flowscope's, of which this module is the only one that knows; its types stand here under their names.
//! `docs/FLOWS.md` says how each part is bounded.

mod accessors;
mod broadcast;
mod bytes;
mod connections;
mod consumer;
mod conversations;
mod dissect;
mod expiry;
pub mod extract;
mod fragments;
mod frames;
mod half;
mod parser;
mod protocols;
mod pump;
mod queue;
mod reassemblers;
mod reassembly;
mod recently_closed;
#[cfg(feature = "flow-records")]
mod record;
mod sessions;
mod shard_query;
mod shards;
mod stream;
mod table;

use self::accessors::{accessors, reassembling, yields};

#[cfg(feature = "flow-dns")]
pub use flowscope::dns;
#[cfg(feature = "flow-http")]
pub use flowscope::http;
#[cfg(feature = "flow-icmp")]
pub use flowscope::icmp;
#[cfg(feature = "flow-tls")]
pub use flowscope::tls;
pub use flowscope::{
    AnomalyKind, DatagramParser, DatagramParserFactory, EndReason, EventMask, Extracted, FlowEntry,
    FlowEvent, FlowExtractor, FlowSide, FlowState, FlowStats, FlowTracker, FlowTrackerConfig,
    FlowTrackerStats, HistoryString, KeyFields, L4Proto, Orientation, OverflowPolicy, PacketView,
    ParserKind, SessionParser, SessionParserFactory, TcpFlags, TcpInfo, TcpOverlapPolicy,
    Timestamp as FlowTimestamp,
};

pub use self::broadcast::{Broadcast, Lagged, Subscription};
pub use self::bytes::StreamBytes;
pub use self::conversations::{Conversation, Conversations};
pub use self::fragments::FragmentStats;
pub use self::half::{HalfReassembler, HalfStats, HalfStream, Overlap, Piece, Segment};
pub use self::parser::ParserFault;
pub use self::protocols::{Protocols, Swapped};
pub use self::pump::FlowSource;
pub use self::queue::{BacklogPolicy, FlowChunk};
pub use self::reassemblers::{
    AsyncReassembler, ChannelReassembler, ReassembledStream, channel_factory,
};
pub use self::reassembly::{MemoryPolicy, ReassemblyConfig, ReassemblyStats};
#[cfg(feature = "flow-records")]
pub use self::record::{FlowDirection, FlowRecord, FlowRecords, RecordFormat, RecordWriter};
pub use self::sessions::{SessionEvent, SessionStream};
pub use self::shard_query::{FlowSnapshot, FlowSnapshots};
pub use self::shards::{FlowShard, FlowShards, FlowShardsBuilder};
pub use self::stream::{FlowExt, FlowStream};
pub use self::table::FlowTable;
