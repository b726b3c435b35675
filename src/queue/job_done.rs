//! What a worker posts to `job-done`: progress, or an end.

use serde_json::Value;
use serde_json::value::RawValue;

use super::json::{Members, NotAnObject, members, null, read};

/// A body that was posted to `job-done`.
#[derive(Debug, Clone)]
pub enum WorkerPost {
    /// A word on the job's progress.
    Progress(Box<RawValue>),
    /// Its end.
    End(JobEnd),
}

/// The end of a job, as its worker tells it.
#[derive(Debug, Clone, Default)]
pub struct JobEnd {
    /// What came of it; of a failure, too.
    pub output: Option<Box<RawValue>>,
    /// Why it failed, as one text.
    pub error: Option<String>,
    /// Whether the worker is to be restarted, and gets no job before.
    pub stop: bool,
    /// Keys of our own worker that a status shows: `timings`, `warnings`.
    pub more: Members,
}

/// What was posted cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the worker's result could not be read: {0}")]
pub struct UnreadableResult(NotAnObject);

/// Keys of an end that are kept beside output and error.
const KEPT_KEYS: [&str; 2] = ["timings", "warnings"];

/// Keys that say something.
const READ_KEYS: [&str; 4] = ["output", "status", "error", "stopPod"];

/// Bytes of an error that are kept. It is part of the record, which is read whole whenever something happens to its job.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Reads such a body, whatever its content type says. Python's `NaN` and infinities are taken for `null`.
///
/// # Errors
/// It is no JSON object even so.
pub fn parse_job_done(body: &[u8]) -> Result<WorkerPost, UnreadableResult> {
    let known = |key: &str| READ_KEYS.contains(&key) || KEPT_KEYS.contains(&key);
    let mut body = members(body, known).or_else(|error| match without_nan(body) {
        Some(mended) => members(&mended, known).map_err(UnreadableResult),
        None => Err(UnreadableResult(error)),
    })?;
    let output = body.remove("output");
    if body.get("status").is_some_and(|status| status.get() == r#""IN_PROGRESS""#) {
        return Ok(WorkerPost::Progress(output.unwrap_or_else(null)));
    }
    let error = body.remove("error").and_then(|error| said(&error));
    let stop = body.get("stopPod").is_some_and(|stop| stop.get() == "true");
    body.retain(|key, _| KEPT_KEYS.contains(&&**key));
    Ok(WorkerPost::End(JobEnd { output, error, stop, more: body }))
}

/// An error as one text; `None` where Python would take it for no error. Of a long one the beginning.
fn said(error: &RawValue) -> Option<String> {
    let mut text = match read(error, MAX_ERROR_BYTES) {
        // Too long or too deep to be read; but it is there.
        None => beginning(error),
        Some(Value::Null | Value::Bool(false)) => return None,
        Some(Value::String(text)) if text.is_empty() => return None,
        Some(Value::String(text)) => text,
        Some(Value::Array(items)) if items.is_empty() => return None,
        Some(Value::Object(keys)) if keys.is_empty() => return None,
        Some(Value::Number(number)) if number.as_f64() == Some(0.0) => return None,
        Some(other) => other.to_string(),
    };
    if text.len() > MAX_ERROR_BYTES {
        text.truncate(text.floor_char_boundary(MAX_ERROR_BYTES));
        text.push('…');
    }
    Some(text)
}

/// How an error begins that is not read as a whole: of a string its letters, of anything else its JSON. It may be longer than it is kept.
fn beginning(error: &RawValue) -> String {
    // As long as it is kept even if each letter is written as `\u0000`, and the half of one.
    let text = &error.get()[..error.get().floor_char_boundary(6 * MAX_ERROR_BYTES + 12)];
    let Some(letters) = text.strip_prefix('"') else { return text.to_owned() };
    let ends = text.len() == error.get().len();
    if ends {
        return serde_json::from_str(text).unwrap_or_else(|_| text.to_owned());
    }
    // The end may be within a letter: at most the two halves of one.
    let whole = (0..=12).filter_map(|cut| letters.get(..letters.len() - cut));
    let mut read = whole.filter_map(|letters| serde_json::from_str(&format!("\"{letters}\"")).ok());
    read.next().unwrap_or_else(|| text.to_owned())
}

/// The text with `null` in place of Python's words for what JSON has no numbers for, outside of strings; `None` if there are none.
fn without_nan(body: &[u8]) -> Option<Vec<u8>> {
    const NON_JSON_NUMBERS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let (mut mended, mut rest, mut within, mut found) = (Vec::with_capacity(body.len()), body, false, false);
    while let Some((&byte, after)) = rest.split_first() {
        let word = NON_JSON_NUMBERS.iter().find(|word| !within && rest.starts_with(word));
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

    fn end(body: &str) -> JobEnd {
        match parse_job_done(body.as_bytes()).unwrap() {
            WorkerPost::End(end) => end,
            progress @ WorkerPost::Progress(_) => panic!("{progress:?}"),
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
    fn of_a_long_error_the_beginning_is_kept() {
        let kept = |error: &str| end(&format!("{{\"error\": {error}}}")).error.unwrap();
        for (letter, written) in [("x", "x"), ("\n", "\\n"), ("é", "\\u00e9"), ("😀", "\\ud83d\\ude00"), ("😀", "😀")]
        {
            for (count, cut) in [(MAX_ERROR_BYTES / letter.len(), ""), (20 * MAX_ERROR_BYTES, "…")] {
                for before in ["", "1", "12", "123"] {
                    let count = count - before.len();
                    let error = kept(&format!("\"{before}{}\"", written.repeat(count)));
                    let whole = format!("{before}{}", letter.repeat(count.min(MAX_ERROR_BYTES)));
                    let wanted =
                        if cut.is_empty() { &whole[..] } else { &whole[..whole.floor_char_boundary(MAX_ERROR_BYTES)] };
                    assert!(error == format!("{wanted}{cut}"), "{letter} {count} {before} {}", error.len());
                }
            }
        }
        let list = format!("[{}]", vec!["1"; MAX_ERROR_BYTES].join(", "));
        assert_eq!(kept(&list), format!("{}…", &list[..MAX_ERROR_BYTES]));
    }

    #[test]
    fn progress_says_so() {
        let progress = |body: &str| match parse_job_done(body.as_bytes()).unwrap() {
            WorkerPost::Progress(word) => Some(word.get().to_owned()),
            WorkerPost::End(_) => None,
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
            assert!(parse_job_done(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn our_own_worker_says_more() {
        let end = end(r#"{"output": 1, "timings": {"total": 3}, "warnings": ["w"], "x": 1}"#);
        assert_eq!(end.more.keys().collect::<Vec<_>>(), ["timings", "warnings"]);
    }
}
