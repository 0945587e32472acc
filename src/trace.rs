//! Events for `tracing`, in the only module that uses it. Without the feature `tracing`, all of this does
//! nothing.
//!
//! | level | span or event | fields |
//! |---|---|---|
//! | debug | span `open` | `what`, `interface` |
//! | debug | opened | |
//! | info | the link went up, or down | `interface` |
//! | warn | the interface was removed | `interface` |
//! | warn | an injector or an AF_XDP socket ended with frames unsent | `interface`, `abandoned` |
//! | warn | an AF_XDP socket does not see the VLAN tags of its packets | `interface` |
//! | debug | a reactor was attached | `backend`, `features` |
//! | debug | how io_uring signals another runtime, tested once per process | `work`, `signals` |
//! | error | a shard failed | `shard`, `error` |
//!
//! Nothing is traced on the data path.

use std::fmt::{Debug, Display};

/// The time during which a socket is opened; events in that time belong to its span.
#[must_use = "it lasts as long as this is held"]
pub(crate) struct Opening {
    #[cfg(feature = "tracing")]
    span: tracing::span::EnteredSpan,
}

impl Opening {
    /// Records that the socket was opened.
    pub(crate) fn done(self) {
        #[cfg(feature = "tracing")]
        {
            tracing::debug!("opened");
            drop(self.span);
        }
    }
}

pub(crate) fn opening(what: &'static str, interface: Option<&str>) -> Opening {
    #[cfg(not(feature = "tracing"))]
    let _ = (what, interface);
    Opening {
        #[cfg(feature = "tracing")]
        span: tracing::debug_span!("open", what, interface).entered(),
    }
}

pub(crate) fn link(interface: &str, is_up: bool) {
    #[cfg(not(feature = "tracing"))]
    let _ = (interface, is_up);
    #[cfg(feature = "tracing")]
    match is_up {
        true => tracing::info!(interface, "the link went up"),
        false => tracing::info!(interface, "the link went down"),
    }
}

pub(crate) fn gone(interface: &str) {
    #[cfg(not(feature = "tracing"))]
    let _ = interface;
    #[cfg(feature = "tracing")]
    tracing::warn!(interface, "the interface was removed");
}

#[cfg(feature = "af-xdp")]
pub(crate) fn tags_are_lost(interface: &str) {
    #[cfg(not(feature = "tracing"))]
    let _ = interface;
    #[cfg(feature = "tracing")]
    tracing::warn!(interface, "an AF_XDP socket does not see the VLAN tags of its packets");
}

pub(crate) fn abandoned(interface: &str, abandoned: u64) {
    #[cfg(not(feature = "tracing"))]
    let _ = (interface, abandoned);
    #[cfg(feature = "tracing")]
    if abandoned > 0 {
        tracing::warn!(interface, abandoned, "ended with frames unsent");
    }
}

pub(crate) fn attached(backend: &dyn Debug, features: &dyn Debug) {
    #[cfg(not(feature = "tracing"))]
    let _ = (backend, features);
    #[cfg(feature = "tracing")]
    tracing::debug!(?backend, ?features, "a reactor was attached");
}

pub(crate) fn signals_tried(work: &dyn Debug, signals: &dyn Debug) {
    #[cfg(not(feature = "tracing"))]
    let _ = (work, signals);
    #[cfg(feature = "tracing")]
    tracing::debug!(?work, ?signals, "how io_uring signals another runtime");
}

pub(crate) fn shard_failed(shard: usize, error: &dyn Display) {
    #[cfg(not(feature = "tracing"))]
    let _ = (shard, error);
    #[cfg(feature = "tracing")]
    tracing::error!(shard, %error, "a shard failed");
}
