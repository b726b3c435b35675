//! One poll for jobs.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::select;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::super::{TakeError, Taken, Verdict};
use super::{POLL, RunPod, TOO_MANY, wire};
use crate::net::{Answer, Call, FetchError, Reason};

/// Bytes of an answer: several inputs with pictures in them.
const MOST: u64 = 256 << 20;

/// In this header, a gateway of ours hears of [`MOST`]; for other queues it means nothing.
const READS: &str = "x-latentd-take-bytes";

/// Polls once.
pub(super) async fn take(
    queue: &RunPod,
    most: usize,
    busy: bool,
    enough: &CancellationToken,
) -> Result<Taken, TakeError> {
    let most = most.min(queue.portion.load(Ordering::Relaxed));
    let batch = most > 1 && queue.batch.load(Ordering::Relaxed);
    let url = queue.urls.take(most, batch, busy);
    let url = url.map_err(|cause| TakeError { why: cause.to_string(), verdict: Verdict::Stop })?;
    let reads = MOST.to_string();
    let headers = [("content-type", "application/json"), (READS, &*reads)];
    let call = Call { url: &url, body: None, headers: &headers, time: POLL, most: MOST };
    let answer = select! {
        // A job that is here already is not lost to a stop that comes in the same moment.
        biased;
        answer = queue.http.call(call) => answer,
        // Breaks the connection off, so that the queue hands nothing out on it.
        () = enough.cancelled() => return Ok(Taken::default()),
    };
    let meaning = match answer {
        Ok(answer) => {
            let meaning = understood(&answer);
            queue.metrics.take(meaning.word(answer.status));
            meaning
        }
        Err(FetchError { reason: Reason::Deadline(_), .. }) => {
            queue.metrics.take("no_answer");
            return Err(nothing(format!("the queue gave no answer within {} s", POLL.as_secs())));
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
    match meaning {
        Meaning::Jobs(taken) => {
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
        Meaning::NotThere if batch && !queue.batched.load(Ordering::Relaxed) => {
            queue.batch.store(false, Ordering::Relaxed);
            warn!("the queue hands out no batches: jobs are taken one by one");
            Err(TakeError { why: "no batches".into(), verdict: Verdict::Again })
        }
        Meaning::NotThere if !queue.known.load(Ordering::Relaxed) => {
            let why = "the queue answered 404 Not Found: check the endpoint's name in queue or RUNPOD_WEBHOOK_GET_JOB";
            Err(TakeError { why: why.into(), verdict: Verdict::Stop })
        }
        Meaning::NotThere => Err(retry("the queue answered 404 Not Found, and knew us before".into())),
        Meaning::Error(error) => Err(error),
    }
}

enum Meaning {
    Jobs(Taken),
    NotThere,
    Error(TakeError),
}

impl Meaning {
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

fn understood(answer: &Answer) -> Meaning {
    match answer.status {
        200 if answer.content_type != "application/json" || answer.body.is_empty() => {
            Meaning::Error(retry(format!("the queue answered with {:?}, not with JSON", answer.content_type)))
        }
        200 => match wire::jobs(&answer.body) {
            Ok(jobs) => Meaning::Jobs(Taken { jobs, gateway: is_gateway(answer) }),
            Err(why) => Meaning::Error(retry(why)),
        },
        // 400 is what the hosted platform answers to workers that it is about to put to sleep.
        400 => Meaning::Error(nothing("the queue answered 400 Bad Request".into())),
        201..=299 => Meaning::Jobs(Taken::default()),
        404 => Meaning::NotThere,
        429 => {
            let verdict = Verdict::Retry(answer.again.unwrap_or(TOO_MANY));
            Meaning::Error(TakeError { why: "the queue answered 429 Too Many Requests".into(), verdict })
        }
        status @ (401 | 403) => Meaning::Error(retry(format!("the queue answered {status}: check RUNPOD_AI_API_KEY"))),
        status => Meaning::Error(retry(format!("the queue answered {status}"))),
    }
}

/// Of `most` jobs that were asked for. What was handed out is lost to us, and its queue has to find that out.
fn too_large(queue: &RunPod, most: usize) -> TakeError {
    let fewer = (most / 2).max(1);
    queue.portion.store(fewer, Ordering::Relaxed);
    retry(format!("the answer for {most} jobs has more than {MOST} bytes and is not read: {fewer} are asked for next"))
}

/// By this header, an answer is known as that of a gateway of our own.
fn is_gateway(answer: &Answer) -> bool {
    answer.headers.get("x-latentd-webhooks").is_some_and(|value| value == "gateway")
}

fn nothing(why: String) -> TakeError {
    TakeError { why, verdict: Verdict::Nothing }
}

fn retry(why: String) -> TakeError {
    TakeError { why, verdict: Verdict::Retry(Duration::ZERO) }
}
