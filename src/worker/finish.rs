//! The end of a job: written down, posted to the queue, and told to whom its webhook names.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::select;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info, warn};

use super::in_flight::InFlightGuard;
use super::job_metrics;
use super::state::{Delivery, WorkerState};
use crate::deliver::outbox::WebhookDeliveries;
use crate::deliver::results::ResultHeader;
use crate::deliver::spool::{EntryHeader, SpoolEntry};
use crate::deliver::webhook::WebhookRequest;
use crate::deliver::{FailureReason, FinalState, JobResult, Sink, StatusObject, Undelivered, WorkerWebhooks, fitting};
use crate::job::Delivered;
use crate::source::QueueInfo;
use crate::telemetry::metrics::{self, JobStage};
use crate::telemetry::traces;

/// For a job that names no time of its own, as queues have it.
const DEFAULT_TIME: Duration = Duration::from_mins(10);

/// For a delivery, however late it is.
const MIN_DELIVERY: Duration = Duration::from_secs(30);

/// For a delivery, whatever time the job had: who waits for longer asks again.
const MAX_DELIVERY: Duration = Duration::from_hours(24);

/// Bytes that the hosted platform takes, by how a job was submitted; and those that a gateway of latentd takes.
const RUN_MAX_BYTES: u64 = 10 << 20;
const RUNSYNC_MAX_BYTES: u64 = 20 << 20;
const GATEWAY_MAX_BYTES: u64 = 64 << 20;

/// Results of an earlier process that are in memory at the same time.
const RESEND_CONCURRENCY: usize = 4;

/// A job whose end is to be told.
pub(super) struct FinishedJob<'a> {
    pub(super) id: String,
    /// `None` if it was none.
    pub(super) job: Option<&'a Delivered>,
    /// Whether images were streamed.
    pub(super) streamed: bool,
    pub(super) began: Instant,
    /// What it has from then on.
    pub(super) time: Option<Duration>,
    /// What its queue says of itself.
    pub(super) queue: QueueInfo,
}

impl FinishedJob<'_> {
    fn batch(&self) -> Option<&str> {
        self.job?.batch_id.as_deref()
    }
}

/// What the end of a job lies in until everybody has it.
struct OutgoingResult<'a> {
    result: SpoolEntry<ResultHeader>,
    /// Of an earlier process there may be several.
    webhooks: Vec<SpoolEntry<WebhookRequest>>,
    began: Instant,
    batch: Option<&'a str>,
    /// How it ended, if that is known.
    state: Option<FinalState>,
}

/// What became of the end of a job.
#[derive(PartialEq)]
enum DeliveryOutcome {
    /// The queue has it, will never take it, or gets it from the next process.
    Delivered,
    /// The queue had no room for it, and has an error in its place.
    TooLarge,
    /// The queue wanted it no more.
    Stopped,
}

/// Delivers the end of a job; how it ended. Both entries are written before the first is sent: if the worker dies in between, the next process sends them.
pub(super) async fn finish<K: Sink>(
    worker: &WorkerState<K>,
    guard: &InFlightGuard,
    finished: FinishedJob<'_>,
    done: JobResult,
) -> metrics::JobOutcome {
    let done = JobResult { stop_pod: worker.options.refresh, ..done };
    let most = worker.options.max_bytes.unwrap_or_else(|| usual(&finished.id, finished.queue));
    let (done, body) = fitting(done, most);
    let (state, ended) = (Some(done.state()), job_metrics::ended(&done));
    let (time, body) = (left(finished.time, finished.began.elapsed()), Bytes::from(body));
    let webhooks = webhook(&worker.delivery, &finished, Some(&done), time).await.into_iter().collect();
    let result = worker.delivery.results.keep(&finished.id, finished.streamed, time, body.clone()).await;
    let outgoing = OutgoingResult { result, webhooks, began: finished.began, batch: finished.batch(), state };
    let outcome = deliver(&worker.delivery, guard, outgoing, body).await;
    if worker.options.refresh {
        worker.stop_taking.cancel();
    }
    match outcome {
        DeliveryOutcome::Delivered => ended,
        DeliveryOutcome::TooLarge => metrics::JobOutcome::Failed,
        DeliveryOutcome::Stopped => metrics::JobOutcome::Stopped,
    }
}

/// Tells whom a job names that was stopped before it had an end, unless that is that its time was over.
pub(super) async fn stopped<K: Sink>(delivery: &Delivery<K>, finished: FinishedJob<'_>, late: Option<Box<JobResult>>) {
    let webhook = webhook(delivery, &finished, late.as_deref(), Duration::ZERO).await;
    send(delivery, webhook.into_iter().collect()).await;
}

/// How long the end of a job that had `time` is delivered for.
fn left(time: Option<Duration>, elapsed: Duration) -> Duration {
    time.unwrap_or(DEFAULT_TIME).saturating_sub(elapsed).clamp(MIN_DELIVERY, MAX_DELIVERY)
}

/// Bytes that a result may have where no setting says how many.
fn usual(id: &str, queue: QueueInfo) -> u64 {
    match queue.gateway {
        true => GATEWAY_MAX_BYTES,
        false if id.starts_with("sync-") => RUNSYNC_MAX_BYTES,
        false => RUN_MAX_BYTES,
    }
}

/// Writes down the webhook of a job that has one that is ours to call, when its queue has its end, within `wait`. `done` is `None` if it was
/// stopped.
async fn webhook<K: Sink>(
    delivery: &Delivery<K>,
    finished: &FinishedJob<'_>,
    done: Option<&JobResult>,
    wait: Duration,
) -> Option<SpoolEntry<WebhookRequest>> {
    let (job, WorkerWebhooks { outbox, always, cancelled, worker }) = (finished.job?, delivery.webhooks.as_ref()?);
    let to = job.webhook.as_ref().filter(|_| *always || !finished.queue.calls_webhooks)?;
    let (id, input, took) = (&finished.id, &job.input, finished.began.elapsed());
    let delay = job.delay().unwrap_or_default();
    let ended = StatusObject { id, input, webhook: &to.url, done, delay, took, worker };
    if ended.state() == FinalState::Cancelled && !cancelled {
        return None;
    }
    Some(outbox.keep(WebhookRequest::new(id, ended.state().name(), to), wait, ended.json().into()).await)
}

/// Has webhooks sent whose turn has come.
async fn send<K: Sink>(delivery: &Delivery<K>, webhooks: Vec<SpoolEntry<WebhookRequest>>) {
    let Some(WorkerWebhooks { outbox, .. }) = &delivery.webhooks else { return };
    for webhook in webhooks {
        outbox.send(webhook).await;
    }
}

/// Webhooks that say that the job ended otherwise.
async fn otherwise<K: Sink>(
    delivery: &Delivery<K>,
    finished: Vec<SpoolEntry<WebhookRequest>>,
    state: FinalState,
    why: Option<&str>,
) -> Vec<SpoolEntry<WebhookRequest>> {
    let Some(WorkerWebhooks { outbox, .. }) = &delivery.webhooks else { return finished };
    let mut webhooks = Vec::new();
    for webhook in finished {
        webhooks.extend(outbox.tell_otherwise(webhook, state, why).await);
    }
    webhooks
}

/// Posts a result until it is taken, or never will be; then has its webhooks sent.
async fn deliver<K: Sink>(
    delivery: &Delivery<K>,
    guard: &InFlightGuard,
    mut outgoing: OutgoingResult<'_>,
    mut body: Bytes,
) -> DeliveryOutcome {
    let (id, batch, metrics) = (&guard.id, outgoing.batch, &delivery.telemetry.metrics);
    let (mut outcome, asked) = (DeliveryOutcome::Delivered, Instant::now());
    loop {
        let (bytes, status) = (body.len(), outgoing.state.map(FinalState::name));
        let post = delivery.results.post(&outgoing.result, body.clone()).instrument(traces::deliver(bytes));
        let delivered = select! {
            biased;
            delivered = post => delivered,
            () = guard.stop.cancelled() => {
                info!(id, batch, "Stopped, while its end was delivered.");
                outgoing.result.done().await;
                cancelled(delivery, outgoing.webhooks).await;
                return DeliveryOutcome::Stopped;
            }
            () = delivery.abort.cancelled() => {
                abort(delivery, guard, &outgoing, bytes);
                return outcome;
            }
        };
        match delivered {
            // The client learns why it gets nothing.
            Err(Undelivered { too_large: true, .. }) if outcome == DeliveryOutcome::Delivered => {
                warn!(id, batch, bytes, "the result is too large for the queue, which is told so in its place");
                (outgoing, body) = replaced(delivery, outgoing, &body).await;
                outcome = DeliveryOutcome::TooLarge;
                continue;
            }
            Ok(()) => {
                let ms = outgoing.began.elapsed().as_millis() as u64;
                info!(id, batch, bytes, ms, status, "Finished.");
            }
            Err(cause) => {
                error!(id, batch, bytes, status, attempt = cause.tries, "the end of the job is not delivered: {cause}");
                metrics.undelivered();
            }
        }
        metrics.stage(JobStage::Deliver, asked.elapsed());
        outgoing.result.done().await;
        send(delivery, outgoing.webhooks).await;
        return outcome;
    }
}

/// Puts an error in the place of a result that the queue has no room for, for everybody who is to be told, and for the next process.
async fn replaced<'a, K: Sink>(
    delivery: &Delivery<K>,
    outgoing: OutgoingResult<'a>,
    body: &[u8],
) -> (OutgoingResult<'a>, Bytes) {
    let done = JobResult::in_place_of(body);
    let (state, body) = (done.state(), Bytes::from(done.json()));
    let why = if let Some(FailureReason::Other(why)) = &done.error { Some(why.as_str()) } else { None };
    let webhooks = otherwise(delivery, outgoing.webhooks, state, why).await;
    let header = outgoing.result.header().clone();
    let result = outgoing.result.exchange(header, body.clone()).await;
    (OutgoingResult { result, webhooks, state: Some(state), ..outgoing }, body)
}

/// Tells of a job that its queue stopped when it was done: what was to be said of it is not what its queue makes of it.
async fn cancelled<K: Sink>(delivery: &Delivery<K>, webhooks: Vec<SpoolEntry<WebhookRequest>>) {
    if delivery.webhooks.as_ref().is_some_and(|webhooks| webhooks.cancelled) {
        send(delivery, otherwise(delivery, webhooks, FinalState::Cancelled, None).await).await;
    } else {
        for webhook in webhooks {
            webhook.done().await;
        }
    }
}

/// Says what becomes of an end that there is no time for.
fn abort<K: Sink>(delivery: &Delivery<K>, guard: &InFlightGuard, outgoing: &OutgoingResult<'_>, bytes: usize) {
    let (id, batch) = (&guard.id, outgoing.batch);
    if outgoing.result.lasts() {
        warn!(id, batch, bytes, "the end of the job is not delivered yet: the next start goes on with it");
    } else {
        error!(id, batch, bytes, "the end of the job is not delivered, and is on no disk: it is lost");
        delivery.telemetry.metrics.undelivered();
    }
}

/// Begins to post what an earlier process left, and lists its jobs in heartbeats from now on. Webhooks of these jobs wait for it as they
/// would have in that process.
pub(super) fn resend<K: Sink>(
    delivery: &Arc<Delivery<K>>,
    left: Vec<SpoolEntry<ResultHeader>>,
    deliveries: Option<&mut WebhookDeliveries>,
    jobs: &TaskTracker,
) {
    if !left.is_empty() {
        info!(results = left.len(), "results that an earlier process left are sent again");
    }
    let waits = |job: &str| left.iter().any(|entry| entry.header().job() == job);
    let mut waiting = deliveries.map(|deliveries| deliveries.hold_back(waits)).unwrap_or_default();
    let turns = Arc::new(Semaphore::new(RESEND_CONCURRENCY));
    for result in left {
        let Some(guard) = delivery.in_flight.guard(result.header().job()) else {
            warn!(id = result.header().job(), "the job ended twice: one of its results waits for the next start");
            continue;
        };
        let webhooks = waiting.extract_if(.., |webhook| webhook.header().job() == guard.id).collect();
        let outgoing = OutgoingResult { result, webhooks, began: Instant::now(), batch: None, state: None };
        let (delivery, turns) = (Arc::clone(delivery), Arc::clone(&turns));
        jobs.spawn(async move {
            let _turn = turns.acquire().await;
            match outgoing.result.body().await {
                Ok(body) => {
                    deliver(&delivery, &guard, outgoing, fresh(body)).await;
                }
                Err(damage) => {
                    error!(id = guard.id, "{damage}");
                    outgoing.result.done().await;
                    send(&delivery, outgoing.webhooks).await;
                }
            }
        });
    }
}

/// The body without the wish to be replaced, which is the last of its keys: the process that had it is gone, and its successor, who
/// sends the body, would be given no job.
fn fresh(body: Bytes) -> Bytes {
    match body.strip_suffix(br#","stopPod":true}"#) {
        Some(rest) => [rest, b"}"].concat().into(),
        None => body,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{QueueInfo, left, usual};

    #[test]
    fn a_delivery_has_what_is_left_of_its_job_within_reason() {
        let left =
            |time: Option<u64>, elapsed| left(time.map(Duration::from_secs), Duration::from_secs(elapsed)).as_secs();
        assert_eq!([left(None, 0), left(Some(100), 40), left(Some(100), 90), left(Some(5), 9)], [600, 60, 30, 30]);
        assert_eq!(left(Some(u64::MAX / 1000), 0), 24 * 60 * 60);
    }

    #[test]
    fn queues_take_results_of_their_own_sizes() {
        let (platform, gateway) = (QueueInfo::default(), QueueInfo { gateway: true, calls_webhooks: false });
        assert_eq!([usual("a-u1", platform), usual("sync-a", platform)], [10 << 20, 20 << 20]);
        assert_eq!([usual("a-u1", gateway), usual("sync-a", gateway)], [64 << 20; 2]);
    }
}
