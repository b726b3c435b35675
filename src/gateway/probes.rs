//! What whoever watches a gateway asks: whether it lives, whether it can serve, and its numbers.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use crate::store::{Counts, Store};

use super::reply::{ApiError, RawJson};
use super::worker_registry::WorkerCounts;
use super::{Endpoint, Gateway};

/// For the store to answer.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// The process lives, and hears.
pub(super) async fn alive() -> RawJson {
    RawJson(r#"{"status":"ok"}"#.into())
}

/// It is not about to close, and its store does what it is asked; a Redis, that it takes writes.
pub(super) async fn ready<S: Store>(State(gateway): State<Arc<Gateway<S>>>) -> Response {
    let not = |why: &str| {
        let body = serde_json::json!({ "status": "not ready", "why": why });
        (StatusCode::SERVICE_UNAVAILABLE, RawJson(body.to_string())).into_response()
    };
    if gateway.closing.is_cancelled() {
        return not("it is draining");
    }
    match timeout(READY_TIMEOUT, gateway.store.ready()).await {
        Ok(Ok(())) => alive().await.into_response(),
        Ok(Err(error)) => not(&error.to_string()),
        Err(_) => not("the store does not answer"),
    }
}

/// Prometheus' text format. Any key opens it, where keys are set.
pub(super) async fn metrics<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    request: Request,
) -> Result<Response, ApiError> {
    gateway.keys.allow_any(&request)?;
    let mut seen = Vec::new();
    for endpoint in &gateway.settings.endpoints {
        seen.push(gateway.numbers(endpoint).await?);
    }
    let paused = gateway.receivers.paused(gateway.now());
    let text = text(&seen) + &format!("{PAUSED_HEAD} {paused}\n");
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// Of all endpoints: a receiver is called for any of them.
const PAUSED_HEAD: &str = "# HELP latentd_webhook_receivers_paused Receivers that keep failing, whose webhooks wait.\n\
    # TYPE latentd_webhook_receivers_paused gauge\nlatentd_webhook_receivers_paused";

/// An endpoint in numbers.
struct Numbers<'a> {
    endpoint: &'a str,
    jobs: Counts,
    workers: WorkerCounts,
    /// Seconds that the job waits that is next.
    oldest: f64,
}

impl<S: Store> Gateway<S> {
    async fn numbers<'a>(&self, endpoint: &'a Endpoint) -> Result<Numbers<'a>, ApiError> {
        let jobs = self.store.counts(&endpoint.id).await?;
        let next = self.store.next_submitted(&endpoint.id).await?;
        let oldest = next.map_or(0.0, |submitted| submitted.until(self.now()).as_secs_f64());
        let workers = self.workers(endpoint).await?;
        Ok(Numbers { endpoint: &endpoint.id, jobs, workers, oldest })
    }
}

/// Endpoints' names need no escapes: they are letters, digits and a few signs.
fn text(seen: &[Numbers<'_>]) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: &dyn Fn(&Numbers<'_>) -> Vec<(String, f64)>| {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for numbers in seen {
            for (labels, value) in samples(numbers) {
                let _ = writeln!(text, "{name}{{endpoint=\"{}\"{labels}}} {value}", numbers.endpoint);
            }
        }
    };
    let by = |label: &str, values: &[(&str, u64)]| -> Vec<(String, f64)> {
        values.iter().map(|(value, count)| (format!(",{label}=\"{value}\""), *count as f64)).collect()
    };
    family("latentd_queue_jobs", "gauge", "Jobs that wait or are in progress.", &|of| {
        by("state", &[("IN_QUEUE", of.jobs.in_queue), ("IN_PROGRESS", of.jobs.in_progress)])
    });
    family("latentd_queue_oldest_seconds", "gauge", "How long the job waits that is next; 0 if none does.", &|of| {
        vec![(String::new(), of.oldest)]
    });
    family("latentd_queue_ended_total", "counter", "Jobs that ended; those that timed out have failed.", &|of| {
        by("state", &[("COMPLETED", of.jobs.completed), ("FAILED", of.jobs.failed)])
    });
    family("latentd_queue_retried_total", "counter", "Attempts that were given up and made anew.", &|of| {
        vec![(String::new(), of.jobs.retried as f64)]
    });
    family(
        "latentd_queue_workers",
        "gauge",
        "Workers that this gateway hears of, itself or from others on its Redis.",
        &|of| {
            let WorkerCounts { initializing, idle, running, unhealthy } = of.workers;
            let classes =
                [("initializing", initializing), ("idle", idle), ("running", running), ("unhealthy", unhealthy)];
            by("state", &classes)
        },
    );
    text
}
