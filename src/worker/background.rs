//! What a worker has under way beside its loop: jobs, the ends of jobs that an earlier process left, webhooks.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::finish;
use super::state::Delivery;
use crate::deliver::Sink;
use crate::deliver::outbox::WebhookDeliveries;
use crate::deliver::results::ResultHeader;
use crate::deliver::spool::SpoolEntry;

/// For jobs to notice that they are aborted.
const ABORT_WAIT: Duration = Duration::from_secs(2);

/// All of it. What is under way when this is dropped lies on disk.
pub(super) struct BackgroundTasks {
    /// Jobs, and deliveries of what was left.
    pub(super) jobs: TaskTracker,
    webhooks: JoinSet<()>,
    all_handed_over: CancellationToken,
}

impl BackgroundTasks {
    /// Begins to send what an earlier process left.
    pub(super) fn begin<K: Sink>(
        delivery: &Arc<Delivery<K>>,
        left: Vec<SpoolEntry<ResultHeader>>,
        mut deliveries: Option<WebhookDeliveries>,
    ) -> Self {
        let (jobs, mut webhooks, all_handed_over) = (TaskTracker::new(), JoinSet::new(), CancellationToken::new());
        finish::resend(delivery, left, deliveries.as_mut(), &jobs);
        if let Some(deliveries) = deliveries {
            webhooks.spawn(deliveries.run(all_handed_over.clone()));
        }
        Self { jobs, webhooks, all_handed_over }
    }

    /// Waits for the ends of all jobs. No more may begin.
    pub(super) async fn jobs_done(&self) {
        self.jobs.close();
        self.jobs.wait().await;
    }

    /// Waits for the ends of all jobs, and then for their webhooks. No more may begin.
    pub(super) async fn done(&mut self) {
        self.jobs_done().await;
        self.all_handed_over.cancel();
        while self.webhooks.join_next().await.is_some() {}
    }

    /// Lets go of jobs, and waits until they have noticed.
    pub(super) async fn abort<K>(&self, delivery: &Delivery<K>) {
        delivery.abort.cancel();
        if timeout(ABORT_WAIT, self.jobs_done()).await.is_err() {
            warn!(jobs = self.jobs.len(), "jobs do not end");
        }
    }
}
