//! What a queue is told of a job, as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::job::{Output, OutputPart, Timings};

/// The end of a job. Keys beside those of the SDK are `timings` and `warnings`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobResult {
    /// Its images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<FailureReason>,
    /// Where its time went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
    /// What was cut or changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Whether the worker asks to be replaced.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stop_pod: bool,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum FailureReason {
    /// Of its input: every complaint.
    Input(Vec<String>),
    /// Of something else.
    Other(String),
    /// Of the time that its policy gives it.
    Late(String),
}

/// The state in which a job ended, by the endpoint's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalState {
    /// It has a result.
    Completed,
    /// It has an error.
    Failed,
    /// Its time was over.
    TimedOut,
    /// Its queue stopped it.
    Cancelled,
}

impl FinalState {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::TimedOut => "TIMED_OUT",
            Self::Cancelled => "CANCELLED",
        }
    }
}

impl JobResult {
    /// A job that failed, and no more.
    pub fn failed(why: impl Into<String>) -> Self {
        let error = Some(FailureReason::Other(why.into()));
        Self { output: None, error, timings: None, warnings: Vec::new(), stop_pod: false }
    }

    /// What a queue is told that has no room for the result with this body, whose wish to be replaced it keeps.
    pub fn in_place_of(body: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Wish {
            stop_pod: bool,
        }
        let Wish { stop_pod } = serde_json::from_slice(body).unwrap_or_default();
        let why = format!("the result has {} bytes, which is more than the queue takes", body.len());
        Self { stop_pod, ..Self::failed(why) }
    }

    /// The state that a queue makes of it, which has no other word for a time that is over than an error.
    pub fn state(&self) -> FinalState {
        match self.error {
            None => FinalState::Completed,
            Some(FailureReason::Late(_)) => FinalState::TimedOut,
            Some(_) => FinalState::Failed,
        }
    }

    /// The body.
    pub fn json(&self) -> Vec<u8> {
        text(self)
    }
}

/// How far a job is: evaluations made, evaluations in all, and what it looks like so far, as a data URI, if anybody asked.
pub fn progress(evaluation: u32, total: u32, preview: Option<&str>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Output<'a> {
        evaluation: u32,
        total: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        preview: Option<&'a str>,
    }
    json!({"status": "IN_PROGRESS", "output": Output { evaluation, total, preview }}).to_string().into_bytes()
}

/// A part of a result: one image of several.
pub fn part(output: OutputPart<'_>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Part<'a> {
        output: OutputPart<'a>,
    }
    text(&Part { output })
}

/// Written as it is read, because images are large: no copy of it is made as a [`Value`]. What has text for keys cannot fail.
fn text(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body)
        .unwrap_or_else(|cause| json!({"error": format!("the body is no JSON: {cause}")}).to_string().into())
}

/// `done` with its body if that has at most `most` bytes, else a failure that says how many there are.
pub fn fitting(done: JobResult, most: u64) -> (JobResult, Vec<u8>) {
    let body = done.json();
    let bytes = body.len() as u64;
    if bytes <= most {
        return (done, body);
    }
    let why = format!(
        "the result has {bytes} bytes and deliver.max_bytes is {most}: ask for fewer or smaller images, have them uploaded (s3Config of \
         the job, or BUCKET_ENDPOINT_URL), or raise it if the queue takes more"
    );
    let done = JobResult { stop_pod: done.stop_pod, ..JobResult::failed(why) };
    let body = done.json();
    (done, body)
}

/// The end of a job as its webhook is told: the status object of the endpoint, with the input and the webhook itself.
#[derive(Debug, Clone, Copy)]
pub struct StatusObject<'a> {
    /// The job.
    pub id: &'a str,
    /// As it was taken.
    pub input: &'a Value,
    /// Whom to tell.
    pub webhook: &'a str,
    /// As the queue is told; `None` if it wanted to know nothing more.
    pub done: Option<&'a JobResult>,
    /// From its submission to its start, as far as that is known.
    pub delay: Duration,
    /// From its start to its end.
    pub took: Duration,
    /// Who worked on it.
    pub worker: &'a str,
}

impl StatusObject<'_> {
    /// The state that it ended in.
    pub fn state(&self) -> FinalState {
        self.done.map_or(FinalState::Cancelled, JobResult::state)
    }

    /// The body.
    pub fn json(&self) -> Vec<u8> {
        // One text, as in the status object: a list is told as JSON.
        let error = self.done.and_then(|done| done.error.as_ref()).map(|error| match error {
            FailureReason::Input(complaints) => json!(complaints).to_string(),
            FailureReason::Other(why) | FailureReason::Late(why) => why.clone(),
        });
        let object = StatusFields {
            delay_time: self.delay.as_millis() as u64,
            error,
            execution_time: self.took.as_millis() as u64,
            id: self.id,
            input: self.input,
            output: self.done.and_then(|done| done.output.as_ref()),
            status: self.state().name(),
            timings: self.done.and_then(|done| done.timings),
            warnings: self.done.map_or(&[], |done| &done.warnings),
            webhook: self.webhook,
            worker_id: self.worker,
        };
        text(&object)
    }
}

/// What a webhook that was written down says where its job ended otherwise after all; `told` is its body, and `None` comes of what is none.
pub(super) fn otherwise(told: &[u8], state: FinalState, why: Option<&str>) -> Option<Vec<u8>> {
    let mut object: BTreeMap<String, Value> = serde_json::from_slice(told).ok()?;
    for key in ["error", "output", "timings", "warnings"] {
        object.remove(key);
    }
    object.extend(why.map(|why| ("error".to_owned(), why.into())));
    object.insert("status".into(), state.name().into());
    Some(text(&object))
}

/// Keys in ascending order, as in the endpoint's replies.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusFields<'a> {
    delay_time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    execution_time: u64,
    id: &'a str,
    input: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a Output>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
    webhook: &'a str,
    worker_id: &'a str,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{FailureReason, FinalState, JobResult, StatusObject, fitting, otherwise, part, progress};
    use crate::job::{Generation, Image, Output, OutputPart, OutputShape, Timings};
    use serde_json::json;
    use std::time::Duration;

    fn text(body: Vec<u8>) -> String {
        String::from_utf8(body).unwrap()
    }

    fn drawn() -> JobResult {
        let images = vec![Image { image: "iVBOR".into(), seed: u64::MAX }];
        let output = Some(Output { shape: OutputShape::List, images, generation: Generation::default() });
        JobResult { output, error: None, timings: None, warnings: Vec::new(), stop_pod: false }
    }

    #[test]
    fn bodies_are_those_of_the_sdk() {
        assert_eq!(text(drawn().json()), r#"{"output":[{"image":"iVBOR","seed":18446744073709551615}]}"#);
        assert_eq!(text(JobResult::failed("m").json()), r#"{"error":"m"}"#);
        let complaints =
            JobResult { error: Some(FailureReason::Input(vec!["a".into(), "b".into()])), ..JobResult::failed("") };
        assert_eq!(text(complaints.json()), r#"{"error":["a","b"]}"#);
        assert_eq!(
            text(JobResult { stop_pod: true, ..JobResult::failed("bye") }.json()),
            r#"{"error":"bye","stopPod":true}"#
        );
        let image = Image { image: "iVBOR".into(), seed: 7 };
        let part = |shape| text(part(OutputPart { shape, image: &image }));
        assert_eq!(part(OutputShape::List), r#"{"output":{"image":"iVBOR","seed":7}}"#);
        assert_eq!(part(OutputShape::Object), r#"{"output":{"image_url":"iVBOR","seed":7}}"#);
        let body = r#"{"status":"IN_PROGRESS","output":{"evaluation":3,"total":40}}"#;
        assert_eq!(text(progress(3, 40, None)), body);
        let body = r#"{"status":"IN_PROGRESS","output":{"evaluation":3,"total":40,"preview":"data:,"}}"#;
        assert_eq!(text(progress(3, 40, Some("data:,"))), body);
    }

    #[test]
    fn timings_and_warnings_stand_beside_the_output() {
        let done = JobResult { timings: Some(Timings::default()), warnings: vec!["cut".into()], ..drawn() };
        let body = text(done.json());
        assert!(body.contains(r#""timings":{"decode":0,"#) && body.ends_with(r#""warnings":["cut"]}"#), "{body}");
    }

    #[test]
    fn what_is_too_large_becomes_a_failure_with_the_sizes() {
        let done = JobResult { stop_pod: true, ..drawn() };
        let bytes = done.json().len() as u64;
        assert_eq!(fitting(done.clone(), bytes), (done.clone(), done.json()));
        let (failed, body) = fitting(done, bytes - 1);
        assert_eq!(failed.json(), body);
        let body = text(body);
        let start = format!(r#"{{"error":"the result has {bytes} bytes and deliver.max_bytes is {}"#, bytes - 1);
        assert!(body.starts_with(&start) && body.ends_with(r#","stopPod":true}"#), "{body}");
    }

    #[test]
    fn a_webhook_is_told_the_status_object_with_input_and_webhook() {
        let told = |done: Option<&JobResult>| {
            let (input, delay, took) = (json!({"prompt": "p"}), Duration::ZERO, Duration::from_micros(1_500_999));
            text(StatusObject { id: "j", input: &input, webhook: "http://x", done, delay, took, worker: "w" }.json())
        };
        let start = r#"{"delayTime":0,"executionTime":1500,"id":"j","input":{"prompt":"p"},"#;
        let output = r#""output":[{"image":"iVBOR","seed":18446744073709551615}],"status":"COMPLETED","#;
        let end = r#""webhook":"http://x","workerId":"w"}"#;
        assert_eq!(told(Some(&drawn())), [start, output, end].concat());
        let warned = JobResult { timings: Some(Timings::default()), warnings: vec!["cut".into()], ..drawn() };
        let warned = told(Some(&warned));
        assert!(warned.contains(r#""status":"COMPLETED","timings":{"decode":0,"#), "{warned}");
        assert!(warned.ends_with(r#""warnings":["cut"],"webhook":"http://x","workerId":"w"}"#), "{warned}");
        let failed =
            JobResult { error: Some(FailureReason::Input(vec!["a".into()])), stop_pod: true, ..JobResult::failed("") };
        let failed = told(Some(&failed));
        let start = r#"{"delayTime":0,"error":"[\"a\"]","executionTime":1500,"id":"j","#;
        assert!(failed.starts_with(start) && failed.contains(r#""status":"FAILED","#), "{failed}");
        assert!(!failed.contains("output") && !failed.contains("stopPod"), "{failed}");
    }
    /// A queue is told an error of a time that is over; who asked for the job, the endpoint's own word.
    #[test]
    fn every_end_has_the_word_of_the_endpoint() {
        let late = JobResult { error: Some(FailureReason::Late("late".into())), ..JobResult::failed("") };
        assert_eq!(text(late.json()), r#"{"error":"late"}"#);
        for (done, word, error) in [
            (Some(&drawn()), "COMPLETED", None),
            (Some(&JobResult::failed("m")), "FAILED", Some("m")),
            (Some(&late), "TIMED_OUT", Some("late")),
            (None, "CANCELLED", None),
        ] {
            let (input, delay) = (json!(null), Duration::from_secs(2));
            let ended = StatusObject {
                id: "j",
                input: &input,
                webhook: "http://x",
                done,
                delay,
                took: Duration::ZERO,
                worker: "w",
            };
            let body: serde_json::Value = serde_json::from_slice(&ended.json()).unwrap();
            assert_eq!((&body["status"], &body["delayTime"]), (&json!(word), &json!(2000)));
            assert_eq!(
                (body.get("error"), body.get("output").is_some()),
                (error.map(|error| json!(error)).as_ref(), word == "COMPLETED")
            );
        }
    }

    #[test]
    fn a_webhook_can_be_told_otherwise() {
        let input = json!({"b": 1, "a": 2});
        let told = |done: Option<&JobResult>| {
            let (delay, took) = (Duration::ZERO, Duration::from_secs(1));
            text(StatusObject { id: "j", input: &input, webhook: "http://x", done, delay, took, worker: "w" }.json())
        };
        let warned = JobResult { timings: Some(Timings::default()), warnings: vec!["cut".into()], ..drawn() };
        let completed = told(Some(&warned));
        let other = |state, why| text(otherwise(completed.as_bytes(), state, why).unwrap());
        assert_eq!(other(FinalState::Failed, Some("large")), told(Some(&JobResult::failed("large"))));
        assert_eq!(other(FinalState::Cancelled, None), told(None));
        assert_eq!(otherwise(b"[]", FinalState::Failed, None), None);
    }

    #[test]
    fn what_is_too_large_for_a_queue_keeps_its_wish() {
        let body = JobResult { stop_pod: true, ..drawn() }.json();
        let why = format!("the result has {} bytes, which is more than the queue takes", body.len());
        assert_eq!(JobResult::in_place_of(&body), JobResult { stop_pod: true, ..JobResult::failed(&why) });
        assert!(!JobResult::in_place_of(&drawn().json()).stop_pod && !JobResult::in_place_of(b"no").stop_pod);
    }
}
