//! Where `latentd run` gets its job from.

use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use crate::app::cli::RunArgs;
use crate::disk::whole;
use crate::encode;
use crate::job::{Contract, JobRequest, JobRequestError, Kind};

/// What the SDK reads when nothing else is said.
const DEFAULT_JOB_FILE: &str = "test_input.json";

/// Bytes of a job or an image, as of what a queue hands out.
const MAX_INPUT_FILE: u64 = 256 << 20;

/// Why there is no job to run.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// Neither a prompt nor a job was given, and the usual file is not there.
    #[error(
        "{DEFAULT_JOB_FILE} not found: give a job with --test-input, or a prompt as in `latentd run \"a red apple\"`"
    )]
    NoUsualFile,
    /// What was given starts like no JSON object, and no file has that name.
    #[error("--test-input {0:?} is neither a file nor a JSON object")]
    NoSuchFile(String),
    /// There is no image file of that name.
    #[error("{0} = @{1}: there is no such file")]
    NoSuchImage(String, String),
    /// The file is there, but cannot be read.
    #[error("{file} cannot be read: {cause}")]
    Unreadable { file: String, cause: io::Error },
    /// What was read is no job.
    #[error("{0}")]
    NoJob(#[from] JobRequestError),
}

/// The job of a person who gave a prompt; `fields` are `KEY=VALUE`. `@FILE` for an image is what is in the file.
pub(super) fn of_prompt(prompt: &str, fields: &[(String, Value)]) -> Result<JobRequest, SourceError> {
    let mut input = Map::new();
    input.insert("prompt".into(), prompt.into());
    for (key, value) in fields {
        let file = value.as_str().and_then(|text| text.strip_prefix('@'));
        let value = match file.filter(|_| names_image(key)) {
            Some(file) => encode::base64(&bytes(file, SourceError::NoSuchImage(key.clone(), file.to_owned()))?).into(),
            None => value.clone(),
        };
        input.insert(key.clone(), value);
    }
    Ok(JobRequest { id: JobRequest::LOCAL_ID.into(), input: input.into() })
}

/// Whether a field of any contract is an image: the model that a job names may be of any.
fn names_image(key: &str) -> bool {
    let fields = Contract::ALL.iter().filter_map(|contract| contract.field(key));
    fields.into_iter().any(|field| matches!(field.kind, Kind::Image(_)))
}

/// The job of a program, as it was given or as it lies in the current folder.
pub(super) fn of_job(args: &RunArgs) -> Result<JobRequest, SourceError> {
    let text = match args.test_input.as_deref() {
        Some(json) if json.trim_start().starts_with(['{', '[']) => json.to_owned(),
        Some(file) => read(file, SourceError::NoSuchFile(file.to_owned()))?,
        None => read(DEFAULT_JOB_FILE, SourceError::NoUsualFile)?,
    };
    Ok(JobRequest::from_json(&text)?)
}

fn read(file: &str, missing: SourceError) -> Result<String, SourceError> {
    String::from_utf8(bytes(file, missing)?).map_err(|cause| {
        let cause = io::Error::new(io::ErrorKind::InvalidData, cause);
        SourceError::Unreadable { file: file.to_owned(), cause }
    })
}

fn bytes(file: &str, missing: SourceError) -> Result<Vec<u8>, SourceError> {
    whole::read_named(Path::new(file), MAX_INPUT_FILE).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => missing,
        _ => SourceError::Unreadable { file: file.to_owned(), cause },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use serde_json::json;

    use super::*;

    fn given(test_input: &str) -> Result<JobRequest, String> {
        let args = RunArgs { test_input: Some(test_input.into()), ..RunArgs::default() };
        of_job(&args).map_err(|error| error.to_string())
    }

    #[test]
    fn a_prompt_is_the_first_field_and_others_follow() {
        let fields = [("seed".into(), json!(7)), ("scheduler".into(), json!("DDIM"))];
        let job = of_prompt("a", &fields).unwrap();
        assert_eq!(job.input.to_string(), r#"{"prompt":"a","seed":7,"scheduler":"DDIM"}"#);
    }

    #[test]
    fn an_image_may_be_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("i.png");
        fs::write(&file, [0xff, 0xfe]).unwrap();
        let at = |key: &str, file: &str| of_prompt("@a", &[(key.into(), json!(format!("@{file}")))]);
        let file = file.to_str().unwrap();
        for key in ["init_image", "mask", "image_url"] {
            assert_eq!(at(key, file).unwrap().input, json!({"prompt": "@a", key: "//4="}));
        }
        assert_eq!(at("negative_prompt", "b").unwrap().input["negative_prompt"], "@b");
        assert_eq!(at("mask", "/gone").unwrap_err().to_string(), "mask = @/gone: there is no such file");
    }

    #[test]
    fn a_job_is_json_or_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("job.json");
        fs::write(&file, r#"{"id": "j", "input": {}}"#).unwrap();
        assert_eq!(given(file.to_str().unwrap()).unwrap().id, "j");
        assert_eq!(given(" {\"input\": {}}").unwrap().id, "local_test");
    }

    #[test]
    fn what_is_no_job_is_told_apart() {
        assert_eq!(given("not json").unwrap_err(), "--test-input \"not json\" is neither a file nor a JSON object");
        assert_eq!(
            given("{").unwrap_err(),
            "the job is not valid JSON: EOF while parsing an object at line 1 column 1"
        );
        assert!(given("/").unwrap_err().starts_with("/ cannot be read: "));
    }
}
