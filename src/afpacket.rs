//! AF_PACKET: capture through TPACKET_V3 block rings or TPACKET_V2 frame rings, and transmission through TPACKET_V2
//! frame rings.
//!
//! [`CaptureBuilder`] gathers the options, [`geometry`] turns them into a valid ring, [`open`] runs the opening
//! sequence in the only order that keeps foreign packets out, and [`Capture`] reads.

mod builder;
mod capture;
mod exclusion;
mod fanout;
mod gate;
mod geometry;
mod head_patience;
mod injector;
mod injector_builder;
mod inner_hash;
mod netns;
mod open;
mod outgoing;
mod socket;

pub use self::builder::{CaptureBuilder, TimestampSource};
pub use self::capture::{Capture, CapturedPackets};
pub use self::fanout::{FanoutFlags, FanoutMode, ParseFanoutModeError};
pub use self::geometry::{MAX_RING_BYTES, RingLayout, RingProfile};
pub use self::injector::{Injector, TxSlot};
pub use self::injector_builder::InjectorBuilder;
pub use self::netns::NetNs;
pub use self::socket::FilterHandle;
pub(crate) use self::socket::Socket;
pub use self::socket::StatsHandle;
