//! The worker's part of the configuration: how it behaves, and what the hosted platform tells it.

use std::time::Duration;

use super::reader::Reader;
use super::{RedactedUrl, Secret};

/// How the worker behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerConfig {
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
    /// Bytes that a result may have; `None` is what the queue takes: a gateway of latentd more than the hosted platform.
    pub max_bytes: Option<u64>,
}

/// What the hosted platform tells a worker.
#[derive(Debug, Clone)]
pub(super) struct RunPodConfig {
    pub(super) get_job: Option<RedactedUrl>,
    pub(super) post_output: Option<RedactedUrl>,
    pub(super) post_stream: Option<RedactedUrl>,
    pub(super) ping: Option<RedactedUrl>,
    pub(super) ping_interval: u64,
    pub(super) api_key: Option<Secret>,
    pub(super) pod_id: Option<String>,
}

impl Reader {
    pub(super) fn worker(&mut self) -> Option<WorkerConfig> {
        // Each is read before any may end this: all faults are told at once.
        let (concurrency, drain) = (self.read("worker.concurrency"), self.read("worker.drain"));
        let (start_deadline, send_timings) = (self.read("worker.start_deadline"), self.read("worker.send_timings"));
        let (refresh, max_bytes) = (self.read("worker.refresh"), self.read("deliver.max_bytes"));
        Some(WorkerConfig {
            concurrency: concurrency?,
            drain: drain?,
            start_deadline: start_deadline?,
            send_timings: send_timings?,
            refresh: refresh?,
            max_bytes: max_bytes?,
        })
    }

    pub(super) fn runpod(&mut self) -> Option<RunPodConfig> {
        let (get_job, post_output) = (self.read("runpod.get_job"), self.read("runpod.post_output"));
        let (post_stream, ping) = (self.read("runpod.post_stream"), self.read("runpod.ping"));
        let (ping_interval, api_key) = (self.read("runpod.ping_interval"), self.read("runpod.api_key"));
        let pod_id = self.read("runpod.pod_id");
        Some(RunPodConfig {
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
