//! A queue as one worker sees it: where it is, and what is known of it so far.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use super::urls::Urls;
use crate::net::{Backoff, TrustedClient};
use crate::telemetry::Metrics;

/// For an answer, as in the SDK; a queue holds a poll for less.
pub(super) const POLL_TIMEOUT: Duration = Duration::from_secs(90);

/// After errors.
pub(super) const POLL_RETRY: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(15) };

/// What a queue that answers 429 is left alone for, unless it says so itself.
pub(super) const BACK_OFF: Duration = Duration::from_secs(5);

/// A queue, as one worker sees it.
#[derive(Debug)]
pub struct RunPodSource {
    pub(super) http: TrustedClient,
    pub(super) urls: Urls,
    pub(super) interval: Duration,
    /// Whether the queue has answered anything but errors.
    pub(super) known: AtomicBool,
    /// Whether the queue hands out several jobs at once.
    pub(super) batch: AtomicBool,
    /// Whether it ever did.
    pub(super) batched: AtomicBool,
    /// Jobs that are asked for at most, since an answer was too large; without bound before.
    pub(super) portion: AtomicUsize,
    pub(super) metrics: Metrics,
}

impl RunPodSource {
    /// The queue at `urls`, told of us every `interval`.
    pub fn new(http: TrustedClient, urls: Urls, interval: Duration) -> Self {
        let (known, batch, batched) = (AtomicBool::new(false), AtomicBool::new(true), AtomicBool::new(false));
        let portion = AtomicUsize::new(usize::MAX);
        Self { http, urls, interval, known, batch, batched, portion, metrics: Metrics::default() }
    }

    /// The same, and tells `metrics` what the queue says.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }
}
