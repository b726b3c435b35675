//! A job as a queue hands it out: an id, an input, and wishes about how long it may take and where its result goes.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

/// Headers of a webhook: more than any receiver asks for.
pub const HEADERS: usize = 32;
/// Bytes of their names and values together.
pub const HEADER_BYTES: usize = 8 << 10;

/// Bytes of an id: it is part of URLs and headers, which servers take no longer ones of.
const ID_BYTES: usize = 1024;

/// A job that was taken from a queue and not looked into yet.
///
/// Only `id` and `input` are demanded. Other keys are read as far as they make sense, because a queue may know more than
/// we do; what does not make sense is as if it were absent.
#[derive(Clone, PartialEq)]
pub struct Delivered {
    /// Names the job to the queue: 1 to 1024 bytes of anything, but neither `.` nor `..`.
    pub id: String,
    /// What [`crate::job::validate`] checks.
    pub input: Value,
    /// Whom to tell when it is done.
    pub webhook: Option<Webhook>,
    /// Where its images go, with keys to it: never to be logged.
    pub s3_config: Option<Value>,
    /// How long it may take.
    pub policy: Policy,
    /// The batch that it belongs to.
    pub batch_id: Option<String>,
    /// Every other key, as sent.
    pub raw: Map<String, Value>,
}

/// Whom to tell of a job's end. Neither part may be logged: both can hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where to POST.
    pub url: String,
    /// What to send along, name and value.
    pub headers: Vec<(String, String)>,
    /// Headers beyond 32, or 8 KiB of them, which are not sent.
    pub left_out: usize,
}

/// How long a job may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Milliseconds from its start to its end; above 0.
    pub execution_timeout_ms: Option<u64>,
    /// Milliseconds that it is wanted for, from when it was submitted; above 0.
    pub ttl_ms: Option<u64>,
}

/// What was delivered is no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct NotAJob {
    /// Its id, if it has one by which the queue can be answered.
    pub id: Option<String>,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Delivered {
    /// Reads a job object.
    ///
    /// # Errors
    /// It is no object, or lacks an id or an input. An input of `null` or `{}` is an input.
    pub fn from_value(value: Value) -> Result<Self, NotAJob> {
        let Value::Object(mut raw) = value else {
            return Err(NotAJob { id: None, why: "a job is a JSON object" });
        };
        let id = match raw.shift_remove("id") {
            Some(Value::String(id)) => {
                usable(&id).map_err(|why| NotAJob { id: None, why })?;
                id
            }
            None => return Err(NotAJob { id: None, why: "a job has the key \"id\"" }),
            Some(_) => return Err(NotAJob { id: None, why: "a job's \"id\" is a string" }),
        };
        let Some(input) = raw.shift_remove("input") else {
            return Err(NotAJob { id: Some(id), why: "Job has missing field(s): input." });
        };
        let webhook = raw.shift_remove("webhook").and_then(Webhook::read);
        let second = raw.shift_remove("webhookV2").and_then(Webhook::read);
        let s3_config = raw.shift_remove("s3Config").filter(Value::is_object);
        let policy = raw.shift_remove("policy").map_or_else(Policy::default, |policy| Policy::read(&policy));
        let batch_id = match raw.shift_remove("batchId") {
            Some(Value::String(id)) => Some(id),
            _ => None,
        };
        Ok(Self { id, input, webhook: webhook.or(second), s3_config, policy, batch_id, raw })
    }

    /// From its submission to its take, where its queue tells it: `delayTime`, in milliseconds, as in the endpoint's status object.
    pub fn delay(&self) -> Option<Duration> {
        self.raw.get("delayTime")?.as_u64().map(Duration::from_millis)
    }
}

/// Whether a queue can be answered by `id`, which is a part of a path there.
fn usable(id: &str) -> Result<(), &'static str> {
    match id {
        "" => Err("a job's \"id\" is not empty"),
        // Both name folders, whatever is done to escape them.
        "." | ".." => Err("a job's \"id\" is neither . nor .."),
        id if id.len() > ID_BYTES => Err("a job's \"id\" has at most 1024 bytes"),
        _ => Ok(()),
    }
}

impl Webhook {
    /// A URL, or an object with `url` and perhaps `headers`, of which the first are taken: as many as there may be.
    fn read(value: Value) -> Option<Self> {
        let (url, mut headers) = match value {
            Value::String(url) => (url, Vec::new()),
            Value::Object(mut hook) => {
                let Some(Value::String(url)) = hook.shift_remove("url") else { return None };
                let headers = match hook.shift_remove("headers") {
                    Some(Value::Object(headers)) => headers,
                    _ => Map::new(),
                };
                let text = |(name, value)| if let Value::String(value) = value { Some((name, value)) } else { None };
                (url, headers.into_iter().filter_map(text).collect::<Vec<_>>())
            }
            _ => return None,
        };
        let left_out = headers.split_off(fitting(&headers)).len();
        headers.shrink_to_fit();
        (!url.is_empty()).then_some(Self { url, headers, left_out })
    }
}

/// How many of `headers`, from the first on, may be sent.
fn fitting(headers: &[(String, String)]) -> usize {
    let mut bytes = 0;
    let mut fits = |(name, value): &(String, String)| {
        bytes += name.len() + value.len();
        bytes <= HEADER_BYTES
    };
    headers.iter().take(HEADERS).take_while(|header| fits(header)).count()
}

impl Policy {
    fn read(value: &Value) -> Self {
        let above_zero = |key: &str| value.get(key)?.as_u64().filter(|time| *time > 0);
        Self { execution_timeout_ms: above_zero("executionTimeout"), ttl_ms: above_zero("ttl") }
    }
}

/// Names the job and says nothing of what it holds.
impl fmt::Debug for Delivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivered").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Says that there is one.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_comes_with_its_wishes() {
        let job = Delivered::from_value(json!({
            "id": "j1", "input": {"prompt": "p"}, "webhook": "http://x/y", "s3Config": {"accessId": "a"},
            "policy": {"executionTimeout": 5000, "ttl": 60000, "lowPriority": true}, "batchId": "b", "extra": [1],
        }));
        let job = job.unwrap();
        assert_eq!((job.id.as_str(), &job.input, job.batch_id.as_deref()), ("j1", &json!({"prompt": "p"}), Some("b")));
        assert_eq!(job.webhook, Some(Webhook { url: "http://x/y".into(), headers: vec![], left_out: 0 }));
        assert_eq!(job.s3_config, Some(json!({"accessId": "a"})));
        assert_eq!(job.policy, Policy { execution_timeout_ms: Some(5000), ttl_ms: Some(60_000) });
        assert_eq!(Value::from(job.raw), json!({"extra": [1]}));
    }

    #[test]
    fn a_job_may_say_how_long_it_waited() {
        let delay =
            |told: Value| Delivered::from_value(json!({"id": "j", "input": 1, "delayTime": told})).unwrap().delay();
        assert_eq!(delay(json!(1500)), Some(Duration::from_millis(1500)));
        for none in [json!(null), json!(-1), json!("5"), json!(1.5)] {
            assert_eq!(delay(none), None);
        }
    }

    #[test]
    fn a_webhook_may_be_an_object_or_have_its_newer_name() {
        let webhook = |job: Value| Delivered::from_value(job).unwrap().webhook;
        let hook = json!({"url": "http://x", "headers": {"Authorization": "a", "n": 5}});
        let expected =
            Webhook { url: "http://x".into(), headers: vec![("Authorization".into(), "a".into())], left_out: 0 };
        assert_eq!(webhook(json!({"id": "j", "input": 1, "webhook": hook})), Some(expected));
        let newer = webhook(json!({"id": "j", "input": 1, "webhook": null, "webhookV2": "http://y"}));
        assert_eq!(newer.unwrap().url, "http://y");
        for none in [json!(null), json!(""), json!(5), json!({}), json!({"url": 5})] {
            assert_eq!(webhook(json!({"id": "j", "input": 1, "webhook": none})), None);
        }
    }

    #[test]
    fn a_webhook_s_headers_have_an_end() {
        let kept = |count: usize, value: &str| {
            let headers: Map<String, Value> = (0..count).map(|n| (format!("x-{n:05}"), value.into())).collect();
            let job = json!({"id": "j", "input": 1, "webhook": {"url": "http://x", "headers": headers}});
            let hook = Delivered::from_value(job).unwrap().webhook.unwrap();
            assert_eq!(hook.headers.len() + hook.left_out, count);
            hook.headers
        };
        assert_eq!([kept(32, "v").len(), kept(33, "v").len(), kept(40_000, "v").len()], [32; 3]);
        assert_eq!(kept(33, "v")[31].0, "x-00031");
        // 7 bytes of name and 1017 of value: eight are just 8 KiB.
        assert_eq!([kept(9, &"v".repeat(1017)).len(), kept(9, &"v".repeat(1018)).len()], [8, 7]);
        assert_eq!(kept(1, &"v".repeat(9000)), []);
    }

    #[test]
    fn what_makes_no_sense_is_as_if_it_were_absent() {
        let odd = json!({"id": "j", "input": null, "policy": {"executionTimeout": -1, "ttl": "1"}, "s3Config": "x", "batchId": 5});
        let job = Delivered::from_value(odd).unwrap();
        let plain = Delivered::from_value(json!({"id": "j", "input": null})).unwrap();
        assert_eq!(job, plain);
    }

    #[test]
    fn what_is_no_job_is_answered_where_it_has_an_id() {
        let fault = |job: Value| Delivered::from_value(job).unwrap_err();
        assert_eq!(fault(json!({"id": "j"})).id.as_deref(), Some("j"));
        for job in [json!(null), json!([]), json!({})] {
            assert_eq!(fault(job).id, None);
        }
        let long = "x".repeat(ID_BYTES + 1);
        for id in [json!(""), json!(5), json!(null), json!(["j"]), json!("."), json!(".."), json!(long)] {
            assert_eq!(fault(json!({"id": id, "input": 1})).id, None, "{id:.9}");
        }
        for id in ["...", "a/..", " ", "\u{0}", &long[1..]] {
            assert_eq!(Delivered::from_value(json!({"id": id, "input": 1})).unwrap().id, id);
        }
    }

    #[test]
    fn secrets_are_not_in_what_is_printed() {
        let job = json!({"id": "j", "input": "secret", "webhook": "http://secret", "s3Config": {"k": "secret"}, "k": "secret"});
        let job = Delivered::from_value(job).unwrap();
        assert!(!format!("{job:?} {:?}", job.webhook).contains("secret"));
    }
}
