//! What the fuzzers check of any bytes at all; `cargo test -p ringtap-fuzz` checks it of the seeds.
//!
//! The fuzzers themselves are in `libfuzzer/`, and take nightly Rust:
//!
//! ```text
//! cargo +nightly fuzz run --fuzz-dir tests/fuzz/libfuzzer filter_text tests/fuzz/seeds/filter_text
//! ```

mod files;
mod filter;
mod flows;
mod kernel;
mod layers;
mod parsers;

pub use ringtap::testing::hostile::{block, control_messages, descriptors, netlink_answer, slot};

pub use self::files::{capture_compressed, capture_pcap, capture_pcapng};
pub use self::filter::{filter_listing, filter_program, filter_text, filter_words};
pub use self::flows::flow_frames;
pub use self::layers::{flow_table, layers};
pub use self::parsers::{dns_message, http_stream, tls_stream};
