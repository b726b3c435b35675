//! Results by the RunPod serverless protocol: POSTs to the job-done and job-stream URLs, tried again for as long as it may help.

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{Payload, Sink, Undelivered};
use crate::hex;
use crate::net::{self, Answer, Backoff, Call, FetchError, InvalidUrl, Reason, Template, TrustedClient, Url, jitter};
use crate::telemetry::Metrics;

/// Between tries.
const RESULT_RETRY: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(30) };

/// For one try: a large body over a slow line.
const RESULT_TIMEOUT: Duration = Duration::from_mins(2);

/// For one try, however late it is.
const MIN_RESULT_TIMEOUT: Duration = Duration::from_secs(1);

/// For a progress update, which the end of its job waits for.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(5);

/// The result routes of a queue, as one worker sees them.
#[derive(Debug)]
pub struct RunPodSink {
    http: TrustedClient,
    done: Template,
    stream: Option<Template>,
    spool_key: String,
    metrics: Metrics,
}

impl RunPodSink {
    /// Routes from their templates, for the worker with this id.
    ///
    /// # Errors
    /// A template that makes no URL, with the name of its setting.
    pub fn new(
        http: TrustedClient,
        done: &str,
        stream: Option<&str>,
        worker: &str,
    ) -> Result<Self, (&'static str, InvalidUrl)> {
        // Queries tell of the worker's machine.
        let digest = Sha256::digest(done.split('?').next().unwrap_or_default());
        let spool_key = hex::encode(&digest[..8]);
        let template = |text: &str| Template::new(text).fill("$RUNPOD_POD_ID", worker);
        let (done, stream) = (template(done), stream.map(template));
        done.url().map_err(|cause| ("runpod.post_output", cause))?;
        if let Some(Err(cause)) = stream.as_ref().map(Template::url) {
            return Err(("runpod.post_stream", cause));
        }
        Ok(Self { http, done, stream, spool_key, metrics: Metrics::default() })
    }

    /// The same, and tells `metrics` what is sent again.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// Names the queue among others: what waits for it on disk lies under this. The same for all of its workers.
    pub fn spool_key(&self) -> &str {
        &self.spool_key
    }

    async fn post(&self, to: &Template, id: &str, body: Bytes, streamed: bool, time: Duration) -> PostOutcome {
        let url = to.fill("$ID", id).with("isStream", if streamed { "true" } else { "false" });
        let url = match url.url() {
            Ok(url) => url,
            Err(cause) => return PostOutcome::Refused(cause.to_string(), 0),
        };
        // As the SDK has them, though the body is JSON: a queue may have come to rely on it.
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("charset", "utf-8"),
            ("x-request-id", id),
            ("accept", "*/*"),
        ];
        match self.http.call(Call { url: &url, body: Some(body), headers: &headers, time, most: 0 }).await {
            Ok(Answer { status: 200..=299, .. }) => PostOutcome::Taken,
            Ok(Answer { status: status @ (408 | 425 | 429 | 500..=599), again, .. }) => {
                PostOutcome::Later(format!("the queue answered {status}"), again.unwrap_or_default())
            }
            Ok(answer @ Answer { status: 300..=399, .. }) => PostOutcome::Later(moved(&url, &answer), Duration::ZERO),
            Ok(Answer { status, .. }) => PostOutcome::Refused(format!("the queue answered {status}"), status),
            // An id without end makes a URL that no client sends.
            Err(cause @ FetchError { reason: Reason::Url(_), .. }) => PostOutcome::Refused(cause.to_string(), 0),
            Err(cause) => PostOutcome::Later(cause.to_string(), Duration::ZERO),
        }
    }

    async fn persistently(&self, (to, name): (&Template, &'static str), payload: Payload) -> Result<(), Undelivered> {
        let Payload { id, body, streamed, time } = payload;
        let end = Instant::now() + time;
        let mut tries = 0;
        loop {
            tries += 1;
            let time = RESULT_TIMEOUT.min(end.saturating_duration_since(Instant::now())).max(MIN_RESULT_TIMEOUT);
            let (why, again) = match self.post(to, &id, body.clone(), streamed, time).await {
                PostOutcome::Taken => return Ok(()),
                PostOutcome::Refused(why, status) => return Err(Undelivered { why, tries, too_large: status == 413 }),
                PostOutcome::Later(why, again) => (why, again),
            };
            let pause = RESULT_RETRY.after(tries, again, jitter());
            if Instant::now() + pause > end {
                return Err(Undelivered { why, tries, too_large: false });
            }
            self.metrics.retry(name);
            warn!(id, attempt = tries, "the result is sent again in {} ms: {why}", pause.as_millis());
            sleep(pause).await;
        }
    }
}

/// Why an answer that leads elsewhere is not followed; who reads it corrects the URL while the result waits.
fn moved(url: &Url, answer: &Answer) -> String {
    let to = answer.headers.get("location").and_then(|to| to.to_str().ok());
    let host = to.and_then(|to| url.join(to).ok()).and_then(|to| net::host(to.as_str()));
    let host = host.map_or_else(|| "nowhere".to_owned(), |host| format!("to {host}"));
    format!(
        "the queue answered {}, a redirect {host} that would lose the body: name the URL that takes it",
        answer.status
    )
}

/// What a queue makes of a POST.
enum PostOutcome {
    Taken,
    /// Another try may help, not before this time has passed.
    Later(String, Duration),
    /// No other try helps; the status.
    Refused(String, u16),
}

impl Sink for RunPodSink {
    async fn done(&self, payload: Payload) -> Result<(), Undelivered> {
        self.persistently((&self.done, "done"), payload).await
    }

    async fn progress(&self, id: &str, body: Vec<u8>) -> Result<(), Undelivered> {
        match self.post(&self.done, id, body.into(), false, PROGRESS_TIMEOUT).await {
            PostOutcome::Taken => Ok(()),
            PostOutcome::Later(why, _) | PostOutcome::Refused(why, _) => {
                Err(Undelivered { why, tries: 1, too_large: false })
            }
        }
    }

    async fn part(&self, payload: Payload) -> Result<(), Undelivered> {
        match &self.stream {
            Some(stream) => self.persistently((stream, "stream"), payload).await,
            None => Ok(()),
        }
    }

    fn takes_parts(&self) -> bool {
        self.stream.is_some()
    }
}
