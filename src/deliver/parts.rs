//! Everything that the ends of a worker's jobs go through.

use super::outbox::{Outbox, WebhookDeliveries};
use super::results::{ResultHeader, Results};
use super::spool::{Spool, SpoolEntry};
use super::upload::Uploads;

/// Where a worker's results, images and webhooks go.
#[derive(Debug)]
pub struct DeliveryParts<K> {
    /// What they lie in until they have arrived.
    pub spool: Spool,
    /// Posts results.
    pub results: Results<K>,
    /// Results that an earlier process left.
    pub left: Vec<SpoolEntry<ResultHeader>>,
    /// Puts images into buckets.
    pub uploads: Uploads,
    /// Takes webhooks in, if they are the worker's.
    pub webhooks: Option<WorkerWebhooks>,
    /// Sends them.
    pub deliveries: Option<WebhookDeliveries>,
}

/// Webhooks that the worker calls.
#[derive(Debug)]
pub struct WorkerWebhooks {
    /// Where they lie.
    pub outbox: Outbox,
    /// Whether they are called even for a queue that says that it does.
    pub always: bool,
    /// Whether they are called of jobs that the queue stopped.
    pub cancelled: bool,
    /// Who the worker is, which they are told.
    pub worker: String,
}
