//! Blocking captures, their batches and options, other links than Ethernet, shards, queues.

mod any;
mod blocking;
#[cfg(all(feature = "flow", feature = "pcap"))]
mod kinds;
mod leases;
mod link_types;
mod options;
mod queues;
mod shards;
mod waiter;

ringtap_lab::test_binary!();
