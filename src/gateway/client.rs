//! What clients ask.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::try_join_all;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::to_raw_value;
use tokio::sync::futures::OwnedNotified;
use uuid::{NoContext, Timestamp, Uuid};

use crate::date::UnixTime;
use crate::queue::{JobState, Members, Record, SubmissionContext, Transition, parse_submission};
use crate::store::{JobEvent, Store, StoreError};

use super::body::{IncomingBody, WholeBody};
use super::reply::{ApiError, RawJson};
use super::version::Version;
use super::worker_registry::WorkerCounts;
use super::{Endpoint, Gateway, idempotency, long_poll, sse};

/// Milliseconds that a client may wait: at least, at most, and if it does not say.
const SYNC_WAIT: (u64, u64, u64) = (1_000, 300_000, 90_000);

/// Warnings of `/health`, at most.
const MAX_WARNINGS: usize = 10;

/// Jobs that are purged at once.
const PURGE_BATCH: usize = 64;

/// How long `/stream` waits for a chunk, if its client does not say.
const DEFAULT_STREAM_WAIT: u64 = 5_000;

type Reply<T = String> = Result<RawJson<T>, ApiError>;

/// The numbers that a URL may have, in milliseconds.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Times {
    wait: Option<u64>,
    ttl: Option<u64>,
}

type TimesQuery = Result<Query<Times>, QueryRejection>;

fn times(asked: TimesQuery) -> Result<Times, ApiError> {
    let wrong = |_| ApiError::BadRequest("`wait` and `ttl` should be whole numbers of milliseconds".into());
    asked.map(|Query(times)| times).map_err(wrong)
}

impl<S: Store> Gateway<S> {
    /// Queues a job, or finds the one that this submission has queued before. If its client waits for it, returns also what tells of its end,
    /// unless it was there before.
    async fn submit(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        body: WholeBody,
        times: &Times,
        sync: bool,
    ) -> Result<(String, JobState, Option<OwnedNotified>), ApiError> {
        let (now, prefix) = (self.now(), if sync { "sync-" } else { "" });
        let name = idempotency::name(headers, &endpoint.id, prefix, now)?;
        let id = format!("{prefix}{}-l1", name.as_ref().map_or_else(|| in_time(now), |name| name.id));
        let wait = sync.then_some(times.wait.unwrap_or(SYNC_WAIT.2));
        let manner = SubmissionContext {
            id: id.clone(),
            now,
            execution_timeout: endpoint.execution_timeout,
            ttl: times.ttl,
            wait,
        };
        let (handler, size) = (endpoint.handler.clone(), body.bytes.len());
        let read = move || {
            let WholeBody { bytes, held } = body;
            let mut job = parse_submission(&bytes, manner)?;
            handler.check(&job.input)?;
            job.record.idempotency = name.map(|name| name.sent(&bytes));
            Ok::<_, ApiError>((job, held))
        };
        let (mut job, held) = self.budgets.jobs.work(size, read).await?;
        if self.settings.webhooks.is_none() {
            // Workers call it, who are told of it with the job. A hook that is not sent here would be due for ever.
            job.record.webhook = None;
        }
        if let Some(hook) = &mut job.record.webhook {
            hook.client = self.keys.client(headers);
        }
        continue_trace(&mut job.rest, headers);
        let digest = job.record.idempotency.as_ref().map(|sent| sent.digest.clone());
        let end = sync.then(|| self.notifier.end(&endpoint.id, &id).notified_owned());
        let (store, of) = (self.store.clone(), endpoint.id.clone());
        match (self.budgets.keep(held, Box::pin(async move { store.submit(&of, job).await })).await, digest) {
            (Ok(()), _) => Ok((id, JobState::InQueue, end)),
            (Err(StoreError::Duplicate), Some(digest)) => {
                let record = self.again(endpoint, &id, &digest).await?;
                if sync {
                    // Its result is the reply, if it is still kept.
                    self.check_visible(&record)?;
                }
                Ok((id, record.state, None))
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    /// How a job stands that was submitted before, by the same words.
    async fn again(&self, endpoint: &Endpoint, id: &str, digest: &str) -> Result<Record, ApiError> {
        let record = self.store.read(&endpoint.id, id).await?.ok_or_else(|| ApiError::NoJob(id.to_owned()))?;
        match record.idempotency {
            Some(ref sent) if sent.digest == digest => Ok(record),
            _ => Err(ApiError::Conflict("this `Idempotency-Key` was sent with another body before")),
        }
    }

    /// Its workers, as far as this gateway and others on its store hear of them.
    pub(super) async fn workers(&self, endpoint: &Endpoint) -> Result<WorkerCounts, ApiError> {
        let busy = self.store.busy_workers(&endpoint.id, self.registry.ids(&endpoint.id)).await?;
        Ok(self.registry.counts(&endpoint.id, |worker| busy.contains(worker), self.now()))
    }

    /// Removes the jobs that wait, many at once, as a store writes many as fast as one. Returns how many there were; those that were removed by the
    /// time that the gateway closes.
    async fn purge_waiting(self: Arc<Self>, endpoint: String) -> Result<usize, ApiError> {
        let (mut removed, now) = (0, self.now());
        // A worker may have been faster.
        let waiting = move |record: &mut Record| match record.state {
            JobState::InQueue => record.cancel(now),
            _ => Transition::Unchanged,
        };
        for ids in self.store.ids_in_state(&endpoint, JobState::InQueue).await?.chunks(PURGE_BATCH) {
            if self.closing.is_cancelled() {
                break;
            }
            let changes = ids.iter().map(|id| self.store.change(&endpoint, id, waiting, Vec::new(), None));
            let done = try_join_all(changes).await?;
            removed += done.iter().flatten().filter(|(_, transition)| *transition != Transition::Unchanged).count();
        }
        Ok(removed)
    }

    /// Lets a client's wish happen to a job that it can see.
    async fn client_change(
        &self,
        endpoint: &Endpoint,
        id: &str,
        wish: impl JobEvent,
    ) -> Result<(Record, Transition), ApiError> {
        self.visible(endpoint, id).await?;
        let done = self.store.change(&endpoint.id, id, wish, Vec::new(), None).await?;
        done.ok_or_else(|| ApiError::NoJob(id.to_owned()))
    }
}

/// A name that begins with the date: what comes together lies together in a store, so that it is written together.
fn in_time(now: UnixTime) -> Uuid {
    let millis = now.as_millis();
    Uuid::new_v7(Timestamp::from_unix(NoContext, millis / 1000, (millis % 1000) as u32 * 1_000_000))
}

/// A trace that the request is part of goes on with the job, unless that names one: workers of ours continue it.
fn continue_trace(rest: &mut Members, headers: &HeaderMap) {
    for header in ["traceparent", "tracestate"] {
        let value =
            headers.get(header).and_then(|value| value.to_str().ok()).and_then(|value| to_raw_value(value).ok());
        if let Some(value) = value.filter(|_| header == "traceparent" || rest.contains_key("traceparent")) {
            rest.entry(header.to_owned()).or_insert(value);
        }
    }
}

fn stands(record: &Record) -> RawJson {
    RawJson(json!({ "id": record.id, "status": record.state }).to_string())
}

pub(super) async fn run<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    Path(name): Path<String>,
    asked: TimesQuery,
    headers: HeaderMap,
    body: IncomingBody,
) -> Reply {
    let endpoint = gateway.endpoint(&name)?;
    let body = body.whole(&gateway.budgets.jobs, gateway.settings.max_input.0).await?;
    let (id, state, _) = gateway.submit(endpoint, &headers, body, &times(asked)?, false).await?;
    Ok(RawJson(json!({ "id": id, "status": state }).to_string()))
}

/// The head of the reply comes at once, with the job's id in `X-Job-Id`: who gives up waiting can ask for the job later.
pub(super) async fn runsync<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    version: Version,
    Path(name): Path<String>,
    asked: TimesQuery,
    headers: HeaderMap,
    body: IncomingBody,
) -> Result<Response, ApiError> {
    let (endpoint, times) = (gateway.endpoint(&name)?.clone(), times(asked)?);
    let body = body.whole(&gateway.budgets.jobs, gateway.settings.max_input.1).await?;
    let (id, state, end) = gateway.submit(&endpoint, &headers, body, &times, true).await?;
    let head = HeaderValue::from_str(&id).ok();
    let job = id.clone();
    let ended = async move { gateway.status_at_end(&endpoint, &job, long(&times), version, end).await };
    let mut reply = long_poll::reply(ended, id, state);
    reply.headers_mut().extend(head.map(|id| (HeaderName::from_static("x-job-id"), id)));
    Ok(reply)
}

pub(super) async fn status<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    version: Version,
    Path((name, id)): Path<(String, String)>,
) -> Reply<Bytes> {
    let endpoint = gateway.endpoint(&name)?;
    gateway.status_of(endpoint, &id, version).await.map(|seen| RawJson(seen.object()))
}

pub(super) async fn status_sync<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    version: Version,
    Path((name, id)): Path<(String, String)>,
    asked: TimesQuery,
) -> Result<Response, ApiError> {
    let (endpoint, wait) = (gateway.endpoint(&name)?.clone(), long(&times(asked)?));
    let (waits, at, job) = (gateway.clone(), endpoint.clone(), id.clone());
    let ended = async move { waits.status_at_end(&at, &job, wait, version, None).await };
    gateway.long_poll(endpoint, id, ended).await
}

pub(super) async fn stream<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    version: Version,
    Path((name, id)): Path<(String, String)>,
    asked: TimesQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let endpoint = gateway.endpoint(&name)?;
    if sse::asked(&headers) {
        gateway.visible(endpoint, &id).await?;
        return Ok(sse::reply(gateway.clone(), endpoint.clone(), id, version));
    }
    let wait = Duration::from_millis(times(asked)?.wait.unwrap_or(DEFAULT_STREAM_WAIT).min(SYNC_WAIT.1));
    let (waits, at, job) = (gateway.clone(), endpoint.clone(), id.clone());
    let stands = async move {
        let (state, chunks, held) = waits.chunks_of(&at, &job, wait).await?;
        let chunks: Vec<&str> = chunks.iter().filter_map(|chunk| std::str::from_utf8(chunk).ok()).collect();
        Ok(held.attach_to(format!(r#"{{"status":"{state}","stream":[{}]}}"#, chunks.join(","))))
    };
    gateway.clone().long_poll(endpoint.clone(), id, stands).await
}

pub(super) async fn cancel<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    Path((name, id)): Path<(String, String)>,
) -> Reply {
    let (endpoint, now) = (gateway.endpoint(&name)?, gateway.now());
    let (record, _) = gateway.client_change(endpoint, &id, move |record: &mut Record| record.cancel(now)).await?;
    Ok(stands(&record))
}

pub(super) async fn retry<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    Path((name, id)): Path<(String, String)>,
) -> Reply {
    let (endpoint, now) = (gateway.endpoint(&name)?, gateway.now());
    match gateway.client_change(endpoint, &id, move |record: &mut Record| record.retry(now)).await? {
        (record, Transition::Unchanged) => Err(ApiError::BadRequest(format!(
            "only a job that is FAILED or TIMED_OUT can be retried; this one is {}",
            record.state
        ))),
        (record, _) => Ok(stands(&record)),
    }
}

pub(super) async fn purge<S: Store>(State(gateway): State<Arc<Gateway<S>>>, Path(name): Path<String>) -> Reply {
    let endpoint = gateway.endpoint(&name)?.id.clone();
    let removed = gateway.budgets.finish(gateway.clone().purge_waiting(endpoint)).await?;
    Ok(RawJson(json!({ "removed": removed, "status": "completed" }).to_string()))
}

pub(super) async fn health<S: Store>(State(gateway): State<Arc<Gateway<S>>>, Path(name): Path<String>) -> Reply {
    let endpoint = gateway.endpoint(&name)?;
    let counts = gateway.store.counts(&endpoint.id).await?;
    let workers = gateway.workers(endpoint).await?;
    let jobs = json!({
        "completed": counts.completed, "failed": counts.failed, "inProgress": counts.in_progress, "inQueue": counts.in_queue,
        "retried": counts.retried,
    });
    let workers = json!({
        "idle": workers.idle, "initializing": workers.initializing, "ready": workers.idle, "running": workers.running, "throttled": 0,
        "unhealthy": workers.unhealthy,
    });
    let mut health = json!({ "jobs": jobs, "workers": workers });
    let several =
        |id| format!("several workers ask under the id {id:?}: give each a RUNPOD_POD_ID of its own, or none");
    let warnings: Vec<String> =
        gateway.registry.shared_ids(&endpoint.id, gateway.now()).iter().take(MAX_WARNINGS).map(several).collect();
    if !warnings.is_empty() {
        health["warnings"] = warnings.into();
    }
    Ok(RawJson(health.to_string()))
}

fn long(times: &Times) -> Duration {
    Duration::from_millis(times.wait.unwrap_or(SYNC_WAIT.2).clamp(SYNC_WAIT.0, SYNC_WAIT.1))
}
