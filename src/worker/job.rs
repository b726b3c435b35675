//! One job in the worker, from its slot to its delivery.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio::{join, select};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::held::Hold;
use super::{Failure, Outcome, Shop, Terms, render, report};
use crate::deliver::{Done, Fault, Parcel, Sink, fitting};
use crate::encode;
use crate::job::{Delivered, Image, JobError, NotAJob, Policy, Timings};

/// For a job that names no time of its own, as queues have it.
const USUAL: Duration = Duration::from_mins(10);

/// For a delivery, however late it is.
const LEAST: Duration = Duration::from_secs(30);

/// Bytes that the hosted platform takes, by how a job was submitted.
const RUN: u64 = 10 << 20;
const RUNSYNC: u64 = 20 << 20;

/// How a job ended.
enum End {
    /// Something is to be delivered; whether images were streamed.
    Told(Box<Done>, bool),
    /// Nobody wants to know.
    Silence(&'static str),
}

/// Works on a job; its slot is free again and it is no longer in hand when this ends.
pub(super) async fn work<K: Sink>(
    shop: Arc<Shop<K>>,
    job: Result<Delivered, NotAJob>,
    hold: Hold,
    slot: Option<OwnedSemaphorePermit>,
) {
    let began = Instant::now();
    let (id, time) = match &job {
        Ok(job) => (job.id.clone(), self::time(job.policy)),
        Err(fault) => (fault.id.clone().unwrap_or_default(), None),
    };
    info!(id, "Started.");
    let end = match job {
        Ok(job) => until_told(&shop, job, &hold, slot.is_none(), began, time).await,
        Err(fault) => End::Told(Box::new(Done::failed(fault.why)), false),
    };
    match end {
        End::Told(mut done, streamed) => {
            done.stop_pod = shop.manners.refresh;
            let usual = if id.starts_with("sync-") { RUNSYNC } else { RUN };
            let body = fitting(&done, shop.manners.max_bytes.unwrap_or(usual));
            let left = time.unwrap_or(USUAL).saturating_sub(began.elapsed()).max(LEAST);
            deliver(&shop, &hold, Parcel { id, body, streamed, time: left }, began).await;
            if shop.manners.refresh {
                shop.enough.cancel();
            }
        }
        End::Silence(why) => info!(id, "{why}"),
    }
}

/// Draws the job, unless something ends that.
async fn until_told<K: Sink>(
    shop: &Arc<Shop<K>>,
    job: Delivered,
    hold: &Hold,
    slotless: bool,
    began: Instant,
    time: Option<Duration>,
) -> End {
    let id = job.id.clone();
    let late = async {
        match time {
            Some(time) => sleep_until(began + time).await,
            None => std::future::pending().await,
        }
    };
    let drawn = async {
        let _slot = if slotless { Arc::clone(&shop.slots).acquire_owned().await.ok() } else { None };
        draw(shop, job).await
    };
    let (outcome, streamed) = select! {
        biased;
        () = hold.stop.cancelled() => return End::Silence("Stopped."),
        () = shop.let_go.cancelled() => return End::Silence("Given back."),
        () = late => {
            let ms = time.unwrap_or_default().as_millis();
            let why = format!("the job took longer than the {ms} ms that its policy gives it");
            return End::Told(Box::new(Done::failed(why)), false);
        }
        drawn = drawn => drawn,
    };
    match outcome.result {
        Err(Failure { error, .. }) if error.code == JobError::engine_lost("").code => {
            error!(id, "{error}");
            shop.lost.cancel();
            shop.enough.cancel();
            End::Silence("Given back.")
        }
        _ => End::Told(Box::new(told(outcome, shop.manners.send_timings)), streamed),
    }
}

/// Draws the job on a task of its own, so that a bug ends no more than that; tells the queue how it comes along.
async fn draw<K: Sink>(shop: &Arc<Shop<K>>, job: Delivered) -> (Outcome, bool) {
    let means = &shop.means;
    let entropy = RandomState::new().hash_one(0) as u16;
    let terms = Terms { offer: (means.offer)(), entropy, log_prompts: means.log_prompts, intake: means.intake.clone() };
    let fleet = Arc::clone(&means.fleet);
    let (mouth, ear) = report::way();
    let id = job.id.clone();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let engine = async move |model: String| {
            let lease = fleet.engine(&model).await?;
            let waited = lease.waited();
            Ok((lease, waited))
        };
        render(&job.id, &job.input, &terms, engine, CancellationToken::new(), |news| mouth.say(news)).await
    });
    let (outcome, streamed) = join!(task.join_next(), report::send_on(&shop.sink, &id, ear));
    let outcome = outcome.and_then(Result::ok).unwrap_or_else(|| {
        let message = "the worker met a bug in itself; its log has more".to_owned();
        let bug = JobError { code: "bug", message, field: None };
        Outcome { result: Err(bug.into()), timings: Timings::default() }
    });
    (outcome, streamed)
}

fn told(outcome: Outcome, send_timings: bool) -> Done {
    let timings = send_timings.then_some(outcome.timings);
    match outcome.result {
        Ok(drawn) => {
            let images = drawn.images.iter();
            let images = images.map(|png| Image { image: encode::base64(&png.file), seed: png.seed }).collect();
            let warnings = if send_timings { drawn.warnings } else { Vec::new() };
            Done { output: Some(images), error: None, timings, warnings, stop_pod: false }
        }
        Err(Failure { error, errors }) => {
            let fault = if errors.is_empty() { Fault::Other(error.message) } else { Fault::Input(errors) };
            Done { error: Some(fault), timings, ..Done::failed("") }
        }
    }
}

async fn deliver<K: Sink>(shop: &Shop<K>, hold: &Hold, parcel: Parcel, began: Instant) {
    let (id, bytes) = (parcel.id.clone(), parcel.body.len());
    let delivered = select! {
        biased;
        delivered = shop.sink.done(parcel) => delivered,
        () = hold.stop.cancelled() => return info!(id, "Stopped, while its end was delivered."),
        () = shop.let_go.cancelled() => return error!(id, bytes, "the end of the job is not delivered: time is over"),
    };
    match delivered {
        Ok(()) => info!(id, bytes, ms = began.elapsed().as_millis() as u64, "Finished."),
        Err(cause) => error!(id, bytes, tries = cause.tries, "the end of the job is not delivered: {cause}"),
    }
}

/// What a job has from its start on; one that was submitted long ago may have less of its `ttl` left, which only its queue knows.
fn time(policy: Policy) -> Option<Duration> {
    [policy.execution_timeout_ms, policy.ttl_ms].into_iter().flatten().min().map(Duration::from_millis)
}
