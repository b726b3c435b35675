//! Inputs of the contract `sdxl_turbo`: every field at its edges and one past.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::{Offer, OfferedModel, validate};
use crate::job::contract::Contract;
use crate::job::prompt::PromptSyntax;
use crate::job::spec::{ImageSource, Lora, Size, Spec};
use crate::sampler::{Sampler, SigmaSpacing};

fn check(input: &Value) -> Result<Spec<ImageSource>, Vec<String>> {
    let models = vec![OfferedModel::new("turbo", Contract::SdxlTurbo)];
    validate(input, &Offer { models, loras: vec!["ink".into()] }, 40264).map_err(|complaints| complaints.texts())
}

fn with(field: &str, value: &Value) -> Vec<String> {
    let mut input = json!({"prompt": "p"});
    input[field] = value.clone();
    check(&input).err().unwrap_or_default()
}

#[test]
fn a_prompt_alone_gets_the_defaults_of_the_reference_worker() {
    let expected = Spec {
        model: "turbo".into(),
        prompt: "p".into(),
        negative_prompt: None,
        prompt_syntax: PromptSyntax::Plain,
        clip_skip: 0,
        size: Size { width: 512, height: 512 },
        start: None,
        num_outputs: 1,
        steps: 1,
        denoising_end: None,
        refine: None,
        guidance_scale: 0.0,
        sampler: Sampler::EulerA,
        sigmas: SigmaSpacing::Default,
        eta: 0.0,
        seed: 40264,
        lora: None,
        preview: false,
    };
    assert_eq!(check(&json!({"prompt": "p"})), Ok(expected));
}

#[test]
fn every_field_is_taken_at_its_edges_and_refused_one_past() {
    let cases = [
        ("prompt", json!(["", "x".repeat(32 * 1024)]), json!(["x".repeat(32 * 1024 + 1)])),
        ("negative_prompt", json!([null, "", "x".repeat(32 * 1024)]), json!(["x".repeat(32 * 1024 + 1)])),
        ("width", json!([64, 72, 512, 1016, 1024]), json!([0, 56, 63, 65, 511, 1023, 1025, 1032, -64])),
        ("height", json!([64, 72, 512, 1016, 1024]), json!([0, 56, 63, 65, 511, 1023, 1025, 1032, -64])),
        ("num_images", json!([1, 4]), json!([0, 5, -1])),
        ("num_inference_steps", json!([1, 8]), json!([0, 9])),
        ("guidance_scale", json!([0, 1e-300, 2, 2.0]), json!([-1e-300, 2.001])),
        ("seed", json!([null, 0, -1, u64::MAX]), json!([1e30])),
        ("scheduler", json!(["EULER-A", "DDIM"]), json!(["K_EULER_ANCESTRAL", ""])),
        ("prompt_syntax", json!(["plain", "weighted"]), json!(["Weighted", "compel", ""])),
        ("clip_skip", json!([0, 1, 11]), json!([12, -1])),
        ("sigmas", json!(["default", "sgm_uniform"]), json!(["", "Karras", "trailing"])),
        ("eta", json!([0, 0.0]), json!([-1e-300, 1.001])),
        ("lora_scale", json!([0, 1]), json!([-0.01, 1.01])),
        ("lora", json!([null, "ink"]), json!([])),
        ("model", json!([null, "turbo"]), json!([])),
        ("preview", json!([true, false]), json!([])),
        ("nsfw", json!([true, false]), json!([])),
    ];
    assert!(cases.iter().map(|(field, ..)| *field).all(|field| Contract::SdxlTurbo.field(field).is_some()));
    assert_eq!(cases.len(), Contract::SdxlTurbo.table().fields.len(), "a field has no edges here");
    for (field, taken, refused) in cases {
        for value in taken.as_array().unwrap() {
            assert_eq!(with(field, value), [""; 0], "{field}: {value}");
        }
        for value in refused.as_array().unwrap() {
            assert_eq!(with(field, value), [format!("{field} does not meet the constraints.")], "{field}: {value}");
        }
    }
}

#[test]
fn every_field_reaches_the_job() {
    let input = json!({
        "prompt": "a", "negative_prompt": "", "width": 1024, "height": 64, "num_images": 3, "num_inference_steps": 7, "guidance_scale": 1.5,
        "scheduler": "EULER-D", "seed": 5, "lora": "ink", "lora_scale": 0.5, "model": "turbo", "preview": true, "nsfw": true,
        "sigmas": "sgm_uniform", "prompt_syntax": "weighted", "clip_skip": 2,
    });
    let expected = Spec {
        model: "turbo".into(),
        prompt: "a".into(),
        negative_prompt: Some(String::new()),
        prompt_syntax: PromptSyntax::Weighted,
        clip_skip: 2,
        size: Size { width: 1024, height: 64 },
        start: None,
        num_outputs: 3,
        steps: 7,
        denoising_end: None,
        refine: None,
        guidance_scale: 1.5,
        sampler: Sampler::EulerD,
        sigmas: SigmaSpacing::SgmUniform,
        eta: 0.0,
        seed: 5,
        lora: Some(Lora { name: "ink".into(), scale: 0.5 }),
        preview: true,
    };
    assert_eq!(check(&input), Ok(expected));
}

#[test]
fn a_picture_says_by_what_input_it_is_drawn_again() {
    let input = json!({
        "prompt": "a", "negative_prompt": null, "width": 64, "height": 72, "num_images": 1, "num_inference_steps": 2, "guidance_scale": 0.0,
        "scheduler": "EULER-A", "sigmas": "default", "prompt_syntax": "plain", "clip_skip": 0, "seed": 6, "model": "turbo", "lora": "ink", "lora_scale": 0.5,
    });
    let spec = check(
        &json!({"prompt": "a", "width": 64, "height": 72, "num_images": 3, "num_inference_steps": 2, "seed": 5, "lora": "ink", "lora_scale": 0.5}),
    );
    let again = (Contract::SdxlTurbo.table().input)(&spec.unwrap().with_start(None), 1);
    assert_eq!(again, input);
    assert_eq!(check(&again).unwrap().seed, 6);
}
