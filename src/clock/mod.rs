//! The wall clock, for what outlives the process or is told to others, and the time that goes on whatever it is set to. Waiting and
//! measuring are tokio's clock's, which tests pause.

mod course;

use std::fmt::Debug;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

pub use crate::date::UnixTime;
pub use course::Course;

/// Tells the date, and how time passes.
pub trait WallClock: Debug + Send + Sync {
    /// The date now. It may jump, either way, whenever somebody sets it.
    fn now(&self) -> UnixTime;

    /// The time since some moment before. It never jumps, and stands still while the machine sleeps.
    fn passed(&self) -> Duration;
}

/// The clocks of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// Since when time passes.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl WallClock for SystemClock {
    fn now(&self) -> UnixTime {
        // A clock that was never set may stand before 1970.
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(UnixTime::EPOCH, UnixTime::since_epoch)
    }

    fn passed(&self) -> Duration {
        BEGAN.elapsed()
    }
}

/// A clock that stands still until it is moved: for tests.
#[derive(Debug)]
pub struct FakeClock {
    now: AtomicU64,
    passed: AtomicU64,
}

impl FakeClock {
    /// A clock that stands at `now`.
    pub fn at(now: UnixTime) -> Self {
        Self { now: AtomicU64::new(now.as_millis()), passed: AtomicU64::new(0) }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.now.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
        self.passed.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }

    /// Sets the date, while no time passes.
    pub fn set(&self, now: UnixTime) {
        self.now.store(now.as_millis(), Ordering::Relaxed);
    }
}

impl WallClock for FakeClock {
    fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.now.load(Ordering::Relaxed))
    }

    fn passed(&self) -> Duration {
        Duration::from_millis(self.passed.load(Ordering::Relaxed))
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
        assert_eq!((clock.now().as_millis(), clock.passed().as_millis()), (12, 7));
        clock.set(UnixTime::from_millis(3));
        assert_eq!((clock.now().as_millis(), clock.passed().as_millis()), (3, 7));
    }

    #[test]
    fn the_system_s_clock_is_set_and_time_passes() {
        assert!(SystemClock.now() > UnixTime::from_millis(1_577_836_800_000));
        let before = SystemClock.passed();
        while SystemClock.passed() == before {}
    }
}
