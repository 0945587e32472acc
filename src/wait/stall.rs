//! Why frames are left after a kick, and how long to wait for better.

use std::time::Duration;

/// Why frames are left after a kick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stall {
    /// None are.
    Done,
    /// The kernel took a part: kick again.
    Again,
    /// The socket's send buffer is full: wait until it is writable.
    Buffer,
    /// The interface's queue is full, which nothing will report the end of: wait a while.
    Queue,
    /// The interface is down: the frames go with the first kick after it is up.
    Link,
}

/// What a kick came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KickOutcome {
    /// Why frames are left.
    pub stall: Stall,
    /// Whether the kernel took, or refused, any frame.
    pub has_progressed: bool,
}

/// How long to wait where nothing reports an end: longer each time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) const LONGEST: Duration = Duration::from_millis(5);

    pub(crate) fn new() -> Self {
        Self(Duration::from_micros(20))
    }

    /// The next wait.
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
