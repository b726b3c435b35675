//! How long an endpoint waits for workers and receivers of webhooks.

use std::time::Duration;

use crate::date::UnixTime;

/// How patient an endpoint is, and with how many jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// From the last sign of a job from its worker, or from its handing out, until it is taken for lost.
    pub lost_after: Duration,
    /// Since when signs of workers are heard: a time without a listener before is held against none.
    pub listening_since: UnixTime,
    /// How often a job is tried again whose worker was lost.
    pub retries: u32,
    /// How many jobs may wait when another is submitted; without, all.
    pub max_waiting: Option<u64>,
    /// How webhooks are told.
    pub webhooks: WebhookRetry,
}

/// How often a webhook is tried, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebhookRetry {
    /// In all.
    pub tries: u32,
    /// From the end of one try to the next.
    pub pause: Duration,
    /// For one try. When twice as much has passed and it is not said how it went, who made it is taken for dead.
    pub timeout: Duration,
}

impl Default for WebhookRetry {
    /// As the hosted platform has it.
    fn default() -> Self {
        Self { tries: 3, pause: Duration::from_secs(10), timeout: Duration::from_secs(30) }
    }
}

impl Default for Rules {
    /// As the hosted platform has it: live replies show 42 to 46 seconds, and one retry.
    fn default() -> Self {
        Self {
            lost_after: Duration::from_secs(40),
            listening_since: UnixTime::EPOCH,
            retries: 1,
            max_waiting: None,
            webhooks: WebhookRetry::default(),
        }
    }
}
