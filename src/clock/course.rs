//! Dates that go on as time passes, whatever the wall clock is set to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{UnixTime, WallClock};

/// Tells dates for deadlines: the course of time since a date, which cannot be set. It stands still while the machine sleeps.
#[derive(Debug)]
pub struct Course {
    clock: Arc<dyn WallClock>,
    /// The date when no time had passed, in milliseconds.
    zero: AtomicU64,
}

impl Course {
    /// Begins at the date of the wall clock.
    pub fn new(clock: Arc<dyn WallClock>) -> Self {
        let now = clock.now();
        Self::from(clock, now)
    }

    /// Begins at a date of its own.
    pub fn from(clock: Arc<dyn WallClock>, now: UnixTime) -> Self {
        let passed = millis(clock.passed());
        Self { clock, zero: AtomicU64::new(now.as_millis().saturating_sub(passed)) }
    }

    /// The date now. It never goes back.
    pub fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.zero.load(Ordering::Relaxed).saturating_add(millis(self.clock.passed())))
    }

    /// The date of the wall clock.
    pub fn wall(&self) -> UnixTime {
        self.clock.now()
    }

    /// A date of the course as the wall clock has it now: for people, and for whoever compares it with a clock of theirs.
    pub fn shown(&self, date: UnixTime) -> UnixTime {
        let (now, wall) = (self.now(), self.wall());
        // Both go at one pace, but for less than a second.
        if now.until(wall) < CLOCK_STEP && wall.until(now) < CLOCK_STEP {
            return date;
        }
        UnixTime::from_millis((date.as_millis() + wall.as_millis()).saturating_sub(now.as_millis()))
    }

    /// Goes on from `date`, if that is later than now: others on the same course are further.
    pub fn catch_up(&self, date: UnixTime) {
        self.zero.fetch_max(date.as_millis().saturating_sub(millis(self.clock.passed())), Ordering::Relaxed);
    }
}

/// What is no step of the wall clock.
const CLOCK_STEP: Duration = Duration::from_secs(1);

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::super::FakeClock;
    use super::*;

    fn at(millis: u64) -> UnixTime {
        UnixTime::from_millis(millis)
    }

    #[test]
    fn a_course_goes_on_whatever_the_clock_is_set_to() {
        let clock = Arc::new(FakeClock::at(at(1_000_000)));
        clock.advance(Duration::from_secs(50));
        let course = Course::new(clock.clone());
        assert_eq!(course.now(), at(1_050_000));
        for wall in [7_000_000, 20_000] {
            clock.set(at(wall));
            assert_eq!((course.now(), course.wall()), (at(1_050_000), at(wall)));
        }
        clock.advance(Duration::from_secs(1));
        assert_eq!(course.now(), at(1_051_000));
        assert_eq!(Course::from(clock, at(60_000)).now(), at(60_000));
    }

    #[test]
    fn dates_are_shown_as_the_clock_has_them_now() {
        let clock = Arc::new(FakeClock::at(at(1_000_000)));
        let course = Course::new(clock.clone());
        clock.set(at(1_000_999));
        assert_eq!(course.shown(at(990_000)), at(990_000), "nobody has set it");
        clock.set(at(2_000_000));
        assert_eq!(course.shown(at(990_000)), at(1_990_000));
        clock.set(at(500_000));
        assert_eq!((course.shown(at(990_000)), course.shown(at(1))), (at(490_000), UnixTime::EPOCH));
    }

    #[test]
    fn who_is_behind_catches_up_and_nobody_goes_back() {
        let course = Course::new(Arc::new(FakeClock::at(at(1_000_000))));
        course.catch_up(at(1_000_500));
        course.catch_up(at(900_000));
        assert_eq!(course.now(), at(1_000_500));
    }
}
