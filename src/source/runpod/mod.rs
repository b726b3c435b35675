//! Jobs from a queue that speaks the RunPod serverless protocol, as its Python SDK 1.12.0 does, and politer where that hammers.

mod heartbeat;
mod stops;
mod take;
mod urls;
pub mod wire;

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{JobSource, TakeError, Taken};
use crate::net::{Pauses, Trusted};
use crate::telemetry::Metrics;
pub use urls::Urls;

/// For an answer, as in the SDK; a queue holds a poll for less.
const POLL_TIMEOUT: Duration = Duration::from_secs(90);

/// After errors.
const RETRY: Pauses = Pauses { first: Duration::from_secs(1), most: Duration::from_secs(15) };

/// What a queue that answers 429 is left alone for, unless it says so itself.
const BACK_OFF: Duration = Duration::from_secs(5);

/// A queue, as one worker sees it.
#[derive(Debug)]
pub struct RunPodSource {
    http: Trusted,
    urls: Urls,
    interval: Duration,
    /// Whether the queue has answered anything but errors.
    known: AtomicBool,
    /// Whether the queue hands out several jobs at once.
    batch: AtomicBool,
    /// Whether it ever did.
    batched: AtomicBool,
    /// Jobs that are asked for at most, since an answer was too large; without bound before.
    portion: AtomicUsize,
    metrics: Metrics,
}

impl RunPodSource {
    /// The queue at `urls`, told of us every `interval`.
    pub fn new(http: Trusted, urls: Urls, interval: Duration) -> Self {
        let (known, batch, batched) = (AtomicBool::new(false), AtomicBool::new(true), AtomicBool::new(false));
        let portion = AtomicUsize::new(usize::MAX);
        Self { http, urls, interval, known, batch, batched, portion, metrics: Metrics::default() }
    }

    /// The same, and tells `metrics` what the queue says.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// Says once, for at most two seconds, that the worker is not fit: which `check` it failed, and why.
    pub async fn unhealthy(&self, check: &str, why: &str) {
        heartbeat::unhealthy(self, check, why).await;
    }
}

impl JobSource for RunPodSource {
    async fn take(&self, most: usize, busy: bool, cancel: &CancellationToken) -> Result<Taken, TakeError> {
        take::take(self, most, busy, cancel).await
    }

    async fn heartbeat(&self, held: impl Fn() -> Vec<String> + Send + Sync) -> Infallible {
        heartbeat::run(self, held).await
    }

    async fn watch_stops(&self, stop: impl Fn(&str) + Send + Sync) -> Infallible {
        stops::watch(self, stop).await
    }
}
