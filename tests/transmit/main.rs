//! Injectors, blocking and on a reactor, and bridges: what is sent is compared at the far end.

mod asynchronous;
mod blocking;
mod bridge;
#[path = "../common/far_end.rs"]
mod far_end;

ringtap_lab::test_binary!();
