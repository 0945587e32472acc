//! Flow tracking: groups packets into flows and follows each flow to its end.
//!
//! ```text
//!   stream of batches ──► Pump: one packet at a time, bounded ──► events
//!                           │
//!                           ├─ FlowTable     headers, keys, counters, the state of connections; the ends of flows; fragments
//!                           ├─ Connections   the table, and two HalfStreams per TCP connection, for consumers of bytes:
//!                           │                  Sessions (parsers), Talking (conversations), Reassemblers (futures)
//!                           └─ Recorder      the table, and bytes of IP per flow
//! ```
//!
//! The words of keys and events, and the traits of extractors and parsers, are flowscope's, and are re-exported here
//! under their own names, so that its parsers plug in. `docs/FLOWS.md` describes how each part is bounded.

#[cfg(all(feature = "flow-dns", feature = "flow-http", feature = "flow-tls"))]
mod app;
mod aside;
mod broadcast;
mod bytes;
mod config;
mod connections;
mod consumer;
mod conversations;
#[cfg(feature = "flow-dns")]
pub mod dns;
mod event;
pub mod extract;
mod finder;
mod fragments;
mod half;
#[cfg(feature = "flow-http")]
pub mod http;
mod parser;
mod protocols;
mod pump;
mod queue;
#[cfg(feature = "flow-quic")]
pub mod quic;
mod reassemblers;
mod reassembly;
#[cfg(feature = "flow-records")]
mod record;
#[cfg(feature = "serde")]
mod serial;
mod sessions;
mod shard_query;
mod shards;
mod stream;
mod table;
#[cfg(feature = "flow-tls")]
pub mod tls;

#[cfg(feature = "flow-icmp")]
pub use flowscope::icmp;
pub use flowscope::{
    DatagramParser, DatagramParserFactory, EndReason, EventMask, Extracted, FlowExtractor,
    FlowSide, FlowState, KeyFields, L4Proto, Orientation, PacketView, ParserKind, SessionParser,
    SessionParserFactory, TcpFlags, TcpInfo, Timestamp as FlowTimestamp,
};

#[cfg(all(feature = "flow-dns", feature = "flow-http", feature = "flow-tls"))]
pub use self::app::AppMessage;
pub use self::aside::{
    bytes_missing, flow_is_over, message_refused, nothing_more_wanted, parser_holds,
    stream_is_cut_off,
};
pub use self::broadcast::{Broadcast, Lagged, Subscription};
pub use self::bytes::StreamBytes;
pub use self::config::{FlowConfig, FlowTableStats};
pub use self::conversations::{Conversation, Conversations};
pub use self::event::{FlowEvent, FlowHistory, FlowStats};
pub use self::fragments::FragmentStats;
pub use self::half::{HalfReassembler, HalfStats, HalfStream, Overlap, Piece, Segment};
pub use self::parser::ParserFault;
pub use self::protocols::{Protocols, Swapped};
pub use self::pump::{FlowBatch, FlowSource};
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
pub use self::stream::{FlowExt, FlowStream, Flows};
pub use self::table::{FlowEntry, FlowTable};
