//! A date as the time since 1970. What it is now, the clock knows.

use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A date, in milliseconds since 1970-01-01T00:00:00Z, leap seconds left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(u64);

impl UnixTime {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// The date `millis` after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// The date `past` after the epoch.
    pub fn since_epoch(past: Duration) -> Self {
        Self(past.as_millis() as u64)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// How long it is from `self` to `later`; zero if that is past.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}

impl Add<Duration> for UnixTime {
    type Output = Self;

    /// The end of time, if it is later than that.
    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time.as_millis().try_into().unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_add_up_and_end() {
        let date = UnixTime::from_millis(1500) + Duration::from_millis(600);
        assert_eq!((date.as_millis(), date.as_secs()), (2100, 2));
        assert_eq!(date + Duration::MAX, UnixTime::from_millis(u64::MAX));
        assert_eq!(date.until(UnixTime::from_millis(2101)), Duration::from_millis(1));
        assert_eq!(date.until(UnixTime::EPOCH), Duration::ZERO);
    }
}
