//! Reads a JSON object field by field, in the words of the RunPod SDK's validator.
//!
//! Every key that is asked for is checked, first its type and then its rule; every key that nobody asked for is
//! unexpected. A field at fault yields its default, so that reading goes on and all complaints come at once.

use std::collections::HashMap;

use serde_json::{Map, Number, Value};

use super::error::{Complaint, Complaints, cut};

/// A JSON object while it is read.
pub(super) struct Form<'a> {
    fields: &'a Map<String, Value>,
    asked: Vec<&'static str>,
    complaints: HashMap<&'static str, String>,
}

impl<'a> Form<'a> {
    /// Begins to read `value`, the job's `input`.
    pub(super) fn open(value: &'a Value) -> Result<Self, Complaints> {
        match value {
            Value::Object(fields) => Ok(Self { fields, asked: Vec::new(), complaints: HashMap::new() }),
            other => Err(Complaint { field: "input".into(), text: wrong_type("input", "dict", other) }.into()),
        }
    }

    /// A field that must be there. `rule` turns what was sent into what is meant, or into `None` if it may not be.
    pub(super) fn required<J: Json, T: Default>(&mut self, name: &'static str, rule: impl FnOnce(J) -> Option<T>) -> T {
        if !self.fields.contains_key(name) {
            self.complain(name, format!("{name} is a required input."));
        }
        self.optional(name, T::default(), rule)
    }

    /// A field that is `default` when it is not there.
    pub(super) fn optional<J: Json, T>(
        &mut self,
        name: &'static str,
        default: T,
        rule: impl FnOnce(J) -> Option<T>,
    ) -> T {
        self.asked.push(name);
        let Some(value) = self.fields.get(name) else { return default };
        let Some(read) = J::read(value) else {
            self.complain(name, wrong_type(name, J::PYTHON, value));
            return default;
        };
        rule(read).unwrap_or_else(|| {
            self.complain(name, format!("{name} does not meet the constraints."));
            default
        })
    }

    /// Whether `name` was sent with anything but `null`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(|value| !value.is_null())
    }

    /// Finds fault with a field; the first fault of a field is the one that is told.
    pub(super) fn complain(&mut self, name: &'static str, text: String) {
        self.complaints.entry(name).or_insert(text);
    }

    /// Ends reading: the keys as they were sent, then what is missing, in the order in which it was asked for.
    pub(super) fn close(self) -> Result<(), Complaints> {
        let Self { fields, asked, complaints } = self;
        let sent = fields.keys().filter_map(|key| {
            let text = if asked.contains(&key.as_str()) {
                complaints.get(key.as_str())?.clone()
            } else {
                format!("Unexpected input. {} is not a valid input option.", cut(key))
            };
            Some(Complaint { field: cut(key).into_owned(), text })
        });
        let missing = asked.iter().filter(|name| !fields.contains_key(**name)).filter_map(|name| {
            let text = complaints.get(name)?.clone();
            Some(Complaint { field: (*name).into(), text })
        });
        Complaints::check(sent.chain(missing))
    }
}

/// A type that a field can have.
pub(super) trait Json: Sized {
    /// What Python calls it: complaints are in the words of the SDK.
    const PYTHON: &'static str;
    /// The value, if it is of this type.
    fn read(value: &Value) -> Option<Self>;
}

impl Json for String {
    const PYTHON: &'static str = "str";
    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(Self::from)
    }
}

impl Json for bool {
    const PYTHON: &'static str = "bool";
    fn read(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Json for f64 {
    const PYTHON: &'static str = "float";
    /// Integers are welcome where a float is asked for, as they are in the SDK.
    fn read(value: &Value) -> Option<Self> {
        value.as_f64()
    }
}

impl Json for i128 {
    const PYTHON: &'static str = "int";
    fn read(value: &Value) -> Option<Self> {
        value.as_number().and_then(integer)
    }
}

impl<J: Json> Json for Option<J> {
    const PYTHON: &'static str = J::PYTHON;
    fn read(value: &Value) -> Option<Self> {
        if value.is_null() { Some(None) } else { J::read(value).map(Some) }
    }
}

/// The integer that was written, if one was: `512` is one, `512.0` is none.
///
/// `serde_json` keeps `-0` and integers beyond 64 bits as floats; they are taken back here. A float that was written with
/// a point or an exponent cannot be told from those any more, and passes for one: no field's range reaches that far.
fn integer(number: &Number) -> Option<i128> {
    const BEYOND_U64: f64 = 18_446_744_073_709_551_616.0;
    const BEYOND_I64: f64 = -9_223_372_036_854_775_808.0;
    number.as_i128().or_else(|| {
        let x = number.as_f64()?;
        let lost = x >= BEYOND_U64 || x <= BEYOND_I64 || (x == 0.0 && x.is_sign_negative());
        lost.then_some(x as i128)
    })
}

fn wrong_type(name: &str, wanted: &str, found: &Value) -> String {
    format!("{name} should be <class '{wanted}'> type, not <class '{}'>.", python_type(found))
}

/// What Python's `json` would make of a value.
fn python_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if integer(number).is_some() => "int",
        Value::Number(_) => "float",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parsed(text: &str) -> Option<i128> {
        i128::read(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn integers_survive_the_json_reader() {
        for (text, value) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("-1", Some(-1)),
            ("512", Some(512)),
            ("512.0", None),
            ("0.0", None),
            ("5e2", None),
            ("1e19", None),
            ("18446744073709551615", Some(i128::from(u64::MAX))),
            ("18446744073709551616", Some(i128::from(u64::MAX) + 1)),
            ("-9223372036854775808", Some(i128::from(i64::MIN))),
            ("true", None),
            ("\"7\"", None),
        ] {
            assert_eq!(parsed(text), value, "{text}");
        }
        assert!(parsed("-99999999999999999999").unwrap() < i128::from(i64::MIN));
        assert!(parsed(&"9".repeat(300)).unwrap() > i128::from(u64::MAX));
    }

    #[test]
    fn types_are_called_as_python_calls_them() {
        for (text, name) in [
            ("null", "NoneType"),
            ("false", "bool"),
            ("3", "int"),
            ("36893488147419103232", "int"),
            ("3.0", "float"),
            ("\"\"", "str"),
            ("[]", "list"),
            ("{}", "dict"),
        ] {
            assert_eq!(python_type(&serde_json::from_str(text).unwrap()), name, "{text}");
        }
    }
}
