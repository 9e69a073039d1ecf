//! Instants, and the one reader of the wall clock.
//!
//! Code takes `now` as a value. Times of two machines are never subtracted without saying so.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An instant in UTC, to the microsecond, between the years 1970 and 2999.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "jiff::Timestamp", into = "jiff::Timestamp")]
pub struct Timestamp {
    /// Microseconds since 1970-01-01T00:00:00Z.
    micros: i64,
}

/// The last microsecond of the year 2999.
const MAX_MICROS: i64 = 32_503_679_999_999_999;

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self { micros: 0 };

    /// Returns the instant `micros` after 1970, or `None` outside the range.
    pub fn from_micros(micros: i64) -> Option<Self> {
        (0..=MAX_MICROS).contains(&micros).then_some(Self { micros })
    }

    /// Returns the instant `seconds` after 1970, or `None` outside the range.
    pub fn from_seconds(seconds: i64) -> Option<Self> {
        Self::from_micros(seconds.checked_mul(1_000_000)?)
    }

    /// Returns microseconds since 1970.
    pub fn micros(self) -> i64 {
        self.micros
    }

    /// Returns whole seconds since 1970.
    pub fn seconds(self) -> i64 {
        self.micros / 1_000_000
    }

    /// Returns this instant without its fraction of a second.
    pub fn to_second(self) -> Self {
        Self { micros: self.micros - self.micros % 1_000_000 }
    }

    /// Returns the instant `duration` later, held inside the range.
    pub fn plus(self, duration: std::time::Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(MAX_MICROS);
        Self { micros: self.micros.saturating_add(micros).min(MAX_MICROS) }
    }

    /// Returns the instant `duration` earlier, held inside the range.
    pub fn minus(self, duration: std::time::Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(MAX_MICROS);
        Self { micros: self.micros.saturating_sub(micros).max(0) }
    }

    /// Returns how long before `self` the instant `earlier` was; zero when it was not before.
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_micros(u64::try_from(self.micros - earlier.micros).unwrap_or(0))
    }

    /// Returns `self` minus `other` in milliseconds.
    pub fn millis_after(self, other: Self) -> i64 {
        (self.micros - other.micros) / 1_000
    }

    /// Returns the wire form.
    pub fn to_wire(self) -> prost_types::Timestamp {
        prost_types::Timestamp {
            seconds: self.seconds(),
            nanos: i32::try_from(self.micros % 1_000_000 * 1_000).expect("less than 10^9"),
        }
    }

    /// Returns the instant of a wire form, its nanoseconds cut to microseconds; `None` outside the range.
    pub fn from_wire(wire: &prost_types::Timestamp) -> Option<Self> {
        let nanos = (0..1_000_000_000).contains(&wire.nanos).then_some(wire.nanos)?;
        let micros = wire.seconds.checked_mul(1_000_000)?.checked_add(i64::from(nanos) / 1_000)?;
        Self::from_micros(micros)
    }
}

impl From<Timestamp> for jiff::Timestamp {
    fn from(time: Timestamp) -> Self {
        Self::from_microsecond(time.micros).expect("the range is inside jiff's")
    }
}

impl TryFrom<jiff::Timestamp> for Timestamp {
    type Error = &'static str;

    fn try_from(time: jiff::Timestamp) -> Result<Self, Self::Error> {
        Self::from_micros(time.as_microsecond()).ok_or("time is before 1970 or after 2999")
    }
}

/// RFC 3339 with `Z` and as many digits of a second as needed.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        jiff::Timestamp::from(*self).fmt(f)
    }
}

impl std::str::FromStr for Timestamp {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time: jiff::Timestamp = text.parse().map_err(|_| "time is not RFC 3339, such as 2026-11-24T12:00:00Z")?;
        Self::try_from(time)
    }
}

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Returns the wall clock's instant.
    fn now(&self) -> Timestamp;
}

/// The machine's clock: the only reader of the wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::EPOCH.plus(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_the_wire_and_its_text() {
        for micros in [0, 1, 999_999, 1_700_000_000_123_456, MAX_MICROS] {
            let time = Timestamp::from_micros(micros).unwrap();
            assert_eq!(Timestamp::from_wire(&time.to_wire()), Some(time));
            assert_eq!(time.to_string().parse(), Ok(time));
        }
    }

    #[test]
    fn a_time_outside_the_range_is_refused() {
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0), (32_503_680_000, 0)] {
            assert_eq!(Timestamp::from_wire(&prost_types::Timestamp { seconds, nanos }), None);
        }
    }
}
