//! What workers bring and say.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::warn;

use crate::queue::{Finish, JobEnd, Record, Transition, UnreadableResult, WorkerPost, parse_job_done};
use crate::store::{JobEvent, PayloadKind, Store, StoreError};

use super::body::{IncomingBody, WholeBody};
use super::memory_budget::Reservation;
use super::reply::{ApiError, RawJson};
use super::worker_registry::WorkerSignal;
use super::{Endpoint, Gateway};

/// What a worker says in its URL. All of it may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WorkerQuery {
    pub(super) job_in_progress: Option<String>,
    pub(super) batch_size: Option<String>,
    pub(super) vram_gb: Option<String>,
    job_id: Option<String>,
    runpod_version: Option<String>,
    status: Option<String>,
    check: Option<String>,
    reason: Option<String>,
}

pub(super) async fn done<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    Path((name, worker, id)): Path<(String, String, String)>,
    body: IncomingBody,
) -> Result<Response, ApiError> {
    let endpoint = gateway.endpoint(&name)?;
    // A result that cannot be kept is the end of its job all the same, or it would be drawn again and again.
    let ((posted, held), fault) = match gateway.parse_job_done(body).await {
        Ok((Ok(posted), held)) => ((posted, held), None),
        Ok((Err(unreadable), _)) => {
            (failure(unreadable.to_string()), Some(ApiError::BadRequest(unreadable.to_string())))
        }
        Err(ApiError::TooLarge(why)) => {
            (failure(format!("the result is too large: {why}")), Some(ApiError::TooLarge(why)))
        }
        // It did not arrive; it will come again.
        Err(fault) => return Err(fault),
    };
    let known = match posted {
        WorkerPost::Progress(word) => gateway.progress(endpoint, &worker, &id, word, held).await?,
        WorkerPost::End(end) => gateway.finish(endpoint, &worker, &id, end, held).await?,
    };
    match (known, fault) {
        (_, Some(fault)) => Err(fault),
        (false, None) => Err(ApiError::NoJob(id)),
        (true, None) => Ok(StatusCode::OK.into_response()),
    }
}

pub(super) async fn stream<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    Path((name, worker, id)): Path<(String, String, String)>,
    body: IncomingBody,
) -> Result<Response, ApiError> {
    let endpoint = gateway.endpoint(&name)?;
    let (Ok(WorkerPost::End(JobEnd { output, .. })), held) = gateway.parse_job_done(body).await? else {
        return Err(ApiError::BadRequest("a part of a stream should be an object with an `output`".into()));
    };
    let output = output.as_deref().unwrap_or(RawValue::NULL);
    let chunk = Bytes::from(format!(r#"{{"output":{output}}}"#));
    let part = move |record: &mut Record| record.part(&worker);
    match gateway.change(endpoint, &id, part, Vec::new(), Some(chunk), held).await? {
        Some(_) => Ok(StatusCode::OK.into_response()),
        None => Err(ApiError::NoJob(id)),
    }
}

pub(super) async fn stops<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    Path((name, worker)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let endpoint = gateway.endpoint(&name)?;
    let until = Instant::now() + gateway.settings.poll_hold;
    let waiter = gateway.notifier.stop(&endpoint.id, &worker);
    loop {
        let notified = waiter.notified();
        gateway.record_signal(&endpoint.id, &worker, WorkerSignal::StopPoll).await;
        let stops = gateway.store.take_stops(&endpoint.id, &worker).await?;
        if !stops.is_empty() {
            return Ok(RawJson(json!({ "jobsToStop": stops }).to_string()).into_response());
        }
        let woken = gateway.woken(notified, until).await;
        // A worker that is to be restarted ends once its open polls have.
        if !woken || !gateway.registry.may_take_jobs(&endpoint.id, &worker, gateway.now()) {
            return Ok(nothing());
        }
    }
}

pub(super) async fn ping<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    Path((name, worker)): Path<(String, String)>,
    Query(query): Query<WorkerQuery>,
) -> Result<Response, ApiError> {
    let (endpoint, now) = (gateway.endpoint(&name)?, gateway.now());
    if query.status.as_deref() == Some("unhealthy") {
        let why = format!("{}: {}", short(&query.check.unwrap_or_default()), short(&query.reason.unwrap_or_default()));
        warn!(worker, cause = why, "a worker says that it is not fit");
        gateway.record_signal(&endpoint.id, &worker, WorkerSignal::Unfit(&why)).await;
        gateway.abandon_jobs(&endpoint.id, &worker, "its worker is not fit").await;
        return Ok(StatusCode::OK.into_response());
    }
    gateway
        .record_signal(
            &endpoint.id,
            &worker,
            WorkerSignal::Heartbeat(&short(&query.runpod_version.unwrap_or_default())),
        )
        .await;
    let named = query.job_id.unwrap_or_default();
    let several = gateway.registry.has_shared_id(&endpoint.id, &worker, now);
    for id in gateway.store.held_by(&endpoint.id, &worker).await? {
        let (by, rules) = (worker.clone(), gateway.settings.rules.clone());
        let named = named.split(',').any(|name| name == id);
        if several && !named {
            // Another of them has it.
            continue;
        }
        let beat = move |record: &mut Record| record.heartbeat(&by, named, &rules, now);
        let beaten = gateway.store.change(&endpoint.id, &id, beat, Vec::new(), None).await?;
        if named
            && beaten.and_then(|(record, _)| record.attempt).is_some_and(|attempt| attempt.contradicts_idle_report())
        {
            gateway.mark_shared_id(endpoint, &worker).await;
        }
    }
    gateway.remind(endpoint, &worker, &named).await?;
    Ok(StatusCode::OK.into_response())
}

/// Characters of a worker's version, of its GPU's memory, and of why it is not fit: they are kept as long as the worker or its jobs.
const MAX_WORD_CHARS: usize = 255;

/// How long after a job's end a worker may go on naming it: its result, or word of its stop, may be on its way.
const STOP_GRACE: Duration = Duration::from_secs(15);

impl<S: Store> Gateway<S> {
    /// Tells a worker again to stop what has long ended, if it still names it: the first word was lost.
    async fn remind(&self, endpoint: &Endpoint, worker: &str, named: &str) -> Result<(), ApiError> {
        for id in named.split(',').filter(|id| !id.is_empty()) {
            let Some(record) = self.store.read(&endpoint.id, id).await? else { continue };
            if record.ended.is_some_and(|ended| ended + STOP_GRACE <= self.now()) {
                let stop = Transition::Stop(worker.to_owned());
                let again = move |_: &mut Record| stop.clone();
                self.store.change(&endpoint.id, id, again, Vec::new(), None).await?;
            }
        }
        Ok(())
    }

    /// What a worker brings, read, with the memory that it holds.
    async fn parse_job_done(
        &self,
        body: IncomingBody,
    ) -> Result<(Result<WorkerPost, UnreadableResult>, Reservation), ApiError> {
        let budget = &self.budgets.results;
        let WholeBody { bytes, held } = body.whole(budget, self.settings.max_result).await?;
        Ok(budget.work(bytes.len(), move || (parse_job_done(&bytes), held)).await)
    }

    /// Lets an event happen to a job for which its worker has brought something.
    async fn change(
        &self,
        endpoint: &Endpoint,
        id: &str,
        event: impl JobEvent,
        parts: Vec<(PayloadKind, Bytes)>,
        chunk: Option<Bytes>,
        held: Reservation,
    ) -> Result<Option<(Record, Transition)>, StoreError> {
        let (store, endpoint, id) = (self.store.clone(), endpoint.id.clone(), id.to_owned());
        let change = async move { store.change(&endpoint, &id, event, parts, chunk).await };
        self.budgets.keep(held, Box::pin(change)).await
    }

    /// Keeps a word on a job's progress. Returns whether there is such a job.
    async fn progress(
        &self,
        endpoint: &Endpoint,
        worker: &str,
        id: &str,
        word: Box<RawValue>,
        held: Reservation,
    ) -> Result<bool, ApiError> {
        let (now, worker) = (self.now(), worker.to_owned());
        let progress = move |record: &mut Record| record.progress(&worker, now);
        let parts = vec![(PayloadKind::Output, bytes_of(word))];
        Ok(self.change(endpoint, id, progress, parts, None, held).await?.is_some())
    }

    /// Keeps a job's end. Returns whether there is such a job.
    async fn finish(
        &self,
        endpoint: &Endpoint,
        worker: &str,
        id: &str,
        end: JobEnd,
        held: Reservation,
    ) -> Result<bool, ApiError> {
        let JobEnd { output, error, stop, mut more } = end;
        let (now, by, has_output) = (self.now(), worker.to_owned(), output.is_some());
        let mut parts = Vec::new();
        parts.extend(output.map(|output| (PayloadKind::Output, bytes_of(output))));
        for (key, part) in [("timings", PayloadKind::Timings), ("warnings", PayloadKind::Warnings)] {
            parts.extend(more.remove(key).map(|value| (part, bytes_of(value))));
        }
        let finish = move |record: &mut Record| {
            record.finish(Finish { worker: &by, error: error.clone(), output: has_output }, now)
        };
        let known = self.change(endpoint, id, finish, parts, None, held).await?;
        if let Some((record, Transition::Changed | Transition::Stop(_))) = &known {
            self.worker_delivered(&endpoint.id, worker).await;
            tracing::info!(id, worker, status = %record.state, "a job has ended");
        }
        if stop {
            self.ban(&endpoint.id, worker).await;
            self.notifier.nudge(&endpoint.id, worker);
        }
        Ok(known.is_some())
    }
}

/// What is remembered of a word that a worker query.
pub(super) fn short(word: &str) -> String {
    word.chars().take(MAX_WORD_CHARS).collect()
}

fn failure(why: String) -> (WorkerPost, Reservation) {
    (WorkerPost::End(JobEnd { error: Some(why), ..JobEnd::default() }), Reservation::default())
}

pub(super) fn nothing() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

fn bytes_of(value: Box<RawValue>) -> Bytes {
    String::from(Box::<str>::from(value)).into()
}
