//! What a worker posts to `job-done`: progress, or an end.

use serde_json::Value;
use serde_json::value::RawValue;

use super::json::{Members, NoObject, members, null, read};

/// A body that was posted to `job-done`.
#[derive(Debug, Clone)]
pub enum Posted {
    /// A word on the job's progress.
    Progress(Box<RawValue>),
    /// Its end.
    End(End),
}

/// The end of a job, as its worker tells it.
#[derive(Debug, Clone, Default)]
pub struct End {
    /// What came of it; of a failure, too.
    pub output: Option<Box<RawValue>>,
    /// Why it failed, as one text.
    pub error: Option<String>,
    /// Whether the worker is to be started anew, and gets no job before.
    pub stop: bool,
    /// Keys of our own worker that a status shows: `timings`, `warnings`.
    pub more: Members,
}

/// What was posted cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the worker's result could not be read: {0}")]
pub struct Unreadable(NoObject);

/// Keys of an end that are kept beside output and error.
const MORE: [&str; 2] = ["timings", "warnings"];

/// Reads such a body, whatever its content type says (PROTOCOL 1.11). Python's `NaN` and infinities are taken for `null`.
///
/// # Errors
/// It is no JSON object even so.
pub fn posted(body: &[u8]) -> Result<Posted, Unreadable> {
    let mut body = members(body).or_else(|error| match without_nan(body) {
        Some(mended) => members(&mended).map_err(Unreadable),
        None => Err(Unreadable(error)),
    })?;
    let output = body.remove("output");
    if body.get("status").is_some_and(|status| status.get() == r#""IN_PROGRESS""#) {
        return Ok(Posted::Progress(output.unwrap_or_else(null)));
    }
    let error = body.remove("error").and_then(|error| said(&error));
    let stop = body.get("stopPod").is_some_and(|stop| stop.get() == "true");
    body.retain(|key, _| MORE.contains(&&**key));
    Ok(Posted::End(End { output, error, stop, more: body }))
}

/// An error as one text; `None` where Python would take it for no error.
fn said(error: &RawValue) -> Option<String> {
    match read(error) {
        // Too deep to be read; but it is there.
        Value::Null if error.get() != "null" => Some(error.get().to_owned()),
        Value::Null | Value::Bool(false) => None,
        Value::String(text) => (!text.is_empty()).then_some(text),
        Value::Array(items) if items.is_empty() => None,
        Value::Object(keys) if keys.is_empty() => None,
        Value::Number(number) if number.as_f64() == Some(0.0) => None,
        other => Some(other.to_string()),
    }
}

/// The text with `null` in place of Python's words for what JSON has no numbers for, outside of strings; `None` if there are none.
fn without_nan(body: &[u8]) -> Option<Vec<u8>> {
    const WORDS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let (mut mended, mut rest, mut within, mut found) = (Vec::with_capacity(body.len()), body, false, false);
    while let Some((&byte, after)) = rest.split_first() {
        let word = WORDS.iter().find(|word| !within && rest.starts_with(word));
        if let Some(word) = word {
            mended.extend_from_slice(b"null");
            (rest, found) = (&rest[word.len()..], true);
            continue;
        }
        // What follows a backslash in a string is no end of it.
        let taken = if within && byte == b'\\' { 2.min(rest.len()) } else { 1 };
        within ^= byte == b'"';
        mended.extend_from_slice(&rest[..taken]);
        rest = if taken == 1 { after } else { &rest[taken..] };
    }
    found.then_some(mended)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(body: &str) -> End {
        match posted(body.as_bytes()).unwrap() {
            Posted::End(end) => end,
            progress @ Posted::Progress(_) => panic!("{progress:?}"),
        }
    }

    fn text(raw: Option<&RawValue>) -> Option<&str> {
        raw.map(RawValue::get)
    }

    #[test]
    fn ends_are_what_the_sdk_posts() {
        for (body, output) in [(r#"{"output": {"a": 1.10}}"#, r#"{"a": 1.10}"#), (r#"{"output": null}"#, "null")] {
            let end = end(body);
            assert_eq!((text(end.output.as_deref()), end.error, end.stop), (Some(output), None, false));
        }
        assert!(end("{}").output.is_none());
        let both = end(r#"{"output": {"keep": 1}, "error": ["e1", "e2"], "stopPod": true}"#);
        assert_eq!(
            (text(both.output.as_deref()), both.error.as_deref(), both.stop),
            (Some(r#"{"keep": 1}"#), Some(r#"["e1","e2"]"#), true)
        );
        assert!(!end(r#"{"stopPod": "true"}"#).stop);
    }

    #[test]
    fn an_error_is_what_python_takes_for_one() {
        for none in ["null", "false", "\"\"", "[]", "{}", "0", "0.0"] {
            assert_eq!(end(&format!("{{\"error\": {none}}}")).error, None, "{none}");
        }
        for (some, text) in [("\"e\"", "e"), ("true", "true"), ("7", "7"), (r#"{"a": "b"}"#, r#"{"a":"b"}"#)] {
            assert_eq!(end(&format!("{{\"error\": {some}}}")).error.as_deref(), Some(text));
        }
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        assert_eq!(end(&format!("{{\"error\": {deep}}}")).error, Some(deep));
    }

    #[test]
    fn progress_says_so() {
        let progress = |body: &str| match posted(body.as_bytes()).unwrap() {
            Posted::Progress(word) => Some(word.get().to_owned()),
            Posted::End(_) => None,
        };
        assert_eq!(progress(r#"{"status": "IN_PROGRESS", "output": 3}"#).as_deref(), Some("3"));
        assert_eq!(progress(r#"{"status": "IN_PROGRESS"}"#).as_deref(), Some("null"));
        assert_eq!(progress(r#"{"status": "DONE", "output": 3}"#), None);
    }

    #[test]
    fn numbers_that_json_has_no_words_for_are_null() {
        let found = end(r#"{"output": {"a": NaN, "b": [Infinity, -Infinity], "c": "NaN \" NaN \\", "d": NaN}}"#);
        let wanted = r#"{"a": null, "b": [null, null], "c": "NaN \" NaN \\", "d": null}"#;
        assert_eq!(text(found.output.as_deref()), Some(wanted));
    }

    #[test]
    fn what_is_no_object_is_unreadable() {
        for bad in ["", "[]", "3", "{", r#"{"a": NaNo}"#, r#"{"a": "NaN"#, "\u{1}", "\"\\"] {
            assert!(posted(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn our_own_worker_says_more() {
        let end = end(r#"{"output": 1, "timings": {"total": 3}, "warnings": ["w"], "x": 1}"#);
        assert_eq!(end.more.keys().collect::<Vec<_>>(), ["timings", "warnings"]);
    }
}
