//! One poll for jobs.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::select;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::super::{NextPoll, QueueInfo, TakeError, Taken};
use super::queue::{BACK_OFF, POLL_TIMEOUT, RunPodSource};
use super::wire;
use crate::net::{Answer, Call, FetchError, Reason};

/// Bytes of an answer: several inputs with pictures in them.
const MAX_TAKE_ANSWER: u64 = 256 << 20;

/// In this header, a gateway of ours hears of [`MAX_TAKE_ANSWER`]; for other queues it means nothing.
const MAX_TAKE_ANSWER_HEADER: &str = "x-latentd-take-bytes";

/// In this header, a gateway of latentd says who calls webhooks.
const WEBHOOKS_HEADER: &str = "x-latentd-webhooks";

/// Polls once.
pub(super) async fn take(
    queue: &RunPodSource,
    most: usize,
    busy: bool,
    cancel: &CancellationToken,
) -> Result<Taken, TakeError> {
    let most = most.min(queue.portion.load(Ordering::Relaxed));
    let batch = most > 1 && queue.batch.load(Ordering::Relaxed);
    let url = queue.urls.take(most, batch, busy);
    let url = url.map_err(|cause| TakeError { why: cause.to_string(), next: NextPoll::Stop })?;
    let reads = MAX_TAKE_ANSWER.to_string();
    let headers = [("content-type", "application/json"), (MAX_TAKE_ANSWER_HEADER, &*reads)];
    let call = Call { url: &url, body: None, headers: &headers, time: POLL_TIMEOUT, most: MAX_TAKE_ANSWER };
    let answer = select! {
        // A job that is here already is not lost to a stop that comes in the same moment.
        biased;
        answer = queue.http.call(call) => answer,
        // Breaks the connection off, so that the queue hands nothing out on it.
        () = cancel.cancelled() => return Ok(Taken::default()),
    };
    let result = match answer {
        Ok(answer) => {
            let result = interpret(&answer);
            queue.metrics.take(result.word(answer.status));
            result
        }
        Err(FetchError { reason: Reason::Deadline(_), .. }) => {
            queue.metrics.take("no_answer");
            return Err(nothing(format!("the queue gave no answer within {} s", POLL_TIMEOUT.as_secs())));
        }
        Err(FetchError { reason: Reason::TooLarge(_), .. }) => {
            queue.metrics.take("too_large");
            return Err(too_large(queue, most));
        }
        Err(cause) => {
            queue.metrics.take("unreachable");
            return Err(retry(cause.to_string()));
        }
    };
    match result {
        PollResult::Jobs(taken) => {
            queue.known.store(true, Ordering::Relaxed);
            queue.batched.fetch_or(batch, Ordering::Relaxed);
            if !taken.jobs.is_empty() {
                // Step by step, after one that was too large: what was lost comes again.
                let portion = queue.portion.load(Ordering::Relaxed);
                queue.portion.store(portion.saturating_mul(2), Ordering::Relaxed);
            }
            Ok(taken)
        }
        // From a queue that did hand out batches it is a fault that will pass.
        PollResult::NotThere if batch && !queue.batched.load(Ordering::Relaxed) => {
            queue.batch.store(false, Ordering::Relaxed);
            warn!("the queue hands out no batches: jobs are taken one by one");
            Err(TakeError { why: "no batches".into(), next: NextPoll::Again })
        }
        PollResult::NotThere if !queue.known.load(Ordering::Relaxed) => {
            let why = "the queue answered 404 Not Found: check the endpoint's name in queue or RUNPOD_WEBHOOK_GET_JOB";
            Err(TakeError { why: why.into(), next: NextPoll::Stop })
        }
        PollResult::NotThere => Err(retry("the queue answered 404 Not Found, and knew us before".into())),
        PollResult::Error(error) => Err(error),
    }
}

enum PollResult {
    Jobs(Taken),
    NotThere,
    Error(TakeError),
}

impl PollResult {
    /// What an operator counts it as.
    fn word(&self, status: u16) -> String {
        match (self, status) {
            (Self::Jobs(Taken { jobs, .. }), _) if !jobs.is_empty() => "jobs".into(),
            (Self::Jobs(_), _) => "empty".into(),
            (Self::Error(_), 200) => "unreadable".into(),
            _ => status.to_string(),
        }
    }
}

fn interpret(answer: &Answer) -> PollResult {
    match answer.status {
        200 if answer.content_type != "application/json" || answer.body.is_empty() => {
            PollResult::Error(retry(format!("the queue answered with {:?}, not with JSON", answer.content_type)))
        }
        200 => match wire::jobs(&answer.body) {
            Ok(jobs) => PollResult::Jobs(Taken { jobs, queue: queue_info(answer) }),
            Err(why) => PollResult::Error(retry(why)),
        },
        // 400 is what the hosted platform answers to workers that it is about to put to sleep.
        400 => PollResult::Error(nothing("the queue answered 400 Bad Request".into())),
        201..=299 => PollResult::Jobs(Taken::default()),
        404 => PollResult::NotThere,
        429 => {
            let next = NextPoll::Retry(answer.again.unwrap_or(BACK_OFF));
            PollResult::Error(TakeError { why: "the queue answered 429 Too Many Requests".into(), next })
        }
        status @ (401 | 403) => {
            PollResult::Error(retry(format!("the queue answered {status}: check RUNPOD_AI_API_KEY")))
        }
        status => PollResult::Error(retry(format!("the queue answered {status}"))),
    }
}

/// Of `most` jobs that were asked for. What was handed out is lost to us, and its queue has to find that out.
fn too_large(queue: &RunPodSource, most: usize) -> TakeError {
    let fewer = (most / 2).max(1);
    queue.portion.store(fewer, Ordering::Relaxed);
    retry(format!(
        "the answer for {most} jobs has more than {MAX_TAKE_ANSWER} bytes and is not read: {fewer} are asked for next"
    ))
}

/// A gateway of latentd says in a header whether it (`gateway`) or its workers (`worker`) call webhooks.
fn queue_info(answer: &Answer) -> QueueInfo {
    let caller = answer.headers.get(WEBHOOKS_HEADER);
    QueueInfo { gateway: caller.is_some(), calls_webhooks: caller.is_some_and(|caller| caller == "gateway") }
}

fn nothing(why: String) -> TakeError {
    TakeError { why, next: NextPoll::Nothing }
}

fn retry(why: String) -> TakeError {
    TakeError { why, next: NextPoll::Retry(Duration::ZERO) }
}
