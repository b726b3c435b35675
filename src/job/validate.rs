//! A job's `input` becomes a [`Spec`] by the contract of its model, or everything that is wrong with it is told at once.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Map, Value};

use super::contract::{Catalog, Conflict, Contract, Defaults, Draft, Field, FieldFault, Kind, REFINE, SHARE};
use super::error::{Complaint, Complaints, cut};
use super::form::wrong_type;
use super::role::ModelRole;
use super::spec::{ImageSource, Spec};
use crate::suggest::suggest;

/// What this process can draw with: the part of validation that is not the same everywhere.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Offer {
    /// The models, first the one of jobs that name none.
    pub models: Vec<OfferedModel>,
    /// Names of the LoRA files at hand.
    pub loras: Vec<String>,
}

/// A model that jobs may ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct OfferedModel {
    /// What jobs call it.
    pub name: String,
    /// What holds for its jobs.
    pub defaults: Defaults,
    /// Whether a refiner goes on after it; `None` where that is not known.
    pub refined: Option<bool>,
}

impl OfferedModel {
    /// A model that jobs call `name`, with `defaults`, which may be those of a contract.
    pub fn new(name: impl Into<String>, defaults: impl Into<Defaults>) -> Self {
        Self { name: name.into(), defaults: defaults.into(), refined: None }
    }

    /// The same where it is known whether a refiner goes on after it.
    #[must_use]
    pub fn with_refiner(self, refined: bool) -> Self {
        Self { refined: Some(refined), ..self }
    }
}

impl Offer {
    /// What the model of this name may be asked; the first model's contract if there is none of this name.
    pub fn contract(&self, model: &str) -> Contract {
        self.named(Some(model)).map_or(Contract::Sd1, |model| model.defaults.contract)
    }

    /// What an input that passes [`validate`] says in vain.
    pub fn warnings(&self, input: &Value) -> Vec<String> {
        let Some((sent, model)) = input.as_object().and_then(|sent| Some((sent, self.model(sent)?))) else {
            return Vec::new();
        };
        let told =
            |field: &&Field| sent.get(field.name).is_some_and(|value| model.defaults.of(field).as_ref() != Some(value));
        let fields = model.defaults.contract.table().fields.iter();
        let unused = fields.filter(told).filter_map(|field| Some((field.name, unused_with(field, sent, model)?)));
        unused.map(|(name, other)| format!("{name} has no effect beside {other}")).collect()
    }

    /// The model of an input: the one that it names, if there is such a one, else the first.
    fn model(&self, sent: &Map<String, Value>) -> Option<&OfferedModel> {
        self.named(sent.get("model").and_then(Value::as_str))
    }

    fn named(&self, name: Option<&str>) -> Option<&OfferedModel> {
        self.models.iter().find(|model| Some(model.name.as_str()) == name).or_else(|| self.models.first())
    }

    fn names(&self, of: Catalog) -> Vec<&str> {
        match of {
            Catalog::Models => self.models.iter().map(|model| model.name.as_str()).collect(),
            Catalog::Loras => self.loras.iter().map(String::as_str).collect(),
        }
    }
}

/// Checks `input`. `entropy` is the seed of a job that leaves its seed open.
///
/// # Errors
/// Complaints, one a field: about keys in the order in which they were sent, then about what is missing.
pub fn validate(input: &Value, offer: &Offer, entropy: u16) -> Result<Spec<ImageSource>, Complaints> {
    let Value::Object(sent) = input else {
        let text = wrong_type("input", "dict", input);
        return Err(Complaint { field: "input".into(), text, hint: None }.into());
    };
    let model = offer.model(sent);
    let usual = Defaults::from(Contract::Sd1);
    let defaults = model.map_or(&usual, |model| &model.defaults);
    let (mut draft, mut faults) = (Draft::new(), HashMap::new());
    for field in defaults.contract.table().fields {
        if let Some(fault) = read(field, sent, (model, defaults), offer, &mut draft) {
            faults.insert(field.name, fault);
        }
    }
    // What was sent wrong is as it is in a new draft, where samplers take all.
    let (table, refined) = (defaults.contract.table(), model.and_then(|model| model.refined));
    for (field, error) in draft.wrong_weights() {
        let hint = Some("use a number, as in (word:1.3), or a backslash before each bracket".into());
        faults.insert(field, Complaint { field: field.into(), text: format!("{field} {error}."), hint });
    }
    for conflict in Conflict::of_job(&draft, table, refined) {
        faults.insert(conflict.field, conflicting(&conflict));
    }
    let image = table.start.map_or("", |start| start.field);
    if ![image, SHARE].iter().any(|field| faults.contains_key(field))
        && let Some(fault) = refines_in_vain(&draft, refined)
    {
        faults.insert(REFINE, fault);
    }
    Complaints::check(complaints(defaults.contract, sent, faults))?;
    Ok(draft.finish(model.map(|model| model.name.as_str()), entropy.into()))
}

/// What is wrong with a job that an ensemble of base model and refiner is to draw. `refined` says whether there is a refiner.
fn refines_in_vain(draft: &Draft, refined: Option<bool>) -> Option<Complaint> {
    if !draft.is_ensemble() {
        return None;
    }
    let (text, hint) = if refined == Some(false) {
        ("refine \"ensemble\" is not offered, the operator has set no refiner.", "use strength, or leave it out")
    } else if draft.denoising_end().is_none() {
        ("refine \"ensemble\" was provided without high_noise_frac", "send high_noise_frac, such as 0.8")
    } else {
        return None;
    };
    Some(Complaint { field: REFINE.into(), text: text.into(), hint: Some(hint.into()) })
}

/// The complaints in the order in which a client reads them: each key as it was sent, then what is missing.
fn complaints<'a>(
    contract: Contract,
    sent: &'a Map<String, Value>,
    mut faults: HashMap<&'static str, Complaint>,
) -> impl Iterator<Item = Complaint> + 'a {
    let fields = contract.table().fields;
    let missing: Vec<Complaint> = fields
        .iter()
        .filter(|field| !sent.contains_key(field.name))
        .filter_map(|field| faults.remove(field.name))
        .collect();
    let of_key = move |key: &String| match contract.field(key) {
        Some(field) => faults.remove(field.name),
        None => Some(unexpected(contract, key)),
    };
    sent.keys().filter_map(of_key).chain(missing)
}

/// Reads a field, as it was sent or as it is by default; what is wrong with it.
fn read(
    field: &Field,
    sent: &Map<String, Value>,
    (model, defaults): (Option<&OfferedModel>, &Defaults),
    offer: &Offer,
    draft: &mut Draft,
) -> Option<Complaint> {
    let complain = |text: String, hint| Some(Complaint { field: field.name.into(), text, hint });
    let contract = defaults.contract;
    let value = sent.get(field.name).map(Cow::Borrowed).or_else(|| defaults.of(field).map(Cow::Owned));
    let choices = &contract.table().choices;
    let must_have = defaults.must_have(field);
    let Some(value) = value.as_deref().filter(|value| !(must_have && value.is_null())) else {
        if must_have {
            let hint = "this model repaints a part of an image, and draws nothing else".to_owned();
            return complain(format!("{} is a required input.", field.name), Some(hint));
        }
        let Some(other) = field.optional_with else {
            return complain(format!("{} is a required input.", field.name), None);
        };
        let hint = Some(format!("send it, or {other}"));
        return if is_sent(sent, other) {
            None
        } else {
            complain(format!("{} is a required input.", field.name), hint)
        };
    };
    let read = if model.and_then(|model| unused_with(field, sent, model)).is_some() {
        // It is checked, and its default holds.
        let _ = defaults.of(field).map(|usual| field.read(choices, &usual, draft));
        field.read(choices, value, &mut Draft::new())
    } else {
        field.read(choices, value, draft)
    };
    if let Err(fault) = read {
        return complain(fault.sentence(field.name, value), Some(hint(field, contract, fault, value)));
    }
    if value.is_null() {
        return None;
    }
    let lacks = |needed: &str| !is_sent(sent, needed);
    if let Some((_, needed)) = contract.table().needs.iter().find(|(name, needed)| *name == field.name && lacks(needed))
    {
        return complain(format!("{} was provided without {needed}", field.name), None);
    }
    let (Kind::Name(of, _), Some(name)) = (&field.kind, value.as_str()) else { return None };
    let names = offer.names(*of);
    if names.contains(&name) {
        return None;
    }
    let near = suggest(name, names.iter().copied()).map(did_you_mean);
    complain(format!("{} {:?} is not offered, {}.", field.name, cut(name), listed(&names)), near)
}

/// Whether a field is there, and not to say that it is none.
fn is_sent(sent: &Map<String, Value>, field: &str) -> bool {
    sent.get(field).is_some_and(|value| !value.is_null())
}

/// The field of an input for `model` beside which `field` has no effect: a refiner draws from an image alone, unless a mask is to be kept.
fn unused_with(field: &Field, sent: &Map<String, Value>, model: &OfferedModel) -> Option<&'static str> {
    let by_refiner = model.refined == Some(true) && field.role == Some(ModelRole::Base) && !is_sent(sent, "mask");
    let image = model.defaults.contract.table().start.filter(|_| by_refiner).map(|start| start.field);
    field.unused_with.or(image).filter(|other| is_sent(sent, other))
}

fn conflicting(conflict: &Conflict) -> Complaint {
    let Conflict { field, value, .. } = conflict;
    let allowed = conflict.allowed();
    Complaint {
        field: (*field).into(),
        text: format!("{field} is {value}, and may be {allowed}."),
        hint: Some(format!("use {allowed}")),
    }
}

/// What a client may do about a value.
fn hint(field: &Field, contract: Contract, fault: FieldFault, value: &Value) -> String {
    let near = match (&field.kind, fault, value.as_str()) {
        (Kind::Sampler(_), FieldFault::Bounds, Some(name)) => {
            suggest(name, contract.samplers().map(|(known, _)| known))
        }
        _ => None,
    };
    near.map_or_else(|| format!("use {}", field.allowed(contract, "")), did_you_mean)
}

fn unexpected(contract: Contract, key: &str) -> Complaint {
    let near = suggest(key, contract.table().fields.iter().map(|field| field.name));
    let text = format!("Unexpected input. {} is not a valid input option.", cut(key));
    Complaint { field: cut(key).into_owned(), text, hint: near.map(did_you_mean) }
}

fn did_you_mean(name: &str) -> String {
    format!("did you mean {name}?")
}

fn listed(names: &[&str]) -> String {
    match names {
        [] => "none is".into(),
        [name] => format!("only {name} is"),
        names => format!("only {} are", names.join(", ")),
    }
}

#[cfg(test)]
mod sdxl_stage_tests;
#[cfg(test)]
mod sdxl_tests;

#[cfg(test)]
mod sdxl_turbo_tests;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::super::prompt::PromptSyntax;
    use super::super::spec::{Img2Img, Lora, Mask, Shade, Size};
    use super::*;
    use crate::sampler::{Sampler, SigmaSpacing};

    fn offer() -> Offer {
        Offer { models: vec![OfferedModel::new("miniature", Contract::Sd1)], loras: vec!["ink".into(), "wool".into()] }
    }

    fn check(input: &Value) -> Result<Spec<ImageSource>, Vec<String>> {
        validate(input, &offer(), 40264).map_err(|complaints| complaints.texts())
    }

    fn errors(input: &Value) -> Vec<String> {
        check(input).err().unwrap_or_default()
    }

    /// `{"prompt": "p"}` with one field more.
    fn with(field: &str, value: Value) -> Value {
        let mut input = json!({"prompt": "p"});
        input[field] = value;
        input
    }

    #[test]
    fn a_prompt_alone_gets_the_documented_defaults() {
        let spec = check(&json!({"prompt": "a red apple"})).unwrap();
        assert_eq!(
            spec,
            Spec {
                model: "miniature".into(),
                prompt: "a red apple".into(),
                negative_prompt: None,
                prompt_syntax: PromptSyntax::Plain,
                clip_skip: 0,
                size: Size { width: 512, height: 512 },
                start: None,
                num_outputs: 1,
                steps: 50,
                guidance_scale: 7.5,
                sampler: Sampler::KLms,
                sigmas: SigmaSpacing::Default,
                eta: 0.0,
                seed: 40264,
                lora: None,
                preview: false,
                denoising_end: None,
                refine: None,
            }
        );
    }

    #[test]
    fn every_documented_value_is_accepted() {
        let accepted = [
            ("prompt", json!(["", "x", "🍎\u{0}"])),
            ("negative_prompt", json!([null, "", "n", "n".repeat(32 * 1024)])),
            ("prompt_syntax", json!(["plain", "weighted"])),
            ("clip_skip", json!([0, 1, 11])),
            ("width", json!(Contract::Sd1.sides().all())),
            ("height", json!(Contract::Sd1.sides().all())),
            ("init_image", json!([null, "http://x/i.png", "data:image/png;base64,AA==", "AA=="])),
            ("mask", json!([null])),
            ("prompt_strength", json!([0, 0.5, 0.8, 1, 1.0])),
            ("num_outputs", json!([1, 9, 10])),
            ("num_inference_steps", json!([1, 499, 500])),
            ("guidance_scale", json!([0, 0.0, -0.0, 1e-300, 0.5, 1, 7.5, 20, 20.0])),
            ("eta", json!([0, 0.0, -0.0])),
            ("seed", json!([null, 0, -1, i64::MIN, u64::MAX])),
            ("nsfw", json!([true, false])),
            ("lora", json!([null, "ink", "wool"])),
            ("lora_scale", json!([0, 0.5, 1])),
            ("mask_repaint", json!(["black", "white"])),
            ("mask_paste", json!([true, false])),
            ("model", json!([null, "miniature"])),
            ("preview", json!([true, false])),
        ];
        for (field, values) in accepted {
            for value in values.as_array().unwrap() {
                assert_eq!(errors(&with(field, value.clone())), [""; 0], "{field}: {value}");
            }
        }
    }

    #[test]
    fn every_sampler_is_known_by_its_name() {
        let names = Sampler::ALL.iter().map(|sampler| (sampler.name(), *sampler)).chain([("KLMS", Sampler::KLms)]);
        for (name, sampler) in names {
            assert_eq!(check(&with("scheduler", json!(name))).unwrap().sampler, sampler);
        }
    }

    #[test]
    fn a_value_out_of_range_breaks_its_constraint() {
        let refused = [
            ("width", json!([0, 64, 500, 511, 1024, -512, u64::MAX, 1e30])),
            ("height", json!([513])),
            ("negative_prompt", json!(["x".repeat(32 * 1024 + 1)])),
            ("prompt_strength", json!([-0.01, 1.01, 2, 1e300])),
            ("num_outputs", json!([0, 11, 999, -1, 4_294_967_297_u64])),
            ("num_inference_steps", json!([0, 501, 100_000])),
            ("guidance_scale", json!([-1e-300, -1, 20.001, 100.5])),
            ("scheduler", json!(["FOO", "k-lms", "", " K-LMS"])),
            ("seed", json!([1e30])),
            ("init_image", json!(["", "ftp://x/i.png", "/etc/passwd.", "data:text/plain,x"])),
            ("lora_scale", json!([2, -0.5])),
            ("mask_repaint", json!(["grey", "Black", ""])),
        ];
        for (field, values) in refused {
            for value in values.as_array().unwrap() {
                let expected = format!("{field} does not meet the constraints.");
                assert_eq!(errors(&with(field, value.clone())), [expected], "{value}");
            }
        }
    }

    #[test]
    fn a_wrong_type_is_told_in_the_words_of_the_sdk() {
        let refused = [
            ("prompt", json!(5), "str", "int"),
            ("prompt", json!(null), "str", "NoneType"),
            ("negative_prompt", json!(["n"]), "str", "list"),
            ("width", json!(512.0), "int", "float"),
            ("width", json!("512"), "int", "str"),
            ("width", json!(true), "int", "bool"),
            ("height", json!(null), "int", "NoneType"),
            ("init_image", json!(5), "str", "int"),
            ("mask", json!({}), "str", "dict"),
            ("prompt_strength", json!("0.5"), "float", "str"),
            ("num_outputs", json!(1.5), "int", "float"),
            ("guidance_scale", json!("7"), "float", "str"),
            ("guidance_scale", json!(true), "float", "bool"),
            ("guidance_scale", json!(null), "float", "NoneType"),
            ("scheduler", json!(null), "str", "NoneType"),
            ("seed", json!(1.5), "int", "float"),
            ("seed", json!(true), "int", "bool"),
            ("nsfw", json!(1), "bool", "int"),
            ("nsfw", json!(null), "bool", "NoneType"),
            ("lora", json!(false), "str", "bool"),
            ("lora_scale", json!([]), "float", "list"),
            ("mask_repaint", json!(0), "str", "int"),
            ("mask_paste", json!("no"), "bool", "str"),
            ("model", json!({}), "str", "dict"),
            ("preview", json!(0), "bool", "int"),
        ];
        for (field, value, wanted, found) in refused {
            let expected = format!("{field} should be <class '{wanted}'> type, not <class '{found}'>.");
            assert_eq!(errors(&with(field, value)), [expected]);
        }
    }

    #[test]
    fn an_input_that_is_no_object_is_told_so() {
        for (input, found) in [(json!([1]), "list"), (json!("s"), "str"), (json!(null), "NoneType"), (json!(1), "int")]
        {
            let expected = format!("input should be <class 'dict'> type, not <class '{found}'>.");
            assert_eq!(errors(&input), [expected]);
        }
    }

    #[test]
    fn complaints_follow_the_keys_as_sent_and_then_the_schema() {
        let input: Value = serde_json::from_str(r#"{"width": 500, "bogus": 1, "seed": "x", "height": 512.0}"#).unwrap();
        assert_eq!(
            errors(&input),
            [
                "width does not meet the constraints.",
                "Unexpected input. bogus is not a valid input option.",
                "seed should be <class 'int'> type, not <class 'str'>.",
                "height should be <class 'int'> type, not <class 'float'>.",
                "prompt is a required input.",
            ]
        );
    }

    #[test]
    fn what_is_not_at_hand_is_refused_by_name() {
        assert_eq!(errors(&with("mask", json!("http://x/m.png"))), ["mask was provided without init_image"]);
        assert_eq!(errors(&with("lora", json!("Ink"))), [r#"lora "Ink" is not offered, only ink, wool are."#]);
        assert_eq!(errors(&with("model", json!("sd15"))), [r#"model "sd15" is not offered, only miniature is."#]);
        let none = Offer::default();
        let refused = validate(&with("lora", json!("ink")), &none, 0).unwrap_err();
        assert_eq!(refused.texts(), [r#"lora "ink" is not offered, none is."#]);
    }

    #[test]
    fn a_hint_says_what_may_be() {
        let hints = |input: &Value| -> Vec<Option<String>> {
            validate(input, &offer(), 0).unwrap_err().iter().map(|complaint| complaint.hint.clone()).collect()
        };
        for (field, value, hint) in [
            ("num_inference_steps", json!(0), Some("use 1 to 500")),
            ("num_inference_steps", json!("20"), Some("use 1 to 500")),
            ("scheduler", json!("k-lms"), Some("did you mean K-LMS?")),
            ("mask_repaint", json!("grey"), Some("use black or white")),
            ("num_inferance_steps", json!(20), Some("did you mean num_inference_steps?")),
            ("bogus", json!(1), None),
            ("lora", json!("Wool"), Some("did you mean wool?")),
            ("lora", json!("x"), None),
        ] {
            assert_eq!(hints(&with(field, value)), [hint.map(str::to_owned)], "{field}");
        }
        let hints = validate(&with("scheduler", json!("FOO")), &offer(), 0).unwrap_err().hints();
        assert!(hints[0].starts_with("scheduler: use DDIM, DDPM, "), "{hints:?}");
    }

    #[test]
    fn a_model_s_own_defaults_hold_for_its_jobs_alone() {
        let text =
            br#"{"defaults": {"num_inference_steps": 20, "guidance_scale": 5, "width": 256, "scheduler": "DDIM"}}"#;
        let defaults = Defaults::from_json(text, Contract::Sd1).unwrap();
        let offer = Offer {
            models: vec![OfferedModel::new("first", Contract::Sd1), OfferedModel::new("emoji", defaults)],
            ..Offer::default()
        };
        let meant = |input: Value| {
            let spec = validate(&input, &offer, 0).unwrap();
            (spec.model, spec.steps, spec.guidance_scale, spec.size.width, spec.sampler)
        };
        assert_eq!(meant(json!({"prompt": "p"})), ("first".into(), 50, 7.5, 512, Sampler::KLms));
        assert_eq!(meant(json!({"prompt": "p", "model": "emoji"})), ("emoji".into(), 20, 5.0, 256, Sampler::Ddim));
        let said = json!({"prompt": "p", "model": "emoji", "num_inference_steps": 7, "guidance_scale": 0});
        assert_eq!(meant(said), ("emoji".into(), 7, 0.0, 256, Sampler::Ddim));
    }

    #[test]
    fn an_image_to_begin_from_is_taken_with_all_that_belongs_to_it() {
        let start = |input: Value| check(&input).unwrap().start;
        let image = ImageSource::Url("http://x/i.png".into());
        let plain = json!({"prompt": "p", "init_image": "http://x/i.png"});
        assert_eq!(start(plain), Some(Img2Img { image: image.clone(), strength: 0.8, mask: None }));
        let whole = json!({
            "prompt": "p", "init_image": "http://x/i.png", "prompt_strength": 1, "mask": "AAAA",
            "mask_repaint": "white", "mask_paste": true
        });
        let mask = Mask { image: ImageSource::Inline("AAAA".into()), repaint: Shade::White, paste: true };
        assert_eq!(start(whole), Some(Img2Img { image, strength: 1.0, mask: Some(mask) }));
        assert_eq!(start(json!({"prompt": "p", "mask": null, "prompt_strength": 0.1})), None);
    }

    #[test]
    fn a_sampler_of_distilled_models_makes_fifty_steps_at_most() {
        let job = |input: Value| validate(&input, &offer(), 0).map(|spec| spec.steps);
        for (sampler, most) in [("LCM", 50), ("TCD", 50), ("DDIM", 500)] {
            assert_eq!(job(json!({"prompt": "p", "scheduler": sampler, "num_inference_steps": most})), Ok(most));
        }
        for sampler in ["LCM", "TCD"] {
            for start in [json!(null), json!("http://x/i.png")] {
                let input = json!({"prompt": "p", "scheduler": sampler, "num_inference_steps": 51, "init_image": start, "prompt_strength": 0.1});
                let refused = job(input).unwrap_err();
                let may_be = format!("1 to 50 with {sampler}");
                assert_eq!(refused.texts(), [format!("num_inference_steps is 51, and may be {may_be}.")]);
                assert_eq!(refused.hints(), [format!("num_inference_steps: use {may_be}")]);
            }
        }
        // One complaint a field: what is no number of steps at all is told alone.
        let input = json!({"prompt": "p", "scheduler": "LCM", "num_inference_steps": 501});
        assert_eq!(job(input).unwrap_err().texts(), ["num_inference_steps does not meet the constraints."]);
    }

    #[test]
    fn steps_are_spread_as_a_job_asks_where_its_sampler_has_the_choice() {
        let job = |sampler: &str, sigmas: &str| {
            check(&json!({"prompt": "p", "scheduler": sampler, "sigmas": sigmas})).map(|spec| spec.sigmas)
        };
        for sampler in Sampler::ALL {
            let (curves, trailing) = match sampler.name() {
                "LCM" | "TCD" => (false, false),
                "DDIM" | "DDPM" | "PNDM" | "EULER-A" => (false, true),
                "DPM-S" => (true, false),
                _ => (true, true),
            };
            for (name, spacing, offered) in [
                ("default", SigmaSpacing::Default, true),
                ("karras", SigmaSpacing::Karras, curves),
                ("exponential", SigmaSpacing::Exponential, curves),
                ("beta", SigmaSpacing::Beta, curves),
                ("sgm_uniform", SigmaSpacing::SgmUniform, trailing),
            ] {
                let found = job(sampler.name(), name);
                assert_eq!(found.clone().ok(), offered.then_some(spacing), "{sampler} {name}: {found:?}");
            }
        }
        let refused = r#"sigmas is "karras", and may be default or sgm_uniform with DDIM."#;
        assert_eq!(job("DDIM", "karras"), Err(vec![refused.into()]));
        let refused = r#"sigmas is "sgm_uniform", and may be default, karras, exponential or beta with DPM-S."#;
        assert_eq!(job("DPM-S", "sgm_uniform"), Err(vec![refused.into()]));
        assert_eq!(job("DDIM", "normal"), Err(vec!["sigmas does not meet the constraints.".into()]));
    }

    #[test]
    fn noise_at_each_step_is_ddims_alone() {
        let job = |sampler: &str, eta: Value| {
            check(&json!({"prompt": "p", "scheduler": sampler, "eta": eta})).map(|spec| spec.eta.to_bits())
        };
        for sampler in Sampler::ALL {
            assert_eq!(job(sampler.name(), json!(0)), Ok(0));
            let refused = || vec![format!("eta is 0.5, and may be 0 with {sampler}.")];
            let expected = if *sampler == Sampler::Ddim { Ok(0.5_f64.to_bits()) } else { Err(refused()) };
            assert_eq!(job(sampler.name(), json!(0.5)), expected);
        }
        assert_eq!(job("DDIM", json!(1.5)), Err(vec!["eta does not meet the constraints.".into()]));
    }

    #[test]
    fn a_lora_without_weight_is_none() {
        let lora = |scale: Value| check(&json!({"prompt": "p", "lora": "ink", "lora_scale": scale})).unwrap().lora;
        assert_eq!(lora(json!(0.25)), Some(Lora { name: "ink".into(), scale: 0.25 }));
        assert_eq!(lora(json!(0)), None);
    }

    #[test]
    fn seeds_are_kept_or_drawn() {
        let seed = |text: &str| {
            let input = format!(r#"{{"prompt": "p", "seed": {text}}}"#);
            check(&serde_json::from_str(&input).unwrap()).map(|spec| spec.seed)
        };
        for (text, expected) in [
            ("null", 40264),
            ("-1", 40264),
            ("-99999999999999999999", 40264),
            ("-0", 0),
            ("0", 0),
            ("37362", 37362),
            ("1099511627776", 1_099_511_627_776),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(seed(text), Ok(expected), "{text}");
        }
        assert_eq!(seed("18446744073709551616"), Err(vec!["seed does not meet the constraints.".into()]));
    }

    #[test]
    fn the_last_of_a_key_that_comes_twice_counts_where_the_first_stood() {
        let input = serde_json::from_str(r#"{"seed": "x", "prompt": 5, "seed": 1.5}"#).unwrap();
        assert_eq!(
            errors(&input),
            [
                "seed should be <class 'int'> type, not <class 'float'>.",
                "prompt should be <class 'str'> type, not <class 'int'>."
            ]
        );
    }

    fn fields() -> Vec<&'static str> {
        Contract::Sd1.table().fields.iter().map(|field| field.name).collect()
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (-2_i64..600).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            prop_oneof!["K-LMS", "KLMS", "black", "miniature"].prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..5)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    /// Objects whose keys are mostly ours, so that every rule meets every value.
    fn near_input() -> impl Strategy<Value = Value> {
        let key = prop_oneof![9 => prop::sample::select(fields()).prop_map(str::to_owned), 1 => any::<String>()];
        prop::collection::vec((key, any_json()), 0..12).prop_map(|pairs| Value::Object(pairs.into_iter().collect()))
    }

    /// Inputs that keep to the documentation.
    fn valid_input() -> impl Strategy<Value = Value> {
        let side = || prop::option::of(prop::sample::select(Contract::Sd1.sides().all()));
        (
            (any::<String>(), prop::option::of(prop::option::of(any::<String>()))),
            (side(), side(), prop::option::of(1_u32..=10), prop::option::of(1_u32..=500)),
            (prop::option::of(0.0..=20.0), prop::option::of(prop::option::of(any::<u64>()))),
        )
            .prop_map(|((prompt, negative), (width, height, outputs, steps), (guidance, seed))| {
                let mut input = Map::new();
                input.insert("prompt".into(), prompt.into());
                let mut put = |key: &str, value: Option<Value>| value.map(|value| input.insert(key.into(), value));
                put("negative_prompt", negative.map(Value::from));
                put("width", width.map(Value::from));
                put("height", height.map(Value::from));
                put("num_outputs", outputs.map(Value::from));
                put("num_inference_steps", steps.map(Value::from));
                put("guidance_scale", guidance.map(Value::from));
                put("seed", seed.map(Value::from));
                input.into()
            })
    }

    /// A field of an accepted input means what was sent, or `default` if nothing was.
    fn meant(input: &Value, field: &str, default: Value) -> Value {
        input.get(field).filter(|value| !value.is_null()).cloned().unwrap_or(default)
    }

    proptest! {
        #[test]
        fn nothing_panics_and_every_complaint_names_a_field(input in prop_oneof![any_json(), near_input()]) {
            match validate(&input, &offer(), 7) {
                Ok(spec) => {
                    prop_assert!([spec.size.width, spec.size.height].iter().all(|side| Contract::Sd1.sides().contains(*side)));
                    prop_assert!((1..=10).contains(&spec.num_outputs) && (1..=500).contains(&spec.steps));
                    prop_assert!((0.0..=20.0).contains(&spec.guidance_scale));
                }
                Err(complaints) => {
                    let mut named = Vec::new();
                    for complaint in complaints.iter() {
                        prop_assert!(complaint.text.contains(&complaint.field));
                        prop_assert!(!named.contains(&&complaint.field), "two complaints about {}", complaint.field);
                        named.push(&complaint.field);
                    }
                    prop_assert!(!named.is_empty());
                }
            }
        }

        #[test]
        fn a_valid_input_means_what_it_says(input in valid_input(), entropy: u16) {
            let spec = validate(&input, &offer(), entropy).unwrap();
            prop_assert_eq!(&input["prompt"], &json!(spec.prompt));
            prop_assert_eq!(meant(&input, "negative_prompt", json!(null)), json!(spec.negative_prompt));
            prop_assert_eq!(meant(&input, "width", json!(512)), json!(spec.size.width));
            prop_assert_eq!(meant(&input, "height", json!(512)), json!(spec.size.height));
            prop_assert_eq!(meant(&input, "num_outputs", json!(1)), json!(spec.num_outputs));
            prop_assert_eq!(meant(&input, "num_inference_steps", json!(50)), json!(spec.steps));
            prop_assert_eq!(meant(&input, "guidance_scale", json!(7.5)), json!(spec.guidance_scale));
            prop_assert_eq!(meant(&input, "seed", json!(entropy)), json!(spec.seed));
        }
    }
}
