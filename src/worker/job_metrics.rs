//! What is counted of a job.

use std::time::Duration;

use tracing::Span;

use super::render::RenderOutcome;
use crate::deliver::{FailureReason, JobResult};
use crate::job::{Delivered, NotAJob};
use crate::telemetry::metrics::{JobOutcome, JobStage};
use crate::telemetry::{Metrics, traces};

/// The span of the job called `id`, which continues the trace that it came with: `traceparent` and `tracestate` beside `input`.
pub(super) fn span(id: &str, job: &Result<Delivered, NotAJob>) -> Span {
    match job {
        Ok(job) => {
            let text = |key: &str| job.raw.get(key).and_then(|value| value.as_str());
            traces::job(id, text("traceparent"), text("tracestate"))
        }
        Err(_) => traces::job(id, None, None),
    }
}

/// Counts how the job ended that is worked on.
pub(super) fn count(metrics: &Metrics, ended: JobOutcome) {
    metrics.ended(ended);
    Span::current().record("job.outcome", ended.name());
}

/// Where the time of a job went that was drawn, or could not be. A stage that it did not have is not counted.
pub(super) fn stages<I>(metrics: &Metrics, outcome: &RenderOutcome<I>) {
    let timings = outcome.timings;
    let count = |stage, time: Duration| {
        if !time.is_zero() {
            metrics.stage(stage, time);
        }
    };
    count(JobStage::Fetch, timings.fetch);
    count(JobStage::Load, timings.load);
    let Ok(drawn) = &outcome.result else { return };
    count(JobStage::Wait, drawn.wait);
    count(JobStage::Text, timings.text);
    count(JobStage::Encode, timings.encode);
    count(JobStage::Denoise, timings.denoise);
    count(JobStage::Decode, timings.decode);
    count(JobStage::Png, timings.png);
}

/// How a job ended of whose end its queue is told this.
pub(super) fn ended(done: &JobResult) -> JobOutcome {
    match &done.error {
        None => JobOutcome::Completed,
        Some(FailureReason::Input(_)) => JobOutcome::Invalid,
        Some(FailureReason::Other(_) | FailureReason::Late(_)) => JobOutcome::Failed,
    }
}
