//! What a gateway does, in numbers. Names begin with `latentd_` and end with their unit, as Prometheus wants them.
//!
//! Jobs and workers are counted by the store and by gateways together, and are asked for when somebody reads them; requests are counted here.

mod http;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tracing::debug;

use crate::store::{Counts, Store};
use crate::telemetry::exposition;

use super::reply::ApiError;
use super::request_id::{self, X_REQUEST_ID};
use super::worker_registry::WorkerCounts;
use super::{Endpoint, Gateway, browsers};
pub(super) use http::HttpMetrics;

/// Labels of so many names.
type Labels<const N: usize> = [(&'static str, String); N];

/// The route of a request that has none.
const UNMATCHED: &str = "unmatched";

/// Has a request answered, names it and counts it.
pub(super) async fn count<S: Store>(
    gateway: Arc<Gateway<S>>,
    routes: Router,
    request: Request,
) -> Result<Response, Infallible> {
    let (began, method) = (Instant::now(), known(request.method()));
    let id = request_id::of(request.headers());
    let mut reply = browsers::ask(&gateway, routes, request).await?;
    let (time, status) = (began.elapsed(), reply.status());
    let route = reply.extensions().get::<MatchedPath>().map_or(UNMATCHED, MatchedPath::as_str);
    gateway.http.answered(route, method, status, time);
    let (request, ms) = (id.to_str().ok(), time.as_millis() as u64);
    debug!(request, method, route, status = status.as_u16(), ms, "a request was answered");
    reply.headers_mut().insert(X_REQUEST_ID, id);
    Ok(reply)
}

/// An answer that says which route gave it.
pub(super) fn with_route(mut reply: Response, route: MatchedPath) -> Response {
    reply.extensions_mut().insert(route);
    reply
}

/// Has a route answer, and noted with its answer; where nothing else is done with all requests of a route.
pub(super) async fn note_route(route: MatchedPath, request: Request, next: Next) -> Response {
    with_route(next.run(request).await, route)
}

/// A method by name; those that no route has are one, as anybody can make up more.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Prometheus' text format. Any key opens it, where keys are set.
pub(super) async fn metrics<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    request: Request,
) -> Result<Response, ApiError> {
    gateway.keys.allow_any(&request)?;
    let queue = QueueMetrics::default();
    for endpoint in &gateway.settings.endpoints {
        gateway.measure(endpoint, &queue).await?;
    }
    queue.paused.set(gateway.receivers.paused(gateway.now()) as i64);
    let text = exposition::text(&queue.into_registry()) + &exposition::text(&gateway.http.registry());
    Ok(([(CONTENT_TYPE, exposition::CONTENT_TYPE)], text).into_response())
}

/// The queue as it is, for one who asks.
#[derive(Default)]
struct QueueMetrics {
    jobs: Family<Labels<2>, Gauge>,
    oldest: Family<Labels<1>, Gauge<f64, AtomicU64>>,
    ended: Family<Labels<2>, Counter>,
    retried: Family<Labels<1>, Counter>,
    workers: Family<Labels<2>, Gauge>,
    /// Of all endpoints: a receiver is called for any of them.
    paused: Gauge,
}

impl QueueMetrics {
    fn into_registry(self) -> Registry {
        let mut registry = Registry::with_prefix("latentd");
        registry.register("queue_jobs", "Jobs that wait or are in progress", self.jobs);
        registry.register("queue_oldest_seconds", "How long the job waits that is next; 0 if none does", self.oldest);
        registry.register("queue_ended", "Jobs that ended; those that timed out have failed", self.ended);
        registry.register("queue_retried", "Attempts that were given up and made again", self.retried);
        let heard = "Workers that this gateway hears of, itself or from others on its Redis";
        registry.register("queue_workers", heard, self.workers);
        let paused = "Receivers that keep failing, whose webhooks wait";
        registry.register("webhook_receivers_paused", paused, self.paused);
        registry
    }
}

impl<S: Store> Gateway<S> {
    async fn measure(&self, endpoint: &Endpoint, queue: &QueueMetrics) -> Result<(), ApiError> {
        let Counts { in_queue, in_progress, completed, failed, retried } = self.store.counts(&endpoint.id).await?;
        let next = self.store.next_submitted(&endpoint.id).await?;
        let WorkerCounts { initializing, idle, running, unhealthy } = self.workers(endpoint).await?;
        let of = || ("endpoint", endpoint.id.clone());
        let stands = |state: &str| [of(), ("state", state.to_owned())];
        for (state, jobs) in [("IN_QUEUE", in_queue), ("IN_PROGRESS", in_progress)] {
            queue.jobs.get_or_create(&stands(state)).set(jobs as i64);
        }
        for (state, jobs) in [("COMPLETED", completed), ("FAILED", failed)] {
            queue.ended.get_or_create(&stands(state)).inc_by(jobs);
        }
        let workers = [("initializing", initializing), ("idle", idle), ("running", running), ("unhealthy", unhealthy)];
        for (state, workers) in workers {
            queue.workers.get_or_create(&stands(state)).set(workers as i64);
        }
        let oldest = next.map_or(0.0, |submitted| submitted.until(self.now()).as_secs_f64());
        queue.oldest.get_or_create(&[of()]).set(oldest);
        queue.retried.get_or_create(&[of()]).inc_by(retried);
        Ok(())
    }
}
