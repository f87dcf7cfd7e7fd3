//! When a todo is due.

use std::fmt;

use serde::{Serialize, Serializer};
use time::macros::format_description;
use time::{Date, Time};

use crate::domain::clock::Timestamp;
use crate::domain::validation::{Location, ValidationError};

/// When a todo is due: on a day, or at a point in time.
///
/// Shown and serialized as `2025-01-31`, or as RFC 3339 in UTC with milliseconds: `2025-01-31T10:30:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// On this day, wherever its owner is. Kept as the day's 00:00 in UTC, as which it is compared.
    On(Timestamp),
    /// At this moment.
    At(Timestamp),
}

impl Due {
    /// How it is written, in words.
    const RULE: &'static str = "a date (2025-01-31) or a time with its offset from UTC (2025-01-31T10:30:00+01:00)";

    /// The time as which it is compared.
    pub fn time(self) -> Timestamp {
        match self {
            Self::On(time) | Self::At(time) => time,
        }
    }

    /// What is wrong with a text that is no date and no time.
    pub fn error(loc: Vec<Location>, text: String) -> ValidationError {
        ValidationError::at("datetime_parsing", loc, format!("Input should be {}", Self::RULE), text)
    }

    /// Parses a date, or an RFC 3339 time, whose offset is not kept. What is finer than a millisecond is cut off.
    pub fn parse(text: &str) -> Option<Self> {
        match Date::parse(text, format_description!("[year]-[month]-[day]")) {
            // The format would also read a sign before the year.
            Ok(date) if text.len() == "2025-01-31".len() => {
                Some(Self::On(Timestamp::of_utc(date.with_time(Time::MIDNIGHT).assume_utc())?))
            }
            _ => Timestamp::parse(text).map(Self::At),
        }
    }
}

impl fmt::Display for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On(day) => {
                let date = day.to_utc().format(format_description!("[year]-[month]-[day]"));
                f.write_str(&date.map_err(|_| fmt::Error)?)
            }
            Self::At(time) => time.fmt(f),
        }
    }
}

impl Serialize for Due {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_was_meant() {
        for (sent, kept) in [
            ("2025-01-31", "2025-01-31"),
            ("0001-01-01", "0001-01-01"),
            ("9999-12-31", "9999-12-31"),
            ("2024-02-29", "2024-02-29"),
            ("1969-07-20", "1969-07-20"),
            ("2025-01-31T10:30:00Z", "2025-01-31T10:30:00.000Z"),
            ("2025-01-31T10:30:00+01:00", "2025-01-31T09:30:00.000Z"),
            ("2025-01-31t10:30:00.9999z", "2025-01-31T10:30:00.999Z"),
            ("1969-12-31T23:59:59.995Z", "1969-12-31T23:59:59.995Z"),
            ("2025-01-01T00:30:00+01:00", "2024-12-31T23:30:00.000Z"),
        ] {
            let due = Due::parse(sent).unwrap_or_else(|| panic!("{sent}"));
            assert_eq!(due.to_string(), kept, "{sent}");
            assert_eq!(Due::parse(kept), Some(due), "{sent}");
        }
    }

    #[test]
    fn what_is_no_date_and_no_time_is_refused() {
        for bad in [
            "",
            "tomorrow",
            "2025-02-29",
            "2025-13-01",
            "2025-1-1",
            "25-01-01",
            "+2025-01-01",
            "-2025-01-01",
            "2025-01-31 ",
            "20250131",
            "2025-01-31T10:30:00",
            "2025-01-31T25:00:00Z",
            "2025-01-31T10:30Z",
            "2025-01-31 10:30:00Z",
            "2025-01-31_10:30:00Z",
            "0000-12-31",
            "0001-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
            "10000-01-01",
            "1738319400",
        ] {
            assert_eq!(Due::parse(bad), None, "{bad:?}");
        }
    }
}
