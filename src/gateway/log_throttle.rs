//! Lines of the log that are written once in a while, however often there is reason for them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lets one line pass in each interval.
#[derive(Debug)]
pub(super) struct LogThrottle {
    interval: Duration,
    last: Mutex<Option<Instant>>,
}

impl LogThrottle {
    pub(super) const fn new(interval: Duration) -> Self {
        Self { interval, last: Mutex::new(None) }
    }

    /// Whether a line is to be written now.
    pub(super) fn passes(&self) -> bool {
        let (now, mut last) = (Instant::now(), self.last.lock().unwrap_or_else(PoisonError::into_inner));
        let passes = last.is_none_or(|last| now.duration_since(last) >= self.interval);
        if passes {
            *last = Some(now);
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_passes_in_each_interval() {
        let throttle = LogThrottle::new(Duration::from_mins(1));
        assert!(throttle.passes() && !throttle.passes());
        advance(Duration::from_secs(59)).await;
        assert!(!throttle.passes(), "and what did not pass does not count");
        advance(Duration::from_secs(1)).await;
        assert!(throttle.passes() && !throttle.passes());
    }
}
