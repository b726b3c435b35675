//! What a store keeps of the time of its queue.

use std::time::Duration;

use crate::date::UnixTime;

/// What the wall clock may be off what was kept, and is not rewritten for.
const TOLERANCE: Duration = Duration::from_secs(1);

/// How old may be what is kept, while there are jobs.
const MAX_AGE: Duration = Duration::from_mins(1);

/// A moment by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClockReading {
    /// On the course of the queue.
    pub(super) on: UnixTime,
    /// By the wall clock.
    pub(super) wall: UnixTime,
}

impl ClockReading {
    /// The moment that it is now, as [`Store::sync_clock`](super::Store::sync_clock) has it, after the one that was `kept`.
    pub(super) fn after(kept: Option<Self>, on: Option<UnixTime>, wall: UnixTime) -> Self {
        let on = match (kept, on) {
            (None, on) => on.unwrap_or(wall),
            (Some(kept), None) => kept.on + kept.wall.until(wall),
            (Some(kept), Some(on)) => on.max(kept.on),
        };
        Self { on, wall }
    }

    /// Whether it has to be kept in place of the one `before`: who begins there would not come to it. `busy` says whether there are jobs.
    pub(super) fn needs_saving(self, before: Self, busy: bool) -> bool {
        let (on, wall) = (before.on.until(self.on), before.wall.until(self.wall));
        let set = self.wall < before.wall || on.abs_diff(wall) >= TOLERANCE;
        set || (busy && on >= MAX_AGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(on: u64, wall: u64) -> ClockReading {
        ClockReading { on: UnixTime::from_millis(on * 1000), wall: UnixTime::from_millis(wall * 1000) }
    }

    #[test]
    fn who_begins_goes_on_from_what_was_kept_and_never_back() {
        let after = |kept, on: Option<u64>, wall: u64| {
            ClockReading::after(kept, on.map(|on| UnixTime::from_millis(on * 1000)), UnixTime::from_millis(wall * 1000))
        };
        assert_eq!(after(None, None, 7), at(7, 7));
        assert_eq!(after(None, Some(3), 7), at(3, 7));
        let kept = Some(at(100, 900));
        assert_eq!(after(kept, None, 950), at(150, 950), "it was away for 50 s");
        assert_eq!(after(kept, None, 20), at(100, 20), "the clock was set back meanwhile");
        assert_eq!(after(kept, Some(130), 20), at(130, 20));
        assert_eq!(after(kept, Some(90), 950), at(100, 950), "another is further");
    }

    #[test]
    fn what_follows_from_what_is_kept_is_not_written() {
        let before = at(100, 900);
        for (now, busy, more) in [
            (at(159, 959), true, false),
            (at(160, 960), true, true),
            (at(100_000, 100_800), false, false),
            (at(110, 1210), false, true),
            (at(110, 911), false, true),
            (at(110, 899), false, true),
        ] {
            assert_eq!(now.needs_saving(before, busy), more, "{now:?}");
        }
    }
}
