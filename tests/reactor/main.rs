//! The reactor, the executor, and what runs on them.

mod captures;
mod conformance;
mod executor;
#[path = "../common/far_end.rs"]
mod far_end;
mod hosted;
mod prometheus;
mod refused;
mod signals;
mod wakers;

ringtap_lab::test_binary!();
