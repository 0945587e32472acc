//! Conversion of UTC seconds to calendar dates.

#[cfg(any(feature = "flow-records", feature = "serde"))]
use std::fmt;

#[cfg(any(feature = "flow-records", feature = "serde"))]
use super::Timestamp;

/// A second as date and time of day (by Howard Hinnant's `civil_from_days`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Calendar {
    pub(crate) year: u64,
    pub(crate) month: u64,
    pub(crate) day: u64,
    pub(crate) hour: u64,
    pub(crate) minute: u64,
    pub(crate) second: u64,
}

impl Calendar {
    /// Converts seconds since the epoch.
    pub(crate) fn of(secs: u64) -> Self {
        let (days, rest) = (secs / 86_400 + 719_468, secs % 86_400);
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        Self { year, month, day, hour: rest / 3_600, minute: rest / 60 % 60, second: rest % 60 }
    }
}

/// A timestamp in ISO 8601 format: the time, the number of digits behind the second, and the zone.
#[cfg(any(feature = "flow-records", feature = "serde"))]
pub(crate) struct Iso(pub(crate) Timestamp, pub(crate) usize, pub(crate) &'static str);

#[cfg(any(feature = "flow-records", feature = "serde"))]
impl fmt::Display for Iso {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(time, digits, zone) = self;
        let Calendar { year, month, day, hour, minute, second } = Calendar::of(time.secs.into());
        let nanos = format!("{:09}", time.nanos);
        let fraction = &nanos[..*digits];
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction}{zone}"
        )
    }
}
