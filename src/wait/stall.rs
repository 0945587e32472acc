//! Why frames are left after a kick, and how long to wait before the next one.

use std::time::Duration;

/// The reason why frames are left after a kick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stall {
    /// No frames are left.
    Done,
    /// The kernel took some of the frames: kick again.
    Again,
    /// The socket's send buffer is full: wait until it is writable.
    Buffer,
    /// The interface's queue is full, and nothing reports when that ends: wait a while.
    Queue,
    /// The interface is down: the frames are sent with the first kick after it is up.
    Link,
}

/// The outcome of a kick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KickOutcome {
    /// Why frames are left.
    pub(crate) stall: Stall,
    /// Whether the kernel took or refused any frame.
    pub(crate) has_progressed: bool,
}

/// The time to wait if nothing reports when a stall ends: longer each time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) const LONGEST: Duration = Duration::from_millis(5);

    pub(crate) fn new() -> Self {
        Self(Duration::from_micros(20))
    }

    /// Returns the next wait and doubles it, up to the longest.
    pub(crate) fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (2 * now).min(Self::LONGEST);
        now
    }

    /// Waits.
    pub(crate) fn sleep(&mut self) {
        std::thread::sleep(self.next());
    }
}
