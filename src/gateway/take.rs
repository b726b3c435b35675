//! Handing out jobs to the workers that poll for them.

use std::mem::{forget, replace};
use std::pin::pin;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::date::UnixTime;
use crate::queue::{Claim, Finish, Members, Record};
use crate::store::{ClaimRequest, ClaimedJob, Store};

use super::memory_budget::{Reservation, UNCOUNTED_BYTES};
use super::reply::{ApiError, RawJson};
use super::worker::{WorkerQuery, nothing, short};
use super::worker_registry::WorkerSignal;
use super::{Endpoint, Gateway};

/// Jobs of one reply, whatever a worker asks for.
const MAX_JOBS_PER_TAKE: usize = 256;

/// Bytes of the payloads in one reply, if there are several. What a worker does not read for its size comes to it again and again.
const MAX_BYTES_PER_TAKE: usize = 32 << 20;

/// In this header, workers of ours say how many bytes of a reply they read.
const TAKE_BYTES: &str = "x-latentd-take-bytes";

/// Bytes of a job beside what its client sent: its id, and how long it has waited.
const JOB_FRAME_BYTES: usize = 64 << 10;

/// What a worker takes at once.
struct TakeLimits {
    /// Jobs.
    jobs: usize,
    /// Bytes of a reply that it reads; the largest number, if it does not say.
    max_reply_bytes: usize,
}

impl TakeLimits {
    /// Limits as a worker says them, where a submission has so many bytes at most. One that reads less than that is refused, as a job fails
    /// that its worker does not read, and others may well read it.
    fn new(jobs: usize, headers: &HeaderMap, largest: usize) -> Result<Self, ApiError> {
        let Some(bytes) = headers.get(TAKE_BYTES) else { return Ok(Self { jobs, max_reply_bytes: usize::MAX }) };
        let least = largest.saturating_add(JOB_FRAME_BYTES);
        let bytes = bytes.to_str().ok().and_then(|bytes| bytes.parse().ok()).filter(|bytes| *bytes >= least);
        let wrong = || ApiError::BadRequest(format!("{TAKE_BYTES} should be a number of bytes, {least} at least"));
        Ok(Self { jobs, max_reply_bytes: bytes.ok_or_else(wrong)? })
    }

    /// Bytes of the payloads in a reply with several: half of what is read, as a reply has more in it. None, if one job is all.
    fn batch_bytes(&self) -> usize {
        if self.jobs > 1 { MAX_BYTES_PER_TAKE.min(self.max_reply_bytes / 2) } else { 0 }
    }
}

/// When it is dropped, the poll that waits longest looks for jobs: whoever was woken for one and waits for memory may leave without it.
struct WakesNext<'a>(&'a Notify);

impl Drop for WakesNext<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

pub(super) async fn take<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    Path((name, worker)): Path<(String, String)>,
    Query(query): Query<WorkerQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let endpoint = gateway.endpoint(&name)?;
    let limits = TakeLimits::new(1, &headers, gateway.largest_job())?;
    let (jobs, held) = gateway.hand_out(endpoint, &worker, &query, &limits).await?;
    Ok(jobs.into_iter().next().map_or_else(nothing, |job| gateway.jobs(job, held)))
}

pub(super) async fn take_batch<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    Path((name, worker)): Path<(String, String)>,
    Query(query): Query<WorkerQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let endpoint = gateway.endpoint(&name)?;
    let most = query.batch_size.as_deref().and_then(|most| most.parse().ok()).unwrap_or(1).clamp(1, MAX_JOBS_PER_TAKE);
    let limits = TakeLimits::new(most, &headers, gateway.largest_job())?;
    let (jobs, held) = gateway.hand_out(endpoint, &worker, &query, &limits).await?;
    Ok(if jobs.is_empty() { nothing() } else { gateway.jobs(format!("[{}]", jobs.join(",")), held) })
}

impl<S: Store> Gateway<S> {
    /// Jobs as a reply, which tells workers of latentd who calls webhooks.
    fn jobs(&self, jobs: String, mut held: Reservation) -> Response {
        held.shrink(jobs.len());
        let mut reply = RawJson(held.attach_to(jobs)).into_response();
        let caller = if self.settings.webhooks.is_some() { "gateway" } else { "worker" };
        reply.headers_mut().insert("x-latentd-webhooks", HeaderValue::from_static(caller));
        reply
    }

    /// Bytes that a submission may have.
    fn largest_job(&self) -> usize {
        self.settings.max_input.0.max(self.settings.max_input.1)
    }

    /// Memory to look for jobs with, and how many bytes they may have: for several as much as a batch may have, if that is free. Most jobs need
    /// none of the budget: a picture's prompt is short.
    fn memory_at_once(&self, limits: &TakeLimits) -> (Reservation, usize) {
        let batch = limits.batch_bytes();
        match self.budgets.takes.reserve(batch).now_or_never() {
            // Of little memory in all it is less than a batch may have.
            Some(Ok(held)) if held.bytes() > 0 => {
                let bytes = held.bytes();
                (held, bytes)
            }
            _ => (Reservation::default(), UNCOUNTED_BYTES),
        }
    }

    /// Memory for a job of so many bytes, or an empty reservation when another job came, which may be next by now; `None`, if neither did before
    /// the poll has been held long enough.
    async fn memory_for_job(
        &self,
        endpoint: &Endpoint,
        bytes: usize,
        until: Instant,
        polls: &Notify,
        passed_on: &mut bool,
    ) -> Option<Reservation> {
        let mut reserved = pin!(self.budgets.takes.reserve(bytes));
        if let Some(held) = reserved.as_mut().now_or_never() {
            return held.ok();
        }
        if !replace(passed_on, true) {
            // Another poll may have memory for it.
            polls.notify_one();
        }
        let leaves = WakesNext(polls);
        tokio::select! {
            biased;
            held = reserved => held.ok(),
            () = polls.notified() => {
                // It stays.
                forget(leaves);
                Some(Reservation::default())
            }
            () = self.closing.cancelled() => None,
            () = sleep_until(until) => {
                if self.no_memory_warnings.passes() {
                    let endpoint = &endpoint.id;
                    warn!(endpoint, bytes, "no memory for a job that a worker polls for, which goes on waiting: workers are slow to read theirs");
                }
                None
            }
        }
    }

    /// What a worker claims now.
    fn claim(&self, endpoint: &Endpoint, worker: &str, query: &WorkerQuery) -> Claim {
        let at = self.now();
        // One that this gateway has not known for long may have sent its heartbeats to another, or to the one before.
        let sends_heartbeats =
            self.registry.sends_heartbeats(&endpoint.id, worker) || self.began.until(at) < self.registry.gone_after;
        Claim { worker: worker.to_owned(), gpu: query.vram_gb.as_deref().map(short), sends_heartbeats, at }
    }

    /// Jobs for a worker as it gets them, as soon as there are any, and the memory that they hold; none when its poll has been held long enough.
    async fn hand_out(
        &self,
        endpoint: &Endpoint,
        worker: &str,
        query: &WorkerQuery,
        limits: &TakeLimits,
    ) -> Result<(Vec<String>, Reservation), ApiError> {
        let none = || Ok((Vec::new(), Reservation::default()));
        let until = Instant::now() + self.settings.poll_hold;
        self.record_signal(&endpoint.id, worker, WorkerSignal::JobPoll).await;
        let (_poll, others) = self.registry.polls_for_jobs(&endpoint.id, worker);
        if others {
            self.mark_shared_id(endpoint, worker).await;
        }
        let idle =
            query.job_in_progress.as_deref() == Some("0") && self.registry.reports_job_count(&endpoint.id, worker);
        let mut doubt = if idle { self.worker_idle(&endpoint.id, worker).await } else { None };
        let waiter = self.notifier.take(&endpoint.id);
        if !self.registry.may_take_jobs(&endpoint.id, worker, self.now()) {
            // Held in full, or it would ask again at once.
            self.woken(std::future::pending(), until).await;
            return none();
        }
        let (mut memory, mut passed_on) = (None, false);
        loop {
            let mut notified = pin!(waiter.notified());
            // In line before it looks: of two jobs that come while two polls look, each finds one.
            notified.as_mut().enable();
            if !self.registry.may_take_jobs(&endpoint.id, worker, self.now()) {
                return none();
            }
            let (held, max_bytes) = memory.take().unwrap_or_else(|| self.memory_at_once(limits));
            let request = ClaimRequest { claim: self.claim(endpoint, worker, query), max_jobs: limits.jobs, max_bytes };
            let (handed, large) = self.store.take(&endpoint.id, request).await?;
            if let Some(bytes) = large {
                // First the memory that it has: who has some and waits for more could wait for another who does.
                drop(held);
                // It leaves the line and joins it again at the end: the poll that is woken next is to be another.
                notified.set(waiter.notified());
                let wait = self.memory_for_job(endpoint, bytes, until, &waiter, &mut passed_on);
                let Some(held) = Box::pin(wait).await else { return none() };
                memory = (held.bytes() > 0).then_some((held, bytes));
                continue;
            }
            if handed.is_empty() {
                drop(held);
                let again = doubt.map(|date| Instant::now() + self.now().until(date)).filter(|again| *again < until);
                if self.woken(notified, again.unwrap_or(until)).await {
                    continue;
                }
                if again.is_none() || self.closing.is_cancelled() {
                    return none();
                }
                doubt = self.worker_idle(&endpoint.id, worker).await;
                continue;
            }
            let jobs = self.readable(endpoint, worker, handed, limits.max_reply_bytes).await?;
            // Behind one that is too large there may be others.
            if !jobs.is_empty() {
                return Ok((jobs, held));
            }
        }
    }

    /// Jobs as a worker gets them. One that it would not read, and that would be handed out in vain again and again, fails.
    async fn readable(
        &self,
        endpoint: &Endpoint,
        worker: &str,
        handed: Vec<ClaimedJob>,
        max_reply_bytes: usize,
    ) -> Result<Vec<String>, ApiError> {
        let (mut jobs, now) = (Vec::with_capacity(handed.len()), self.now());
        let weighs = handed.iter().map(ClaimedJob::bytes).sum();
        let write = move || -> Vec<_> {
            let job = |handed: ClaimedJob| (job_object(&handed, now), handed.record.id);
            handed.into_iter().map(job).collect()
        };

        for (job, id) in self.budgets.takes.work(weighs, write).await {
            let bytes = job.len() + "[]".len();
            if bytes <= max_reply_bytes {
                jobs.push(job);
                continue;
            }
            let why =
                format!("the job is too large: it has {bytes} bytes, and its worker reads {max_reply_bytes} at most");
            warn!(endpoint = endpoint.id, id, "{why}");
            let worker = worker.to_owned();
            let fail = move |record: &mut Record| {
                record.finish(Finish { worker: &worker, error: Some(why.clone()), output: false }, now)
            };
            self.store.change(&endpoint.id, &id, fail, Vec::new(), None).await?;
        }
        Ok(jobs)
    }
}

/// A job as workers get it: what its client sent, and what the queue knows.
fn job_object(job: &ClaimedJob, now: UnixTime) -> String {
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
