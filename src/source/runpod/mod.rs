//! Jobs from a queue that speaks the RunPod serverless protocol, as its Python SDK 1.12.0 does, and politer where that hammers.

mod heartbeat;
mod queue;
mod stops;
mod take;
mod urls;
pub mod wire;

use std::convert::Infallible;

use tokio_util::sync::CancellationToken;

use super::{JobSource, TakeError, Taken};
pub use queue::RunPodSource;
pub use urls::Urls;

impl RunPodSource {
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
