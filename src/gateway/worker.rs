//! What workers ask and bring (PROTOCOL 1.5 to 1.14).

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::Instant;
use tracing::warn;

use crate::queue::{End, Finish, Members, Posted, Record, Taking, Turn, posted};
use crate::store::{Handed, Part, Store, Taker};

use super::client::whole;
use super::fleet::{GONE, Sign};
use super::reply::{Fault, Json};
use super::{Endpoint, Gateway};

/// Jobs of one reply, whatever a worker asks for.
const BATCH: usize = 256;

type Seat<S> = State<Arc<Gateway<S>>>;
type Body = Result<Bytes, BytesRejection>;

/// What a worker says in its URL. All of it may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Says {
    job_in_progress: Option<String>,
    batch_size: Option<String>,
    vram_gb: Option<String>,
    job_id: Option<String>,
    runpod_version: Option<String>,
    status: Option<String>,
    check: Option<String>,
    reason: Option<String>,
}

pub(super) async fn take<S: Store>(
    State(gateway): Seat<S>,
    Path((name, worker)): Path<(String, String)>,
    Query(says): Query<Says>,
) -> Result<Response, Fault> {
    let endpoint = gateway.endpoint(&name)?;
    let handed = gateway.hand_out(endpoint, &worker, &says, 1).await?;
    Ok(handed.first().map_or_else(nothing, |job| gateway.jobs(job_object(job, gateway.now()))))
}

pub(super) async fn take_batch<S: Store>(
    State(gateway): Seat<S>,
    Path((name, worker)): Path<(String, String)>,
    Query(says): Query<Says>,
) -> Result<Response, Fault> {
    let endpoint = gateway.endpoint(&name)?;
    let most = says.batch_size.as_deref().and_then(|most| most.parse().ok()).unwrap_or(1).clamp(1, BATCH);
    let handed = gateway.hand_out(endpoint, &worker, &says, most).await?;
    if handed.is_empty() {
        return Ok(nothing());
    }
    let jobs: Vec<String> = handed.iter().map(|job| job_object(job, gateway.now())).collect();
    Ok(gateway.jobs(format!("[{}]", jobs.join(","))))
}

pub(super) async fn done<S: Store>(
    State(gateway): Seat<S>,
    Path((name, worker, id)): Path<(String, String, String)>,
    body: Body,
) -> Result<Response, Fault> {
    let endpoint = gateway.endpoint(&name)?;
    // A result that cannot be kept is the end of its job all the same, or it would be drawn again and again.
    let (posted, fault) = match whole(body, gateway.settings.most_result).map(|body| posted(&body)) {
        Ok(Ok(posted)) => (posted, None),
        Ok(Err(unreadable)) => (failure(unreadable.to_string()), Some(Fault::Bad(unreadable.to_string()))),
        Err(Fault::TooLarge(why)) => (failure(format!("the result is too large: {why}")), Some(Fault::TooLarge(why))),
        // It did not arrive; it will come again.
        Err(fault) => return Err(fault),
    };
    let known = match posted {
        Posted::Progress(word) => gateway.progress(endpoint, &worker, &id, &word).await?,
        Posted::End(end) => gateway.finish(endpoint, &worker, &id, end).await?,
    };
    match (known, fault) {
        (_, Some(fault)) => Err(fault),
        (false, None) => Err(Fault::NoJob(id)),
        (true, None) => Ok(StatusCode::OK.into_response()),
    }
}

pub(super) async fn stream<S: Store>(
    State(gateway): Seat<S>,
    Path((name, worker, id)): Path<(String, String, String)>,
    body: Body,
) -> Result<Response, Fault> {
    let endpoint = gateway.endpoint(&name)?;
    let body = whole(body, gateway.settings.most_result)?;
    let Ok(Posted::End(End { output, .. })) = posted(&body) else {
        return Err(Fault::Bad("a part of a stream should be an object with an `output`".into()));
    };
    let output = output.as_deref().unwrap_or(RawValue::NULL);
    let chunk = Bytes::from(format!(r#"{{"output":{output}}}"#));
    let part = move |record: &mut Record| record.part(&worker);
    match gateway.store.change(&endpoint.id, &id, part, Vec::new(), Some(chunk)).await? {
        Some(_) => Ok(StatusCode::OK.into_response()),
        None => Err(Fault::NoJob(id)),
    }
}

pub(super) async fn stops<S: Store>(
    State(gateway): Seat<S>,
    Path((name, worker)): Path<(String, String)>,
) -> Result<Response, Fault> {
    let endpoint = gateway.endpoint(&name)?;
    let until = Instant::now() + gateway.settings.hold;
    let bell = gateway.hub.stop(&endpoint.id, &worker);
    loop {
        let rings = bell.notified();
        gateway.sign(&endpoint.id, &worker, Sign::Listens).await;
        let stops = gateway.store.stops(&endpoint.id, &worker).await?;
        if !stops.is_empty() {
            return Ok(Json(json!({ "jobsToStop": stops }).to_string()).into_response());
        }
        let rang = gateway.rang(rings, until).await;
        // Who is to be started anew ends once its open polls have.
        if !rang || !gateway.fleet.may_have(&endpoint.id, &worker, gateway.now()) {
            return Ok(nothing());
        }
    }
}

pub(super) async fn ping<S: Store>(
    State(gateway): Seat<S>,
    Path((name, worker)): Path<(String, String)>,
    Query(says): Query<Says>,
) -> Result<Response, Fault> {
    let (endpoint, now) = (gateway.endpoint(&name)?, gateway.now());
    if says.status.as_deref() == Some("unhealthy") {
        let why = format!("{}: {}", says.check.unwrap_or_default(), says.reason.unwrap_or_default());
        warn!(worker, why, "a worker says that it is not fit");
        gateway.sign(&endpoint.id, &worker, Sign::Unfit(&why)).await;
        gateway.forsake(endpoint.id.clone(), worker, "its worker is not fit").await;
        return Ok(StatusCode::OK.into_response());
    }
    gateway.sign(&endpoint.id, &worker, Sign::Beats(&says.runpod_version.unwrap_or_default())).await;
    let named = says.job_id.unwrap_or_default();
    let several = gateway.fleet.is_several(&endpoint.id, &worker);
    for id in gateway.store.held(&endpoint.id, &worker).await? {
        let (worker, rules) = (worker.clone(), gateway.settings.rules.clone());
        let named = named.split(',').any(|name| name == id);
        if several && !named {
            // Another of them has it.
            continue;
        }
        let beat = move |record: &mut Record| record.beat(&worker, named, &rules, now);
        gateway.store.change(&endpoint.id, &id, beat, Vec::new(), None).await?;
    }
    gateway.remind(endpoint, &worker, &named).await?;
    Ok(StatusCode::OK.into_response())
}

/// How long after a job's end a worker may go on naming it: its result, or word of its stop, may be on its way.
const SETTLED: Duration = Duration::from_secs(15);

impl<S: Store> Gateway<S> {
    /// Jobs as a reply, which tells workers of ours whether their webhooks are called for them.
    fn jobs(&self, jobs: String) -> Response {
        let mut reply = Json(jobs).into_response();
        if self.settings.hooks.is_some() {
            reply.headers_mut().insert("x-latentd-webhooks", HeaderValue::from_static("gateway"));
        }
        reply
    }

    /// Jobs for a worker, as soon as there are any; none when its poll has been held long enough.
    async fn hand_out(
        &self,
        endpoint: &Endpoint,
        worker: &str,
        says: &Says,
        most: usize,
    ) -> Result<Vec<Handed>, Fault> {
        let until = Instant::now() + self.settings.hold;
        self.sign(&endpoint.id, worker, Sign::Asks).await;
        let (_poll, several) = self.fleet.polls_for_jobs(&endpoint.id, worker);
        if several {
            warn!(
                endpoint = endpoint.id,
                worker, "several workers ask under one id: give each a RUNPOD_POD_ID of its own, or none"
            );
            self.show_worker(&endpoint.id, worker, true).await;
        }
        // Of several it is another that has something in hand.
        let alone = !self.fleet.is_several(&endpoint.id, worker);
        if alone && says.job_in_progress.as_deref() == Some("0") && self.fleet.counts(&endpoint.id, worker) {
            self.forsake(endpoint.id.clone(), worker.to_owned(), "its worker says that it has nothing in hand").await;
        }
        let bell = self.hub.take(&endpoint.id);
        if !self.fleet.may_have(&endpoint.id, worker, self.now()) {
            // Held in full, or it would ask again at once.
            self.rang(std::future::pending(), until).await;
            return Ok(Vec::new());
        }
        loop {
            let mut rings = pin!(bell.notified());
            // In line before it looks: of two jobs that come while two polls look, each finds one.
            rings.as_mut().enable();
            if !self.fleet.may_have(&endpoint.id, worker, self.now()) {
                return Ok(Vec::new());
            }
            let now = self.now();
            // One that this gateway has not known for long may have sent its heartbeats to another, or to the one before.
            let beats = self.fleet.beats(&endpoint.id, worker) || self.began.until(now) < GONE;
            let taking = Taking { worker: worker.to_owned(), gpu: says.vram_gb.clone(), beats, at: now };
            let handed = self.store.take(&endpoint.id, Taker { taking, most }).await?;
            if !handed.is_empty() || !self.rang(rings, until).await {
                return Ok(handed);
            }
        }
    }

    /// Tells a worker again to stop what has long ended, if it still names it: the first word was lost.
    async fn remind(&self, endpoint: &Endpoint, worker: &str, named: &str) -> Result<(), Fault> {
        for id in named.split(',').filter(|id| !id.is_empty()) {
            let Some(record) = self.store.read(&endpoint.id, id).await? else { continue };
            if record.ended.is_some_and(|ended| ended + SETTLED <= self.now()) {
                let stop = Turn::Stop(worker.to_owned());
                let again = move |_: &mut Record| stop.clone();
                self.store.change(&endpoint.id, id, again, Vec::new(), None).await?;
            }
        }
        Ok(())
    }

    /// Keeps a word on a job's progress. Returns whether there is such a job.
    async fn progress(&self, endpoint: &Endpoint, worker: &str, id: &str, word: &RawValue) -> Result<bool, Fault> {
        let (now, worker) = (self.now(), worker.to_owned());
        let progress = move |record: &mut Record| record.progress(&worker, now);
        let parts = vec![(Part::Output, bytes_of(word))];
        Ok(self.store.change(&endpoint.id, id, progress, parts, None).await?.is_some())
    }

    /// Keeps a job's end. Returns whether there is such a job.
    async fn finish(&self, endpoint: &Endpoint, worker: &str, id: &str, end: End) -> Result<bool, Fault> {
        let End { output, error, stop, more } = end;
        let mut parts = Vec::new();
        parts.extend(output.as_deref().map(|output| (Part::Output, bytes_of(output))));
        for (key, part) in [("timings", Part::Timings), ("warnings", Part::Warnings)] {
            parts.extend(more.get(key).map(|value| (part, bytes_of(value))));
        }
        let (now, by, output) = (self.now(), worker.to_owned(), output.is_some());
        let finish =
            move |record: &mut Record| record.finish(Finish { worker: &by, error: error.clone(), output }, now);
        let known = self.store.change(&endpoint.id, id, finish, parts, None).await?;
        if let Some((record, Turn::Changed | Turn::Stop(_))) = &known {
            self.brought(&endpoint.id, worker).await;
            tracing::info!(id, worker, status = %record.state, "a job has ended");
        }
        if stop {
            self.ban(&endpoint.id, worker).await;
            self.hub.nudge(&endpoint.id, worker);
        }
        Ok(known.is_some())
    }
}

fn failure(why: String) -> Posted {
    Posted::End(End { error: Some(why), ..End::default() })
}

fn nothing() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

fn bytes_of(value: &RawValue) -> Bytes {
    Bytes::copy_from_slice(value.get().as_bytes())
}

/// A job as workers get it: what its client sent, and what the queue knows.
fn job_object(job: &Handed, now: crate::date::UnixTime) -> String {
    let mut members: Members = serde_json::from_slice(&job.rest).unwrap_or_default();
    let mut set = |key: &str, value: Option<Box<RawValue>>| {
        members.insert(key.to_owned(), value.unwrap_or_else(|| RawValue::NULL.to_owned()));
    };
    set("id", to_raw_value(&job.record.id).ok());
    set("input", serde_json::from_slice(&job.input).ok());
    // How long it has waited: workers count its ttl from its submission.
    set("delayTime", to_raw_value(&(job.record.submitted.until(now).as_millis() as u64)).ok());
    members.entry("webhook".to_owned()).or_insert_with(|| RawValue::NULL.to_owned());
    serde_json::to_string(&members).unwrap_or_default()
}
