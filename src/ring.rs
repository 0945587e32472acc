//! Shared-memory rings as data structures: no descriptor, no system call.
//!
//! Everything here runs over a plain heap allocation too, with [`peer`] playing the kernel's half,
//! so Miri checks the pointers and loom checks the orderings.
//!
//! ```text
//!   kernel / peer ──status USER (release)──►  BlockRing::take (acquire) ──► BlockLease
//!        ▲                                                                      │ drop, any thread
//!        └──────────────status KERNEL (release)◄────────────────────────────────┘
//! ```
//!
//! Every atomic access and its pair:
//!
//! | access | here | pairs with |
//! |---|---|---|
//! | `status` load, acquire | [`lease`]`::Sound::TAKE` | `smp_wmb` and the store of `block_status` in `prb_close_block`, net/packet/af_packet.c |
//! | `status` store, release | [`lease`]`::Sound::RETURN` | the load of `block_status` and `smp_rmb` in `prb_curr_blk_in_use` |
//! | `leased` load, acquire | [`lease`]`::Sound::CHECK_LEASE` | `END_LEASE` of the thread that returned the block |
//! | `leased` store, release | [`lease`]`::Sound::END_LEASE` | `CHECK_LEASE` of the reader |
//!
//! | sent slot's status store, release | `slot/transmit.rs` `Sound::COMMIT` | the load and `smp_rmb` of `__packet_get_status` in `tpacket_snd` |
//! | sent slot's status load, acquire | `slot/transmit.rs` `Sound::RECLAIM` | the `smp_wmb` and store of `__packet_set_status` in `tpacket_destruct_skb` |
//!
//! The loom tests in `lease/model.rs` and `slot/transmit/model.rs` weaken each in turn and expect the model to fail.

pub(crate) mod batch;
pub(crate) mod block;
pub(crate) mod extras;
pub(crate) mod frame;
pub(crate) mod image;
pub(crate) mod lease;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod peer;
pub(crate) mod slot;
pub(crate) mod walk;
pub(crate) mod word;
