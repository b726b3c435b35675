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
use crate::deliver::outbox::Outbox;
use crate::deliver::results::Slip;
use crate::deliver::spool::{Kept, Note};
use crate::deliver::webhook::Hook;
use crate::deliver::{Done, Ended, Sink, Webhooks, fitting};
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

/// The end of a job that is to be delivered.
pub(super) struct Told {
    pub(super) id: String,
    /// `None` if it was none.
    pub(super) job: Option<Arc<Delivered>>,
    pub(super) done: Done,
    /// Whether images were streamed.
    pub(super) streamed: bool,
    pub(super) began: Instant,
    /// What it has from then on.
    pub(super) time: Option<Duration>,
    /// Whether its queue is a gateway of our own.
    pub(super) gateway: bool,
}

/// Delivers the end of a job; how it ended. Both letters are written before the first is sent: who dies in between tells everybody after all.
pub(super) async fn finish<K: Sink>(shop: &Shop<K>, hold: &Hold, mut told: Told) -> metrics::Ended {
    told.done.stop_pod = shop.manners.refresh;
    let most = shop.manners.max_bytes.unwrap_or_else(|| usual(&told.id, told.gateway));
    let (done, body) = fitting(told.done, most);
    told.done = done;
    let webhook = webhook(shop, &told).await;
    let time = left(told.time, told.began.elapsed());
    let body = Bytes::from(body);
    let kept = shop.desk.results.keep(&told.id, told.streamed, time, body.clone()).await;
    let wanted = deliver(&shop.desk, hold, kept, body, told.began).await;
    let ended = if wanted == Wanted::No { metrics::Ended::Stopped } else { tally::ended(&told.done) };
    match (wanted, webhook) {
        (Wanted::Yes, Some((outbox, webhook))) => outbox.send(webhook).await,
        (Wanted::No, Some((_, webhook))) => webhook.done().await,
        (Wanted::Later, _) | (_, None) => {}
    }
    if shop.manners.refresh {
        shop.enough.cancel();
    }
    ended
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

/// Writes down the webhook of a job that has one that is ours to call.
async fn webhook<'a, K: Sink>(shop: &'a Shop<K>, told: &Told) -> Option<(&'a Outbox, Kept<Hook>)> {
    let (job, Webhooks { outbox, always, worker }) = (told.job.as_ref()?, shop.webhooks.as_ref()?);
    let to = job.webhook.as_ref().filter(|_| *always || !told.gateway)?;
    let (id, input, took) = (&told.id, &job.input, told.began.elapsed());
    let ended = Ended { id, input, webhook: &to.url, done: &told.done, took, worker };
    Some((outbox, outbox.keep(Hook::new(id, ended.status(), to), ended.json().into()).await))
}

/// Whether somebody wants to know of a job's end.
#[derive(PartialEq)]
enum Wanted {
    Yes,
    No,
    /// The next process sees to it.
    Later,
}

/// Posts a result until it is taken, or never will be.
async fn deliver<K: Sink>(desk: &Desk<K>, hold: &Hold, kept: Kept<Slip>, body: Bytes, began: Instant) -> Wanted {
    let (id, bytes) = (kept.note().job(), body.len());
    let (metrics, asked) = (&desk.watch.metrics, Instant::now());
    let (delivered, wanted) = select! {
        biased;
        delivered = desk.results.post(&kept, body).instrument(traces::deliver(bytes)) => (Some(delivered), Wanted::Yes),
        () = hold.stop.cancelled() => (None, Wanted::No),
        () = desk.let_go.cancelled() => {
            if kept.lasts() {
                warn!(id, bytes, "the end of the job is not delivered yet: the next start goes on with it");
            } else {
                error!(id, bytes, "the end of the job is not delivered, and is on no disk: it is lost");
                metrics.undelivered();
            }
            return Wanted::Later;
        }
    };
    if delivered.is_some() {
        metrics.stage(Stage::Deliver, asked.elapsed());
    }
    match delivered {
        Some(Ok(())) => info!(id, bytes, ms = began.elapsed().as_millis() as u64, "Finished."),
        Some(Err(cause)) => {
            error!(id, bytes, tries = cause.tries, "the end of the job is not delivered: {cause}");
            metrics.undelivered();
        }
        None => info!(id, "Stopped, while its end was delivered."),
    }
    kept.done().await;
    wanted
}

/// Begins to post what an earlier process left, and lists its jobs in heartbeats from now on.
pub(super) fn resend<K: Sink>(desk: &Arc<Desk<K>>, left: Vec<Kept<Slip>>, jobs: &TaskTracker) {
    if !left.is_empty() {
        info!(results = left.len(), "results that an earlier process left are sent again");
    }
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    for kept in left {
        let Some(hold) = desk.held.hold(kept.note().job()) else {
            warn!(id = kept.note().job(), "the job ended twice: one of its results waits for the next start");
            continue;
        };
        let (desk, turns) = (Arc::clone(desk), Arc::clone(&turns));
        jobs.spawn(async move {
            let began = Instant::now();
            let _turn = turns.acquire().await;
            match kept.body().await {
                Ok(body) => {
                    deliver(&desk, &hold, kept, fresh(body), began).await;
                }
                Err(damage) => {
                    error!(id = kept.note().job(), "{damage}");
                    kept.done().await;
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
