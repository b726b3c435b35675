//! One job in the worker, from its slot to its delivery.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::select;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, error, info, warn};

use super::failure::Failure;
use super::finish::{self, FinishedJob};
use super::in_flight::InFlightGuard;
use super::job_metrics;
use super::render::{RenderContext, RenderOutcome, render};
use super::report::Reporter;
use super::state::{Resources, WorkerState};
use crate::blocking::blocking;
use crate::deliver::{FailureReason, JobResult, Sink};
use crate::engine::host::HostError;
use crate::job::{Code, Delivered, JobError, NotAJob, Offer, Output, Policy, Timings};
use crate::source::QueueInfo;
use crate::telemetry::metrics::JobOutcome;

/// What a job is worked on with.
pub(super) struct TakenJob {
    /// In hand until this is dropped.
    pub(super) guard: InFlightGuard,
    /// `None` if the queue handed out more than was asked for: then one is waited for.
    pub(super) slot: Option<OwnedSemaphorePermit>,
    /// What its queue says of itself.
    pub(super) queue: QueueInfo,
}

/// Before the end of its time a job that is stopped may have run out of it by the clock of its queue.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// A job that was drawn, with its images as a result holds them, or could not be.
type Outcome = RenderOutcome<Output>;

/// How a job ended.
enum JobEnd {
    /// Something is to be delivered.
    Deliver(Box<JobResult>),
    /// The queue wants it no more; of its time, if that was over.
    Stopped(Option<Box<JobResult>>),
    /// Somebody else gets it.
    GivenBack,
}

/// What a job has from its take on, and what is said when that is over.
struct Limit {
    time: Duration,
    why: String,
}

impl Limit {
    fn over(&self) -> JobResult {
        JobResult { error: Some(FailureReason::Late(self.why.clone())), ..JobResult::failed("") }
    }
}

/// Works on a job; its slot is free again and it is no longer in hand when this ends.
pub(super) async fn work<K: Sink>(worker: Arc<WorkerState<K>>, job: Result<Delivered, NotAJob>, taken: TakenJob) {
    let span = job_metrics::span(&taken.guard.id, &job);
    until_delivered(worker, job, taken).instrument(span).await;
}

async fn until_delivered<K: Sink>(worker: Arc<WorkerState<K>>, job: Result<Delivered, NotAJob>, taken: TakenJob) {
    let (began, streamed) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let job = job.map(Arc::new);
    let id = taken.guard.id.clone();
    let (limit, batch) = match &job {
        Ok(job) => (limit(job.policy, job.delay()), job.batch_id.clone()),
        Err(_) => (None, None),
    };
    let batch = batch.as_deref();
    info!(id, batch, "Started.");
    let metrics = &worker.delivery.telemetry.metrics;
    let _in_hand = metrics.job();
    if let Some(waited) = job.as_ref().ok().and_then(|job| job.delay()) {
        metrics.queue_wait(waited);
    }
    let end = match &job {
        Ok(job) => {
            let drawn = async {
                let slotless = taken.slot.is_none();
                let _slot = if slotless { Arc::clone(&worker.slots).acquire_owned().await.ok() } else { None };
                draw(&worker, job, &streamed).await
            };
            until_ended(&worker, &taken.guard, drawn, began, limit.as_ref()).await
        }
        Err(fault) => JobEnd::Deliver(Box::new(JobResult::failed(fault.why))),
    };
    let (time, streamed) = (limit.map(|limit| limit.time), streamed.load(Ordering::Relaxed));
    let finished = FinishedJob { id: id.clone(), job: job.as_deref().ok(), streamed, began, time, queue: taken.queue };
    let ended = match end {
        JobEnd::Deliver(done) => {
            explain(&id, batch, done.error.as_ref());
            finish::finish(&worker, &taken.guard, finished, *done).await
        }
        JobEnd::Stopped(late) => {
            info!(id, batch, "Stopped.");
            finish::stopped(&worker.delivery, finished, late).await;
            JobOutcome::Stopped
        }
        JobEnd::GivenBack => {
            info!(id, batch, "Given back.");
            JobOutcome::GivenBack
        }
    };
    job_metrics::count(metrics, ended);
}

/// Waits for what was drawn, unless something ends that.
async fn until_ended<K: Sink>(
    worker: &WorkerState<K>,
    guard: &InFlightGuard,
    drawn: impl Future<Output = Outcome>,
    began: Instant,
    limit: Option<&Limit>,
) -> JobEnd {
    let late = async {
        match limit {
            Some(limit) => {
                sleep_until(began + limit.time).await;
                limit.over()
            }
            None => std::future::pending().await,
        }
    };
    let outcome = select! {
        biased;
        () = guard.stop.cancelled() => {
            let late = limit.filter(|limit| began.elapsed() + CLOCK_TOLERANCE >= limit.time);
            return JobEnd::Stopped(late.map(|limit| Box::new(limit.over())));
        }
        () = worker.delivery.abort.cancelled() => return JobEnd::GivenBack,
        over = late => return JobEnd::Deliver(Box::new(over)),
        drawn = drawn => drawn,
    };
    match outcome.result {
        Err(Failure { error, .. }) if error.code == Code::EngineLost => {
            error!(id = guard.id, "{error}");
            worker.engine_lost.cancel();
            worker.stop_taking.cancel();
            JobEnd::GivenBack
        }
        _ => JobEnd::Deliver(Box::new(result(outcome, worker.options.send_timings))),
    }
}

/// Says why a job failed: its client knows, and who looks after the worker wants to.
fn explain(id: &str, batch: Option<&str>, error: Option<&FailureReason>) {
    match error {
        Some(FailureReason::Input(complaints)) => info!(id, batch, "the input is refused: {}", complaints.join("; ")),
        Some(FailureReason::Other(why) | FailureReason::Late(why)) => warn!(id, batch, "the job fails: {why}"),
        None => {}
    }
}

/// Draws the job on a task of its own, so that a bug ends no more than that; tells the queue how it comes along.
async fn draw<K: Sink>(worker: &WorkerState<K>, job: &Arc<Delivered>, streamed: &Arc<AtomicBool>) -> Outcome {
    let began = Instant::now();
    let target = match worker.uploads.target(job.s3_config.as_ref()) {
        Ok(target) => target,
        Err(cause) => return failed(Code::InvalidS3Config, format!("s3Config: {cause}")),
    };
    let resources = &worker.resources;
    let entropy = RandomState::new().hash_one(0) as u16;
    let context = RenderContext {
        offer: offer(resources, &job.input).await,
        entropy,
        log_prompts: resources.log_prompts,
        intake: resources.intake.clone(),
    };
    let (pool, drawing, id) = (Arc::clone(&resources.pool), Arc::clone(job), job.id.clone());
    let (delivery, uploads) = (Arc::clone(&worker.delivery), worker.uploads.clone());
    let reporter = Reporter { id: id.clone(), delivery, uploads, target, streamed: Arc::clone(streamed) };
    let drawn = async move {
        let engine = async move |model: String| {
            let lease = pool.engine(&model).await.map_err(|cause| unloaded(&id, &model, cause))?;
            let waited = lease.waited();
            Ok((lease, waited))
        };
        let read = async move |rendering| reporter.report(rendering).await;
        render(&drawing.id, &drawing.input, &context, engine, read).await
    };
    // It ends with this.
    let mut task = JoinSet::new();
    task.spawn(drawn.in_current_span());
    match task.join_next().await {
        Some(Ok(mut outcome)) => {
            outcome.timings.total = began.elapsed();
            job_metrics::stages(&worker.delivery.telemetry.metrics, &outcome);
            outcome
        }
        ended => {
            let cause = ended.and_then(Result::err).map(|cause| cause.to_string()).unwrap_or_default();
            error!(id = job.id, batch = job.batch_id, "the job met a bug: {cause}");
            failed(Code::Bug, "the worker met a bug in itself; its log has more".to_owned())
        }
    }
}

/// What the job may ask for. The folder of LoRA files is read for one that names a LoRA, and where that holds up no other job.
async fn offer(resources: &Resources, input: &Value) -> Offer {
    let names_one = input.get("lora").is_some_and(|name| !name.is_null());
    let read = Arc::clone(&resources.loras);
    let loras = if names_one { blocking(move || read()).await } else { Vec::new() };
    Offer { models: resources.models.clone(), loras }
}

/// Why a model cannot be had names this machine's files, which is for its log alone.
fn unloaded(id: &str, model: &str, cause: HostError) -> Failure {
    let HostError::Build(why) = cause else { return cause.into() };
    error!(id, model, "the model cannot be loaded: {why}");
    let message = format!("the model {model} cannot be loaded on this worker");
    JobError { code: Code::NoEngine, message, field: None }.into()
}

fn failed(code: Code, message: String) -> Outcome {
    Outcome { result: Err(JobError { code, message, field: None }.into()), timings: Timings::default() }
}

fn result(outcome: Outcome, send_timings: bool) -> JobResult {
    let timings = send_timings.then_some(outcome.timings);
    match outcome.result {
        Ok(drawn) => {
            let warnings = if send_timings { drawn.warnings } else { Vec::new() };
            JobResult { output: Some(drawn.images), error: None, timings, warnings, stop_pod: false }
        }
        Err(Failure { error, errors, .. }) => {
            let fault =
                if errors.is_empty() { FailureReason::Other(error.message) } else { FailureReason::Input(errors) };
            JobResult { error: Some(fault), timings, ..JobResult::failed("") }
        }
    }
}

/// Both wishes of a policy are kept to, whichever ends first. What was asked for is counted from its submission, as far as that is known.
fn limit(policy: Policy, delay: Option<Duration>) -> Option<Limit> {
    let execution = policy.execution_timeout_ms.map(|ms| Limit {
        time: Duration::from_millis(ms),
        why: format!("the job took longer than the {ms} ms that its policy gives it"),
    });
    let ttl = policy.ttl_ms.map(|ms| Limit {
        time: Duration::from_millis(ms).saturating_sub(delay.unwrap_or_default()),
        why: format!("the job was not done within the {ms} ms from its submission that its policy (ttl) gives it"),
    });
    [execution, ttl].into_iter().flatten().min_by_key(|limit| limit.time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_the_least_time_that_its_policy_gives_it() {
        let limit = |execution, ttl, delay: Option<u64>| {
            let policy = Policy { execution_timeout_ms: execution, ttl_ms: ttl };
            let limit = limit(policy, delay.map(Duration::from_millis));
            limit.map(|limit| (limit.time.as_millis(), limit.why.contains("(ttl)")))
        };
        assert_eq!(limit(None, None, Some(5)), None);
        assert_eq!([limit(Some(5), None, Some(9)), limit(Some(5), Some(9), None)], [Some((5, false)); 2]);
        // From its submission; which may be longer ago than it is wanted.
        assert_eq!([limit(None, Some(9), None), limit(Some(5), Some(9), Some(5))], [Some((9, true)), Some((4, true))]);
        assert_eq!(limit(Some(5), Some(9), Some(10)), Some((0, true)));
    }
}
