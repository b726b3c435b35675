//! When a failed call is made again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Calls in all, as in the RunPod SDK.
const MAX_FETCH_TRIES: u32 = 3;

/// The pause after the first failure, at most; the next ones are twice as long each.
const FIRST_RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What a server may ask us to wait.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Exponential backoff: pauses that double from `first` to `most`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure, at most.
    pub first: Duration,
    /// However many failures there were.
    pub most: Duration,
}

impl Backoff {
    /// The pause after `failures`, at least one.
    ///
    /// The server's own wish (`told`) is a lower bound as far as it is reasonable, that is up to `most`. `jitter`, 0 to 1, shortens
    /// the pause by up to half, so that clients that failed together do not come back together.
    pub fn after(&self, failures: u32, told: Duration, jitter: f64) -> Duration {
        let full = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.most);
        full.mul_f64(1.0 - 0.5 * jitter.clamp(0.0, 1.0)).max(told.min(self.most))
    }
}

/// Between 0 and 1, another each time.
pub fn jitter() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

/// How long to wait after `failures`, at least one; `None` to give up.
///
/// The server's own wish (`told`) is a lower bound as far as it is reasonable. `jitter`, 0 to 1, shortens the pause by up to half,
/// so that clients that failed together do not come back together.
pub(super) fn pause(failures: u32, told: Duration, jitter: f64) -> Option<Duration> {
    (failures < MAX_FETCH_TRIES)
        .then(|| Backoff { first: FIRST_RETRY_PAUSE, most: MAX_RETRY_PAUSE }.after(failures, told, jitter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let ms = |failures, jitter| pause(failures, Duration::ZERO, jitter).map(|pause| pause.as_millis());
        assert_eq!([ms(1, 0.0), ms(2, 0.0), ms(3, 0.0), ms(u32::MAX, 0.0)], [Some(500), Some(1000), None, None]);
        assert_eq!([ms(1, 1.0), ms(2, 1.0), ms(1, 7.0), ms(1, 0.5)], [Some(250), Some(500), Some(250), Some(375)]);
    }

    #[test]
    fn a_server_is_heard_within_reason() {
        let told = |seconds| pause(1, Duration::from_secs(seconds), 0.0).map(|pause| pause.as_millis());
        assert_eq!([told(0), told(2), told(3600)], [Some(500), Some(2000), Some(5000)]);
        assert_eq!(pause(3, Duration::from_secs(1), 0.0), None);
    }
}
