//! The worker's part of the configuration: its queue, and how it behaves.

use std::time::Duration;

use super::reader::Reader;
use super::{Config, ConfigError, Link, Secret};

/// How the worker behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    /// Jobs in hand at the same time; `None` is what suits the device.
    pub concurrency: Option<u64>,
    /// For jobs in hand when it is told to stop.
    pub drain: Duration,
    /// For the queue to answer, from the start.
    pub start_deadline: Option<Duration>,
    /// Whether results have timings and warnings.
    pub send_timings: bool,
    /// Whether it asks to be replaced after one job.
    pub refresh: bool,
    /// Bytes that a result may have; `None` is what the hosted platform takes.
    pub max_bytes: Option<u64>,
}

/// What the hosted platform tells a worker.
#[derive(Debug, Clone)]
pub(super) struct RunPod {
    get_job: Option<Link>,
    post_output: Option<Link>,
    post_stream: Option<Link>,
    ping: Option<Link>,
    ping_interval: u64,
    api_key: Option<Secret>,
    pod_id: Option<String>,
}

/// Where the worker's queue is. Templates have places for ids: `$RUNPOD_POD_ID` and `$ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Where jobs are taken.
    pub take: Link,
    /// Where results go.
    pub done: Link,
    /// Where parts of results go, if anywhere.
    pub stream: Option<Link>,
    /// Where heartbeats go, if anywhere.
    pub ping: Option<Link>,
    /// Between heartbeats.
    pub interval: Duration,
    /// What the queue knows us by.
    pub key: Option<Secret>,
    /// The worker's name, if it was given one.
    pub worker: Option<String>,
}

impl Reader {
    pub(super) fn worker(&mut self) -> Option<Worker> {
        // Each is read before any may end this: all faults are told at once.
        let (concurrency, drain) = (self.read("worker.concurrency"), self.read("worker.drain"));
        let (start_deadline, send_timings) = (self.read("worker.start_deadline"), self.read("worker.send_timings"));
        let (refresh, max_bytes) = (self.read("worker.refresh"), self.read("deliver.max_bytes"));
        Some(Worker {
            concurrency: concurrency?,
            drain: drain?,
            start_deadline: start_deadline?,
            send_timings: send_timings?,
            refresh: refresh?,
            max_bytes: max_bytes?,
        })
    }

    pub(super) fn runpod(&mut self) -> Option<RunPod> {
        let (get_job, post_output) = (self.read("runpod.get_job"), self.read("runpod.post_output"));
        let (post_stream, ping) = (self.read("runpod.post_stream"), self.read("runpod.ping"));
        let (ping_interval, api_key) = (self.read("runpod.ping_interval"), self.read("runpod.api_key"));
        let pod_id = self.read("runpod.pod_id");
        Some(RunPod {
            get_job: get_job?,
            post_output: post_output?,
            post_stream: post_stream?,
            ping: ping?,
            ping_interval: ping_interval?,
            api_key: api_key?,
            pod_id: pod_id?,
        })
    }
}

impl Queue {
    /// The queue of an endpoint whose routes begin with `base`.
    pub fn of(base: &str, key: Option<Secret>) -> Self {
        let route = |path: &str| Link::from(format!("{base}/{path}"));
        Self {
            take: route(TAKE),
            done: route(DONE),
            stream: Some(route(STREAM)),
            ping: Some(route(PING)),
            interval: Duration::from_secs(10),
            key,
            worker: None,
        }
    }
}

/// The routes of workers, below those of their endpoint.
const TAKE: &str = "job-take/$ID";
const DONE: &str = "job-done/$RUNPOD_POD_ID/$ID";
const STREAM: &str = "job-stream/$RUNPOD_POD_ID/$ID";
const PING: &str = "ping/$RUNPOD_POD_ID";

impl Config {
    /// The queue that the worker takes jobs from.
    ///
    /// # Errors
    /// None was named, or not where results go.
    pub fn queue(&self) -> Result<Queue, ConfigError> {
        let own = &self.runpod;
        let route = |own: &Option<Link>, path: &str| {
            let derived = || Some(format!("{}/{path}", self.queue.as_ref()?.trim_end_matches('/')).into());
            own.clone().or_else(derived)
        };
        let Some(take) = route(&own.get_job, TAKE) else {
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
        let Some(done) = route(&own.post_output, DONE) else {
            let allowed =
                "where results go: RUNPOD_WEBHOOK_GET_JOB is set, so RUNPOD_WEBHOOK_POST_OUTPUT must be, or queue";
            return Err(self.refuse("runpod.post_output", allowed.into()));
        };
        Ok(Queue {
            take,
            done,
            stream: route(&own.post_stream, STREAM),
            ping: route(&own.ping, PING),
            // The SDK divides by 1000 and dies of the zero.
            interval: Duration::from_millis(own.ping_interval.max(1000)),
            key: own.api_key.clone(),
            worker: own.pod_id.clone(),
        })
    }
}
