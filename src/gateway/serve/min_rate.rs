//! How slow a peer may be: who sends a body or reads an answer drop by drop keeps its memory from others.

use std::time::Duration;

/// What a peer has to move within that time in which it is waited for, in bytes.
const MIN_RATE: (usize, Duration) = (128 * 1024, Duration::from_secs(30));

/// Of one body, or of the answers on one connection. Only time in which its peer is waited for counts.
#[derive(Debug)]
pub(super) struct MinRate {
    left: Duration,
    moved: usize,
}

impl Default for MinRate {
    fn default() -> Self {
        Self { left: MIN_RATE.1, moved: 0 }
    }
}

impl MinRate {
    /// How long the peer is still waited for.
    pub(super) fn left(&self) -> Duration {
        self.left
    }

    /// It was waited for so long, and then has moved so many bytes.
    pub(super) fn moved(&mut self, waited: Duration, bytes: usize) {
        self.moved += bytes;
        self.left = self.left.saturating_sub(waited);
        if self.moved >= MIN_RATE.0 {
            *self = Self::default();
        }
    }
}
