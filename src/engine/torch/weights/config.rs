//! Reads the `config.json` of a model's part, strictly: every key is used, known to be harmless, or refused by name.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::disk::whole;
use crate::engine::torch::error::LoadError;

/// Bytes of a configuration.
pub(in crate::engine::torch) const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// One part's configuration and which of its keys were used.
#[derive(Debug)]
pub(in crate::engine::torch) struct ConfigFile {
    file: PathBuf,
    map: Map<String, Value>,
    used: RefCell<HashSet<String>>,
}

impl ConfigFile {
    /// Reads `file`.
    pub(in crate::engine::torch) fn read(file: &Path) -> Result<Self, LoadError> {
        let fault = |reason: String| LoadError::Config { file: file.to_owned(), reason };
        let text = whole::read(file, MAX_CONFIG_BYTES).map_err(|cause| fault(format!("cannot be read: {cause}")))?;
        match serde_json::from_slice(&text) {
            Ok(Value::Object(map)) => Ok(Self::of(file, map)),
            Ok(_) => Err(fault("holds no JSON object".into())),
            Err(cause) => Err(fault(format!("is no JSON: {cause}"))),
        }
    }

    /// A configuration that did not come from a file of its own; `file` is what errors name.
    pub(in crate::engine::torch) fn of(file: &Path, map: Map<String, Value>) -> Self {
        Self { file: file.to_owned(), map, used: RefCell::default() }
    }

    /// Whether `key` is there and not null.
    pub(in crate::engine::torch) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.used.borrow_mut().insert(key.to_owned());
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The error for `key`'s present value.
    pub(in crate::engine::torch) fn refuse(&self, key: &str, supported: &str) -> LoadError {
        let value = self.map.get(key).map_or_else(|| "nothing".to_owned(), Value::to_string);
        LoadError::Unsupported { file: self.file.clone(), key: key.into(), value, supported: Some(supported.into()) }
    }

    /// An integer above 0 that must be there unless `default` is given.
    pub(in crate::engine::torch) fn int(&self, key: &str, default: Option<i64>) -> Result<i64, LoadError> {
        match self.get(key) {
            None => default.ok_or_else(|| self.refuse(key, "a whole number")),
            Some(value) => positive(value).ok_or_else(|| self.refuse(key, "a whole number above 0")),
        }
    }

    /// A list of `len` integers; one integer stands for `len` equal ones.
    pub(in crate::engine::torch) fn ints(
        &self,
        key: &str,
        len: usize,
        default: Option<i64>,
    ) -> Result<Vec<i64>, LoadError> {
        match self.get(key) {
            Some(Value::Array(_)) => {
                let list = self.list(key, positive, "whole numbers above 0")?;
                if list.len() == len {
                    Ok(list)
                } else {
                    Err(self.refuse(key, &format!("one number for each of {len} levels")))
                }
            }
            _ => Ok(vec![self.int(key, default)?; len]),
        }
    }

    /// A list of integers above 0 with at least one entry.
    pub(in crate::engine::torch) fn int_list(&self, key: &str) -> Result<Vec<i64>, LoadError> {
        self.list(key, positive, "whole numbers above 0")
    }

    /// A list of words with at least one entry.
    pub(in crate::engine::torch) fn words(&self, key: &str) -> Result<Vec<String>, LoadError> {
        self.list(key, |value| value.as_str().map(str::to_owned), "words")
    }

    fn list<T>(&self, key: &str, item: impl Fn(&Value) -> Option<T>, of: &str) -> Result<Vec<T>, LoadError> {
        let items: Option<Vec<T>> =
            self.get(key).and_then(Value::as_array).and_then(|list| list.iter().map(item).collect());
        items.filter(|list| !list.is_empty()).ok_or_else(|| self.refuse(key, &format!("a list of {of}")))
    }

    /// Whether a `model_index.json` says that there is no part `key`: `[null, null]`.
    pub(in crate::engine::torch) fn is_without(&self, key: &str) -> bool {
        self.get(key).is_some_and(|part| part[0].is_null())
    }

    /// A number.
    pub(in crate::engine::torch) fn float(&self, key: &str, default: f64) -> Result<f64, LoadError> {
        self.get(key).map_or(Ok(default), |value| value.as_f64().ok_or_else(|| self.refuse(key, "a number")))
    }

    /// A truth value.
    pub(in crate::engine::torch) fn flag(&self, key: &str, default: bool) -> Result<bool, LoadError> {
        self.get(key).map_or(Ok(default), |value| value.as_bool().ok_or_else(|| self.refuse(key, "true or false")))
    }

    /// A word out of `allowed`; the first of them if absent.
    pub(in crate::engine::torch) fn word<'a>(&self, key: &str, allowed: &[&'a str]) -> Result<&'a str, LoadError> {
        let Some(value) = self.get(key) else { return Ok(allowed[0]) };
        let found = value.as_str().and_then(|word| allowed.iter().find(|&&one| one == word));
        found.copied().ok_or_else(|| self.refuse(key, &allowed.join(", ")))
    }

    /// Refuses `key` unless it is absent, null or the one value that latentd knows how to do.
    pub(in crate::engine::torch) fn only(&self, key: &str, value: &Value) -> Result<(), LoadError> {
        let same = |found: &Value| found == value || (found.as_f64().is_some() && found.as_f64() == value.as_f64());
        if self.get(key).is_none_or(same) { Ok(()) } else { Err(self.refuse(key, &value.to_string())) }
    }

    /// Marks keys that have no bearing on inference.
    pub(in crate::engine::torch) fn ignore(&self, keys: &[&str]) {
        self.used.borrow_mut().extend(keys.iter().map(|&key| key.to_owned()));
    }

    /// Refuses what is left: an option that is unknown here may change the picture. Null, false and `_private` keys
    /// ask for nothing.
    pub(in crate::engine::torch) fn finish(&self) -> Result<(), LoadError> {
        let used = self.used.borrow();
        let idle = |value: &Value| value.is_null() || value == &Value::Bool(false);
        match self.map.iter().find(|(key, value)| !used.contains(*key) && !key.starts_with('_') && !idle(value)) {
            None => Ok(()),
            Some((key, value)) => Err(LoadError::Unsupported {
                file: self.file.clone(),
                key: key.clone(),
                value: value.to_string(),
                supported: None,
            }),
        }
    }
}

/// Bounded, so that no hostile configuration asks for more memory than a size can say.
fn positive(value: &Value) -> Option<i64> {
    value.as_i64().filter(|n| (1..=1 << 20).contains(n))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn config(value: &Value) -> ConfigFile {
        ConfigFile::of(Path::new("unet/config.json"), value.as_object().unwrap().clone())
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let config =
            config(&json!({"act_fn": "mish", "heads": 8, "levels": [1, 2], "new_option": true, "_x": 1, "off": false}));
        let said = |result: Result<(), LoadError>| result.unwrap_err().to_string();
        assert_eq!(
            config.word("act_fn", &["silu", "gelu"]).unwrap_err().to_string(),
            "unet/config.json: act_fn = \"mish\" is not supported; supported: silu, gelu"
        );
        assert_eq!(said(config.only("heads", &json!(4))), "unet/config.json: heads = 8 is not supported; supported: 4");
        assert!(said(config.ints("levels", 3, None).map(drop)).contains("levels = [1,2]"));
        assert_eq!(said(config.finish()), "unet/config.json: new_option = true is not supported");
        config.ignore(&["new_option"]);
        config.finish().unwrap();
    }

    #[test]
    fn numbers_are_bounded_and_defaults_fill_in() {
        let config = config(&json!({"zero": 0, "huge": 1_i64 << 40, "float": 1.5, "null": null}));
        for key in ["zero", "huge", "float", "absent"] {
            assert!(config.int(key, None).is_err(), "{key}");
        }
        assert_eq!(config.int("null", Some(7)).unwrap(), 7);
        assert_eq!(config.ints("absent", 3, Some(2)).unwrap(), [2, 2, 2]);
        assert!(config.only("float", &json!(1.5)).is_ok());
    }
}
