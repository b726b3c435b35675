//! A contract in words: as a JSON schema, and as the table of docs/jobs.md.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::defaults::Defaults;
use super::field::{Field, Kind};
use super::list::Contract;
use crate::job::spec::Shade;
use crate::sampler::Sampler;

impl Field {
    /// What it may hold, for people; `quote` stands around names.
    pub fn allowed(&self, contract: Contract, quote: &str) -> String {
        let quoted = |name: &str| format!("{quote}{name}{quote}");
        match &self.kind {
            Kind::Text(bytes, _) => format!("text of at most {} KiB", bytes / 1024),
            Kind::Side(_) => either(contract.sides().iter().map(u32::to_string)),
            Kind::Count(range, _) => format!("{} to {}", range.start(), range.end()),
            Kind::Number(range, _) => format!("{} to {}", range.start(), range.end()),
            Kind::Sampler(_) => either(contract.samplers().map(|(name, _)| quoted(name))),
            Kind::Seed(_) => "a whole number below 2⁶⁴".into(),
            Kind::Flag(_) => format!("{} or {}", quoted("true"), quoted("false")),
            Kind::Shade(_) => either(Shade::ALL.iter().map(|shade| quoted(shade.name()))),
            Kind::Image(_) => {
                let [http, data] = ["http(s)", "data:"].map(quoted);
                format!("a public {http} URL, a {data} URI or base64 of a PNG, JPEG or WebP")
            }
            Kind::Name(..) => "a name".into(),
        }
    }

    fn schema(&self, contract: Contract, defaults: &Defaults) -> Value {
        let mut schema = match &self.kind {
            Kind::Text(bytes, _) => json!({ "type": "string", "maxLength": bytes }),
            Kind::Side(_) => json!({ "type": "integer", "enum": contract.sides() }),
            Kind::Count(range, _) => json!({ "type": "integer", "minimum": range.start(), "maximum": range.end() }),
            Kind::Number(range, _) => json!({ "type": "number", "minimum": range.start(), "maximum": range.end() }),
            Kind::Sampler(_) => {
                json!({ "type": "string", "enum": contract.samplers().map(|(name, _)| name).collect::<Vec<_>>() })
            }
            Kind::Seed(_) => json!({ "type": "integer", "maximum": u64::MAX }),
            Kind::Flag(_) => json!({ "type": "boolean" }),
            Kind::Shade(_) => {
                json!({ "type": "string", "enum": Shade::ALL.iter().map(|shade| shade.name()).collect::<Vec<_>>() })
            }
            Kind::Image(_) | Kind::Name(..) => json!({ "type": "string" }),
        };
        schema["description"] = match &self.kind {
            Kind::Image(_) => format!("{}; {}", self.meaning, self.allowed(contract, "")).into(),
            _ => self.meaning.into(),
        };
        if self.default() == Some(Value::Null) {
            schema["type"] = json!([schema["type"], "null"]);
        }
        if let Some(default) = defaults.of(self) {
            schema["default"] = default;
        }
        schema
    }
}

impl Defaults {
    /// The JSON schema of an input, with these defaults.
    pub fn schema(&self) -> Value {
        let fields = self.contract.table().fields;
        let properties: Map<String, Value> =
            fields.iter().map(|field| (field.name.to_owned(), field.schema(self.contract, self))).collect();
        let required: Vec<&str> = fields.iter().filter(|field| field.is_required()).map(|field| field.name).collect();
        json!({ "type": "object", "required": required, "additionalProperties": false, "properties": properties })
    }

    /// What a form needs: the schema of an `input` (without second names of samplers), the fields that are `parts` of another, and the
    /// `placeholder` of the prompt.
    pub fn form(&self) -> Value {
        let fields = self.contract.table().fields;
        let mut input = self.schema();
        for field in fields.iter().filter(|field| matches!(field.kind, Kind::Sampler(_))) {
            let names: Vec<&str> = Sampler::ALL.iter().map(|sampler| sampler.name()).collect();
            input["properties"][field.name]["enum"] = names.into();
        }
        let parts: Map<String, Value> =
            fields.iter().filter_map(|field| Some((field.name.to_owned(), field.part_of?.into()))).collect();
        json!({ "input": input, "parts": parts, "placeholder": self.placeholder })
    }
}

impl Contract {
    /// The table of its fields in Markdown.
    pub fn markdown(self) -> String {
        let mut table = String::from("| field | type and values | default | meaning |\n|---|---|---|---|\n");
        for field in self.table().fields {
            let default = match field.default() {
                None => "required".into(),
                Some(Value::Null) => "none".into(),
                Some(Value::String(text)) => format!("`{text}`"),
                Some(value) => {
                    format!("`{}`", value.as_f64().map_or_else(|| value.to_string(), |number| number.to_string()))
                }
            };
            let (allowed, meaning) = (field.allowed(self, "`"), field.meaning);
            // Writing to a string cannot fail.
            let _ = writeln!(table, "| `{}` | {allowed} | {default} | {meaning} |", field.name);
        }
        table
    }
}

/// `a, b or c`.
fn either(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    match names.as_slice() {
        [names @ .., last] if !names.is_empty() => format!("{} or {last}", names.join(", ")),
        names => names.concat(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_schema_has_the_bounds_of_the_table_and_the_defaults_of_the_model() {
        let text = br#"{"defaults": {"num_inference_steps": 20}}"#;
        let schema = Defaults::from_json(text, Contract::Sd1).unwrap().schema();
        let field = |name: &str| {
            let mut field = schema["properties"][name].clone();
            field.as_object_mut().unwrap().remove("description").unwrap();
            field
        };
        assert_eq!(
            field("num_inference_steps"),
            json!({"type": "integer", "minimum": 1, "maximum": 500, "default": 20})
        );
        assert_eq!(field("guidance_scale"), json!({"type": "number", "minimum": 0.0, "maximum": 20.0, "default": 7.5}));
        assert_eq!(field("prompt"), json!({"type": "string", "maxLength": 32768}));
        assert_eq!(field("seed"), json!({"type": ["integer", "null"], "maximum": u64::MAX, "default": null}));
        assert_eq!(field("mask_repaint"), json!({"type": "string", "enum": ["black", "white"], "default": "black"}));
        assert_eq!(
            (field("width")["enum"][8].clone(), field("scheduler")["enum"][12].clone()),
            (json!(768), json!("KLMS"))
        );
        assert_eq!((&schema["required"], schema["properties"].as_object().unwrap().len()), (&json!(["prompt"]), 19));
    }

    #[test]
    fn values_are_told_in_words() {
        let allowed = |name: &str| Contract::Sd1.field(name).unwrap().allowed(Contract::Sd1, "`");
        assert_eq!(allowed("guidance_scale"), "0 to 20");
        assert_eq!(allowed("mask_repaint"), "`black` or `white`");
        assert!(allowed("scheduler").ends_with("`PNDM`, `K-LMS` or `KLMS`"));
        assert!(Contract::Sd1.markdown().contains("| `num_outputs` | 1 to 10 | `1` | how many images |\n"));
    }
}
