//! What a queue is told of a job, as JSON.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::job::{Image, Timings};

/// The end of a job. Keys beside those of the SDK are `timings` and `warnings`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// Its images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Vec<Image>>,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Fault>,
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
pub enum Fault {
    /// Of its input: every complaint.
    Input(Vec<String>),
    /// Of something else.
    Other(String),
}

impl Done {
    /// A job that failed, and no more.
    pub fn failed(why: impl Into<String>) -> Self {
        let error = Some(Fault::Other(why.into()));
        Self { output: None, error, timings: None, warnings: Vec::new(), stop_pod: false }
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
pub fn part(image: &Image) -> Vec<u8> {
    #[derive(Serialize)]
    struct Part<'a> {
        output: &'a Image,
    }
    text(&Part { output: image })
}

/// Written as it is read, because images are large: no copy of it is made as a [`Value`]. What has text for keys cannot fail.
fn text(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body)
        .unwrap_or_else(|cause| json!({"error": format!("the body is no JSON: {cause}")}).to_string().into())
}

/// `done` with its body if that has at most `most` bytes, else a failure that says how many there are.
pub fn fitting(done: Done, most: u64) -> (Done, Vec<u8>) {
    let body = done.json();
    let bytes = body.len() as u64;
    if bytes <= most {
        return (done, body);
    }
    let why = format!(
        "the result has {bytes} bytes and deliver.max_bytes is {most}: ask for fewer or smaller images, have them uploaded (s3Config of \
         the job, or BUCKET_ENDPOINT_URL), or raise it if the queue takes more"
    );
    let done = Done { stop_pod: done.stop_pod, ..Done::failed(why) };
    let body = done.json();
    (done, body)
}

/// The end of a job as its webhook is told: the status object of the endpoint, with the input and the webhook itself.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// The job.
    pub id: &'a str,
    /// As it was taken.
    pub input: &'a Value,
    /// Whom to tell.
    pub webhook: &'a str,
    /// As the queue is told.
    pub done: &'a Done,
    /// From its start to its end.
    pub took: Duration,
    /// Who worked on it.
    pub worker: &'a str,
}

impl Ended<'_> {
    /// The state that the queue makes of it.
    pub fn status(&self) -> &'static str {
        if self.done.error.is_some() { "FAILED" } else { "COMPLETED" }
    }

    /// The body. `delayTime` is 0: only the queue knows when the job was submitted, and clients expect the key.
    pub fn json(&self) -> Vec<u8> {
        // One text, as in the status object: a list is told as JSON.
        let error = self.done.error.as_ref().map(|error| match error {
            Fault::Input(complaints) => json!(complaints).to_string(),
            Fault::Other(why) => why.clone(),
        });
        let object = Object {
            delay_time: 0,
            error,
            execution_time: self.took.as_millis() as u64,
            id: self.id,
            input: self.input,
            output: self.done.output.as_deref(),
            status: self.status(),
            timings: self.done.timings,
            warnings: &self.done.warnings,
            webhook: self.webhook,
            worker_id: self.worker,
        };
        text(&object)
    }
}

/// Keys in ascending order, as in the endpoint's replies.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    delay_time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    execution_time: u64,
    id: &'a str,
    input: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a [Image]>,
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
    use super::{Done, Ended, Fault, fitting, part, progress};
    use crate::job::{Image, Timings};
    use serde_json::json;
    use std::time::Duration;

    fn text(body: Vec<u8>) -> String {
        String::from_utf8(body).unwrap()
    }

    fn drawn() -> Done {
        let output = Some(vec![Image { image: "iVBOR".into(), seed: u64::MAX }]);
        Done { output, error: None, timings: None, warnings: Vec::new(), stop_pod: false }
    }

    #[test]
    fn bodies_are_those_of_the_sdk() {
        assert_eq!(text(drawn().json()), r#"{"output":[{"image":"iVBOR","seed":18446744073709551615}]}"#);
        assert_eq!(text(Done::failed("m").json()), r#"{"error":"m"}"#);
        let complaints = Done { error: Some(Fault::Input(vec!["a".into(), "b".into()])), ..Done::failed("") };
        assert_eq!(text(complaints.json()), r#"{"error":["a","b"]}"#);
        assert_eq!(text(Done { stop_pod: true, ..Done::failed("bye") }.json()), r#"{"error":"bye","stopPod":true}"#);
        let image = Image { image: "iVBOR".into(), seed: 7 };
        assert_eq!(text(part(&image)), r#"{"output":{"image":"iVBOR","seed":7}}"#);
        let body = r#"{"status":"IN_PROGRESS","output":{"evaluation":3,"total":40}}"#;
        assert_eq!(text(progress(3, 40, None)), body);
        let body = r#"{"status":"IN_PROGRESS","output":{"evaluation":3,"total":40,"preview":"data:,"}}"#;
        assert_eq!(text(progress(3, 40, Some("data:,"))), body);
    }

    #[test]
    fn timings_and_warnings_stand_beside_the_output() {
        let done = Done { timings: Some(Timings::default()), warnings: vec!["cut".into()], ..drawn() };
        let body = text(done.json());
        assert!(body.contains(r#""timings":{"decode":0,"#) && body.ends_with(r#""warnings":["cut"]}"#), "{body}");
    }

    #[test]
    fn what_is_too_large_becomes_a_failure_with_the_sizes() {
        let done = Done { stop_pod: true, ..drawn() };
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
        let told = |done: &Done| {
            let (input, took) = (json!({"prompt": "p"}), Duration::from_micros(1_500_999));
            let ended = Ended { id: "j", input: &input, webhook: "http://x", done, took, worker: "w" };
            text(ended.json())
        };
        let start = r#"{"delayTime":0,"executionTime":1500,"id":"j","input":{"prompt":"p"},"#;
        let output = r#""output":[{"image":"iVBOR","seed":18446744073709551615}],"status":"COMPLETED","#;
        let end = r#""webhook":"http://x","workerId":"w"}"#;
        assert_eq!(told(&drawn()), [start, output, end].concat());
        let warned = told(&Done { timings: Some(Timings::default()), warnings: vec!["cut".into()], ..drawn() });
        assert!(warned.contains(r#""status":"COMPLETED","timings":{"decode":0,"#), "{warned}");
        assert!(warned.ends_with(r#""warnings":["cut"],"webhook":"http://x","workerId":"w"}"#), "{warned}");
        let failed = told(&Done { error: Some(Fault::Input(vec!["a".into()])), stop_pod: true, ..Done::failed("") });
        let start = r#"{"delayTime":0,"error":"[\"a\"]","executionTime":1500,"id":"j","#;
        assert!(failed.starts_with(start) && failed.contains(r#""status":"FAILED","#), "{failed}");
        assert!(!failed.contains("output") && !failed.contains("stopPod"), "{failed}");
    }
}
