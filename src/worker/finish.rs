//! The end of a job: written down, posted to the queue, and told to whom its webhook names.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::select;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info, warn};

use super::held::Hold;
use super::{Desk, Shop, tally};
use crate::deliver::outbox::Deliveries;
use crate::deliver::results::Slip;
use crate::deliver::spool::{Kept, Note};
use crate::deliver::webhook::Hook;
use crate::deliver::{Done, Ended, Fault, Sink, State, Undelivered, Webhooks, fitting};
use crate::job::Delivered;
use crate::telemetry::metrics::{self, Stage};
use crate::telemetry::traces;

/// For a job that names no time of its own, as queues have it.
const USUAL: Duration = Duration::from_mins(10);

/// For a delivery, however late it is.
const LEAST: Duration = Duration::from_secs(30);

/// For a delivery, whatever time the job had: who waits for longer asks again.
const MOST: Duration = Duration::from_hours(24);

/// Bytes that the hosted platform takes, by how a job was submitted; and those that a gateway of our own takes.
const RUN: u64 = 10 << 20;
const RUNSYNC: u64 = 20 << 20;
const GATEWAY: u64 = 64 << 20;

/// Results of an earlier process that are in memory at the same time.
const AT_ONCE: usize = 4;

/// A job whose end is to be told.
pub(super) struct Told<'a> {
    pub(super) id: String,
    /// `None` if it was none.
    pub(super) job: Option<&'a Delivered>,
    /// Whether images were streamed.
    pub(super) streamed: bool,
    pub(super) began: Instant,
    /// What it has from then on.
    pub(super) time: Option<Duration>,
    /// Whether its queue is a gateway of our own.
    pub(super) gateway: bool,
}

impl Told<'_> {
    fn batch(&self) -> Option<&str> {
        self.job?.batch_id.as_deref()
    }
}

/// What the end of a job lies in until everybody has it.
struct Letters<'a> {
    result: Kept<Slip>,
    /// Of an earlier process there may be several.
    webhooks: Vec<Kept<Hook>>,
    began: Instant,
    batch: Option<&'a str>,
    /// How it ended, if that is known.
    state: Option<State>,
}

/// What became of the end of a job.
#[derive(PartialEq)]
enum Fate {
    /// The queue has it, will never take it, or gets it from the next process.
    Told,
    /// The queue had no room for it, and has an error in its place.
    TooLarge,
    /// The queue wanted it no more.
    Stopped,
}

/// Delivers the end of a job; how it ended. Both letters are written before the first is sent: who dies in between tells everybody after all.
pub(super) async fn finish<K: Sink>(shop: &Shop<K>, hold: &Hold, told: Told<'_>, done: Done) -> metrics::Ended {
    let done = Done { stop_pod: shop.manners.refresh, ..done };
    let most = shop.manners.max_bytes.unwrap_or_else(|| usual(&told.id, told.gateway));
    let (done, body) = fitting(done, most);
    let (state, ended) = (Some(done.state()), tally::ended(&done));
    let (time, body) = (left(told.time, told.began.elapsed()), Bytes::from(body));
    let webhooks = webhook(&shop.desk, &told, Some(&done), time).await.into_iter().collect();
    let result = shop.desk.results.keep(&told.id, told.streamed, time, body.clone()).await;
    let letters = Letters { result, webhooks, began: told.began, batch: told.batch(), state };
    let fate = deliver(&shop.desk, hold, letters, body).await;
    if shop.manners.refresh {
        shop.enough.cancel();
    }
    match fate {
        Fate::Told => ended,
        Fate::TooLarge => metrics::Ended::Failed,
        Fate::Stopped => metrics::Ended::Stopped,
    }
}

/// Tells whom a job names that was stopped before it had an end, unless that is that its time was over.
pub(super) async fn stopped<K: Sink>(desk: &Desk<K>, told: Told<'_>, late: Option<Box<Done>>) {
    let webhook = webhook(desk, &told, late.as_deref(), Duration::ZERO).await;
    send(desk, webhook.into_iter().collect()).await;
}

/// How long the end of a job that had `time` is delivered for.
fn left(time: Option<Duration>, elapsed: Duration) -> Duration {
    time.unwrap_or(USUAL).saturating_sub(elapsed).clamp(LEAST, MOST)
}

/// Bytes that a result may have where nobody says how many.
fn usual(id: &str, gateway: bool) -> u64 {
    match gateway {
        true => GATEWAY,
        false if id.starts_with("sync-") => RUNSYNC,
        false => RUN,
    }
}

/// Writes down the webhook of a job that has one that is ours to call, when its queue has its end, within `wait`. `done` is `None` if it was
/// stopped.
async fn webhook<K: Sink>(desk: &Desk<K>, told: &Told<'_>, done: Option<&Done>, wait: Duration) -> Option<Kept<Hook>> {
    let (job, Webhooks { outbox, always, cancelled, worker }) = (told.job?, desk.webhooks.as_ref()?);
    let to = job.webhook.as_ref().filter(|_| *always || !told.gateway)?;
    let (id, input, took) = (&told.id, &job.input, told.began.elapsed());
    let delay = job.delay().unwrap_or_default();
    let ended = Ended { id, input, webhook: &to.url, done, delay, took, worker };
    if ended.state() == State::Cancelled && !cancelled {
        return None;
    }
    Some(outbox.keep(Hook::new(id, ended.state().name(), to), wait, ended.json().into()).await)
}

/// Has webhooks sent whose turn has come.
async fn send<K: Sink>(desk: &Desk<K>, webhooks: Vec<Kept<Hook>>) {
    let Some(Webhooks { outbox, .. }) = &desk.webhooks else { return };
    for webhook in webhooks {
        outbox.send(webhook).await;
    }
}

/// Webhooks that say that the job ended otherwise.
async fn otherwise<K: Sink>(desk: &Desk<K>, told: Vec<Kept<Hook>>, state: State, why: Option<&str>) -> Vec<Kept<Hook>> {
    let Some(Webhooks { outbox, .. }) = &desk.webhooks else { return told };
    let mut webhooks = Vec::new();
    for webhook in told {
        webhooks.extend(outbox.tell_otherwise(webhook, state, why).await);
    }
    webhooks
}

/// Posts a result until it is taken, or never will be; then has its webhooks sent.
async fn deliver<K: Sink>(desk: &Desk<K>, hold: &Hold, mut letters: Letters<'_>, mut body: Bytes) -> Fate {
    let (id, batch, metrics) = (&hold.id, letters.batch, &desk.watch.metrics);
    let (mut fate, asked) = (Fate::Told, Instant::now());
    loop {
        let (bytes, status) = (body.len(), letters.state.map(State::name));
        let post = desk.results.post(&letters.result, body.clone()).instrument(traces::deliver(bytes));
        let delivered = select! {
            biased;
            delivered = post => delivered,
            () = hold.stop.cancelled() => {
                info!(id, batch, "Stopped, while its end was delivered.");
                letters.result.done().await;
                cancelled(desk, letters.webhooks).await;
                return Fate::Stopped;
            }
            () = desk.let_go.cancelled() => {
                let_go(desk, hold, &letters, bytes);
                return fate;
            }
        };
        match delivered {
            // The client learns why it gets nothing.
            Err(Undelivered { too_large: true, .. }) if fate == Fate::Told => {
                warn!(id, batch, bytes, "the result is too large for the queue, which is told so in its place");
                (letters, body) = replaced(desk, letters, &body).await;
                fate = Fate::TooLarge;
                continue;
            }
            Ok(()) => {
                let ms = letters.began.elapsed().as_millis() as u64;
                info!(id, batch, bytes, ms, status, "Finished.");
            }
            Err(cause) => {
                error!(id, batch, bytes, status, tries = cause.tries, "the end of the job is not delivered: {cause}");
                metrics.undelivered();
            }
        }
        metrics.stage(Stage::Deliver, asked.elapsed());
        letters.result.done().await;
        send(desk, letters.webhooks).await;
        return fate;
    }
}

/// Puts an error in the place of a result that the queue has no room for, for everybody who is to be told, and for the next process.
async fn replaced<'a, K: Sink>(desk: &Desk<K>, letters: Letters<'a>, body: &[u8]) -> (Letters<'a>, Bytes) {
    let done = Done::in_place_of(body);
    let (state, body) = (done.state(), Bytes::from(done.json()));
    let why = if let Some(Fault::Other(why)) = &done.error { Some(why.as_str()) } else { None };
    let webhooks = otherwise(desk, letters.webhooks, state, why).await;
    let slip = letters.result.note().clone();
    let result = letters.result.exchange(slip, body.clone()).await;
    (Letters { result, webhooks, state: Some(state), ..letters }, body)
}

/// Tells of a job that its queue stopped when it was done: what was to be said of it is not what its queue makes of it.
async fn cancelled<K: Sink>(desk: &Desk<K>, webhooks: Vec<Kept<Hook>>) {
    if desk.webhooks.as_ref().is_some_and(|webhooks| webhooks.cancelled) {
        send(desk, otherwise(desk, webhooks, State::Cancelled, None).await).await;
    } else {
        for webhook in webhooks {
            webhook.done().await;
        }
    }
}

/// Says what becomes of an end that there is no time for.
fn let_go<K: Sink>(desk: &Desk<K>, hold: &Hold, letters: &Letters<'_>, bytes: usize) {
    let (id, batch) = (&hold.id, letters.batch);
    if letters.result.lasts() {
        warn!(id, batch, bytes, "the end of the job is not delivered yet: the next start goes on with it");
    } else {
        error!(id, batch, bytes, "the end of the job is not delivered, and is on no disk: it is lost");
        desk.watch.metrics.undelivered();
    }
}

/// Begins to post what an earlier process left, and lists its jobs in heartbeats from now on. Webhooks of these jobs wait for it as they
/// would have in that process.
pub(super) fn resend<K: Sink>(
    desk: &Arc<Desk<K>>,
    left: Vec<Kept<Slip>>,
    deliveries: Option<&mut Deliveries>,
    jobs: &TaskTracker,
) {
    if !left.is_empty() {
        info!(results = left.len(), "results that an earlier process left are sent again");
    }
    let waits = |job: &str| left.iter().any(|kept| kept.note().job() == job);
    let mut waiting = deliveries.map(|deliveries| deliveries.hold_back(waits)).unwrap_or_default();
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    for result in left {
        let Some(hold) = desk.held.hold(result.note().job()) else {
            warn!(id = result.note().job(), "the job ended twice: one of its results waits for the next start");
            continue;
        };
        let webhooks = waiting.extract_if(.., |hook| hook.note().job() == hold.id).collect();
        let letters = Letters { result, webhooks, began: Instant::now(), batch: None, state: None };
        let (desk, turns) = (Arc::clone(desk), Arc::clone(&turns));
        jobs.spawn(async move {
            let _turn = turns.acquire().await;
            match letters.result.body().await {
                Ok(body) => {
                    deliver(&desk, &hold, letters, fresh(body)).await;
                }
                Err(damage) => {
                    error!(id = hold.id, "{damage}");
                    letters.result.done().await;
                    send(&desk, letters.webhooks).await;
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

    use super::{left, usual};

    #[test]
    fn a_delivery_has_what_is_left_of_its_job_within_reason() {
        let left =
            |time: Option<u64>, elapsed| left(time.map(Duration::from_secs), Duration::from_secs(elapsed)).as_secs();
        assert_eq!([left(None, 0), left(Some(100), 40), left(Some(100), 90), left(Some(5), 9)], [600, 60, 30, 30]);
        assert_eq!(left(Some(u64::MAX / 1000), 0), 24 * 60 * 60);
    }

    #[test]
    fn queues_take_results_of_their_own_sizes() {
        assert_eq!([usual("a-u1", false), usual("sync-a", false)], [10 << 20, 20 << 20]);
        assert_eq!([usual("a-u1", true), usual("sync-a", true)], [64 << 20; 2]);
    }
}
