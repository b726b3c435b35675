//! A submitted job, read: what a client asks of the queue, and what the worker is to get.

use std::time::Duration;

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use crate::date::UnixTime;

use super::json::{Members, NotAnObject, members, read};
use super::record::{JobWebhook, Record};
use crate::job::{HEADER_BYTES, HEADERS};

/// What clients may ask for; what is beyond is taken for the nearest end.
const EXECUTION_TIMEOUT_RANGE: (u64, u64) = (5_000, WEEK);
const TTL_RANGE: (u64, u64) = (10_000, WEEK);
const WEEK: u64 = 7 * 24 * 3_600_000;

/// Bytes of the text of a `policy` or a `webhook`, and of a URL in it: it becomes part of the record, which is read whenever something
/// happens to its job.
const MAX_OBJECT_BYTES: usize = 64 << 10;
const MAX_URL_BYTES: usize = 8 << 10;

/// How long the result of a job is kept whose client waits for it.
const SYNC_RETENTION_RANGE: (u64, u64) = (60_000, 300_000);

/// A submission is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmissionError {
    /// The body is no JSON object.
    #[error("the body cannot be read: {0}")]
    NotAnObject(#[from] NotAnObject),
    /// It has no input.
    #[error("`input` is missing")]
    NoInput,
    /// A key makes no sense.
    #[error("`{0}` should be {1}")]
    Wrong(&'static str, &'static str),
}

/// A job to be queued: its record, its input, and what else goes to the worker.
#[derive(Debug, Clone)]
pub struct Submission {
    /// What the queue keeps.
    pub record: Record,
    /// What the worker works on.
    pub input: Box<RawValue>,
    /// The other keys, as sent: `s3Config` with its secrets among them, so never to be shown.
    pub rest: Members,
}

/// How a job is submitted, apart from the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmissionContext {
    /// Its id.
    pub id: String,
    /// When it comes.
    pub now: UnixTime,
    /// How long one attempt may take, if it does not say.
    pub execution_timeout: Duration,
    /// Milliseconds that it is wanted for, as the URL says; before what the body says.
    pub ttl: Option<u64>,
    /// Milliseconds that its client waits for it, if it does.
    pub wait: Option<u64>,
}

/// Reads the body of `/run` and `/runsync`.
///
/// # Errors
/// It is no job. What is merely out of range is no error.
pub fn parse_submission(body: &[u8], manner: SubmissionContext) -> Result<Submission, SubmissionError> {
    let mut rest = members(body, |_| true)?;
    let input = rest.remove("input").ok_or(SubmissionError::NoInput)?;
    // The queue's to say.
    rest.remove("id");
    let mut record = Record::new(manner.id, manner.now);
    record.execution_timeout = manner.execution_timeout;
    record.webhook = hook(&rest)?;
    let mut ttl = manner.ttl;
    match rest.get("policy").map(|policy| read(policy, MAX_OBJECT_BYTES)) {
        None | Some(Some(Value::Null)) => {}
        Some(Some(Value::Object(asked))) => {
            let mut policy = asked.clone();
            if let Some(millis) =
                settle(&mut policy, "executionTimeout", "policy.executionTimeout", EXECUTION_TIMEOUT_RANGE)?
            {
                record.execution_timeout = Duration::from_millis(millis);
            }
            let wanted = settle(&mut policy, "ttl", "policy.ttl", TTL_RANGE)?;
            ttl = ttl.or(wanted);
            record.low_priority = match policy.get("lowPriority") {
                None | Some(Value::Null) => false,
                Some(Value::Bool(low)) => *low,
                Some(_) => return Err(SubmissionError::Wrong("policy.lowPriority", "true or false")),
            };
            if policy != asked {
                rest.extend(to_raw_value(&policy).ok().map(|policy| ("policy".to_owned(), policy)));
            }
        }
        Some(_) => return Err(SubmissionError::Wrong("policy", "an object of at most 64 KiB")),
    }
    if let Some(ttl) = ttl {
        record.expires = manner.now + Duration::from_millis(ttl.clamp(TTL_RANGE.0, TTL_RANGE.1));
    }
    if let Some(wait) = manner.wait {
        record.retention = Duration::from_millis(wait.clamp(SYNC_RETENTION_RANGE.0, SYNC_RETENTION_RANGE.1));
    }
    Ok(Submission { record, input, rest })
}

/// Milliseconds within limits, as the worker will read them, too. Fractions are cut.
fn settle(
    policy: &mut Map<String, Value>,
    key: &str,
    path: &'static str,
    (least, most): (u64, u64),
) -> Result<Option<u64>, SubmissionError> {
    let asked = match policy.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_f64().unwrap_or_default(),
        Some(_) => return Err(SubmissionError::Wrong(path, "a number of milliseconds")),
    };
    // Casts of floats stop at the ends of the range.
    let settled = (asked as u64).clamp(least, most);
    policy.insert(key.to_owned(), settled.into());
    Ok(Some(settled))
}

/// `webhook`, else `webhookV2`: a URL, or an object with one and with headers. An empty URL is none.
fn hook(rest: &Members) -> Result<Option<JobWebhook>, SubmissionError> {
    for key in ["webhook", "webhookV2"] {
        let (url, headers) = match rest.get(key).map(|hook| read(hook, MAX_OBJECT_BYTES)) {
            None | Some(Some(Value::Null)) => continue,
            Some(Some(Value::String(url))) => (url, Vec::new()),
            Some(Some(Value::Object(hook))) => (url_of(&hook, key)?, headers_of(&hook)?),
            Some(_) => return Err(wrong_hook(key)),
        };
        if url.is_empty() {
            continue;
        }
        return match url.split_once("://") {
            Some((scheme, host)) if is_http(scheme) && !host.is_empty() && url.len() <= MAX_URL_BYTES => {
                Ok(Some(JobWebhook::new(url, headers)))
            }
            _ => Err(wrong_hook(key)),
        };
    }
    Ok(None)
}

/// Schemes are spelled in any case (RFC 3986, 3.1).
fn is_http(scheme: &str) -> bool {
    ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

fn url_of(hook: &Map<String, Value>, key: &str) -> Result<String, SubmissionError> {
    match hook.get("url") {
        Some(Value::String(url)) => Ok(url.clone()),
        _ => Err(wrong_hook(key)),
    }
}

fn wrong_hook(key: &str) -> SubmissionError {
    let key = if key == "webhook" { "webhook" } else { "webhookV2" };
    SubmissionError::Wrong(key, "an http or https URL of at most 8 KiB, or an object with `url` and `headers`")
}

/// As many as workers send, too: who is told less than was asked for had better know at once.
fn headers_of(hook: &Map<String, Value>) -> Result<Vec<(String, String)>, SubmissionError> {
    let wrong =
        || SubmissionError::Wrong("webhook.headers", "an object of at most 32 strings, with their names at most 8 KiB");
    let headers: Vec<(String, String)> = match hook.get("headers") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(headers)) => {
            let header = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
            headers.iter().map(header).collect::<Option<_>>().ok_or_else(wrong)?
        }
        Some(_) => return Err(wrong()),
    };
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if headers.len() <= HEADERS && bytes <= HEADER_BYTES { Ok(headers) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manner() -> SubmissionContext {
        let (now, execution_timeout) = (UnixTime::from_millis(5_000), Duration::from_mins(10));
        SubmissionContext { id: "j1".into(), now, execution_timeout, ttl: None, wait: None }
    }

    fn read(body: &Value) -> Result<Submission, SubmissionError> {
        parse_submission(body.to_string().as_bytes(), manner())
    }

    #[test]
    fn what_is_no_job_is_refused_by_name() {
        let refused = |body: &[u8]| parse_submission(body, manner()).unwrap_err().to_string();
        assert!(refused(b"{").contains("no JSON") && refused(b"").contains("no JSON"));
        assert!(refused(b"[]").contains("JSON object"));
        assert!(refused(b"{}").contains("`input` is missing"));
        for (key, value) in [
            ("policy", json!(3)),
            ("policy.ttl", json!({"ttl": "long"})),
            ("policy.executionTimeout", json!({"executionTimeout": true})),
            ("policy.lowPriority", json!({"lowPriority": 1})),
        ] {
            let error = read(&json!({"input": {}, "policy": value})).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{key}` should be")), "{error}");
        }
        let url = "https://x";
        for value in [
            json!(3),
            json!({}),
            json!("example.com/hook"),
            json!("ftp://x"),
            json!({"url": url, "headers": {"a": 1}}),
            json!({"url": url, "headers": 3}),
        ] {
            let error = read(&json!({"input": {}, "webhook": value})).unwrap_err().to_string();
            assert!(error.starts_with("`webhook"), "{error}");
        }
    }

    #[test]
    fn what_becomes_part_of_the_record_has_an_end() {
        let hook = |count: usize, bytes: usize| {
            let headers: Map<String, Value> =
                (0..count).map(|n| (format!("x-{n:02}"), "v".repeat(bytes).into())).collect();
            read(&json!({"input": 1, "webhook": {"url": "https://x", "headers": headers}}))
        };
        assert_eq!(hook(32, 252).unwrap().record.webhook.unwrap().headers.len(), 32);
        let url = |bytes: usize| read(&json!({"input": 1, "webhookV2": format!("https://{}", "x".repeat(bytes - 8))}));
        assert!(url(MAX_URL_BYTES).is_ok());
        let policy = |bytes: usize| read(&json!({"input": 1, "policy": {"x": "y".repeat(bytes)}}));
        assert!(policy(60_000).is_ok());
        for (refused, says) in [
            (hook(33, 1), "`webhook.headers` should be an object of at most 32 strings"),
            (hook(32, 253), "at most 8 KiB"),
            (hook(33, 1 << 20), "`webhook` should be an http or https URL"),
            (url(MAX_URL_BYTES + 1), "`webhookV2` should be an http or https URL of at most 8 KiB"),
            (policy(66_000), "`policy` should be an object of at most 64 KiB"),
        ] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn an_input_stays_as_it_was_sent() {
        let job =
            parse_submission(br#"{"input": {"seed": 36893488147419103232, "b": 1.10,"a":1e2}, "input2": 1}"#, manner())
                .unwrap();
        assert_eq!(job.input.get(), r#"{"seed": 36893488147419103232, "b": 1.10,"a":1e2}"#);
    }

    #[test]
    fn defaults_are_those_of_the_platform() {
        let job = read(&json!({"input": null})).unwrap();
        assert_eq!((job.input.get(), job.rest.len(), job.record.webhook), ("null", 0, None));
        assert_eq!(job.record.expires, UnixTime::from_millis(5_000 + 86_400_000));
        assert_eq!(
            (job.record.execution_timeout, job.record.retention),
            (Duration::from_mins(10), Duration::from_mins(30))
        );
    }

    #[test]
    fn what_is_out_of_range_is_taken_for_the_nearest() {
        let policy = |policy: Value| read(&json!({"input": 1, "policy": policy})).unwrap().record;
        assert_eq!(policy(json!({"executionTimeout": 3000})).execution_timeout, Duration::from_secs(5));
        assert_eq!(policy(json!({"executionTimeout": -1e300})).execution_timeout, Duration::from_secs(5));
        assert_eq!(policy(json!({"executionTimeout": 1e300})).execution_timeout, Duration::from_hours(7 * 24));
        assert_eq!(policy(json!({"executionTimeout": 7000.9})).execution_timeout, Duration::from_secs(7));
        assert_eq!(policy(json!({"ttl": 1})).expires, UnixTime::from_millis(15_000));
        assert!(policy(json!({"lowPriority": true})).low_priority && !policy(json!({"ttl": null})).low_priority);
        let told = read(&json!({"input": 1, "policy": {"ttl": 7, "executionTimeout": 1, "x": [2]}})).unwrap().rest;
        let told: Value = serde_json::from_str(told["policy"].get()).unwrap();
        assert_eq!(told, json!({"ttl": 10_000, "executionTimeout": 5_000, "x": [2]}), "the worker's clock is no other");
        let url = SubmissionContext { ttl: Some(20_000), wait: Some(1), ..manner() };
        let job = parse_submission(br#"{"input":1,"policy":{"ttl":90000}}"#, url).unwrap().record;
        assert_eq!((job.expires, job.retention), (UnixTime::from_millis(25_000), Duration::from_mins(1)));
    }

    #[test]
    fn other_keys_go_to_the_worker_and_an_id_is_ours_to_say() {
        let job = read(&json!({"id": "mine", "input": 1, "s3Config": {"accessId": "a"}, "x": [1]})).unwrap();
        assert_eq!(job.record.id, "j1");
        assert_eq!(job.rest.keys().collect::<Vec<_>>(), ["s3Config", "x"]);
    }

    #[test]
    fn a_webhook_is_a_url_or_has_one() {
        let hook = |body: Value| read(&body).unwrap().record.webhook;
        assert_eq!(hook(json!({"input": 1, "webhook": ""})), None);
        assert_eq!(hook(json!({"input": 1, "webhook": "", "webhookV2": "http://v"})).unwrap().url, "http://v");
        assert_eq!(hook(json!({"input": 1, "webhook": "HTTPS://u/A"})).unwrap().url, "HTTPS://u/A");
        let hook = hook(json!({"input": 1, "webhook": {"url": "http://u", "headers": {"A": "b"}}})).unwrap();
        assert_eq!((&*hook.url, &*hook.headers), ("http://u", &[("A".to_owned(), "b".to_owned())][..]));
    }
}
