//! What the process does, in numbers. Names begin with `latentd_` and end with their unit, as Prometheus wants them.
//!
//! A registry is a value: whoever does something holds a clone of [`Metrics`] and tells it, so that two workers in one process
//! count apart.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::exposition;

/// Seconds, from what a PNG takes to what a queue may hold a job for.
const SECONDS: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// Rows of an evaluation: the buckets of `batch`.
const ROWS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// How a job left the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobOutcome {
    /// With its images.
    Completed,
    /// Its input was refused.
    Invalid,
    /// Something else went wrong, and its client was told.
    Failed,
    /// It was no longer wanted.
    Stopped,
    /// Without a word, so that the queue gives it to another worker.
    GivenBack,
}

impl JobOutcome {
    const ALL: [Self; 5] = [Self::Completed, Self::Invalid, Self::Failed, Self::Stopped, Self::GivenBack];

    /// Its name among labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::GivenBack => "given_back",
        }
    }
}

/// A part of a job's time. Names are those of a result's `timings`, with the two that only a worker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStage {
    /// Images that it names: downloaded, decoded, resized.
    Fetch,
    /// Waited for its model to be loaded.
    Load,
    /// Waited for the engine to admit it.
    Wait,
    /// Tokenizer and text encoder.
    Text,
    /// Autoencoder, pixels to latents.
    Encode,
    /// Evaluations, first to last.
    Denoise,
    /// Autoencoder, latents to pixels.
    Decode,
    /// Pixels to PNG files.
    Png,
    /// Its end, until it was delivered or given up.
    Deliver,
}

impl JobStage {
    const ALL: [Self; 9] = [
        Self::Fetch,
        Self::Load,
        Self::Wait,
        Self::Text,
        Self::Encode,
        Self::Denoise,
        Self::Decode,
        Self::Png,
        Self::Deliver,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Load => "load",
            Self::Wait => "wait",
            Self::Text => "text",
            Self::Encode => "encode",
            Self::Denoise => "denoise",
            Self::Decode => "decode",
            Self::Png => "png",
            Self::Deliver => "deliver",
        }
    }
}

/// Labels of one name.
type By = [(&'static str, String); 1];

/// The numbers of one process, or of one test. Clones count together.
#[derive(Clone)]
pub struct Metrics(Arc<Instruments>);

struct Instruments {
    registry: Registry,
    began: Instant,
    uptime: Gauge<f64, std::sync::atomic::AtomicU64>,
    slots: Gauge,
    in_hand: Gauge,
    taken: Counter,
    ended: Family<By, Counter>,
    undelivered: Counter,
    weights_wrong: Gauge,
    stages: Family<By, Histogram>,
    job: Histogram,
    queue_wait: Histogram,
    takes: Family<By, Counter>,
    heartbeat_failures: Counter,
    retries: Family<By, Counter>,
    lanes: Gauge,
    rows: Histogram,
    evaluation: Histogram,
    memory: Family<[(&'static str, String); 2], Gauge>,
    warm_ups: Counter,
    cold: Family<By, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("latentd");
        let version = vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
        let build: Family<Vec<(String, String)>, Gauge> = Family::default();
        build.get_or_create(&version).set(1);
        registry.register("build_info", "Which program this is", build);
        let mut new = Registrar(&mut registry);
        let numbers = Instruments {
            began: Instant::now(),
            uptime: new.add("uptime_seconds", "Since the process began", Gauge::default()),
            slots: new.add("slots", "Jobs that can be in hand at the same time", Gauge::default()),
            in_hand: new.add("jobs_in_hand", "Jobs in hand, those whose end is being delivered too", Gauge::default()),
            taken: new.add("jobs_taken", "Jobs begun", Counter::default()),
            ended: new.add("jobs", "Jobs that ended, by how", Family::default()),
            undelivered: new.add("jobs_undelivered", "Ends of jobs that no queue took", Counter::default()),
            weights_wrong: new.add("weight_files_wrong", "Weight files that are not as listed", Gauge::default()),
            stages: new.add("stage_seconds", "Parts of a job's time", Family::new_with_constructor(seconds)),
            job: new.add("job_seconds", "From taking a job to delivering its end", seconds()),
            queue_wait: new.add("queue_wait_seconds", "In the queue, for jobs that tell it as delayTime", seconds()),
            takes: new.add("takes", "Polls for jobs, by what came of them", Family::default()),
            heartbeat_failures: new.add("heartbeat_failures", "Heartbeats no queue heard", Counter::default()),
            retries: new.add("delivery_retries", "Deliveries that were tried again", Family::default()),
            lanes: new.add("lanes", "Images being made", Gauge::default()),
            rows: new.add("evaluation_rows", "Rows of an evaluation of the UNet", Histogram::new(ROWS)),
            evaluation: new.add("evaluation_seconds", "Evaluations, with what was decoded after them", seconds()),
            memory: new.add("device_memory_bytes", "Memory of the engine's device", Family::default()),
            warm_ups: new.add(
                "warm_up_evaluations",
                "Evaluations in idle time that no job asked for",
                Counter::default(),
            ),
            cold: new.add(
                "warm_up_shapes_left",
                "Shapes of evaluations still to be met in idle time",
                Family::default(),
            ),
            registry,
        };
        // A counter that appears with its first event hides that event from `rate`.
        for end in JobOutcome::ALL {
            drop(numbers.ended.get_or_create(&by("outcome", end.name())));
        }
        for stage in JobStage::ALL {
            drop(numbers.stages.get_or_create(&by("stage", stage.name())));
        }
        Self(Arc::new(numbers))
    }
}

/// Puts numbers into a registry.
struct Registrar<'a>(&'a mut Registry);

impl Registrar<'_> {
    fn add<M: prometheus_client::registry::Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

fn by(label: &'static str, value: impl Into<String>) -> By {
    [(label, value.into())]
}

impl Metrics {
    /// Jobs that can be in hand at the same time.
    pub fn slots(&self, slots: usize) {
        self.0.slots.set(slots as i64);
    }

    /// A job was begun; it is in hand until what this gives is dropped.
    #[must_use]
    pub fn job(&self) -> JobInHand {
        self.0.taken.inc();
        self.0.in_hand.inc();
        JobInHand { metrics: self.clone(), began: Instant::now() }
    }

    /// How long a job was in its queue.
    pub fn queue_wait(&self, time: Duration) {
        self.0.queue_wait.observe(time.as_secs_f64());
    }

    /// A job ended.
    pub fn ended(&self, how: JobOutcome) {
        self.0.ended.get_or_create(&by("outcome", how.name())).inc();
    }

    /// The end of a job could not be delivered.
    pub fn undelivered(&self) {
        self.0.undelivered.inc();
    }

    /// A weight file is not the one that is listed, or cannot be compared.
    pub fn weights_wrong(&self) {
        self.0.weights_wrong.inc();
    }

    /// A part of a job took this long.
    pub fn stage(&self, stage: JobStage, time: Duration) {
        self.0.stages.get_or_create(&by("stage", stage.name())).observe(time.as_secs_f64());
    }

    /// A poll for jobs came to this: `jobs`, `empty`, a status, or why there was none.
    pub fn take(&self, reply: impl Into<String>) {
        self.0.takes.get_or_create(&by("reply", reply)).inc();
    }

    /// A heartbeat was not heard, after all of its tries.
    pub fn heartbeat_failed(&self) {
        self.0.heartbeat_failures.inc();
    }

    /// What was sent `to` a route, a webhook or a bucket is sent again.
    pub fn retry(&self, to: &'static str) {
        self.0.retries.get_or_create(&by("to", to)).inc();
    }

    /// The numbers of one engine, which has this name.
    pub fn engine(&self, name: &str) -> EngineMetrics {
        EngineMetrics { metrics: self.clone(), name: name.to_owned(), lanes: 0 }
    }

    /// All of it in the text format of Prometheus, version 0.0.4.
    pub fn text(&self) -> String {
        self.0.uptime.set(self.0.began.elapsed().as_secs_f64());
        exposition::text(&self.0.registry)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// A job in hand, for the numbers.
#[derive(Debug)]
pub struct JobInHand {
    metrics: Metrics,
    began: Instant,
}

impl Drop for JobInHand {
    fn drop(&mut self) {
        self.metrics.0.in_hand.dec();
        self.metrics.0.job.observe(self.began.elapsed().as_secs_f64());
    }
}

/// What one engine does. Its lanes are no more when this is dropped.
#[derive(Debug)]
pub struct EngineMetrics {
    metrics: Metrics,
    name: String,
    lanes: i64,
}

impl EngineMetrics {
    /// Images being made now.
    pub fn lanes(&mut self, lanes: usize) {
        let lanes = lanes as i64;
        self.metrics.0.lanes.inc_by(lanes - self.lanes);
        self.lanes = lanes;
    }

    /// An evaluation of so many rows was made.
    pub fn evaluated(&self, rows: usize, time: Duration) {
        self.metrics.0.rows.observe(rows as f64);
        self.metrics.0.evaluation.observe(time.as_secs_f64());
    }

    /// An evaluation that no job asked for was made, and so many shapes are left.
    pub fn warmed(&self, left: usize) {
        self.metrics.0.warm_ups.inc();
        self.metrics.0.cold.get_or_create(&by("engine", self.name.clone())).set(left as i64);
    }

    /// Memory of its device, in bytes.
    pub fn memory(&self, free: u64, total: u64) {
        for (kind, bytes) in [("free", free), ("total", total)] {
            let labels = [("engine", self.name.clone()), ("kind", kind.to_owned())];
            self.metrics.0.memory.get_or_create(&labels).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }
}

impl Drop for EngineMetrics {
    fn drop(&mut self) {
        self.lanes(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_out_as_they_went_in() {
        let metrics = Metrics::default();
        let job = metrics.job();
        metrics.ended(JobOutcome::GivenBack);
        metrics.stage(JobStage::Fetch, Duration::from_millis(20));
        metrics.take("429");
        metrics.retry("done");
        let (mut engine, mut other) = (metrics.engine("engine-0"), metrics.engine("engine-1"));
        engine.evaluated(4, Duration::from_millis(3));
        (0..4).for_each(|lanes| engine.lanes(lanes));
        other.lanes(2);
        drop(engine);
        other.memory(1 << 30, 1 << 34);
        other.warmed(3);
        other.warmed(2);
        let text = metrics.text();
        for line in [
            concat!("latentd_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# TYPE latentd_jobs_total counter",
            "latentd_jobs_total{outcome=\"given_back\"} 1",
            "latentd_jobs_total{outcome=\"completed\"} 0",
            "latentd_jobs_in_hand 1",
            "latentd_stage_seconds_bucket{le=\"0.01\",stage=\"fetch\"} 0",
            "latentd_stage_seconds_bucket{le=\"0.025\",stage=\"fetch\"} 1",
            "latentd_stage_seconds_count{stage=\"deliver\"} 0",
            "latentd_takes_total{reply=\"429\"} 1",
            "latentd_delivery_retries_total{to=\"done\"} 1",
            "latentd_evaluation_rows_sum 4.0",
            "latentd_lanes 2",
            "latentd_warm_up_evaluations_total 2",
            "latentd_warm_up_shapes_left{engine=\"engine-1\"} 2",
            "latentd_device_memory_bytes{engine=\"engine-1\",kind=\"total\"} 17179869184",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
        }
        drop(job);
        assert!(metrics.text().contains("latentd_jobs_in_hand 0\n"));
    }

    #[test]
    fn two_sets_of_numbers_count_apart() {
        let (a, b) = (Metrics::default(), Metrics::default());
        a.heartbeat_failed();
        assert!(a.text().contains("latentd_heartbeat_failures_total 1\n"));
        assert!(b.text().contains("latentd_heartbeat_failures_total 0\n"));
    }
}
