//! All system calls except io_uring's, each behind a safe function.
//!
//! Nothing above this module calls libc or rustix for effect. Functions take and return plain values, name
//! the [`Step`](crate::error::Step) that failed, and hold no state; [`Mapping`] is the one type that owns
//! something, a stretch of memory.

#[cfg(feature = "record")]
pub(crate) mod aligned;
#[cfg(feature = "af-xdp")]
pub(crate) mod btf;
pub(crate) mod cbpf;
#[cfg(feature = "af-xdp")]
pub(crate) mod clock;
#[cfg(feature = "af-xdp")]
pub(crate) mod ebpf;
pub(crate) mod event;
#[cfg(feature = "record")]
pub(crate) mod file;
pub(crate) mod fork;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod hostile;
pub(crate) mod memlock_retry;
pub(crate) mod mmap;
pub(crate) mod netdev;
pub(crate) mod netlink;
pub(crate) mod netns;
pub(crate) mod packet_socket;
#[cfg(feature = "flow")]
mod prefetch;
pub(crate) mod sockopt;
#[cfg(feature = "af-xdp")]
pub(crate) mod steering;
pub(crate) mod thread;
pub(crate) mod tx_timestamp;
#[cfg(feature = "af-xdp")]
pub(crate) mod xdp;

pub(crate) use self::mmap::Mapping;
#[cfg(feature = "flow")]
pub(crate) use self::prefetch::{huge_pages, prefetch};
