//! Blocking captures, their batches and options, other links than Ethernet, shards, queues.

mod blocking;
mod leases;
mod link_types;
mod options;
mod queues;
mod shards;

ringtap_lab::test_binary!();
