//! Images to S3-compatible storage, answered by URLs that anybody can fetch for a week.
//!
//! `rusty-s3` signs and this calls, so that a job's own endpoint stands under the same guard as every other address that a
//! stranger names. Requests are signed in the URL (Signature Version 4), bucket and key are its path.

mod region;
mod target;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use rusty_s3::S3Action as _;
use serde_json::Value;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::clock::WallClock;
use crate::net::{Client, FetchError, Message, Reason, Reply};
use crate::telemetry::Metrics;
pub use target::{InvalidTarget, UploadTarget};

/// Attempts in all, as in the RunPod SDK.
const MAX_TRIES: u32 = 3;

/// After the first failure; the next is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// For one attempt: a large image over a slow line.
const UPLOAD_TIMEOUT: Duration = Duration::from_mins(2);

/// How long a link works: a week, the most that there is.
const LINK_LIFETIME: Duration = Duration::from_hours(7 * 24);

const PNG: &str = "image/png";

/// An image that is not in its bucket. Names host and bucket, and no key.
#[derive(Debug, thiserror::Error)]
#[error("the upload of {key} to bucket {bucket} of {host} failed: {why}")]
pub struct UploadError {
    /// What would have been its name there.
    pub key: String,
    /// The bucket, as named or the month.
    pub bucket: String,
    /// The storage.
    pub host: String,
    /// What went wrong last.
    pub why: String,
}

/// Puts images into buckets.
#[derive(Debug, Clone)]
pub struct Uploads {
    guarded: Client,
    open: Client,
    default_target: Option<UploadTarget>,
    clock: Arc<dyn WallClock>,
    metrics: Metrics,
}

impl Uploads {
    /// Uploads that call the endpoints of jobs by `guarded`, and the operator's by `open`, whose guard lets all pass
    /// ([`crate::net::Guard::open`]). Images of jobs that name no place go to the `default_target` one, if there is one.
    pub fn new(guarded: Client, open: Client, default_target: Option<UploadTarget>, clock: Arc<dyn WallClock>) -> Self {
        Self { guarded, open, default_target, clock, metrics: Metrics::default() }
    }

    /// The same, and tells `metrics` what is put again.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// Where the images of a job with this `s3Config` go; `None` is into its result.
    ///
    /// # Errors
    /// It names a place, which is none.
    pub fn target(&self, of_job: Option<&Value>) -> Result<Option<UploadTarget>, InvalidTarget> {
        match of_job.map(UploadTarget::of_job) {
            Some(Ok(Some(target))) => Ok(Some(target)),
            Some(Err(cause)) => Err(cause),
            Some(Ok(None)) | None => Ok(self.default_target.clone()),
        }
    }

    /// Puts image `index` of a job, a PNG, into `target`, and returns a link to it.
    ///
    /// # Errors
    /// The storage refused it, or three attempts failed.
    pub async fn put(&self, target: &UploadTarget, job: &str, index: u32, png: Bytes) -> Result<String, UploadError> {
        let key = target.key(&name(job, index));
        let now = self.clock.now();
        let fail =
            |bucket: &str, why| UploadError { key: key.clone(), bucket: bucket.into(), host: target.host(), why };
        let bucket = target.bucket(now).map_err(|cause| fail("", cause.to_string()))?;
        let client = if target.guarded { &self.guarded } else { &self.open };
        let mut tries = 1;
        loop {
            // Signed again each time: the clock that judges the signature goes on.
            let mut action = bucket.put_object(Some(target.credentials()), &key);
            action.headers_mut().insert("content-type", PNG);
            let url = action.sign_with_time(UPLOAD_TIMEOUT * 5, &target::timestamp(self.clock.now()));
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(PNG))]);
            let private = HeaderMap::new();
            let message = Message { url: url.as_str(), headers, private, body: png.clone(), time: UPLOAD_TIMEOUT };
            let (why, again) = match judge(client.put(&message).await) {
                Ok(()) => break,
                Err(failure) => failure,
            };
            if !again || tries == MAX_TRIES {
                return Err(fail(bucket.name(), why));
            }
            self.metrics.retry("bucket");
            warn!(
                id = job,
                host = target.host(),
                bucket = bucket.name(),
                attempt = tries,
                "an upload failed and is tried again: {why}"
            );
            sleep(FIRST_PAUSE * (1 << (tries - 1))).await;
            tries += 1;
        }
        debug!(id = job, host = target.host(), bucket = bucket.name(), bytes = png.len(), "uploaded {key}");
        Ok(bucket
            .get_object(Some(target.credentials()), &key)
            .sign_with_time(LINK_LIFETIME, &target::timestamp(now))
            .into())
    }
}

/// Whether it arrived; else why not, and whether another attempt may help.
fn judge(sent: Result<Reply, FetchError>) -> Result<(), (String, bool)> {
    match sent {
        Ok(reply) if reply.status.is_success() => Ok(()),
        Ok(Reply { status, said }) => {
            let word = code(&said).map(|code| format!(" ({code})")).unwrap_or_default();
            let again = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
            Err((format!("it answered {status}{word}"), again))
        }
        Err(error) => {
            let again = matches!(error.reason, Reason::Connection(_) | Reason::Deadline(_));
            Err((error.reason.to_string(), again))
        }
    }
}

/// The word by which S3 names what is wrong. The rest of what it says may hold what was signed.
fn code(said: &[u8]) -> Option<&str> {
    let said = str::from_utf8(said).ok()?;
    let (word, _) = said.split_once("<Code>")?.1.split_once("</Code>")?;
    // Its words are letters; keys that a storage may echo have digits.
    (word.len() <= 64 && word.bytes().all(|byte| byte.is_ascii_alphabetic())).then_some(word)
}

/// `{job}_{index}.png`. What could be a folder or a query in a job's id becomes a hyphen.
fn name(job: &str, index: u32) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || "._-".contains(letter) { letter } else { '-' };
    format!("{}_{index}.png", job.chars().map(plain).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_its_folder() {
        assert_eq!(name("a1-b2_c.d", 3), "a1-b2_c.d_3.png");
        assert_eq!(name("../x/y?z#ä", 0), "..-x-y-z--_0.png");
    }

    #[test]
    fn only_s3_s_own_word_is_told() {
        let said = |text: &str| code(text.as_bytes()).map(str::to_owned);
        let xml = "<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AK</AWSAccessKeyId></Error>";
        assert_eq!(said(xml).as_deref(), Some("SignatureDoesNotMatch"));
        for none in ["", "<Code>", "<Code>AK s3cret</Code>", "<Code>AKIA5EXAMPLE</Code>", "</Code><Code>"] {
            assert_eq!(said(none), None, "{none}");
        }
        assert_eq!(code(&[0xff]), None);
    }
}
