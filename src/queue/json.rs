//! JSON objects whose values are kept as they were sent: to the digit, and without the cost of reading them.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

/// Members of an object, by name.
pub type Members = BTreeMap<String, Box<RawValue>>;

/// Why a text is no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoObject {
    /// It is no JSON.
    #[error("it is no JSON: {0}")]
    NoJson(String),
    /// It is some other JSON.
    #[error("it should be a JSON object")]
    Other,
}

/// The members of an object; of two with one name, the last.
pub(super) fn members(text: &[u8]) -> Result<Members, NoObject> {
    let value: &RawValue = serde_json::from_slice(text).map_err(|error| NoObject::NoJson(error.to_string()))?;
    // Whoever is no object is whole JSON at least.
    serde_json::from_str(value.get()).map_err(|_| NoObject::Other)
}

/// A value, read. A text that was checked once cannot fail to be read again.
pub(super) fn read(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or_default()
}

/// `null`.
pub(super) fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}
