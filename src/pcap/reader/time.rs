//! The time unit of pcapng timestamps.

use crate::packet::Timestamp;

/// The time unit of an interface, and its offset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    /// Units per second; `None` if the unit is so fine that every count is practically zero.
    a_second: Option<u128>,
    /// Offset in seconds (`if_tsoffset`).
    pub(super) offset: i64,
}

impl Default for Unit {
    fn default() -> Self {
        Self { a_second: Some(1_000_000), offset: 0 }
    }
}

impl Unit {
    /// Sets the unit from an `if_tsresol`: a negative power of 10, or of 2 if the highest bit is set.
    pub(super) fn set_resolution(&mut self, resolution: u8) {
        let power = u32::from(resolution & 0x7f);
        self.a_second = match resolution & 0x80 {
            0 => 10_u128.checked_pow(power),
            _ => 1_u128.checked_shl(power),
        };
    }

    /// Converts a count of units into a timestamp. Times out of range become the nearest one in range.
    pub(super) fn timestamp(self, count: u64) -> Timestamp {
        let count = u128::from(count);
        let (secs, nanos) = match self.a_second {
            // With units this fine, 64 bits hold less than a second.
            None => (0, 0),
            Some(a_second) => {
                let rest = count % a_second;
                // With finer units the product would overflow; dividing instead loses nothing at nanosecond
                // precision.
                let nanos = match a_second.checked_mul(1_000_000_000) {
                    Some(_) => rest * 1_000_000_000 / a_second,
                    None => rest / (a_second / 1_000_000_000),
                };
                (count / a_second, nanos as u32)
            }
        };
        let secs = i128::from(self.offset).saturating_add(secs as i128);
        match u32::try_from(secs) {
            Ok(secs) => Timestamp { secs, nanos },
            Err(_) if secs < 0 => Timestamp::default(),
            Err(_) => Timestamp { secs: u32::MAX, nanos: 999_999_999 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(resolution: u8, offset: i64, count: u64) -> (u32, u32) {
        let mut unit = Unit { offset, ..Unit::default() };
        unit.set_resolution(resolution);
        let Timestamp { secs, nanos } = unit.timestamp(count);
        (secs, nanos)
    }

    #[test]
    fn every_resolution_is_read_for_what_it_is() {
        assert_eq!(read(6, 0, 1_500_000), (1, 500_000_000));
        assert_eq!(read(9, 0, 1_700_000_000_123_456_789), (1_700_000_000, 123_456_789));
        assert_eq!(read(0, 0, 77), (77, 0));
        assert_eq!(read(3, -10, 12_345), (2, 345_000_000));
        assert_eq!(read(12, 0, 1_000_000_001_999), (1, 1));
        assert_eq!(read(0x80 | 32, 0, 3 << 32 | 1 << 31), (3, 500_000_000));
        assert_eq!(read(0x80, 0, 5), (5, 0));
        assert_eq!(read(19, 0, u64::MAX), (1, 844_674_407));
        assert_eq!(read(0xff, 0, u64::MAX), (0, 0));
        assert_eq!(read(39, 0, u64::MAX), (0, 0));
        assert_eq!(read(38, 0, u64::MAX), (0, 0));
    }

    #[test]
    fn times_that_do_not_fit_are_the_nearest_that_do() {
        assert_eq!(read(0, 0, u64::MAX), (u32::MAX, 999_999_999));
        assert_eq!(read(6, i64::MIN, 5), (0, 0));
        assert_eq!(read(0, i64::MAX, u64::MAX), (u32::MAX, 999_999_999));
    }
}
