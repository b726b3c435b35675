//! What a queue's answers mean.

use serde_json::Value;

use crate::job::{Delivered, NotAJob};

/// Stands for Python's `NaN` and its kind, which JSON has not. No queue sends it by chance.
const NO_NUMBER: &str = "\u{0}no number";

/// The jobs in the body of an answer: one object, or a list of them.
///
/// # Errors
/// It is no JSON, or JSON of another kind.
pub(super) fn jobs(body: &[u8]) -> Result<Vec<Result<Delivered, NotAJob>>, String> {
    match parse(body)? {
        Value::Array(jobs) => Ok(jobs.into_iter().map(job).collect()),
        value @ Value::Object(_) => Ok(vec![job(value)]),
        Value::Null => Ok(Vec::new()),
        _ => Err("the answer is neither a job nor a list of jobs".to_owned()),
    }
}

/// The ids of jobs that are no longer wanted.
///
/// # Errors
/// As for [`jobs`].
pub(super) fn stops(body: &[u8]) -> Result<Vec<String>, String> {
    let mut answer = parse(body)?;
    let Some(Value::Array(ids)) = answer.get_mut("jobsToStop").map(Value::take) else { return Ok(Vec::new()) };
    let text = |id| if let Value::String(id) = id { Some(id) } else { None };
    Ok(ids.into_iter().filter_map(text).collect())
}

fn job(value: Value) -> Result<Delivered, NotAJob> {
    let broken = holds_no_number(&value);
    let job = Delivered::from_value(value)?;
    if broken {
        return Err(NotAJob { id: Some(job.id), why: "the job holds NaN or Infinity, which is no JSON" });
    }
    Ok(job)
}

fn parse(body: &[u8]) -> Result<Value, String> {
    let strict = serde_json::from_slice(body);
    strict.or_else(|cause| {
        let text = String::from_utf8_lossy(body);
        serde_json::from_str(&marked(&text)).map_err(|_| format!("the answer is no JSON: {cause}"))
    })
}

/// `text` with what Python writes for numbers that are none replaced by [`NO_NUMBER`], outside of strings.
fn marked(text: &str) -> String {
    let mut marked = String::with_capacity(text.len());
    let (mut inside, mut rest) = (false, text);
    while let Some(c) = rest.chars().next() {
        let word = ["NaN", "-Infinity", "Infinity"].into_iter().find(|word| !inside && rest.starts_with(word));
        if let Some(word) = word {
            marked.push_str("\"\\u0000no number\"");
            rest = &rest[word.len()..];
            continue;
        }
        let mut length = c.len_utf8();
        match c {
            '"' => inside = !inside,
            // What is escaped ends no string.
            '\\' if inside => length += rest[length..].chars().next().map_or(0, char::len_utf8),
            _ => {}
        }
        marked.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    marked
}

fn holds_no_number(value: &Value) -> bool {
    match value {
        Value::String(text) => text == NO_NUMBER,
        Value::Array(values) => values.iter().any(holds_no_number),
        Value::Object(values) => values.values().any(holds_no_number),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn ids(body: &str) -> Vec<Result<String, Option<String>>> {
        jobs(body.as_bytes()).unwrap().into_iter().map(|job| job.map(|job| job.id).map_err(|fault| fault.id)).collect()
    }

    #[test]
    fn one_job_or_a_list_of_them() {
        assert_eq!(ids(r#"{"id": "a", "input": {}}"#), [Ok("a".into())]);
        assert_eq!(ids(r#"[{"id": "a", "input": null}, {"id": "b", "input": 1}]"#), [Ok("a".into()), Ok("b".into())]);
        assert_eq!(ids("[]"), []);
        assert_eq!(ids("null"), []);
    }

    #[test]
    fn one_that_is_broken_does_not_spoil_the_others() {
        let body = r#"[{"input": {}}, {"id": 5, "input": {}}, {"id": "c"}, null, {"id": "e", "input": {"s": NaN}},
            {"id": "f", "input": "\"NaN\\"}]"#;
        let none = Err(None);
        assert_eq!(
            ids(body),
            [none.clone(), none.clone(), Err(Some("c".into())), none, Err(Some("e".into())), Ok("f".into())]
        );
    }

    #[test]
    fn what_holds_no_jobs_is_told() {
        for body in ["", "{", "no", "5", "\"x\"", "\u{feff}{}", &"[".repeat(100_000)] {
            assert!(jobs(body.as_bytes()).is_err(), "{body:.10}");
        }
        assert!(jobs(b"\xff\xfe").is_err());
    }

    #[test]
    fn stops_are_texts() {
        assert_eq!(stops(br#"{"jobsToStop": ["a", 5, null, "b"]}"#).unwrap(), ["a", "b"]);
        for none in ["{}", "[]", "null", r#"{"jobsToStop": "a"}"#, r#"{"jobsToStop": []}"#] {
            assert_eq!(stops(none.as_bytes()).unwrap(), [""; 0], "{none}");
        }
        assert!(stops(b"<html>").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in any::<Vec<u8>>(), text in ".*") {
            let _ = (jobs(&body), stops(&body), jobs(text.as_bytes()));
        }

        /// What is JSON already is left as it is.
        #[test]
        fn texts_are_not_touched(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(marked(&json), json);
        }
    }
}
