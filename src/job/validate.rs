//! A job's `input` becomes a [`Spec`], or everything that is wrong with it is told at once.
//!
//! The fields, defaults and ranges are those of the SD v1 endpoint: each documented value works, and nothing else does.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::error::{Complaints, cut};
use super::form::Form;
use super::spec::{Lora, Mask, Named, Shade, Size, Spec, Start};
use crate::sampler::Sampler;

/// Bytes of a prompt. A model reads about 300 of them; the rest would only be counted.
const LONGEST_PROMPT: usize = 32 * 1024;

/// What this process can draw with: the part of validation that is not the same everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offer {
    /// Names of the models, first the one of jobs that name none.
    pub models: Vec<String>,
    /// Names of the LoRA files at hand.
    pub loras: Vec<String>,
}

/// Checks `input`. `entropy` is the seed of a job that leaves its seed open.
///
/// # Errors
/// Complaints, one a field: about keys in the order in which they were sent, then about what is missing.
pub fn validate(input: &Value, offer: &Offer, entropy: u16) -> Result<Spec<Named>, Complaints> {
    let mut form = Form::open(input)?;
    let image = |text: Option<String>| text.map_or(Some(None), |text| Named::from_text(&text).map(Some));

    // field, default, rule: the table of the endpoint's documentation.
    let prompt = form.required("prompt", |prompt: String| is_short(&prompt).then_some(prompt));
    let negative_prompt = form.optional("negative_prompt", None, |prompt: Option<String>| {
        prompt.as_deref().is_none_or(is_short).then_some(prompt)
    });
    let width = form.optional("width", 512, side);
    let height = form.optional("height", 512, side);
    let init_image = form.optional("init_image", None, image);
    let mask = form.optional("mask", None, image);
    let strength = form.optional("prompt_strength", 0.8, between(0.0..=1.0));
    let num_outputs = form.optional("num_outputs", 1, count(1..=10));
    let steps = form.optional("num_inference_steps", 50, count(1..=500));
    let guidance_scale = form.optional("guidance_scale", 7.5, |scale| (scale > 0.0 && scale <= 20.0).then_some(scale));
    let sampler = form.optional("scheduler", Sampler::KLms, |name: String| Sampler::from_name(&name));
    let seed = form.optional("seed", entropy.into(), |seed| seed_or(entropy, seed));
    form.optional("nsfw", false, Some);
    let lora: Option<String> = form.optional("lora", None, Some);
    let lora_scale = form.optional("lora_scale", 1.0, between(0.0..=1.0));
    // What this server adds to the documentation.
    let repaint = form.optional("mask_repaint", Shade::Black, |name: String| Shade::from_name(&name));
    let paste = form.optional("mask_paste", false, Some);
    let model: Option<String> = form.optional("model", None, Some);
    let preview = form.optional("preview", false, Some);

    if form.has("mask") && !form.has("init_image") {
        form.complain("mask", "mask was provided without init_image".into());
    }
    if let Some(lora) = lora.as_ref().filter(|lora| !offer.loras.contains(lora)) {
        form.complain("lora", format!("lora {:?} is not offered, {}.", cut(lora), listed(&offer.loras)));
    }
    if let Some(model) = model.as_ref().filter(|model| !offer.models.contains(model)) {
        form.complain("model", format!("model {:?} is not offered, {}.", cut(model), listed(&offer.models)));
    }

    form.close()?;
    let mask = mask.map(|image| Mask { image, repaint, paste });
    Ok(Spec {
        model: model.or_else(|| offer.models.first().cloned()).unwrap_or_default(),
        prompt,
        negative_prompt,
        size: Size { width, height },
        start: init_image.map(|image| Start { image, strength, mask }),
        num_outputs,
        steps,
        guidance_scale,
        sampler,
        seed,
        // A scale of nothing is no change.
        lora: lora.filter(|_| lora_scale > 0.0).map(|name| Lora { name, scale: lora_scale }),
        preview,
    })
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "none is".into(),
        [name] => format!("only {name} is"),
        names => format!("only {} are", names.join(", ")),
    }
}

/// Whether a prompt can be tokenized in a moment: the engine does that between two evaluations, for whoever else waits.
fn is_short(prompt: &str) -> bool {
    prompt.len() <= LONGEST_PROMPT
}

fn side(pixels: i128) -> Option<u32> {
    Size::SIDES.into_iter().find(|side| i128::from(*side) == pixels)
}

fn count(range: RangeInclusive<u32>) -> impl Fn(i128) -> Option<u32> {
    move |n| u32::try_from(n).ok().filter(|n| range.contains(n))
}

fn between(range: RangeInclusive<f64>) -> impl Fn(f64) -> Option<f64> {
    move |x| range.contains(&x).then_some(x)
}

/// No seed and a negative one ask for any seed.
fn seed_or(entropy: u16, seed: Option<i128>) -> Option<u64> {
    match seed {
        None | Some(..0) => Some(entropy.into()),
        Some(seed) => u64::try_from(seed).ok(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;

    fn offer() -> Offer {
        Offer { models: vec!["miniature".into()], loras: vec!["ink".into(), "wool".into()] }
    }

    fn check(input: &Value) -> Result<Spec<Named>, Vec<String>> {
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
                size: Size { width: 512, height: 512 },
                start: None,
                num_outputs: 1,
                steps: 50,
                guidance_scale: 7.5,
                sampler: Sampler::KLms,
                seed: 40264,
                lora: None,
                preview: false,
            }
        );
    }

    #[test]
    fn every_documented_value_is_accepted() {
        let accepted = [
            ("prompt", json!(["", "x", "🍎\u{0}"])),
            ("negative_prompt", json!([null, "", "n", "n".repeat(32 * 1024)])),
            ("width", json!(Size::SIDES)),
            ("height", json!(Size::SIDES)),
            ("init_image", json!([null, "http://x/i.png", "data:image/png;base64,AA==", "AA=="])),
            ("mask", json!([null])),
            ("prompt_strength", json!([0, 0.5, 0.8, 1, 1.0])),
            ("num_outputs", json!([1, 9, 10])),
            ("num_inference_steps", json!([1, 499, 500])),
            ("guidance_scale", json!([1e-300, 0.5, 1, 7.5, 20, 20.0])),
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
            ("guidance_scale", json!([0, 0.0, -1, 20.001, 100.5])),
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
    fn an_image_to_begin_from_is_taken_with_all_that_belongs_to_it() {
        let start = |input: Value| check(&input).unwrap().start;
        let image = Named::Url("http://x/i.png".into());
        let plain = json!({"prompt": "p", "init_image": "http://x/i.png"});
        assert_eq!(start(plain), Some(Start { image: image.clone(), strength: 0.8, mask: None }));
        let whole = json!({
            "prompt": "p", "init_image": "http://x/i.png", "prompt_strength": 1, "mask": "AAAA",
            "mask_repaint": "white", "mask_paste": true
        });
        let mask = Mask { image: Named::Inline("AAAA".into()), repaint: Shade::White, paste: true };
        assert_eq!(start(whole), Some(Start { image, strength: 1.0, mask: Some(mask) }));
        assert_eq!(start(json!({"prompt": "p", "mask": null, "prompt_strength": 0.1})), None);
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

    const FIELDS: [&str; 19] = [
        "prompt",
        "negative_prompt",
        "width",
        "height",
        "init_image",
        "mask",
        "prompt_strength",
        "num_outputs",
        "num_inference_steps",
        "guidance_scale",
        "scheduler",
        "seed",
        "nsfw",
        "lora",
        "lora_scale",
        "mask_repaint",
        "mask_paste",
        "model",
        "preview",
    ];

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
        let key = prop_oneof![9 => prop::sample::select(&FIELDS[..]).prop_map(str::to_owned), 1 => any::<String>()];
        prop::collection::vec((key, any_json()), 0..12).prop_map(|pairs| Value::Object(pairs.into_iter().collect()))
    }

    /// Inputs that keep to the documentation.
    fn valid_input() -> impl Strategy<Value = Value> {
        let side = || prop::option::of(prop::sample::select(&Size::SIDES[..]));
        (
            (any::<String>(), prop::option::of(prop::option::of(any::<String>()))),
            (side(), side(), prop::option::of(1_u32..=10), prop::option::of(1_u32..=500)),
            (prop::option::of(f64::MIN_POSITIVE..=20.0), prop::option::of(prop::option::of(any::<u64>()))),
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
                    prop_assert!(Size::SIDES.contains(&spec.size.width) && Size::SIDES.contains(&spec.size.height));
                    prop_assert!((1..=10).contains(&spec.num_outputs) && (1..=500).contains(&spec.steps));
                    prop_assert!(spec.guidance_scale > 0.0 && spec.guidance_scale <= 20.0);
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
