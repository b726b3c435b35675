//! What a queue's answers mean.

use std::fmt;

use serde::de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::job::{Delivered, NotAJob};

/// Jobs of one answer that are read: several times what any queue hands out at once. The others are as if they had not arrived, so that
/// they are handed out again.
const MAX_TAKEN_JOBS: usize = 1024;

/// Stands for Python's `NaN` and its kind, which JSON has not. No queue sends it by chance.
const NOT_A_NUMBER: &str = "\u{0}no number";

/// Of a job that is JSON by its grammar, and yet cannot be held.
const UNREADABLE: &str =
    "the job cannot be read: it holds half of a surrogate pair, a number that is too large, or too many levels";

/// The jobs in the body of an answer: one object, or a list of them. One that cannot be read spoils no other.
///
/// # Errors
/// It is no JSON, or JSON of another kind.
pub fn jobs(body: &[u8]) -> Result<Vec<Result<Delivered, NotAJob>>, String> {
    let found = match body.trim_ascii_start().first() {
        Some(b'[') => parse::<List>(body).map(|List(jobs)| jobs),
        Some(b'{') => parse(body).map(|job| vec![job]),
        _ if body.trim_ascii() == b"null" => Ok(Vec::new()),
        // Known before much of it is read.
        _ => return Err("the answer is neither a job nor a list of jobs".to_owned()),
    };
    match found {
        Ok(jobs) => Ok(jobs.into_iter().map(job).collect()),
        Err(why) => {
            let text = marked(&String::from_utf8_lossy(body));
            Ok(split(&text).ok_or(why)?.into_iter().map(alone).collect())
        }
    }
}

/// The ids of jobs that are no longer wanted.
///
/// # Errors
/// As for [`jobs`].
pub fn stops(body: &[u8]) -> Result<Vec<String>, String> {
    let mut answer: Value = parse(body)?;
    let Some(Value::Array(ids)) = answer.get_mut("jobsToStop").map(Value::take) else { return Ok(Vec::new()) };
    let text = |id| if let Value::String(id) = id { Some(id) } else { None };
    Ok(ids.into_iter().filter_map(text).collect())
}

/// The first of the values in a list.
struct List(Vec<Value>);

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = List;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of jobs")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<List, A::Error> {
                let mut values = Vec::new();
                while values.len() < MAX_TAKEN_JOBS
                    && let Some(value) = list.next_element()?
                {
                    values.push(value);
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(List(values))
            }
        }
        deserializer.deserialize_seq(Values)
    }
}

fn job(mut value: Value) -> Result<Delivered, NotAJob> {
    let broken = holds_no_number(&value);
    if let Some(id) = value.get_mut("id").filter(|id| *id == NOT_A_NUMBER) {
        // It cannot be answered.
        id.take();
    }
    let job = Delivered::from_value(value)?;
    if broken {
        return Err(NotAJob { id: Some(job.id), why: "the job holds NaN or Infinity, which is no JSON" });
    }
    Ok(job)
}

/// One job from its own text.
fn alone(text: &str) -> Result<Delivered, NotAJob> {
    /// All else is passed over, however bad.
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    serde_json::from_str(text).map_or_else(
        |_| {
            // The id is held to the same rules.
            let named = serde_json::from_str(text).ok().map(|Named { id }| json!({"id": id, "input": null}));
            Err(NotAJob { id: named.and_then(|named| Some(job(named).ok()?.id)), why: UNREADABLE })
        },
        job,
    )
}

/// The texts of the first values in a list, or that of an object alone; `None` where `text` is neither by JSON's grammar.
fn split(text: &str) -> Option<Vec<&str>> {
    let text = text.trim_ascii();
    let Some(mut rest) = text.strip_prefix('[') else {
        return (text.starts_with('{') && first(text)? == text.len()).then(|| vec![text]);
    };
    let mut parts = Vec::new();
    loop {
        let (part, after) = rest.split_at(first(rest)?);
        if parts.len() < MAX_TAKEN_JOBS {
            parts.push(part);
        }
        let after = after.trim_ascii_start();
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return (after == "]").then_some(parts),
        }
    }
}

/// Where the value that `text` begins with ends. What is passed over may hold any escape and any number, and nest without limit.
fn first(text: &str) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some(values.byte_offset())
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let strict = serde_json::from_slice(body);
    strict.or_else(|cause| {
        let text = String::from_utf8_lossy(body);
        serde_json::from_str(&marked(&text)).map_err(|_| format!("the answer is no JSON: {cause}"))
    })
}

/// `text` with what Python writes for numbers that are none replaced by [`NOT_A_NUMBER`], outside of strings.
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
        Value::String(text) => text == NOT_A_NUMBER,
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
    fn of_a_list_without_end_the_first_jobs_are_read() {
        for input in ["1", "1e400", "NaN"] {
            let list: Vec<String> = (0..3000).map(|id| format!(r#"{{"id": "{id}", "input": {input}}}"#)).collect();
            let read = jobs(format!("[{}]", list.join(",")).as_bytes()).unwrap();
            assert_eq!(read.len(), MAX_TAKEN_JOBS, "{input}");
            let last = read.into_iter().next_back().unwrap();
            assert_eq!(last.map_or_else(|fault| fault.id, |job| Some(job.id)).as_deref(), Some("1023"));
        }
        assert!(jobs(format!("[{}", "{},".repeat(3000)).as_bytes()).is_err(), "half a list is none");
        assert_eq!(jobs(&vec![0; 1 << 20]).unwrap_err(), "the answer is neither a job nor a list of jobs");
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
    fn an_id_that_is_no_number_is_none() {
        for id in ["NaN", "Infinity", "-Infinity", "5", "null", "\"\"", "\"\\ud83d\""] {
            let body = format!(r#"[{{"id": {id}, "input": {{}}}}, {{"id": "a", "input": {{}}}}]"#);
            assert_eq!(ids(&body), [Err(None), Ok("a".into())], "{id}");
        }
    }

    #[test]
    fn one_that_cannot_be_read_spoils_no_other() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for bad in [r#""\ud83d""#, r#"{"\udc00": 1}"#, "1e400", "[-1E+999]", &deep] {
            let named = format!(r#"{{"input": {bad}, "id": "n"}}"#);
            assert_eq!(ids(&named), [Err(Some("n".into()))], "{bad:.10}");
            assert_eq!(jobs(named.as_bytes()).unwrap()[0].as_ref().unwrap_err().why, UNREADABLE);
            let list = format!(
                " [{named} ,\n{{\"id\": \"a\", \"input\": \"],\\\"\"}},{bad},{{\"id\": \"\", \"input\": {bad}}}, {{\"id\": \"b\", \"input\": 1}}, \
                  {{\"id\": \"c\", \"input\": NaN}} ]\n"
            );
            let expected =
                [Err(Some("n".into())), Ok("a".into()), Err(None), Err(None), Ok("b".into()), Err(Some("c".into()))];
            assert_eq!(ids(&list), expected, "{bad:.10}");
        }
    }

    #[test]
    fn what_holds_no_jobs_is_told() {
        let bad = [
            "[1e400",
            "[1e400,]",
            "[1e400 1]",
            "[1e400]]",
            "{\"id\": 1e400} {}",
            "1e400",
            "[{\"id\": \"a\"}, \"\\ud83d]",
        ];
        for body in bad.into_iter().chain(["", "{", "no", "5", "\"x\"", "\u{feff}{}", &"[".repeat(100_000)]) {
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

        /// Read one by one they are what they are together.
        #[test]
        fn a_list_is_split_between_its_jobs(inputs in proptest::collection::vec(any::<String>(), 1..9)) {
            let list: Vec<Value> = inputs.iter().map(|input| serde_json::json!({"id": "a", input: input})).collect();
            let text = serde_json::to_string_pretty(&list).unwrap();
            let split: Vec<Value> = split(&text).unwrap().into_iter().map(|part| serde_json::from_str(part).unwrap()).collect();
            prop_assert_eq!(split, list);
        }

        /// What is JSON already is left as it is.
        #[test]
        fn texts_are_not_touched(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(marked(&json), json);
        }
    }
}
