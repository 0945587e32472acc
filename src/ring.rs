//! Shared-memory rings as data structures: no descriptor, no system call.
//!
//! Everything here also runs over a plain heap allocation, with [`fake_kernel`] playing the kernel's half, so Miri
//! checks the pointers and loom checks the orderings.
//!
//! ```text
//!   kernel / peer ──status USER (release)──►  BlockRing::take (acquire) ──► BlockLease
//!        ▲                                                                      │ drop, any thread
//!        └──────────────status KERNEL (release)◄────────────────────────────────┘
//! ```
//!
//! Every atomic access and its counterpart:
//!
//! | access | here | pairs with |
//! |---|---|---|
//! | `status` load, acquire | [`lease`]`::Sound::TAKE` | `smp_wmb` and the store of `block_status` in `prb_close_block`, net/packet/af_packet.c |
//! | `status` store, release | [`lease`]`::Sound::RETURN` | the load of `block_status` and `smp_rmb` in `prb_curr_blk_in_use` |
//! | `leased` load, acquire | [`lease`]`::Sound::CHECK_LEASE` | `END_LEASE` of the thread that returned the block |
//! | `leased` store, release | [`lease`]`::Sound::END_LEASE` | `CHECK_LEASE` of the reader |
//! | sent slot's status store, release | `slot/transmit.rs` `Sound::COMMIT` | the load and `smp_rmb` of `__packet_get_status` in `tpacket_snd` |
//! | sent slot's status load, acquire | `slot/transmit.rs` `Sound::RECLAIM` | the `smp_wmb` and store of `__packet_set_status` in `tpacket_destruct_skb` |
//! | an AF_XDP index's store, release | `xsk_ring.rs` `Sound::PUBLISH` | `smp_load_acquire` in `__xskq_cons_read_ptr…`, `xskq_prod_is_full`, net/xdp/xsk_queue.h |
//! | an AF_XDP index's load, acquire | `xsk_ring.rs` `Sound::OBSERVE` | `smp_store_release` in `__xskq_prod_submit`, `__xskq_cons_release` |
//! | the head of returned chunks, release | `umem/stack.rs` `Sound::PUSH` | `Sound::TAKE` of the socket's thread |
//!
//! The loom tests in the `model.rs` files weaken each ordering in turn and expect the model to fail.

pub(crate) mod batch;
#[cfg(feature = "pcap")]
pub(crate) mod batch_builder;
pub(crate) mod block;
pub(crate) mod block_writer;
pub(crate) mod captured;
#[cfg(feature = "record")]
pub(crate) mod disk;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod fake_kernel;
mod header;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod hostile;
pub(crate) mod lease;
pub(crate) mod rewrite;
pub(crate) mod rx_features;
pub(crate) mod slot;
pub(crate) mod tpacket_v2;
pub(crate) mod tpacket_v3;
#[cfg(feature = "af-xdp")]
pub(crate) mod umem;
pub(crate) mod word;
#[cfg(feature = "af-xdp")]
pub(crate) mod xsk_ring;
