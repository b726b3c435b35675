//! An input read no further than its check looks: whatever a client sends, that costs little more than the text.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Keys that are kept: more than an input may have, and than complaints are told.
const INPUT_KEYS: usize = 64;

/// A JSON value. Of an object the first members are kept; lists and objects within it are empty, since no field of an input may be one.
#[derive(Debug, Clone, PartialEq)]
pub struct Flat {
    /// What is kept.
    pub value: Value,
    /// Members beyond those that are kept, none of which can be right.
    pub more: usize,
}

impl Flat {
    /// Reads a value that was checked to be JSON.
    ///
    /// # Errors
    /// A string in it has half a letter, or a number is beyond all numbers.
    pub fn read(raw: &RawValue) -> Result<Self, serde_json::Error> {
        serde_json::from_str(raw.get())
    }
}

impl<'de> Deserialize<'de> for Flat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Whole)
    }
}

/// A value within an object.
struct Member(Value);

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Within).map(Self)
    }
}

macro_rules! scalars {
    ($wrap:expr) => {
        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok($wrap(Value::Null))
        }
        fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
            Ok($wrap(value.into()))
        }
        fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
            Ok($wrap(value.into()))
        }
        fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
            Ok($wrap(value.into()))
        }
        fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
            Ok($wrap(value.into()))
        }
        fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
            Ok($wrap(value.into()))
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            Ok($wrap(Value::Array(Vec::new())))
        }
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("JSON")
        }
    };
}

struct Within;

impl<'de> Visitor<'de> for Within {
    type Value = Value;

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Object(Map::new()))
    }

    scalars!(|value: Value| value);
}

struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = Flat;

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Flat, A::Error> {
        let (mut kept, mut more) = (Map::new(), 0);
        while let Some(key) = members.next_key::<String>()? {
            // Of two with one name the last counts.
            if kept.len() < INPUT_KEYS || kept.contains_key(&key) {
                kept.insert(key, members.next_value::<Member>()?.0);
            } else {
                members.next_value::<IgnoredAny>()?;
                more += 1;
            }
        }
        Ok(Flat { value: Value::Object(kept), more })
    }

    scalars!(|value: Value| Flat { value, more: 0 });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Flat {
        Flat::read(serde_json::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn what_an_input_may_be_is_read_as_it_is() {
        for text in [
            "null",
            "true",
            "3",
            "-3",
            "18446744073709551616",
            "1.5",
            "-0",
            r#""a\u00e9\n""#,
            r#"{"b":1,"a":null,"c":"x","d":-0.0,"e":1e300}"#,
            "[]",
            "{}",
        ] {
            let whole: Value = serde_json::from_str(text).unwrap();
            assert_eq!(read(text), Flat { value: whole, more: 0 }, "{text}");
        }
        assert_eq!(read(r#"{"a":1,"b":2,"a":3}"#).value.to_string(), r#"{"a":3,"b":2}"#);
    }

    #[test]
    fn what_no_field_may_be_costs_nothing() {
        assert_eq!(read(r#"{"a":[1,[2],{}],"b":{"c":{"d":1}},"e":1}"#).value, json!({"a": [], "b": {}, "e": 1}));
        assert_eq!(read("[1,2]").value, json!([]));
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(read(&deep).value, json!({"a": []}));
    }

    #[test]
    fn keys_beyond_what_an_input_has_are_counted() {
        let text = |count: usize| {
            let keys: Vec<String> = (0..count).map(|number| format!(r#""k{number}":{number}"#)).collect();
            format!("{{{},\"k0\":7}}", keys.join(","))
        };
        let flat = read(&text(64));
        assert_eq!((flat.value.as_object().unwrap().len(), flat.more, &flat.value["k0"]), (64, 0, &json!(7)));
        let flat = read(&text(100_000));
        assert_eq!((flat.value.as_object().unwrap().len(), flat.more), (64, 99_936));
    }
}
