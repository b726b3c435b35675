//! The job object around an `input`, as it is sent to an endpoint and kept in a file.

use serde_json::Value;

/// A job that was asked for and not looked into yet. Keys beside these two are for others.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRequest {
    /// Names the job in results and file names.
    pub id: String,
    /// What [`crate::job::validate`] checks; never `null`.
    pub input: Value,
}

/// Why a text is no job.
#[derive(Debug, thiserror::Error)]
pub enum JobRequestError {
    /// The text is not JSON.
    #[error("the job is not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The text is JSON, but no object.
    #[error("a job is a JSON object with the key \"input\"")]
    NotAnObject,
    /// There is no `input`, or it is `null`. The words are the SDK's.
    #[error("Job has no input parameter. Unable to run.")]
    NoInput,
    /// `id` is there, but is no text that could name the job.
    #[error("a job's \"id\" is a string that is not empty, not {0}")]
    Id(Value),
}

impl JobRequest {
    /// The id of a job that brings none, as in the SDK's local run.
    pub const LOCAL_ID: &'static str = "local_test";

    /// Reads a job from its JSON text.
    ///
    /// # Errors
    /// The text is no JSON object, has no input, or an id that is no text.
    pub fn from_json(text: &str) -> Result<Self, JobRequestError> {
        let Value::Object(mut job) = serde_json::from_str(text)? else { return Err(JobRequestError::NotAnObject) };
        let input = job.remove("input").filter(|input| !input.is_null()).ok_or(JobRequestError::NoInput)?;
        let id = match job.remove("id") {
            None | Some(Value::Null) => Self::LOCAL_ID.to_owned(),
            Some(Value::String(id)) if !id.is_empty() => id,
            Some(other) => return Err(JobRequestError::Id(other)),
        };
        Ok(Self { id, input })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_is_its_id_and_its_input() {
        let job = JobRequest::from_json(r#"{"input": {"prompt": "p"}, "id": "j1", "webhook": "http://x"}"#).unwrap();
        assert_eq!(job, JobRequest { id: "j1".into(), input: json!({"prompt": "p"}) });
        assert_eq!(JobRequest::from_json(r#"{"input": []}"#).unwrap().id, "local_test");
    }

    #[test]
    fn what_is_no_job_is_told_apart() {
        let no_input = "Job has no input parameter. Unable to run.";
        for (text, why) in [
            ("", "the job is not valid JSON: EOF while parsing a value at line 1 column 0"),
            ("not json", "the job is not valid JSON: expected ident at line 1 column 2"),
            ("[]", "a job is a JSON object with the key \"input\""),
            ("{}", no_input),
            (r#"{"input": null}"#, no_input),
            (r#"{"input": {}, "id": 5}"#, "a job's \"id\" is a string that is not empty, not 5"),
            (r#"{"input": {}, "id": ""}"#, "a job's \"id\" is a string that is not empty, not \"\""),
        ] {
            assert_eq!(JobRequest::from_json(text).unwrap_err().to_string(), why, "{text}");
        }
    }

    #[test]
    fn hostile_json_is_refused_and_not_obeyed() {
        for text in ["[".repeat(100_000), format!("{{\"input\": {}", "{\"a\":".repeat(100_000)), "1e400".into()] {
            assert!(matches!(JobRequest::from_json(&text), Err(JobRequestError::Json(_))));
        }
    }
}
