//! AF_PACKET: capture through a TPACKET_V3 block ring.
//!
//! [`CaptureBuilder`] gathers options, [`geometry`] makes them a legal ring, [`open`] runs the
//! opening sequence in the one order that lets no foreign packet in, and [`Capture`] reads.

mod builder;
mod capture;
mod fanout;
mod geometry;
mod open;
mod rx;
mod socket;

pub use self::builder::{CaptureBuilder, TimestampSource};
pub use self::capture::{Batches, Capture};
pub use self::fanout::{FanoutFlags, FanoutMode, UnknownFanoutMode};
pub use self::geometry::{MAX_RING_BYTES, RingLayout, RingProfile};
pub(crate) use self::socket::Socket;
pub use self::socket::StatsHandle;
