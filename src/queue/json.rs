//! JSON objects whose values are kept as they were sent: to the digit, and without the cost of reading them.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// Members of an object, by name.
pub type Members = BTreeMap<String, Box<RawValue>>;

/// Members of an object that somebody sends: more than anybody has a use for.
const MAX_KEYS: usize = 1024;

/// Why a text is no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnObject {
    /// It is no JSON.
    #[error("it is no JSON: {0}")]
    NoJson(String),
    /// It is some other JSON.
    #[error("it should be a JSON object")]
    Other,
    /// It is one of very many members.
    #[error("it should have at most {MAX_KEYS} keys")]
    Large,
}

/// The members of an object that are `wanted`, by name; of two with one name, the last.
pub(super) fn members(text: &[u8], wanted: impl Fn(&str) -> bool) -> Result<Members, NotAnObject> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = MemberFilter(wanted).deserialize(&mut reader).and_then(|read| reader.end().map(|()| read));
    match read {
        Ok(Some(members)) => Ok(members),
        Ok(None) => Err(NotAnObject::Large),
        // Whoever is no object is whole JSON at least.
        Err(_) => match serde_json::from_slice::<&RawValue>(text) {
            Ok(_) => Err(NotAnObject::Other),
            Err(error) => Err(NotAnObject::NoJson(error.to_string())),
        },
    }
}

/// Reads members that are wanted; `None` if there are too many.
struct MemberFilter<F>(F);

impl<'de, F: Fn(&str) -> bool> DeserializeSeed<'de> for MemberFilter<F> {
    type Value = Option<Members>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: Fn(&str) -> bool> Visitor<'de> for MemberFilter<F> {
    type Value = Option<Members>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut sent: A) -> Result<Self::Value, A::Error> {
        let mut members = Some(Members::new());
        while let Some(key) = sent.next_key::<String>()? {
            let kept = members.as_mut().filter(|_| (self.0)(&key));
            let Some(kept) = kept else {
                // What is wrong with the rest as JSON is to be told all the same.
                sent.next_value::<IgnoredAny>()?;
                continue;
            };
            kept.insert(key, sent.next_value()?);
            if kept.len() > MAX_KEYS {
                members = None;
            }
        }
        Ok(members)
    }
}

/// A value, read, if its text has no more than `most` bytes: read, it takes many times as much. A text that was checked once cannot fail to be
/// read again, unless it is very deep; then it is as one that is too long.
pub(super) fn read(raw: &RawValue, most: usize) -> Option<Value> {
    Some(raw.get()).filter(|text| text.len() <= most).and_then(|text| serde_json::from_str(text).ok())
}

/// `null`.
pub(super) fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(keys: usize) -> String {
        let keys: Vec<String> = (0..keys).map(|number| format!(r#""k{number}":[{number}]"#)).collect();
        format!("{{{}}}", keys.join(","))
    }

    #[test]
    fn an_object_has_so_many_members_and_no_more() {
        let all = |text: &str| members(text.as_bytes(), |_| true);
        assert_eq!(all(&object(MAX_KEYS)).unwrap().len(), MAX_KEYS);
        assert_eq!(all(&object(MAX_KEYS + 1)).unwrap_err(), NotAnObject::Large);
        let some = members(object(100_000).as_bytes(), |key| key == "k99999").unwrap();
        assert_eq!(some["k99999"].get(), "[99999]", "who is not wanted does not count");
        let broken = format!("{}{}", &object(MAX_KEYS + 2)[1..], "}");
        assert!(matches!(all(&broken), Err(NotAnObject::NoJson(_))));
        assert!(matches!(all(r#"{"a":1} 2"#), Err(NotAnObject::NoJson(_))));
    }
}
