//! Inputs of the contract `sdxl`: every field at its edges and one past.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::{Offer, OfferedModel, validate};
use crate::job::contract::{Contract, Defaults};
use crate::job::prompt::PromptSyntax;
use crate::job::spec::{ImageSource, Img2Img, Lora, Refine, RefineMode, Size, Spec};
use crate::sampler::{Sampler, SigmaSpacing};

pub(super) const IMAGE: &str = "http://x/i.png";

pub(super) fn offer() -> Offer {
    Offer { models: vec![OfferedModel::new("xl", Contract::Sdxl)], loras: vec!["ink".into()] }
}

pub(super) fn check(input: &Value) -> Result<Spec<ImageSource>, Vec<String>> {
    validate(input, &offer(), 40264).map_err(|complaints| complaints.texts())
}

pub(super) fn errors(input: &Value) -> Vec<String> {
    check(input).err().unwrap_or_default()
}

/// `input` with one field more.
pub(super) fn with(mut input: Value, field: &str, value: &Value) -> Value {
    input[field] = value.clone();
    input
}

pub(super) fn from_noise() -> Value {
    json!({"prompt": "p"})
}

pub(super) fn from_image() -> Value {
    json!({"prompt": "p", "image_url": IMAGE})
}

#[test]
fn a_prompt_alone_gets_the_defaults_of_the_reference_worker() {
    let expected = Spec {
        model: "xl".into(),
        prompt: "p".into(),
        negative_prompt: None,
        prompt_syntax: PromptSyntax::Plain,
        clip_skip: 0,
        size: Size { width: 1024, height: 1024 },
        start: None,
        num_outputs: 1,
        steps: 25,
        denoising_end: None,
        refine: Some(Refine { steps: 50, mode: RefineMode::Strength, strength: 0.3 }),
        guidance_scale: 7.5,
        sampler: Sampler::Ddim,
        sigmas: SigmaSpacing::Default,
        eta: 0.0,
        seed: 40264,
        lora: None,
        preview: false,
    };
    assert_eq!(check(&from_noise()), Ok(expected));
}

#[test]
fn an_image_alone_is_begun_from_with_the_defaults_of_the_reference_worker() {
    let spec = check(&json!({"image_url": IMAGE})).unwrap();
    let start = Img2Img { image: ImageSource::Url(IMAGE.into()), strength: 0.3, mask: None };
    assert_eq!((spec.prompt.as_str(), spec.steps, spec.num_outputs), ("", 50, 1));
    assert_eq!((spec.sampler, spec.guidance_scale, spec.denoising_end), (Sampler::Ddim, 7.5, None));
    assert_eq!(spec.start, Some(start));
}

#[test]
fn every_field_is_taken_at_its_edges_and_refused_one_past() {
    for (field, taken, refused) in [
        ("prompt", json!(["", "🍎", "x".repeat(32 * 1024)]), json!(["x".repeat(32 * 1024 + 1)])),
        ("negative_prompt", json!([null, "", "x".repeat(32 * 1024)]), json!(["x".repeat(32 * 1024 + 1)])),
        ("width", json!([64, 72, 1024, 2040, 2048]), json!([0, 56, 63, 65, 1023, 2047, 2049, 2056, -64, u64::MAX])),
        ("height", json!([64, 72, 1024, 2040, 2048]), json!([0, 56, 63, 65, 1023, 2047, 2049, 2056, -64, u64::MAX])),
        ("num_images", json!([1, 10]), json!([0, 11, -1, 4_294_967_297_u64])),
        ("num_inference_steps", json!([1, 500]), json!([0, 501])),
        ("refiner_inference_steps", json!([1, 500]), json!([0, 501])),
        ("guidance_scale", json!([0, 1e-300, 20, 20.0]), json!([-1e-300, 20.001])),
        ("strength", json!([0, 0.3, 1, 1.0]), json!([-0.001, 1.001])),
        ("high_noise_frac", json!([null, 1e-300, 0.5, 0.999_999]), json!([0, 0.0, 1, 1.0, -0.5, 1.5])),
        ("seed", json!([null, 0, -1, u64::MAX]), json!([1e30])),
        ("scheduler", json!(["DDIM", "K-LMS"]), json!(["k_euler", "LMSDiscrete", ""])),
        (
            "image_url",
            json!([null, IMAGE, "data:image/png;base64,AA==", "AA=="]),
            json!(["", "ftp://x/i", "/etc/passwd."]),
        ),
        ("prompt_syntax", json!(["plain", "weighted"]), json!(["Weighted", "compel", ""])),
        ("clip_skip", json!([0, 1, 11]), json!([12, -1])),
        ("sigmas", json!(["default", "sgm_uniform"]), json!(["", "Karras", "trailing"])),
        ("eta", json!([0, 1e-300, 0.5, 1, 1.0]), json!([-1e-300, 1.001])),
        ("mask_repaint", json!(["black", "white"]), json!(["grey", "Black", ""])),
        ("mask_paste", json!([true, false]), json!([])),
        ("mask", json!([null]), json!(["", "ftp://x/m", "/etc/passwd."])),
        ("lora_scale", json!([0, 1]), json!([-0.01, 1.01])),
        ("lora", json!([null, "ink"]), json!([])),
        ("model", json!([null, "xl"]), json!([])),
        ("refine", json!(["strength"]), json!(["Ensemble", "none", ""])),
        ("preview", json!([true, false]), json!([])),
        ("nsfw", json!([true, false]), json!([])),
    ] {
        // Also where the field has no effect.
        for input in [from_noise(), from_image()] {
            for value in taken.as_array().unwrap() {
                assert_eq!(errors(&with(input.clone(), field, value)), [""; 0], "{field}: {value}");
            }
            for value in refused.as_array().unwrap() {
                let complaint = format!("{field} does not meet the constraints.");
                assert_eq!(errors(&with(input.clone(), field, value)), [complaint], "{field}: {value}");
            }
        }
    }
    let named: Vec<&str> = Contract::Sdxl.table().fields.iter().map(|field| field.name).collect();
    assert_eq!(named.len(), 26, "a field has no edges here");
}

#[test]
fn a_wrong_type_is_told_in_the_words_of_the_sdk() {
    for (field, value, wanted, found) in [
        ("prompt", json!(null), "str", "NoneType"),
        ("negative_prompt", json!(1), "str", "int"),
        ("width", json!("1024"), "int", "str"),
        ("width", json!(1024.0), "int", "float"),
        ("num_images", json!(true), "int", "bool"),
        ("num_inference_steps", json!(null), "int", "NoneType"),
        ("refiner_inference_steps", json!([]), "int", "list"),
        ("guidance_scale", json!("7"), "float", "str"),
        ("strength", json!(null), "float", "NoneType"),
        ("high_noise_frac", json!("0.8"), "float", "str"),
        ("high_noise_frac", json!(true), "float", "bool"),
        ("scheduler", json!(7), "str", "int"),
        ("image_url", json!({}), "str", "dict"),
        ("mask", json!([]), "str", "list"),
        ("mask_repaint", json!(null), "str", "NoneType"),
        ("mask_paste", json!(1), "bool", "int"),
        ("seed", json!(1.5), "int", "float"),
    ] {
        let complaint = format!("{field} should be <class '{wanted}'> type, not <class '{found}'>.");
        assert_eq!(errors(&with(from_noise(), field, &value)), [complaint], "{value}");
    }
}

#[test]
fn samplers_have_the_names_of_the_reference_worker_and_our_own() {
    let theirs = [
        ("PNDM", Sampler::Pndm),
        ("KLMS", Sampler::KLms),
        ("DDIM", Sampler::Ddim),
        ("K_EULER", Sampler::EulerD),
        ("K_EULER_ANCESTRAL", Sampler::EulerA),
        ("DPMSolverMultistep", Sampler::DpmM),
        ("DPMSolverSinglestep", Sampler::DpmS),
    ];
    for (name, sampler) in theirs.into_iter().chain(Sampler::ALL.iter().map(|sampler| (sampler.name(), *sampler))) {
        assert_eq!(check(&with(from_noise(), "scheduler", &json!(name))).unwrap().sampler, sampler, "{name}");
    }
}

#[test]
fn a_sampler_of_distilled_models_makes_fifty_steps_at_most_from_noise_and_from_an_image() {
    let asked = |extra: Value| {
        let mut input = json!({"prompt": "p", "scheduler": "LCM"});
        input.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let models = vec![OfferedModel::new("xl", Contract::Sdxl).with_refiner(false)];
        let offer = Offer { models, ..Offer::default() };
        validate(&input, &offer, 0).map(|spec| spec.steps).map_err(|complaints| complaints.texts())
    };
    assert_eq!(asked(json!({"num_inference_steps": 50})), Ok(50));
    assert_eq!(asked(json!({"image_url": IMAGE})), Ok(50));
    // Beside an image the steps from noise have no effect, and without one those from an image.
    assert_eq!(asked(json!({"image_url": IMAGE, "num_inference_steps": 60, "refiner_inference_steps": 4})), Ok(4));
    assert_eq!(asked(json!({"num_inference_steps": 4, "refiner_inference_steps": 60})), Ok(4));
    let refused = |field: &str| Err(vec![format!("{field} is 60, and may be 1 to 50 with LCM.")]);
    assert_eq!(asked(json!({"num_inference_steps": 60})), refused("num_inference_steps"));
    let extra = json!({"image_url": IMAGE, "refiner_inference_steps": 60, "strength": 0.1});
    assert_eq!(asked(extra), refused("refiner_inference_steps"));
    // Of one job all conflicts are told.
    let both = asked(json!({"num_inference_steps": 60, "sigmas": "sgm_uniform"})).unwrap_err();
    let spread = r#"sigmas is "sgm_uniform", and may be default with LCM."#;
    assert_eq!(both, ["num_inference_steps is 60, and may be 1 to 50 with LCM.", spread]);
}

#[test]
fn every_field_reaches_the_job() {
    let input = json!({
        "prompt": "a", "negative_prompt": "", "width": 2048, "height": 64, "num_images": 3, "num_inference_steps": 7, "guidance_scale": 0,
        "scheduler": "K_EULER", "seed": 5, "high_noise_frac": 0.8, "lora": "ink", "lora_scale": 0.5, "model": "xl", "preview": true,
        "strength": 0.9, "refiner_inference_steps": 9, "nsfw": true, "image_url": null,
    });
    let expected = Spec {
        model: "xl".into(),
        prompt: "a".into(),
        negative_prompt: Some(String::new()),
        prompt_syntax: PromptSyntax::Plain,
        clip_skip: 0,
        size: Size { width: 2048, height: 64 },
        start: None,
        num_outputs: 3,
        steps: 7,
        denoising_end: Some(0.8),
        guidance_scale: 0.0,
        sampler: Sampler::EulerD,
        sigmas: SigmaSpacing::Default,
        eta: 0.0,
        seed: 5,
        lora: Some(Lora { name: "ink".into(), scale: 0.5 }),
        refine: Some(Refine { steps: 9, mode: RefineMode::Strength, strength: 0.9 }),
        preview: true,
    };
    assert_eq!(check(&input), Ok(expected));
    assert_eq!(offer().warnings(&input), [""; 0]);
}

#[test]
fn beside_an_image_a_few_fields_have_no_effect_and_a_warning_says_so() {
    let input = json!({
        "prompt": "a", "image_url": IMAGE, "width": 512, "height": 1024, "num_images": 4, "num_inference_steps": 7, "high_noise_frac": 0.8,
        "strength": 0.6, "refiner_inference_steps": 20, "guidance_scale": 3, "negative_prompt": "n", "scheduler": "PNDM",
    });
    let spec = check(&input).unwrap();
    assert_eq!((spec.num_outputs, spec.steps, spec.denoising_end), (1, 20, None));
    assert_eq!((spec.guidance_scale, spec.sampler), (3.0, Sampler::Pndm));
    assert_eq!(spec.negative_prompt.as_deref(), Some("n"));
    assert!(spec.start.is_some_and(|start| (start.strength - 0.6).abs() < f64::EPSILON));
    // What is sent as it is by default makes no difference.
    assert_eq!(
        offer().warnings(&input),
        ["width", "num_images", "num_inference_steps", "high_noise_frac"]
            .map(|name| format!("{name} has no effect beside image_url"))
    );
    assert_eq!(offer().warnings(&from_noise()), [""; 0]);
}

#[test]
fn a_prompt_is_required_unless_there_is_an_image() {
    for input in [json!({}), json!({"image_url": null}), json!({"width": 512})] {
        assert_eq!(errors(&input), ["prompt is a required input."]);
        assert_eq!(validate(&input, &offer(), 0).unwrap_err().hints(), ["prompt: send it, or image_url"]);
    }
}

#[test]
fn fields_of_other_contracts_and_of_later_are_unexpected() {
    for key in ["num_outputs", "init_image", "prompt_strength", "refiner", "loras", "output_format", "size", "n"] {
        let complaint = format!("Unexpected input. {key} is not a valid input option.");
        assert_eq!(errors(&with(from_noise(), key, &json!("x"))), [complaint]);
    }
    let hints = |key: &str| validate(&with(from_noise(), key, &json!(1)), &offer(), 0).unwrap_err().hints();
    assert_eq!(hints("num_image"), ["num_image: did you mean num_images?"]);
}

#[test]
fn a_model_that_inpaints_must_have_an_image_and_a_mask() {
    for (contract, image) in [(Contract::Sdxl, "image_url"), (Contract::Sd1, "init_image")] {
        let defaults = Defaults::from(contract).with_inpaints(true);
        let models = vec![OfferedModel::new("nine", defaults.clone()), OfferedModel::new("four", contract)];
        let offer = Offer { models, ..Offer::default() };
        let check =
            |input: Value| validate(&input, &offer, 0).map_err(|complaints| (complaints.texts(), complaints.hints()));
        let complaint = |field: &str| format!("{field} is a required input.");
        let hint = |field: &str| format!("{field}: this model repaints a part of an image, and draws nothing else");
        let both = ([image, "mask"].map(complaint).to_vec(), [image, "mask"].map(hint).to_vec());
        assert_eq!(check(json!({"prompt": "p"})).unwrap_err(), both);
        assert_eq!(check(json!({"prompt": "p", "model": "nine", image: null, "mask": null})).unwrap_err(), both);
        let mask = (vec![complaint("mask")], vec![hint("mask")]);
        assert_eq!(check(json!({"prompt": "p", image: IMAGE})).unwrap_err(), mask);
        let whole = json!({"prompt": "p", image: IMAGE, "mask": "AA=="});
        assert!(check(whole).unwrap().start.is_some_and(|start| start.mask.is_some()));
        assert_eq!(check(json!({"prompt": "p", "model": "four"})).unwrap().start, None);

        let schema = defaults.schema();
        let required = schema["required"].as_array().unwrap();
        assert!([image, "mask"].iter().all(|field| required.contains(&json!(field))), "{schema}");
        for field in [image, "mask"] {
            let property = &schema["properties"][field];
            assert_eq!((&property["type"], property.get("default")), (&json!("string"), None), "{field}");
        }
        assert_eq!(serde_json::to_value(&defaults).unwrap()["inpaints"], true);
        assert_eq!(serde_json::to_value(Defaults::from(contract)).unwrap().get("inpaints"), None);
    }
}

#[test]
fn a_hint_says_what_a_side_and_a_share_may_be() {
    let hints =
        |field: &str, value: Value| validate(&with(from_noise(), field, &value), &offer(), 0).unwrap_err().hints();
    assert_eq!(hints("width", json!(1000 + 1)), ["width: use a multiple of 8 from 64 to 2048"]);
    assert_eq!(hints("high_noise_frac", json!(1)), ["high_noise_frac: use above 0 and below 1"]);
    assert_eq!(hints("mask_repaint", json!("gray")), ["mask_repaint: use black or white"]);
    assert_eq!(hints("scheduler", json!("K_EULERA")), ["scheduler: did you mean K_EULER?"]);
}

#[test]
fn each_model_has_the_fields_of_its_own_contract() {
    let text = br#"{"contract": "sdxl", "defaults": {"num_inference_steps": 20, "refiner_inference_steps": 30, "width": 768}}"#;
    let defaults = Defaults::from_json(text, Contract::Sd1).unwrap();
    let models = vec![OfferedModel::new("sd", Contract::Sd1), OfferedModel::new("xl", defaults)];
    let offer = Offer { models, ..Offer::default() };
    let check = |input: Value| validate(&input, &offer, 0).map_err(|complaints| complaints.texts());
    let spec = check(json!({"prompt": "p", "model": "xl", "num_images": 2})).unwrap();
    assert_eq!((spec.num_outputs, spec.steps, spec.size), (2, 20, Size { width: 768, height: 1024 }));
    assert_eq!(check(json!({"image_url": IMAGE, "model": "xl"})).unwrap().steps, 30);
    let spec = check(json!({"prompt": "p", "num_outputs": 2})).unwrap();
    assert_eq!((spec.num_outputs, spec.steps, spec.size.width), (2, 50, 512));
    for (input, key) in [
        (json!({"prompt": "p", "model": "xl", "num_outputs": 2}), "num_outputs"),
        (json!({"prompt": "p", "num_images": 2}), "num_images"),
        (json!({"prompt": "p", "model": "sd", "num_images": 2}), "num_images"),
    ] {
        assert_eq!(check(input).unwrap_err(), [format!("Unexpected input. {key} is not a valid input option.")]);
    }
    assert_eq!(check(json!({"prompt": "p", "width": 1024})).unwrap_err(), ["width does not meet the constraints."]);
    assert_eq!(
        (offer.contract("xl"), offer.contract("sd"), offer.contract("other")),
        (Contract::Sdxl, Contract::Sd1, Contract::Sd1)
    );
    // A model that does not set a field has the default of the contract, and so has no warning of it.
    assert_eq!(offer.warnings(&json!({"image_url": IMAGE, "model": "xl", "width": 768, "height": 1024})), [""; 0]);
}
