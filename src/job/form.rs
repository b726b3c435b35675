//! The types of JSON as the RunPod SDK's validator tells them apart, in its words.

use serde_json::{Number, Value};

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

/// The integer that was written, if one was: `512` is one, `512.0` is none.
///
/// `serde_json` keeps `-0` and integers beyond 64 bits as floats; they are taken back here. A float that was written with
/// a point or an exponent cannot be told from those, and passes for one: no field's range reaches that far.
fn integer(number: &Number) -> Option<i128> {
    const BEYOND_U64: f64 = 18_446_744_073_709_551_616.0;
    const BEYOND_I64: f64 = -9_223_372_036_854_775_808.0;
    number.as_i128().or_else(|| {
        let x = number.as_f64()?;
        let lost = x >= BEYOND_U64 || x <= BEYOND_I64 || (x == 0.0 && x.is_sign_negative());
        lost.then_some(x as i128)
    })
}

/// The sentence about a value of another type than the one that Python calls `wanted`.
pub(super) fn wrong_type(name: &str, wanted: &str, found: &Value) -> String {
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
