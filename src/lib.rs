//! ringtap
#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(not(target_os = "linux"))]
compile_error!("ringtap works through Linux packet sockets and io_uring: it builds for Linux only");

mod afpacket;
mod error;
mod interface;
mod reactor;
mod options;
mod packet;
mod ring;
mod shard;
mod stats;
mod sys;
pub mod time;
mod wait;
pub mod executor;
mod io;

pub use self::afpacket::*;
pub use self::interface::*;
pub use self::sys::bpf::BpfInsn;
pub use self::error::{Error, GeometryError, Result, Step};
pub use self::options::{BusyPoll, Cores, ReactorOptions};
pub use self::packet::*;
pub use self::ring::batch::{PacketBatch, Packets};
pub use self::reactor::{Reactor, ReactorStatsHandle};
pub use self::wait::StopHandle;
pub use self::io::{Async, AsyncCapture, Port};
pub use self::shard::*;
pub use self::stats::{CaptureStats, ReactorStats};

/// Rings without a kernel, for tests of what is built on this crate.
#[cfg(feature = "testing")]
pub mod testing {
    pub use crate::ring::peer::{Peer, TestRing};
}
