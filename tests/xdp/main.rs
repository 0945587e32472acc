//! AF_XDP over veth pairs.

mod asynchronous;
mod basics;
mod bypass;
#[path = "../common/far_end.rs"]
mod far_end;
mod faults;
mod hints;
mod kernel_suite;
mod queues;
mod rings;
#[path = "../common/xdp.rs"]
mod setup;

ringtap_lab::test_binary!();
