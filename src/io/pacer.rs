//! A token bucket that limits how fast frames are sent.

use std::time::{Duration, Instant};

use crate::time;

/// Limits the rate of frames, and allows bursts up to a given size.
///
/// It counts packets or bits, and is exact over time: a wait that ends late is made up for, up to the burst size. Time that
/// is lost beyond that is not made up for, so on a busy machine the burst should cover some 100 ms: a tenth of the rate. The
/// bucket starts full: the first burst is sent at once. A burst of 0 counts as 1.
#[derive(Debug, Clone)]
pub struct Pacer {
    unit: Unit,
    /// Units per second.
    rate: u64,
    burst: u64,
    /// When the bucket would be full if nothing more were sent.
    full_at: Option<Instant>,
    /// Fraction of a nanosecond left over from previous costs, in units of 1/rate ns.
    remainder: u128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Packets,
    Bits,
}

impl Pacer {
    /// Allows `rate` packets per second, at least 1, and up to `burst` packets at once.
    pub fn packets_per_second(rate: u64, burst: u64) -> Self {
        Self {
            unit: Unit::Packets,
            rate: rate.max(1),
            burst: burst.max(1),
            full_at: None,
            remainder: 0,
        }
    }

    /// Allows `rate` bits of frames per second, at least 1, and up to `burst` bits at once.
    ///
    /// Preamble, checksum and gap between frames are not counted: 192 bits per frame on Ethernet.
    pub fn bits_per_second(rate: u64, burst: u64) -> Self {
        Self {
            unit: Unit::Bits,
            rate: rate.max(1),
            burst: burst.max(1),
            full_at: None,
            remainder: 0,
        }
    }

    /// Waits until a frame of `len` bytes may be sent. If this is dropped, the frame counts as sent all the same.
    ///
    /// # Panics
    /// As [`time::Sleep`] does, if it has to wait.
    pub async fn pace(&mut self, len: usize) {
        let wait = self.take(len, Instant::now());
        if !wait.is_zero() {
            time::sleep(wait).await;
        }
    }

    /// Takes the cost of a frame of `len` bytes from the bucket. Returns how long the frame must wait.
    fn take(&mut self, len: usize, now: Instant) -> Duration {
        let cost = match self.unit {
            Unit::Packets => 1,
            Unit::Bits => 8 * len as u64,
        };
        let owed = u128::from(cost) * NANOS + std::mem::take(&mut self.remainder);
        self.remainder = owed % u128::from(self.rate);
        let time = nanos(owed / u128::from(self.rate));
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + time;
        self.full_at = Some(full_at);
        // The bucket holds `burst`: any cost beyond that is owed.
        let burst = nanos(u128::from(self.burst) * NANOS / u128::from(self.rate));
        full_at.saturating_duration_since(now).saturating_sub(burst)
    }
}

/// Nanoseconds in a second.
const NANOS: u128 = 1_000_000_000;

fn nanos(count: u128) -> Duration {
    Duration::from_nanos(u64::try_from(count).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let mut pacer = Pacer::packets_per_second(1000, 3);
        let start = Instant::now();
        let waits: Vec<_> = (0..6).map(|_| pacer.take(60, start).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 1, 2, 3]);
        let later = start + Duration::from_secs(1);
        let waits: Vec<_> = (0..5).map(|_| pacer.take(60, later).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 1, 2], "rest fills the bucket, and no more");
    }

    #[test]
    fn what_is_less_than_a_nanosecond_is_not_lost() {
        let mut pacer = Pacer::packets_per_second(3_000_000_000, 1);
        let start = Instant::now();
        let wait = (0..3_000_001).map(|_| pacer.take(60, start)).last().unwrap();
        assert_eq!(wait, Duration::from_millis(1));
    }

    #[test]
    fn bits_are_counted_by_length() {
        let mut pacer = Pacer::bits_per_second(8_000, 800);
        let start = Instant::now();
        assert_eq!(pacer.take(100, start), Duration::ZERO);
        assert_eq!(pacer.take(50, start), Duration::from_millis(50));
        assert_eq!(pacer.take(1000, start), Duration::from_millis(1050));
    }
}
