//! What gateways on a store tell each other of workers.
//!
//! Each writes down what it has seen itself, so that none overwrites what another has; what is true of a worker is what all of them saw
//! together, as [`super::worker_registry`] has it.

use std::future::pending;
use std::time::Duration;

use tokio::select;
use tokio::time::sleep;
use tracing::warn;

use crate::store::{Store, WorkerView};

use super::worker_registry::WorkerSignal;
use super::{Endpoint, Gateway, log_failure};

/// How often others' views are read if nothing is told of them.
const READ_INTERVAL: Duration = Duration::from_secs(2);

impl<S: Store> Gateway<S> {
    /// Notes a sign of a worker's life.
    pub(super) async fn record_signal(&self, endpoint: &str, worker: &str, sign: WorkerSignal<'_>) {
        let (now, urgent) = (self.now(), matches!(sign, WorkerSignal::Unfit(_)));
        if self.registry.record(endpoint, worker, sign, now) {
            self.show_worker(endpoint, worker, urgent).await;
        }
    }

    /// Several workers are seen to have one id.
    pub(super) async fn mark_shared_id(&self, endpoint: &Endpoint, worker: &str) {
        if self.registry.mark_shared_id(&endpoint.id, worker, self.now()) {
            warn!(
                endpoint = endpoint.id,
                worker, "several workers ask under one id: give each a RUNPOD_POD_ID of its own, or none"
            );
            self.show_worker(&endpoint.id, worker, true).await;
        }
    }

    /// A worker gets no more jobs, here and elsewhere.
    pub(super) async fn ban(&self, endpoint: &str, worker: &str) {
        self.registry.ban(endpoint, worker, self.now());
        self.show_worker(endpoint, worker, true).await;
    }

    /// A worker has lost a job.
    pub(super) async fn worker_lost_job(&self, endpoint: &str, worker: &str) {
        self.registry.job_lost(endpoint, worker, self.now());
        self.show_worker(endpoint, worker, true).await;
    }

    /// A worker has brought a job to its end.
    pub(super) async fn worker_delivered(&self, endpoint: &str, worker: &str) {
        if self.registry.job_done(endpoint, worker, self.now()) {
            self.show_worker(endpoint, worker, true).await;
        }
    }

    /// Writes down for other gateways what this one knows of a worker; nothing, when it no longer knows anything.
    pub(super) async fn show_worker(&self, endpoint: &str, worker: &str, urgent: bool) {
        if S::SHARED {
            let seen = self.registry.export(endpoint, worker);
            let view = WorkerView { gateway: self.limits.gateway().to_owned(), worker: worker.to_owned(), seen };
            log_failure("workers", self.store.publish_view(endpoint, view, urgent).await);
        }
    }

    /// Reads what others know of workers, at once when they tell of something that matters.
    pub(super) async fn follow_workers(&self) {
        if !S::SHARED {
            return pending().await;
        }
        let changed = self.notifier.workers();
        loop {
            for endpoint in &self.settings.endpoints {
                self.learn(&endpoint.id).await;
            }
            select! {
                () = changed.notified() => {}
                () = sleep(READ_INTERVAL) => {}
            }
        }
    }

    async fn learn(&self, endpoint: &str) {
        // When the store is away, what was known holds.
        for view in self.store.worker_views(endpoint).await.unwrap_or_default() {
            let (now, worker) = (self.now(), view.worker.clone());
            let Some(seen) = view.seen.as_deref().filter(|_| view.gateway != self.limits.gateway()) else { continue };
            let could = self.registry.may_take_jobs(endpoint, &worker, now);
            if !self.registry.merge(endpoint, &worker, seen, now) {
                // Of a gateway that is gone, mostly.
                let view = WorkerView { seen: None, ..view };
                log_failure("workers", self.store.publish_view(endpoint, view, false).await);
            } else if could && !self.registry.may_take_jobs(endpoint, &worker, now) {
                self.notifier.nudge(endpoint, &worker);
            }
        }
    }
}
