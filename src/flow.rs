//! Flows: which packets belong together, and what became of them.
//!
//! ```text
//!   stream of batches ──► FlowStream ──► events: started, established, state, ended
//!                            │ table: flowscope's `FlowTracker`, and when each flow is due to be forgotten
//! ```
//!
//! Tracking is flowscope's, of which this module is the only one that knows; its types stand here under their names.

mod closed;
mod expiry;
mod half;
mod stream;
mod table;

pub use flowscope::extract;
pub use flowscope::{
    EndReason, EventMask, FlowEntry, FlowEvent, FlowExtractor, FlowSide, FlowState, FlowStats,
    FlowTracker, FlowTrackerConfig, FlowTrackerStats, HistoryString, L4Proto, Orientation,
    PacketView,
};

pub use self::half::{HalfStats, HalfStream, Overlap, Piece, Segment};
pub use self::stream::{FlowExt, FlowSource, FlowStream};
pub use self::table::FlowTable;
