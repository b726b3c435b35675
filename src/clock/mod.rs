//! The wall clock, for what outlives the process or is told to others. Waiting and measuring are tokio's clock's, which tests pause.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

pub use crate::date::UnixTime;

/// Tells the date. It may jump, either way, whenever somebody sets it.
pub trait WallClock: Debug + Send + Sync {
    /// The date now.
    fn now(&self) -> UnixTime;
}

/// The clock of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn now(&self) -> UnixTime {
        // A clock that was never set may stand before 1970.
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(UnixTime::EPOCH, UnixTime::since_epoch)
    }
}

/// A clock that stands still until it is moved: for tests.
#[derive(Debug)]
pub struct FakeClock(AtomicU64);

impl FakeClock {
    /// A clock that stands at `now`.
    pub fn at(now: UnixTime) -> Self {
        Self(AtomicU64::new(now.as_millis()))
    }

    /// Moves it on.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }
}

impl WallClock for FakeClock {
    fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fake_clock_moves_only_when_it_is_moved() {
        let clock = FakeClock::at(UnixTime::from_millis(5));
        assert_eq!((clock.now().as_millis(), clock.now().as_millis()), (5, 5));
        clock.advance(Duration::from_millis(7));
        assert_eq!(clock.now().as_millis(), 12);
    }

    #[test]
    fn the_system_s_clock_is_set() {
        assert!(SystemClock.now() > UnixTime::from_millis(1_577_836_800_000));
    }
}
