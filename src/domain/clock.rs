//! The wall clock, and the one format in which the service writes times.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::macros::format_description;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
///
/// Shown and serialized as RFC 3339 in UTC with milliseconds: `2025-01-15T10:30:00.123Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The earliest time: 0001-01-01T00:00:00.000Z. RFC 3339 has a year 0, which many calendars don't.
    const MIN: i64 = -62_135_596_800_000;
    /// The latest time that RFC 3339 can express: 9999-12-31T23:59:59.999Z.
    const MAX: i64 = 253_402_300_799_999;

    /// Whole seconds since the epoch, as JWT's NumericDate has them (RFC 7519, section 2).
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The time so many seconds since the epoch.
    pub fn of_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Parses an RFC 3339 time. What is finer than a millisecond is cut off.
    pub fn parse(text: &str) -> Option<Self> {
        let time = OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
        // The library takes any separator.
        Self::of_utc(time).filter(|_| matches!(text.as_bytes().get(10), Some(b'T' | b't')))
    }

    /// The time, if its year in UTC is 1 to 9999.
    pub fn of_utc(time: OffsetDateTime) -> Option<Self> {
        let milliseconds = i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?;
        (Self::MIN..=Self::MAX).contains(&milliseconds).then_some(Self(milliseconds))
    }

    /// The time as calendar fields in UTC; a time outside the years 1 to 9999 becomes the nearest of them.
    pub fn to_utc(self) -> OffsetDateTime {
        let nanoseconds = i128::from(self.0.clamp(Self::MIN, Self::MAX)) * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        f.write_str(&self.to_utc().format(format).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where the service reads the wall clock; tests substitute a hostile one.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The machine's own clock.
    pub fn system() -> Self {
        Self::new(|| {
            let nanoseconds = OffsetDateTime::now_utc().unix_timestamp_nanos();
            Timestamp(i64::try_from(nanoseconds / 1_000_000).unwrap_or(Timestamp::MAX))
        })
    }

    /// A clock whose time is what `now` returns.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds_and_a_z() {
        assert_eq!(Timestamp(1_736_937_000_123).to_string(), "2025-01-15T10:30:00.123Z");
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::parse("2025-01-15T11:30:00.123+01:00"), Some(Timestamp(1_736_937_000_123)));
        assert_eq!(Timestamp::parse("yesterday"), None);
    }

    #[test]
    fn a_clock_out_of_range_is_clamped() {
        assert_eq!(Timestamp(-5).to_string(), "1969-12-31T23:59:59.995Z");
        assert_eq!(Timestamp(i64::MIN).to_string(), "0001-01-01T00:00:00.000Z");
        assert_eq!(Timestamp(i64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }
}
