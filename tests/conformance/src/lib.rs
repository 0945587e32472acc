//! What ringtap must do on every runtime: one suite of behaviours, on real sockets, generic over the host.
//!
//! A host's tests are one line, [`suite!`], beside `ringtap_lab::test_binary!()`.

mod behaviours;
mod pressure;
mod recording;
pub mod resources;

use std::future::Future;

pub use self::behaviours::*;
pub use self::pressure::*;
pub use self::recording::records_what_it_captures;

/// A runtime under test.
pub trait Host: ringtap::shard::Runtime + Default {
    /// Spawns a future on this thread's executor, to run beside what it runs.
    fn spawn(future: impl Future<Output = ()> + 'static);

    /// Uses the host's own I/O and tasks, so many rounds, and checks what comes back.
    fn own_io(rounds: u32) -> impl Future<Output = ()>;

    /// Attaches a second time, where one reactor is attached: the error.
    fn attach_again() -> Option<ringtap::Error>;
}

/// Makes a test of every behaviour for a [`Host`].
#[macro_export]
macro_rules! suite {
    ($host:ident) => {
        $crate::suite!(@each $host:
            captures_every_frame_once_in_order,
            serves_several_captures_fairly,
            injects_with_backpressure,
            bridges_both_directions,
            keeps_time,
            detaches_with_ops_in_flight,
            leaves_the_host_its_own_io_in_a_flood,
            wakes_from_another_thread,
            attaches_once,
            runs_shards_that_stop_and_drain,
            names_a_shard_that_panics,
            records_what_it_captures,
            idles_without_turning,
        );

        /// In a process of its own, whose descriptors and memory are counted.
        #[ringtap_lab::test]
        fn cancels_anywhere_and_leaks_nothing() {
            if ringtap_lab::namespace().is_some() {
                ringtap_lab::child::run(module_path!(), "cancels_anywhere_and_leaks_nothing", "");
            }
        }

        mod child {
            #[ringtap_lab::test]
            fn cancels_anywhere_and_leaks_nothing() {
                if ringtap_lab::child::value().is_some() {
                    $crate::cancels_anywhere_and_leaks_nothing::<super::$host>();
                }
            }
        }
    };
    (@each $host:ident: $($behaviour:ident,)*) => {
        $(
            #[ringtap_lab::test]
            fn $behaviour() {
                $crate::$behaviour::<$host>();
            }
        )*
    };
}
