//! Timestamps of packets, and the clocks they are from.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::PacketStatus;

/// A time in nanoseconds since the Unix epoch, in two parts as the kernel writes it.
///
/// Ring timestamps are from `CLOCK_REALTIME` or a card's clock and can step back when the clock is set. Use
/// them to label packets, never to run timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Whole seconds since the epoch.
    pub secs: u32,
    /// Nanoseconds within the second, 0 ..= 999,999,999.
    pub nanos: u32,
}

impl Timestamp {
    /// Returns the nanoseconds since the epoch.
    pub fn as_nanos(self) -> u64 {
        u64::from(self.secs) * 1_000_000_000 + u64::from(self.nanos)
    }

    /// Converts nanoseconds since the epoch, up to the year 2106.
    pub fn from_nanos(nanos: u64) -> Self {
        Self { secs: (nanos / 1_000_000_000) as u32, nanos: (nanos % 1_000_000_000) as u32 }
    }

    /// Returns the current time of the kernel's clock.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Returns the time that has passed since `earlier`; zero if it is not earlier.
    pub fn duration_since(self, earlier: Self) -> Duration {
        self.as_duration().saturating_sub(earlier.as_duration())
    }

    /// Returns the time since the epoch.
    pub fn as_duration(self) -> Duration {
        Duration::new(u64::from(self.secs), 0) + Duration::from_nanos(u64::from(self.nanos))
    }
}

/// The time at which a frame was sent, from [`Injector::read_tx_timestamp`](crate::Injector) or an AF_XDP
/// sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxTimestamp {
    /// Number of the frame, counted from 0 and wrapping at 2^32.
    ///
    /// For an injector, this is the kernel's count of attempts to send. It equals the frame's number as long as
    /// the kernel accepted every frame at the first attempt; each attempt that met a full queue or was refused
    /// uses up one more number.
    pub frame: u32,
    /// The time. For an injector: when the frame was handed to the driver, by the kernel's clock. For an AF_XDP
    /// sender: when the frame left the kernel, by `CLOCK_TAI`, or left the card, by the card's clock.
    pub timestamp: Timestamp,
}

impl From<Timestamp> for SystemTime {
    fn from(timestamp: Timestamp) -> Self {
        UNIX_EPOCH + timestamp.as_duration()
    }
}

/// Times before 1970 become 1970, and those after 2106 wrap around.
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { secs: since.as_secs() as u32, nanos: since.subsec_nanos() }
    }
}

/// Writes seconds and nanoseconds, `1700000000.000000001`, padded to the width that is asked for.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{:09}", self.secs, self.nanos))
    }
}

/// The clock that stamped a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Clock {
    /// The kernel's `CLOCK_REALTIME`, read when the packet entered the stack.
    Software,
    /// The card's own clock, not transformed.
    RawHardware,
    /// The card's clock transformed to system time. Linux does not produce it
    /// (`include/uapi/linux/net_tstamp.h`); stored packets may carry it.
    SystemHardware,
    /// `CLOCK_REALTIME`, read when the packet's batch was taken out of the ring, because the kernel has not
    /// stamped the packet. All packets of a batch share this time, which is some microseconds to milliseconds
    /// after their arrival.
    Read,
}

/// Status bit of a packet that the kernel has not stamped. The kernel has no such bit.
pub(crate) const READ_BY_US: PacketStatus = PacketStatus::from_bits_retain(1 << 28);

impl Clock {
    #[inline]
    pub(super) fn from_status(status: PacketStatus) -> Self {
        if status.contains(READ_BY_US) {
            return Self::Read;
        }
        // No bit at all also means software: `tpacket_rcv` falls back to `ktime_get_real_ts64`.
        if status.contains(PacketStatus::TIMESTAMP_RAW_HARDWARE) {
            Self::RawHardware
        } else if status.contains(PacketStatus::TIMESTAMP_SYSTEM_HARDWARE) {
            Self::SystemHardware
        } else {
            Self::Software
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_prints_nine_digits_and_converts() {
        let timestamp = Timestamp { secs: 1_700_000_000, nanos: 42 };
        assert_eq!(timestamp.to_string(), "1700000000.000000042");
        assert_eq!(timestamp.as_nanos(), 1_700_000_000_000_000_042);
        assert_eq!(
            SystemTime::from(timestamp).duration_since(UNIX_EPOCH).unwrap().as_nanos(),
            u128::from(timestamp.as_nanos())
        );
    }

    #[test]
    fn the_clock_is_read_from_the_packet() {
        assert_eq!(Clock::from_status(PacketStatus::empty()), Clock::Software);
        assert_eq!(Clock::from_status(READ_BY_US), Clock::Read);
        assert_eq!(Clock::from_status(PacketStatus::TIMESTAMP_SOFTWARE), Clock::Software);
        assert_eq!(Clock::from_status(PacketStatus::TIMESTAMP_RAW_HARDWARE), Clock::RawHardware);
        assert_eq!(
            Clock::from_status(PacketStatus::TIMESTAMP_SYSTEM_HARDWARE),
            Clock::SystemHardware
        );
    }
}
