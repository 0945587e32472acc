//! The lab: network namespaces, veth pairs, traffic and counters, without root and without a card.
//!
//! It does not use ringtap: it is the independent witness of what was sent and what arrived.
//!
//! ```text
//!   tun         an interface without a link-layer header
//!   seccomp     refusing system calls
//!   directory   a disk of a test's own
//!   runner      runs the tests, and says what was not run and why
//!   child       a process of its own, for tests that cripple theirs
//!   tally       exactly once, in order, unchanged
//! ```
//!
//! Namespaces, veth pairs, hosts, traffic and directories are in `ringtap-lab-wire`, which the runner of the examples has too.
//!
//! A test binary that makes namespaces has, at its top level, [`test_binary!`].

pub mod bpf;
pub mod child;
pub mod directory;
pub mod disk;
pub mod pcap;
pub mod runner;
pub mod seccomp;
pub mod tally;
pub mod tool;
pub mod tun;
pub mod xsk;

pub use self::tally::Tally;
pub use self::tun::Tun;

pub use ringtap_lab_macros::test;
pub use ringtap_lab_wire::{
    Directory, Generator, Host, Mark, Namespace, Pace, Pair, Protocol, Stage, Traffic, Veth,
    bootstrap, frames, generator, host, limits, link, namespace, talk, traffic, unique_name, xdp,
};

/// Set to `1`, a test that cannot run fails instead of being skipped.
pub const REQUIRE: &str = "RINGTAP_REQUIRE_KERNEL";
/// Set to `1`, tests that take more than an ordinary user has are skipped, whatever [`REQUIRE`] says.
pub const ORDINARY: &str = "RINGTAP_ORDINARY_USER";

/// Says that a test cannot run here: it is listed as ignored, with the reason. Fails it where nothing may be skipped. The
/// test's own thread must call it, and then return.
///
/// # Panics
/// With [`REQUIRE`] set to `1`.
pub fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    assert!(!is_set(REQUIRE), "{test} was skipped: {why}");
    runner::note_skip(why);
}

/// As [`skip`], of a test that takes what an ordinary user has not.
///
/// # Panics
/// As [`skip`], unless [`ORDINARY`] is `1` and the process is not root.
pub fn skip_for_ordinary_users(why: &str) {
    match is_set(ORDINARY) && !bootstrap::was_root() {
        true => runner::note_skip(why),
        false => skip(why),
    }
}

fn is_set(variable: &str) -> bool {
    std::env::var(variable).as_deref() == Ok("1")
}

/// A namespace for the calling test, or `None`, said loudly, where there can be none.
///
/// # Panics
/// With [`REQUIRE`] set to `1` where there can be none.
pub fn namespace() -> Option<Namespace> {
    match Namespace::enter() {
        Ok(namespace) => Some(namespace),
        Err(why) => {
            skip(&why);
            None
        }
    }
}

/// Makes a test binary (`harness = false`) of the functions with [`test`], which may make namespaces without root: put it
/// at the top level.
#[macro_export]
macro_rules! test_binary {
    () => {
        fn main() {
            // While the process has one thread: with more it cannot enter a user namespace. Whoever needs one asks again,
            // and says why there is none.
            let _ = $crate::bootstrap::enter();
            $crate::runner::main()
        }
    };
}
