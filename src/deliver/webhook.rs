//! What a webhook carries beside its body, after the Standard Webhooks specification.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::digest::InvalidLength;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::warn;

use super::spool::EntryHeader;
use crate::clock::UnixTime;
use crate::config::SigningKey;
use crate::hex;
use crate::job::Webhook;
use crate::net::{Client, Message, Reason};
use crate::queue::WebhookOutcome;

/// Headers that are ours or HTTP's: who is told of a job cannot set them.
const RESERVED_HEADERS: [&str; 14] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// Whom to tell of what. It may hold secrets of the one who asked: in the URL, and in headers.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookRequest {
    job: String,
    /// Names this event of this job, in every attempt alike, so that a receiver knows it again.
    id: String,
    pub(super) url: String,
    headers: Vec<(String, String)>,
}

impl WebhookRequest {
    /// Tells `to` of `event`, which names one of the ends that the job called `job` can have: told again, it is the same event.
    pub fn new(job: &str, event: &str, to: &Webhook) -> Self {
        let id = name(job, event);
        if to.left_out > 0 {
            let kept = to.headers.len();
            warn!(
                id = job,
                webhook = id,
                kept,
                left_out = to.left_out,
                "the webhook names more than 32 headers or 8 KiB of them"
            );
        }
        Self { job: job.into(), id, url: to.url.clone(), headers: to.headers.clone() }
    }

    /// Tells the same receiver of another event of the same job.
    #[must_use]
    pub(super) fn of(self, event: &str) -> Self {
        Self { id: name(&self.job, event), ..self }
    }

    /// The same in every attempt.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The headers that say what this is, signed if there is a key.
    pub(super) fn headers(&self, signer: Option<&Signer>, now: UnixTime, body: &[u8]) -> Result<HeaderMap, Unsendable> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("webhook-timestamp", now.as_secs().into());
        headers.insert("webhook-id", self.id.parse()?);
        if let Some(signer) = signer {
            headers.insert("webhook-signature", signer.sign(&self.id, now, body)?.parse()?);
        }
        Ok(headers)
    }

    /// The headers that were asked for. What cannot be sent is left out, and told by its name.
    pub(super) fn private(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let reserved =
                |name: &HeaderName| RESERVED_HEADERS.contains(&name.as_str()) || name.as_str().starts_with("proxy-");
            match (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
                (Ok(name), Ok(mut value)) if !reserved(&name) => {
                    value.set_sensitive(true);
                    if headers.try_append(name, value).is_err() {
                        warn!(id = self.job, "the webhook has more headers than can be sent: the last are left out");
                        break;
                    }
                }
                (name, _) => {
                    let name = name.map_or_else(|_| "with a name that is none".to_owned(), |name| name.to_string());
                    warn!(id = self.job, "the webhook's header {name} is left out: it cannot be set, or not to this");
                }
            }
        }
        headers
    }
}

/// The id of an event of a job. Lengths keep the parts apart; half of a digest is as good as a UUID.
fn name(job: &str, event: &str) -> String {
    let digest = Sha256::digest(format!("{}:{job}{event}", job.len()));
    format!("msg_{}", hex::encode(&digest[..16]))
}

impl EntryHeader for WebhookRequest {
    fn job(&self) -> &str {
        &self.job
    }
}

/// Names the event alone.
impl fmt::Debug for WebhookRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookRequest").field("job", &self.job).field("id", &self.id).finish_non_exhaustive()
    }
}

/// Signs webhooks, so that their receiver knows that they are ours.
#[derive(Debug, Clone)]
pub struct Signer(SigningKey);

impl Signer {
    /// A signer with `key`.
    pub fn new(key: SigningKey) -> Self {
        Self(key)
    }

    /// The signature of what is sent as `id` at `now`.
    fn sign(&self, id: &str, now: UnixTime, body: &[u8]) -> Result<String, InvalidLength> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.reveal())?;
        mac.update(format!("{id}.{}.", now.as_secs()).as_bytes());
        mac.update(body);
        Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    }
}

/// Why a webhook cannot be sent as the specification has it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsendable {
    /// Somebody changed the spool.
    #[error("its id is no header: {0}")]
    Id(#[from] InvalidHeaderValue),
    /// The key is none for HMAC.
    #[error("it cannot be signed: {0}")]
    Key(#[from] InvalidLength),
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallResult {
    /// What that is to the webhook.
    pub tried: WebhookOutcome,
    /// Whether its receiver is as good for others: it has taken this one, has something against it alone (4xx), or was not asked.
    pub lives: bool,
}

impl From<WebhookOutcome> for CallResult {
    fn from(tried: WebhookOutcome) -> Self {
        Self { tried, lives: true }
    }
}

/// Calls a webhook, once. `client`'s guard decides who may be called.
pub async fn call(
    client: &Client,
    request: &WebhookRequest,
    signer: Option<&Signer>,
    now: UnixTime,
    body: Bytes,
    time: Duration,
) -> CallResult {
    let private = request.private();
    let headers = match request.headers(signer, now, &body) {
        Ok(headers) => headers,
        Err(cause) => return WebhookOutcome::Refused(cause.to_string()).into(),
    };
    match client.post(&Message { url: &request.url, headers, private, body, time }).await {
        Ok(reply) if reply.status.is_success() => WebhookOutcome::Accepted.into(),
        Ok(reply) => {
            let lives = reply.status.is_client_error() && !matches!(reply.status.as_u16(), 408 | 425 | 429);
            CallResult { tried: WebhookOutcome::Failed(format!("it answered {}", reply.status)), lives }
        }
        Err(error) => match error.reason {
            Reason::Url(_) | Reason::Scheme(_) | Reason::Refused(_) => {
                WebhookOutcome::Refused(error.to_string()).into()
            }
            _ => CallResult { tried: WebhookOutcome::Failed(error.to_string()), lives: false },
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(headers: &[(&str, &str)]) -> WebhookRequest {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        WebhookRequest::new(
            "job",
            "COMPLETED",
            &Webhook { url: "https://me:pa55@x/?s3cret".into(), headers, left_out: 0 },
        )
    }

    /// Messages and signatures of the test suites of the specification's own libraries.
    #[test]
    fn signatures_are_those_of_the_specification() {
        for (secret, id, time, body, signature) in [
            (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330_000,
                r#"{"test": 2432232314}"#,
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
            (
                "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553_000,
                r#"{"email":"test@example.com","username":"test_user"}"#,
                "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            ),
        ] {
            let signed =
                Signer::new(SigningKey::parse(secret).unwrap()).sign(id, UnixTime::from_millis(time), body.as_bytes());
            assert_eq!(signed.unwrap(), signature);
        }
    }

    fn nowhere() -> Webhook {
        Webhook { url: String::new(), headers: vec![], left_out: 0 }
    }

    #[test]
    fn an_event_has_one_id() {
        let id = |job: &str, event: &str| WebhookRequest::new(job, event, &nowhere()).id;
        assert_eq!(id("job", "COMPLETED"), id("job", "COMPLETED"));
        assert_eq!(id("job", "COMPLETED").len(), 36);
        assert_eq!(
            WebhookRequest::new("job", "COMPLETED", &nowhere()).of("FAILED"),
            WebhookRequest::new("job", "FAILED", &nowhere())
        );
        let ids = [id("job", "COMPLETED"), id("job", "FAILED"), id("jobC", "OMPLETED"), id("", "jobCOMPLETED")];
        assert!(ids.iter().enumerate().all(|(n, id)| !ids[..n].contains(id)), "{ids:?}");
    }

    #[test]
    fn headers_of_ours_and_of_http_cannot_be_set() {
        let request = request(&[
            ("Authorization", "Bearer s3cret"),
            ("X-Two", "1"),
            ("x-two", "2"),
            ("Host", "internal"),
            ("CONTENT-LENGTH", "5"),
            ("content-type", "text/html"),
            ("Transfer-Encoding", "chunked"),
            ("Proxy-Authorization", "x"),
            ("Webhook-Id", "mine"),
            ("with space", "x"),
            ("X-Line", "a\r\nHost: b"),
        ]);
        let private = request.private();
        let names: Vec<&str> = private.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["authorization", "x-two"]);
        assert_eq!(private.get_all("x-two").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert!(!format!("{request:?} {private:?}").contains("s3cret"));
    }

    /// A spool may hold more than is taken in.
    #[test]
    fn too_many_headers_cost_the_last_and_no_more() {
        let names: Vec<String> = (0..40_000).map(|n| format!("x-{n}")).collect();
        let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
        let private = request(&headers).private();
        assert!(private.len() > 20_000 && private.len() < 40_000 && private.contains_key("x-0"), "{}", private.len());
    }

    #[test]
    fn a_webhook_is_not_sent_without_its_id() {
        let changed = serde_json::json!({"job": "j", "id": "two\nlines", "url": "http://x", "headers": []});
        let request: WebhookRequest = serde_json::from_value(changed).unwrap();
        let refused = request.headers(None, UnixTime::from_millis(0), b"{}").unwrap_err();
        assert!(matches!(refused, Unsendable::Id(_)), "{refused}");
    }

    #[test]
    fn a_webhook_is_signed_only_with_a_key() {
        let now = UnixTime::from_millis(1_614_265_330_999);
        let plain = request(&[]).headers(None, now, b"{}").unwrap();
        let names: Vec<&str> = plain.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["content-type", "webhook-timestamp", "webhook-id"]);
        assert_eq!(plain["webhook-timestamp"], "1614265330");
        let signer = Signer::new(SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap());
        let signed = request(&[]).headers(Some(&signer), now, b"{}").unwrap();
        let signature = signer.sign(request(&[]).id(), now, b"{}").unwrap();
        assert_eq!(signed["webhook-signature"], *signature);
        assert!(!format!("{signer:?}").contains("MfKQ"));
    }
}
