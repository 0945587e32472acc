//! How long the frame at the head of the transmit ring may block the others.

use std::time::{Duration, Instant};

use crate::ring::slot::Progress;

/// How long a frame may block others if it is probably refused for what it is: it has an offload, or is at least as long
/// as a refused one.
const HOPELESS: Duration = Duration::from_millis(100);
/// How much longer one may where frames before it are still under way: the queue may be that slow.
const UNDER_WAY: u32 = 10;
/// How long a length is remembered that was refused.
const REMEMBERED: Duration = Duration::from_secs(10);

/// For how long the frame at the head was not taken, and what that says of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadPatience {
    /// How long a frame may keep others from being sent.
    most: Duration,
    /// How long the frame at the head was asked for in vain, and when it was last.
    stuck: Option<(Duration, Instant)>,
    /// Progress at the last look; other looks at the ring in between are not missed.
    last: Progress,
    /// Length of the frame just given up. It was at fault if the next one is taken at once.
    suspect: Option<usize>,
    /// The least length that was refused for what it is, and when.
    hopeless: Option<(usize, Instant)>,
}

/// Of the time between two kicks, so much counts: nobody asked in the rest of it.
const COUNTED: Duration = Duration::from_millis(50);

impl HeadPatience {
    pub(super) fn new(most: Duration) -> Self {
        let last = Progress::default();
        Self { most, stuck: None, last, suspect: None, hopeless: None }
    }

    /// Another frame is at the head now, or the queue was not what kept it there.
    pub(super) fn forget(&mut self) {
        (self.stuck, self.suspect) = (None, None);
    }

    /// Notes how far the kernel has come: whether it took a frame.
    pub(super) fn look(&mut self, progress: Progress) -> bool {
        let last = std::mem::replace(&mut self.last, progress);
        if progress != last {
            self.stuck = None; // it took one, or one of those under way was sent: the queue drains
        }
        if progress.handed == last.handed {
            return false;
        }
        if let Some(len) = self.suspect.take() {
            let least = self.hopeless_from().map_or(len, |known| known.min(len));
            self.hopeless = Some((least, Instant::now()));
        }
        true
    }

    /// The least length that was refused for what it is, not long ago.
    fn hopeless_from(&self) -> Option<usize> {
        self.hopeless.filter(|(_, when)| when.elapsed() < REMEMBERED).map(|(least, _)| least)
    }

    /// Whether a frame of this length has blocked the ring for too long, with `under_way` frames before it.
    pub(super) fn note_refusal(&mut self, len: usize, has_offload: bool, under_way: usize) -> bool {
        self.suspect = None; // the frame behind it did not go either: the queue is full
        let now = Instant::now();
        let waited = self.stuck.map_or(Duration::ZERO, |(waited, asked)| {
            waited + now.duration_since(asked).min(COUNTED)
        });
        self.stuck = Some((waited, now));
        let is_known = self.hopeless_from().is_some_and(|least| len >= least);
        let most = match under_way {
            _ if has_offload || is_known => HOPELESS.min(self.most),
            0 => self.most,
            _ => self.most.saturating_mul(UNDER_WAY),
        };
        waited > most
    }

    /// The frame was given up; what that says of its length shows if there is one behind it.
    pub(super) fn gave_up(&mut self, suspect: Option<usize>) {
        (self.stuck, self.suspect) = (None, suspect);
    }
}
