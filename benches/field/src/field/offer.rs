//! What a receiver is offered: frames of some size, in a flood or at a rate.

use std::time::{Duration, Instant};

use ringtap_lab::Traffic;
use ringtap_lab::generator::Sender;

use crate::harness::Outcome;

/// The lengths of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Least,
    /// Seven short frames, four of medium length and a full one, in turn.
    Imix,
    Full,
    Jumbo,
}

impl Size {
    fn lens(self) -> &'static [usize] {
        match self {
            Self::Least => &[60],
            Self::Imix => &[60, 590, 60, 60, 590, 60, 1514, 60, 590, 60, 590, 60],
            Self::Full => &[1514],
            Self::Jumbo => &[9000],
        }
    }

    pub(crate) fn longest(self) -> usize {
        self.lens().iter().copied().max().unwrap_or(0)
    }

    /// Some frames, whole turns of the lengths.
    fn frames(self) -> Vec<Vec<u8>> {
        let lens = self.lens();
        let frame =
            |len: &usize| Traffic { len: *len, ..Traffic::default() }.frame(0, 0)[..*len].to_vec();
        lens.iter().cycle().take(60_usize.next_multiple_of(lens.len())).map(frame).collect()
    }
}

/// Frames, how many a second, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    frames: Vec<Vec<u8>>,
    /// As many as go, without.
    rate: Option<f64>,
    time: Duration,
}

impl Offer {
    pub(crate) fn flood(size: Size, time: Duration) -> Self {
        Self { frames: size.frames(), rate: None, time }
    }

    pub(crate) fn at(self, rate: f64) -> Self {
        Self { rate: Some(rate), ..self }
    }

    /// Sends them: how many they were, and in how many seconds.
    pub(crate) fn send(&self, sender: &Sender) -> Outcome<(u64, f64)> {
        // Few enough that a rate is kept evenly.
        let (start, mut sent) = (Instant::now(), 0);
        while start.elapsed() < self.time {
            sender.send_all(&self.frames)?;
            sent += self.frames.len() as u64;
            let Some(rate) = self.rate else { continue };
            let due = Duration::from_secs_f64(sent as f64 / rate);
            while start.elapsed() < due {
                std::hint::spin_loop();
            }
        }
        Ok((sent, start.elapsed().as_secs_f64()))
    }
}

/// Sends `count` frames as fast as they go.
pub(crate) fn burst(sender: &Sender, size: Size, count: usize) -> Outcome<()> {
    let frames = size.frames();
    let mut left = count;
    while left > 0 {
        let some = left.min(frames.len());
        sender.send_all(&frames[..some])?;
        left -= some;
    }
    Ok(())
}
