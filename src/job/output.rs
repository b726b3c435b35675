//! What is told of a finished job: the result object of `latentd run`.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::error::JobError;

/// The result of a job. Keys are in ascending order, as in the endpoint's replies.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    delay_time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
    #[serde(serialize_with = "milliseconds")]
    execution_time: Duration,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Vec<Image>>,
    status: &'static str,
    timings: Timings,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    worker_id: &'static str,
}

/// One image of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Image {
    /// A PNG file in base64, without a data URI's prefix.
    pub image: String,
    /// The seed that draws this image again.
    pub seed: u64,
}

/// Where a job's time went; on the wire whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Timings {
    /// Autoencoder, latents to pixels.
    #[serde(serialize_with = "milliseconds")]
    pub decode: Duration,
    /// Evaluations of the UNet, first to last.
    #[serde(serialize_with = "milliseconds")]
    pub denoise: Duration,
    /// Autoencoder, pixels to latents.
    #[serde(serialize_with = "milliseconds")]
    pub encode: Duration,
    /// Evaluations of the UNet, summed over images.
    pub evaluations: u32,
    /// Images that the job names: downloaded, decoded and resized.
    #[serde(serialize_with = "milliseconds")]
    pub fetch: Duration,
    /// Model and device; nothing in a process that has them already.
    #[serde(serialize_with = "milliseconds")]
    pub load: Duration,
    /// Pixels to PNG files in base64.
    #[serde(serialize_with = "milliseconds")]
    pub png: Duration,
    /// Tokenizer and text encoder.
    #[serde(serialize_with = "milliseconds")]
    pub text: Duration,
    /// All of it, waits included.
    #[serde(serialize_with = "milliseconds")]
    pub total: Duration,
}

impl Report {
    /// The result of a job that has all of its images.
    pub fn completed(id: String, images: Vec<Image>, timings: Timings, warnings: Vec<String>) -> Self {
        Self { output: Some(images), warnings, ..Self::new(id, "COMPLETED", timings) }
    }

    /// The result of a job that failed. `errors` lists the complaints about its input, if it is those that it failed of.
    pub fn failed(id: String, error: &JobError, errors: Vec<String>, timings: Timings) -> Self {
        Self { error: Some(error.message.clone()), errors, ..Self::new(id, "FAILED", timings) }
    }

    fn new(id: String, status: &'static str, timings: Timings) -> Self {
        Self {
            delay_time: 0,
            error: None,
            errors: Vec::new(),
            execution_time: timings.total.saturating_sub(timings.load),
            id,
            output: None,
            status,
            timings,
            warnings: Vec::new(),
            worker_id: "local",
        }
    }
}

fn milliseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(time.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::code::Code;
    use super::*;

    const TIMES: &str = concat!(
        r#"{"decode":0,"denoise":1500,"encode":0,"evaluations":40,"fetch":0,"#,
        r#""load":200,"png":0,"text":0,"total":2000}"#
    );

    fn timings() -> Timings {
        Timings {
            load: Duration::from_millis(200),
            denoise: Duration::from_micros(1_500_999),
            total: Duration::from_secs(2),
            evaluations: 40,
            ..Timings::default()
        }
    }

    #[test]
    fn a_completed_job_on_the_wire() {
        let image = Image { image: "iVBOR".into(), seed: u64::MAX };
        let report = Report::completed("j".into(), vec![image], timings(), vec!["cut".into()]);
        let expected = [
            r#"{"delayTime":0,"executionTime":1800,"id":"j","output":[{"image":"iVBOR","seed":18446744073709551615}],"#,
            &format!(r#""status":"COMPLETED","timings":{TIMES},"warnings":["cut"],"workerId":"local"}}"#),
        ];
        assert_eq!(serde_json::to_string(&report).unwrap(), expected.concat());
    }

    #[test]
    fn a_failed_job_on_the_wire() {
        let error = JobError { code: Code::InvalidInput, message: "a; b".into(), field: None };
        let report = Report::failed("j".into(), &error, vec!["a".into(), "b".into()], timings());
        let expected = [
            r#"{"delayTime":0,"error":"a; b","errors":["a","b"],"executionTime":1800,"id":"j","#,
            &format!(r#""status":"FAILED","timings":{TIMES},"workerId":"local"}}"#),
        ];
        assert_eq!(serde_json::to_string(&report).unwrap(), expected.concat());
    }
}
