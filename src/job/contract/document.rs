//! A contract in words: as a JSON schema, and as the table of docs/jobs.md.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::defaults::Defaults;
use super::field::{Field, Kind};
use super::list::Contract;
use super::sdxl::REFINE;
use super::text::either;
use crate::job::prompt::PromptSyntax;
use crate::job::spec::{RefineMode, Shade};
use crate::sampler::{Sampler, SigmaSpacing};

impl Field {
    /// What it may hold, for people; `quote` stands around names.
    pub fn allowed(&self, contract: Contract, quote: &str) -> String {
        let quoted = |name: &str| format!("{quote}{name}{quote}");
        match &self.kind {
            Kind::Text(bytes, _) => format!("text of at most {} KiB", bytes / 1024),
            Kind::Side(_) => contract.sides().to_string(),
            Kind::Count(range, _) => format!("{} to {}", range.start(), range.end()),
            Kind::Number(range, _) => format!("{} to {}", range.start(), range.end()),
            Kind::Share(_) => "above 0 and below 1".into(),
            Kind::Sampler(_) => either(contract.samplers().map(|(name, _)| quoted(name))),
            Kind::Sigmas(_) => either(SigmaSpacing::ALL.iter().map(|spacing| quoted(spacing.name()))),
            Kind::PromptSyntax(_) => either(PromptSyntax::ALL.iter().map(|syntax| quoted(syntax.name()))),
            Kind::Seed(_) => "a whole number below 2⁶⁴".into(),
            Kind::Flag(_) => format!("{} or {}", quoted("true"), quoted("false")),
            Kind::Shade(_) => either(Shade::ALL.iter().map(|shade| quoted(shade.name()))),
            Kind::Refine(_) => either(RefineMode::ALL.iter().map(|mode| quoted(mode.name()))),
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
            Kind::Side(_) => contract.sides().schema(),
            Kind::Count(range, _) => json!({ "type": "integer", "minimum": range.start(), "maximum": range.end() }),
            Kind::Number(range, _) => json!({ "type": "number", "minimum": range.start(), "maximum": range.end() }),
            Kind::Share(_) => json!({ "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1 }),
            Kind::Sampler(_) => {
                json!({ "type": "string", "enum": contract.samplers().map(|(name, _)| name).collect::<Vec<_>>() })
            }
            Kind::Sigmas(_) => {
                json!({ "type": "string", "enum": SigmaSpacing::ALL.iter().map(|spacing| spacing.name()).collect::<Vec<_>>() })
            }
            Kind::PromptSyntax(_) => json!({ "type": "string", "enum": PromptSyntax::ALL.map(PromptSyntax::name) }),
            Kind::Seed(_) => json!({ "type": "integer", "maximum": u64::MAX }),
            Kind::Flag(_) => json!({ "type": "boolean" }),
            Kind::Shade(_) => {
                json!({ "type": "string", "enum": Shade::ALL.iter().map(|shade| shade.name()).collect::<Vec<_>>() })
            }
            Kind::Refine(_) => {
                json!({ "type": "string", "enum": RefineMode::ALL.iter().map(|mode| mode.name()).collect::<Vec<_>>() })
            }
            Kind::Image(_) | Kind::Name(..) => json!({ "type": "string" }),
        };
        schema["description"] = match &self.kind {
            Kind::Image(_) => format!("{}; {}", self.meaning, self.allowed(contract, "")).into(),
            _ => self.meaning.into(),
        };
        let default = defaults.of(self);
        if default == Some(Value::Null) {
            schema["type"] = json!([schema["type"], "null"]);
        }
        if let Some(default) = default {
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
        let required = fields.iter().filter(|field| field.is_always_required() || self.must_have(field));
        let required: Vec<&str> = required.map(|field| field.name).collect();
        let mut schema =
            json!({ "type": "object", "required": required, "additionalProperties": false, "properties": properties });
        let either: Vec<Value> =
            fields.iter().filter_map(|field| Some(one_of_two(field.name, field.optional_with?))).collect();
        if !either.is_empty() {
            schema["allOf"] = either.into();
        }
        schema
    }

    /// What a form needs: the schema of an `input` (without second names of samplers), the fields that are `parts` of another, those
    /// that are `unused` beside another, and the `placeholder` of the prompt.
    ///
    /// `refined` says whether a refiner goes on after the model, as far as it is known: without one there is no choice how.
    pub fn form(&self, refined: Option<bool>) -> Value {
        let fields = self.contract.table().fields;
        let mut input = self.schema();
        for field in fields.iter().filter(|field| matches!(field.kind, Kind::Sampler(_))) {
            let property = &mut input["properties"][field.name];
            property["enum"] = Sampler::ALL.iter().map(|sampler| sampler.name()).collect();
            let usual = self.contract.samplers().find(|(name, _)| property["default"] == **name);
            property["default"] = usual.map(|(_, sampler)| sampler.name()).into();
        }
        if let Some(properties) = input["properties"].as_object_mut().filter(|_| refined == Some(false)) {
            properties.retain(|name, _| name != REFINE);
        }
        let others = |of: &dyn Fn(&Field) -> Option<&'static str>| -> Map<String, Value> {
            fields.iter().filter_map(|field| Some((field.name.to_owned(), of(field)?.into()))).collect()
        };
        json!({
            "input": input,
            "parts": others(&|field| field.part_of(refined)),
            "unused": others(&|field| field.unused_with),
            "placeholder": self.placeholder,
        })
    }
}

/// The schema of an object that has one of two keys at least.
fn one_of_two(one: &str, other: &str) -> Value {
    json!({ "anyOf": [{ "required": [one] }, { "required": [other] }] })
}

impl Contract {
    /// The table of its fields in Markdown.
    pub fn markdown(self) -> String {
        let mut table = String::from("| field | type and values | default | meaning |\n|---|---|---|---|\n");
        for field in self.table().fields {
            let default = match field.default() {
                None => field.optional_with.map_or("required".into(), |other| format!("required without `{other}`")),
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
            (field("width")["enum"][8].clone(), field("scheduler")["enum"][19].clone()),
            (json!(768), json!("KLMS"))
        );
        assert_eq!((&schema["required"], schema["properties"].as_object().unwrap().len()), (&json!(["prompt"]), 23));
    }

    #[test]
    fn a_schema_of_sdxl_has_multiples_open_bounds_and_a_choice_of_two_keys() {
        let schema = Defaults::from(Contract::Sdxl).schema();
        let field = |name: &str, key: &str| schema["properties"][name][key].clone();
        assert_eq!((field("width", "minimum"), field("width", "maximum")), (json!(64), json!(2048)));
        assert_eq!((field("width", "multipleOf"), field("width", "enum")), (json!(8), Value::Null));
        assert_eq!(field("high_noise_frac", "type"), json!(["number", "null"]));
        assert_eq!(
            (field("high_noise_frac", "exclusiveMinimum"), field("high_noise_frac", "exclusiveMaximum")),
            (json!(0), json!(1))
        );
        assert_eq!(field("scheduler", "enum").as_array().unwrap().len(), Sampler::ALL.len() + 5);
        assert_eq!(schema["required"], json!([]));
        assert_eq!(schema["allOf"], json!([{"anyOf": [{"required": ["prompt"]}, {"required": ["image_url"]}]}]));
        let markdown = Contract::Sdxl.markdown();
        for row in [
            "| `prompt` | text of at most 32 KiB | required without `image_url` |",
            "| `width` | a multiple of 8 from 64 to 2048 | `1024` |",
            "| `high_noise_frac` | above 0 and below 1 | none |",
        ] {
            assert!(markdown.contains(row), "{row}");
        }
    }

    #[test]
    fn a_form_knows_what_belongs_together_and_each_sampler_by_one_name() {
        let text = br#"{"defaults": {"scheduler": "K_EULER"}}"#;
        let form = Defaults::from_json(text, Contract::Sdxl).unwrap().form(Some(false));
        let scheduler = &form["input"]["properties"]["scheduler"];
        assert_eq!((&scheduler["default"], scheduler["enum"].as_array().unwrap().len()), (&json!("EULER-D"), 19));
        assert_eq!((&form["parts"]["strength"], &form["parts"]["width"]), (&json!("image_url"), &Value::Null));
        assert_eq!((&form["unused"]["width"], &form["unused"]["strength"]), (&json!("image_url"), &Value::Null));
        assert_eq!(Defaults::from(Contract::Sd1).form(None)["unused"], json!({}));
    }

    #[test]
    fn values_are_told_in_words() {
        let allowed = |name: &str| Contract::Sd1.field(name).unwrap().allowed(Contract::Sd1, "`");
        assert_eq!(allowed("guidance_scale"), "0 to 20");
        assert_eq!(allowed("mask_repaint"), "`black` or `white`");
        assert!(allowed("scheduler").ends_with("`UNIPC`, `DEIS` or `KLMS`"));
        assert!(Contract::Sd1.markdown().contains("| `num_outputs` | 1 to 10 | `1` | how many images |\n"));
    }
}
