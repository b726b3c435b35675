//! What is counted of a job.

use std::time::Duration;

use tracing::Span;

use super::{Drawn, Outcome};
use crate::deliver::{Done, Fault};
use crate::job::{Delivered, NotAJob};
use crate::telemetry::metrics::{Ended, Stage};
use crate::telemetry::{Metrics, traces};

/// The span of a job, which continues the trace that it came with: `traceparent` and `tracestate` beside `input`.
pub(super) fn span(job: &Result<Delivered, NotAJob>) -> Span {
    match job {
        Ok(job) => {
            let text = |key: &str| job.raw.get(key).and_then(|value| value.as_str());
            traces::job(&job.id, text("traceparent"), text("tracestate"))
        }
        Err(fault) => traces::job(fault.id.as_deref().unwrap_or_default(), None, None),
    }
}

/// Notes what became of a job inside the engine on the span that it had there.
pub(super) fn engine(span: &Span, drawn: &Drawn) {
    let ms = |time: Duration| time.as_millis() as u64;
    for (part, time) in [
        ("wait_ms", drawn.wait),
        ("text_ms", drawn.engine.text),
        ("encode_ms", drawn.engine.encode),
        ("denoise_ms", drawn.engine.denoise),
        ("decode_ms", drawn.engine.decode),
    ] {
        span.record(part, ms(time));
    }
    span.record("evaluations", drawn.engine.evaluations);
}

/// Counts how the job ended that is worked on.
pub(super) fn count(metrics: &Metrics, ended: Ended) {
    metrics.ended(ended);
    Span::current().record("job.outcome", ended.name());
}

/// Where the time of a job went that was drawn, or could not be. A stage that it did not have is not counted.
pub(super) fn stages(metrics: &Metrics, outcome: &Outcome) {
    let timings = outcome.timings;
    let count = |stage, time: Duration| {
        if !time.is_zero() {
            metrics.stage(stage, time);
        }
    };
    count(Stage::Fetch, timings.fetch);
    count(Stage::Load, timings.load);
    let Ok(drawn) = &outcome.result else { return };
    count(Stage::Wait, drawn.wait);
    count(Stage::Text, timings.text);
    count(Stage::Encode, timings.encode);
    count(Stage::Denoise, timings.denoise);
    count(Stage::Decode, timings.decode);
    count(Stage::Png, timings.png);
}

/// How a job ended of whose end its queue is told this.
pub(super) fn ended(done: &Done) -> Ended {
    match &done.error {
        None => Ended::Completed,
        Some(Fault::Input(_)) => Ended::Invalid,
        Some(Fault::Other(_) | Fault::Late(_)) => Ended::Failed,
    }
}
