//! What a queue is told of a job, as JSON.

use serde::Serialize;
use serde_json::json;

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
        json!(self).to_string().into_bytes()
    }
}

/// How far a job is: evaluations made, and evaluations in all.
pub fn progress(evaluation: u32, total: u32) -> Vec<u8> {
    json!({"status": "IN_PROGRESS", "output": {"evaluation": evaluation, "total": total}}).to_string().into_bytes()
}

/// The body of `done` if it has at most `most` bytes, else one that says how many there are.
pub fn fitting(done: &Done, most: u64) -> Vec<u8> {
    let body = done.json();
    let bytes = body.len() as u64;
    if bytes <= most {
        return body;
    }
    let why = format!(
        "the result has {bytes} bytes and deliver.max_bytes is {most}: ask for fewer or smaller images, or raise it if the queue takes more"
    );
    Done { stop_pod: done.stop_pod, ..Done::failed(why) }.json()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
        assert_eq!(text(progress(3, 40)), r#"{"status":"IN_PROGRESS","output":{"evaluation":3,"total":40}}"#);
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
        assert_eq!(fitting(&done, bytes), done.json());
        let body = text(fitting(&done, bytes - 1));
        let start = format!(r#"{{"error":"the result has {bytes} bytes and deliver.max_bytes is {}"#, bytes - 1);
        assert!(body.starts_with(&start) && body.ends_with(r#","stopPod":true}"#), "{body}");
    }
}
