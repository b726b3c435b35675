//! A model's own defaults: what `latentd.json` says, within the bounds of the contract.

use std::ops::Not;

use serde::Serialize;
use serde_json::{Map, Value};

use super::conflict::Conflict;
use super::draft::Draft;
use super::field::Field;
use super::list::Contract;
use super::text::either;
use crate::job::spec::Size;
use crate::suggest::suggest;

/// Keys of `latentd.json`.
const FILE_KEYS: [&str; 3] = ["contract", "defaults", "placeholder"];

/// Bytes of a placeholder, which is a line of a form.
const PLACEHOLDER_BYTES: usize = 200;

/// What holds for the jobs of a model. Without a `latentd.json` it is what the contract says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Defaults {
    /// What its jobs may say.
    pub contract: Contract,
    /// Values of fields that a job leaves out, as they would be sent.
    #[serde(rename = "defaults", skip_serializing_if = "Map::is_empty")]
    fields: Map<String, Value>,
    /// A prompt that the page shows where none was typed yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<String>,
    /// Whether the model repaints parts of images and draws nothing else, so that its jobs must have an image and a mask.
    #[serde(skip_serializing_if = "Not::not")]
    pub inpaints: bool,
}

/// What is wrong with a `latentd.json`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DefaultsError {
    /// It is no JSON.
    #[error("it is not valid JSON: {0}")]
    Json(String),
    /// A part of it is of another type.
    #[error("{key} should be {allowed}")]
    Type {
        /// Which; `it` is all of it.
        key: String,
        /// What it should be.
        allowed: String,
    },
    /// A value is out of bounds.
    #[error("{key} is {value}: use {allowed}")]
    Bounds {
        /// Which.
        key: String,
        /// What it says.
        value: Value,
        /// What it may say.
        allowed: String,
    },
    /// There is no such key, or a model may not say it.
    #[error("{key} is no key that a model may set{}: there are {allowed}", .near.as_ref().map_or_else(String::new, |near| format!(" (did you mean {near}?)")))]
    Unknown {
        /// Which.
        key: String,
        /// What it was probably meant to be.
        near: Option<String>,
        /// What there is.
        allowed: String,
    },
}

impl From<Contract> for Defaults {
    /// Those of the contract.
    fn from(contract: Contract) -> Self {
        Self { contract, fields: Map::new(), placeholder: None, inpaints: false }
    }
}

impl Defaults {
    /// Reads the text of a `latentd.json` of a model whose contract is `usual` unless it names another.
    ///
    /// # Errors
    /// It is no JSON object, has an unknown key, or a value that its contract does not take.
    pub fn from_json(text: &[u8], usual: Contract) -> Result<Self, DefaultsError> {
        let value: Value = serde_json::from_slice(text).map_err(|cause| DefaultsError::Json(cause.to_string()))?;
        let object = value.as_object().ok_or_else(|| wrong("it", "a JSON object"))?;
        if let Some(key) = object.keys().find(|key| !FILE_KEYS.contains(&key.as_str())) {
            return Err(unknown(key, "", &FILE_KEYS));
        }
        let contract = object.get("contract").map_or(Ok(usual), Self::contract_named)?;
        let placeholder = object.get("placeholder").map(placeholder).transpose()?;
        let fields = match object.get("defaults") {
            None => Map::new(),
            Some(Value::Object(fields)) => checked(contract, fields)?,
            Some(_) => return Err(wrong("defaults", "a JSON object")),
        };
        let read = Self { contract, fields, placeholder, inpaints: false };
        match Conflict::of_defaults(&read.draft(), contract.table()) {
            None => Ok(read),
            Some(conflict) => Err(DefaultsError::Bounds {
                key: format!("defaults.{}", conflict.field),
                allowed: conflict.allowed(),
                value: conflict.value,
            }),
        }
    }

    /// The contract that `value` names.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn contract_named(value: &Value) -> Result<Contract, DefaultsError> {
        let named = value.as_str().and_then(Contract::from_name);
        named.ok_or_else(|| DefaultsError::Bounds {
            key: "contract".into(),
            value: value.clone(),
            allowed: either(Contract::ALL.iter().map(|contract| contract.name().to_owned())),
        })
    }

    /// The same of a model of which [`Self::inpaints`] is to be so.
    #[must_use]
    pub fn with_inpaints(self, inpaints: bool) -> Self {
        Self { inpaints, ..self }
    }

    /// What `field` is where a job does not send it; `None` if a job must send it.
    pub fn of(&self, field: &Field) -> Option<Value> {
        if self.must_have(field) {
            return None;
        }
        self.fields.get(field.name).cloned().or_else(|| field.default())
    }

    /// Whether jobs must send `field` because of what the model is, though its contract leaves it open.
    pub fn must_have(&self, field: &Field) -> bool {
        let start = self.contract.table().start.map(|start| start.field);
        self.inpaints && (field.name == "mask" || Some(field.name) == start)
    }

    /// The size of an image where a job names none.
    pub fn size(&self) -> Size {
        self.draft().size
    }

    /// A job that sends nothing.
    fn draft(&self) -> Draft {
        let mut draft = Draft::new();
        for field in self.contract.table().fields {
            // Defaults are within the bounds, and what must be sent stays as it is in a new one.
            let _ = self.of(field).map(|value| field.read(&self.contract.table().choices, &value, &mut draft));
        }
        draft
    }

    /// The smallest image.
    pub fn smallest(&self) -> Size {
        let side = self.contract.sides().smallest();
        Size { width: side, height: side }
    }

    /// What the model's file sets, in the order of the contract.
    pub fn own(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        let fields = self.contract.table().fields.iter();
        fields.filter_map(|field| Some((field.name, self.fields.get(field.name)?)))
    }

    /// The same for people: `num_inference_steps 20, guidance_scale 5`.
    pub fn told(&self) -> String {
        let told = |(name, value): (&str, &Value)| {
            format!("{name} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        self.own().map(told).collect::<Vec<_>>().join(", ")
    }
}

fn placeholder(value: &Value) -> Result<String, DefaultsError> {
    let text = value.as_str().filter(|text| text.len() <= PLACEHOLDER_BYTES && !text.chars().any(char::is_control));
    text.map(str::to_owned)
        .ok_or_else(|| wrong("placeholder", &format!("a line of text of at most {PLACEHOLDER_BYTES} bytes")))
}

/// The fields, if a model may set each of them and the contract takes its value.
fn checked(contract: Contract, fields: &Map<String, Value>) -> Result<Map<String, Value>, DefaultsError> {
    let settable: Vec<&str> =
        contract.table().fields.iter().filter(|field| field.by_model).map(|field| field.name).collect();
    for (key, value) in fields {
        let field = contract.field(key).filter(|field| field.by_model);
        let field = field.ok_or_else(|| unknown(key, "defaults.", &settable))?;
        field.read(&contract.table().choices, value, &mut Draft::new()).map_err(|_| DefaultsError::Bounds {
            key: format!("defaults.{key}"),
            value: value.clone(),
            allowed: field.allowed(contract, ""),
        })?;
    }
    Ok(fields.clone())
}

fn wrong(key: &str, allowed: &str) -> DefaultsError {
    DefaultsError::Type { key: key.into(), allowed: allowed.into() }
}

fn unknown(key: &str, within: &str, known: &[&str]) -> DefaultsError {
    DefaultsError::Unknown {
        key: format!("{within}{key}"),
        near: suggest(key, known.iter().copied()).map(str::to_owned),
        allowed: known.join(", "),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Defaults, String> {
        Defaults::from_json(text.as_bytes(), Contract::Sd1).map_err(|error| error.to_string())
    }

    #[test]
    fn a_model_has_defaults_within_its_contract() {
        let text = r#"{"contract": "sd1", "defaults": {"guidance_scale": 5, "num_inference_steps": 20}, "placeholder": "a red apple"}"#;
        let defaults = read(text).unwrap();
        let of = |name: &str| defaults.of(Contract::Sd1.field(name).unwrap());
        assert_eq!((of("num_inference_steps"), of("width")), (Some(json!(20)), Some(json!(512))));
        assert_eq!((of("prompt"), of("seed")), (None, Some(Value::Null)));
        assert_eq!(defaults.placeholder.as_deref(), Some("a red apple"));
        assert_eq!(defaults.told(), "num_inference_steps 20, guidance_scale 5");
        assert_eq!(read("{}").unwrap(), Contract::Sd1.into());
        let wide = read(r#"{"defaults": {"width": 768}}"#).unwrap();
        assert_eq!(wide.size(), Size { width: 768, height: 512 });
        assert_eq!(wide.smallest(), Size { width: 128, height: 128 });
    }

    #[test]
    fn what_is_wrong_is_named_with_what_may_be() {
        for (text, words) in [
            ("{", "it is not valid JSON: EOF while parsing an object at line 1 column 1"),
            ("[]", "it should be a JSON object"),
            (
                r#"{"default": {}}"#,
                "default is no key that a model may set (did you mean defaults?): there are contract, defaults, placeholder",
            ),
            (r#"{"contract": "sd9"}"#, r#"contract is "sd9": use sd1, sdxl or sdxl_turbo"#),
            (r#"{"contract": 1}"#, "contract is 1: use sd1, sdxl or sdxl_turbo"),
            (r#"{"placeholder": 1}"#, "placeholder should be a line of text of at most 200 bytes"),
            (r#"{"placeholder": "a\nb"}"#, "placeholder should be a line of text of at most 200 bytes"),
            (r#"{"defaults": 1}"#, "defaults should be a JSON object"),
            (r#"{"defaults": {"num_inference_steps": 0}}"#, "defaults.num_inference_steps is 0: use 1 to 500"),
            (r#"{"defaults": {"guidance_scale": "5"}}"#, r#"defaults.guidance_scale is "5": use 0 to 20"#),
            (
                r#"{"defaults": {"num_inference_steps": 51, "scheduler": "LCM"}}"#,
                "defaults.num_inference_steps is 51: use 1 to 50 with LCM",
            ),
            (
                r#"{"contract": "sdxl", "defaults": {"refiner_inference_steps": 60, "scheduler": "TCD"}}"#,
                "defaults.refiner_inference_steps is 60: use 1 to 50 with TCD",
            ),
            (
                r#"{"defaults": {"sigmas": "sgm_uniform", "scheduler": "DPM-S"}}"#,
                r#"defaults.sigmas is "sgm_uniform": use default, karras, exponential or beta with DPM-S"#,
            ),
            (
                r#"{"defaults": {"width": 500}}"#,
                "defaults.width is 500: use 128, 256, 384, 448, 512, 576, 640, 704 or 768",
            ),
            (
                r#"{"defaults": {"steps": 1}}"#,
                "defaults.steps is no key that a model may set: there are prompt_syntax, clip_skip, width, height, num_inference_steps, guidance_scale, scheduler, sigmas, eta",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), words);
        }
        let seed = read(r#"{"defaults": {"seed": 1}}"#).unwrap_err();
        assert!(seed.starts_with("defaults.seed is no key that a model may set"), "{seed}");
        let sampler = read(r#"{"defaults": {"scheduler": "k-lms"}}"#).unwrap_err();
        assert!(sampler.starts_with("defaults.scheduler is \"k-lms\": use DDIM, DDPM, "), "{sampler}");
    }
}
