//! The queue that a worker takes jobs from.

use std::time::Duration;

use super::{Config, ConfigError, RedactedUrl, Secret};

/// Where the worker's queue is. Templates have places for ids: `$RUNPOD_POD_ID` and `$ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueConfig {
    /// Where jobs are taken.
    pub take: RedactedUrl,
    /// Where results go.
    pub done: RedactedUrl,
    /// Where parts of results go, if anywhere.
    pub stream: Option<RedactedUrl>,
    /// Where heartbeats go, if anywhere.
    pub ping: Option<RedactedUrl>,
    /// Between heartbeats.
    pub interval: Duration,
    /// What the queue knows us by.
    pub key: Option<Secret>,
    /// The worker's name, if it was given one.
    pub worker: Option<String>,
}

impl QueueConfig {
    /// The queue of an endpoint whose routes begin with `base`.
    pub fn of(base: &str, key: Option<Secret>) -> Self {
        let route = |path: &str| RedactedUrl::from(format!("{base}/{path}"));
        Self {
            take: route(TAKE_ROUTE),
            done: route(DONE_ROUTE),
            stream: Some(route(STREAM_ROUTE)),
            ping: Some(route(PING_ROUTE)),
            interval: Duration::from_secs(10),
            key,
            worker: None,
        }
    }
}

/// The routes of workers, below those of their endpoint.
const TAKE_ROUTE: &str = "job-take/$ID";
const DONE_ROUTE: &str = "job-done/$RUNPOD_POD_ID/$ID";
const STREAM_ROUTE: &str = "job-stream/$RUNPOD_POD_ID/$ID";
const PING_ROUTE: &str = "ping/$RUNPOD_POD_ID";

impl Config {
    /// The queue that the worker takes jobs from.
    ///
    /// # Errors
    /// None was named, or not where results go.
    pub fn queue(&self) -> Result<QueueConfig, ConfigError> {
        let own = &self.runpod;
        let route = |own: &Option<RedactedUrl>, path: &str| {
            let derived = || Some(format!("{}/{path}", self.queue.as_ref()?.trim_end_matches('/')).into());
            own.clone().or_else(derived)
        };
        let Some(take) = route(&own.get_job, TAKE_ROUTE) else {
            let allowed = "the queue to take jobs from, such as http://host:8000/v2/stable-diffusion-v1 (LATENTD_QUEUE), \
                           or set RUNPOD_WEBHOOK_GET_JOB and its kind";
            return Err(self.refuse("queue", allowed.into()));
        };
        // Templates are looked at where they are filled in.
        let derived = own.get_job.is_none();
        if derived && !["http://", "https://"].iter().any(|scheme| take.starts_with(scheme)) {
            let allowed = "a URL of http or https, such as http://host:8000/v2/stable-diffusion-v1";
            return Err(self.refuse("queue", allowed.into()));
        }
        let Some(done) = route(&own.post_output, DONE_ROUTE) else {
            let allowed =
                "where results go: RUNPOD_WEBHOOK_GET_JOB is set, so RUNPOD_WEBHOOK_POST_OUTPUT must be, or queue";
            return Err(self.refuse("runpod.post_output", allowed.into()));
        };
        Ok(QueueConfig {
            take,
            done,
            stream: route(&own.post_stream, STREAM_ROUTE),
            ping: route(&own.ping, PING_ROUTE),
            // The SDK divides by 1000 and dies of the zero.
            interval: Duration::from_millis(own.ping_interval.max(1000)),
            key: own.api_key.clone(),
            worker: own.pod_id.clone(),
        })
    }
}
