//! How long the frame at the head of the transmit ring may block the others.

use std::time::{Duration, Instant};

use crate::ring::slot::Progress;

/// How long a frame may block others if the kernel probably refuses that frame itself: it has an offload, or is at
/// least as long as a refused one.
const HOPELESS: Duration = Duration::from_millis(100);
/// Factor by which the limit grows while earlier frames are under way: the queue may be that slow.
const UNDER_WAY: u32 = 10;
/// How long a refused length is remembered.
const REMEMBERED: Duration = Duration::from_secs(10);

/// Tracks how long the frame at the head has not been taken, and what this says about the frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadPatience {
    /// How long a frame may block others.
    most: Duration,
    /// How long the head has been offered without success, and when it was last offered.
    stuck: Option<(Duration, Instant)>,
    /// Progress at the last look, so that other looks at the ring in between are noticed too.
    last: Progress,
    /// Length of the frame just given up. It was at fault if the next frame is taken at once.
    suspect: Option<usize>,
    /// Smallest length that was refused because of the frame itself, and when.
    hopeless: Option<(usize, Instant)>,
}

/// The most time that counts between two kicks: the kernel was not asked in the rest of it.
const COUNTED: Duration = Duration::from_millis(50);

impl HeadPatience {
    pub(super) fn new(most: Duration) -> Self {
        let last = Progress::default();
        Self { most, stuck: None, last, suspect: None, hopeless: None }
    }

    /// Resets the wait: another frame is at the head now, or the queue was not what kept it there.
    pub(super) fn forget(&mut self) {
        (self.stuck, self.suspect) = (None, None);
    }

    /// Records the kernel's progress. Returns whether it took a frame.
    pub(super) fn look(&mut self, progress: Progress) -> bool {
        let last = std::mem::replace(&mut self.last, progress);
        if progress != last {
            self.stuck = None; // it took a frame, or sent one that was under way: the queue drains
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

    /// Returns the smallest length that was recently refused because of the frame itself.
    fn hopeless_from(&self) -> Option<usize> {
        self.hopeless.filter(|(_, when)| when.elapsed() < REMEMBERED).map(|(least, _)| least)
    }

    /// Records that the head was refused, with `under_way` frames before it. Returns whether it has blocked the
    /// ring for too long.
    pub(super) fn note_refusal(&mut self, len: usize, has_offload: bool, under_way: usize) -> bool {
        self.suspect = None; // the frame behind it was not taken either: the queue is full
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

    /// Records that the head was given up. The frame behind it, if any, shows whether its length was at fault.
    pub(super) fn gave_up(&mut self, suspect: Option<usize>) {
        (self.stuck, self.suspect) = (None, suspect);
    }
}
