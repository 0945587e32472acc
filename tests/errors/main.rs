//! What every error says: each is provoked, and its text compared, word by word.
#![cfg(all(feature = "af-xdp", feature = "channel", feature = "pcap"))]

mod bad_luck;
mod coverage;
mod filters;
mod geometry;
mod kernel;
mod runtime;
#[path = "../common/xdp.rs"]
mod setup;
mod sockets;
mod xdp;

use std::fmt::Debug;

use ringtap::Error;

ringtap_lab::test_binary!();

/// What is said where nothing better is known of a refusal.
const FORBIDDEN: &str = "a capability is missing, or a seccomp profile or security module forbids it: \
    `ringtap::doctor` tells the first, the audit log (`dmesg`) the others";

/// The error is what `is_it` says, and says `expected`.
#[track_caller]
fn says<T: Debug, E: Into<Error>>(
    outcome: Result<T, E>,
    is_it: impl FnOnce(&Error) -> bool,
    expected: impl AsRef<str>,
) {
    let error = outcome.map_err(Into::into).expect_err("an error");
    assert!(is_it(&error), "{error:?}");
    assert_eq!(error.to_string(), expected.as_ref());
}

/// `says(outcome, Pattern, text)`.
#[macro_export]
macro_rules! says {
    ($outcome:expr, $pattern:pat $(if $guard:expr)?, $($text:tt)+) => {
        $crate::says($outcome, |error| matches!(error, $pattern $(if $guard)?), format!($($text)+))
    };
}
