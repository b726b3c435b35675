//! What an input of SDXL says of a refiner, and of a mask.

#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::sdxl_tests::{IMAGE, check, errors, from_image, from_noise, offer, with};
use super::{Offer, OfferedModel, validate};
use crate::job::contract::{Contract, Defaults};
use crate::job::spec::{ImageSource, Mask, Refine, RefineMode, Shade};
use crate::sampler::Sampler;

#[test]
fn an_ensemble_shares_the_steps_of_the_base_model_from_a_point_that_must_be_named() {
    let ensemble = json!({"prompt": "p", "num_inference_steps": 40, "refine": "ensemble", "high_noise_frac": 0.8});
    let spec = check(&ensemble).unwrap();
    assert_eq!(spec.refine, Some(Refine { steps: 40, mode: RefineMode::Ensemble, strength: 0.3 }));
    let without = json!({"prompt": "p", "refine": "ensemble"});
    assert_eq!(errors(&without), ["refine \"ensemble\" was provided without high_noise_frac"]);
    assert_eq!(errors(&with(from_noise(), "refine", &json!("both"))), ["refine does not meet the constraints."]);
    assert_eq!(
        validate(&with(from_noise(), "refine", &json!("both")), &offer(), 0).unwrap_err().hints(),
        ["refine: use strength or ensemble"]
    );
    // From an image a refiner draws by itself.
    let from_image = with(from_image(), "refine", &json!("ensemble"));
    assert_eq!(check(&from_image).unwrap().refine, None);
    assert_eq!(offer().warnings(&from_image), ["refine has no effect beside image_url"]);
    // What is known to have no refiner.
    let models = vec![OfferedModel::new("xl", Contract::Sdxl).with_refiner(false)];
    let alone = Offer { models, ..Offer::default() };
    let refused = validate(&ensemble, &alone, 0).unwrap_err();
    assert_eq!(refused.texts(), ["refine \"ensemble\" is not offered, the operator has set no refiner."]);
    assert!(validate(&with(from_noise(), "refine", &json!("strength")), &alone, 0).is_ok());
    // What was sent wrong is told alone, and what is wrong beside it, too.
    let twice = with(ensemble.clone(), "high_noise_frac", &json!(1));
    assert_eq!(errors(&twice), ["high_noise_frac does not meet the constraints."]);
    assert_eq!(
        errors(&with(without.clone(), "image_url", &json!("ftp://x/i"))),
        ["image_url does not meet the constraints."]
    );
    assert_eq!(
        errors(&json!({"prompt": "p", "scheduler": "LCM", "num_inference_steps": 60, "refine": "ensemble"})),
        [
            "num_inference_steps is 60, and may be 1 to 50 with LCM.",
            "refine \"ensemble\" was provided without high_noise_frac"
        ]
    );
}

#[test]
fn the_sampler_of_the_base_model_binds_no_job_that_a_refiner_draws() {
    let input = json!({
        "image_url": IMAGE, "prompt": "p", "scheduler": "LCM", "sigmas": "sgm_uniform", "refiner_inference_steps": 60,
    });
    let steps = |model: OfferedModel, input: &Value| {
        let offer = Offer { models: vec![model], ..Offer::default() };
        validate(input, &offer, 0).map(|spec| spec.steps).map_err(|complaints| complaints.texts())
    };
    let fields = br#"{"defaults": {"scheduler": "LCM"}}"#;
    let by_lcm = Defaults::from_json(fields, Contract::Sdxl).unwrap();
    let plain = json!({"image_url": IMAGE, "prompt": "p", "refiner_inference_steps": 60});
    let refused = || {
        let steps = "refiner_inference_steps is 60, and may be 1 to 50 with LCM.".to_owned();
        Err(vec![r#"sigmas is "sgm_uniform", and may be default with LCM."#.to_owned(), steps])
    };
    let model = |defaults: Defaults| OfferedModel::new("xl", defaults);
    assert_eq!(steps(model(Contract::Sdxl.into()).with_refiner(true), &input), Ok(60));
    assert_eq!(steps(model(by_lcm.clone()).with_refiner(true), &plain), Ok(60));
    // Where it is not known whether there is a refiner, who knows it says so.
    assert_eq!(steps(model(Contract::Sdxl.into()), &input), Ok(60));
    assert_eq!(steps(model(Contract::Sdxl.into()).with_refiner(false), &input), refused());
    // With a mask the base model draws.
    let masked = with(input, "mask", &json!("AA=="));
    for model in [model(Contract::Sdxl.into()), model(by_lcm).with_refiner(true)] {
        assert_eq!(steps(model, &masked), refused());
    }
}

#[test]
fn what_is_for_the_base_model_has_no_effect_where_a_refiner_draws_from_an_image() {
    let models = vec![OfferedModel::new("xl", Contract::Sdxl).with_refiner(true)];
    let refined = Offer { models, loras: vec!["ink".into()] };
    let input = json!({
        "image_url": IMAGE, "negative_prompt": "n", "guidance_scale": 3, "scheduler": "PNDM", "lora": "ink", "lora_scale": 0.5,
        "strength": 0.6, "refiner_inference_steps": 20,
    });
    let spec = validate(&input, &refined, 0).unwrap();
    assert_eq!((spec.negative_prompt, spec.guidance_scale, spec.sampler, spec.lora), (None, 7.5, Sampler::Ddim, None));
    assert_eq!((spec.steps, spec.start.unwrap().strength), (20, 0.6));
    let base = ["negative_prompt", "guidance_scale", "scheduler", "lora", "lora_scale"];
    assert_eq!(refined.warnings(&input), base.map(|name| format!("{name} has no effect beside image_url")));
    // They are checked all the same.
    let wrong = validate(&with(input, "guidance_scale", &json!(-1)), &refined, 0).unwrap_err();
    assert_eq!(wrong.texts(), ["guidance_scale does not meet the constraints."]);
}

#[test]
fn a_mask_belongs_to_the_image_and_takes_its_strength() {
    let start = |input: Value| check(&input).unwrap().start.unwrap();
    for mask in [IMAGE, "http://x/m.png", "data:image/png;base64,AA==", "AA=="] {
        let input = json!({"image_url": IMAGE, "mask": mask});
        let image = ImageSource::from_text(mask).unwrap();
        let expected = Some(Mask { image, repaint: Shade::Black, paste: false });
        assert_eq!((start(input.clone()).mask, start(input.clone()).strength), (expected, 0.3));
        assert_eq!(offer().warnings(&input), [""; 0]);
    }
    let whole = json!({
        "prompt": "p", "image_url": IMAGE, "mask": "AA==", "mask_repaint": "white", "mask_paste": true, "strength": 1,
        "refiner_inference_steps": 20, "num_inference_steps": 7, "high_noise_frac": 0.8,
    });
    let mask = Mask { image: ImageSource::Inline("AA==".into()), repaint: Shade::White, paste: true };
    assert_eq!((start(whole.clone()).mask, start(whole.clone()).strength), (Some(mask), 1.0));
    // What has no effect beside the image has none beside its mask.
    assert_eq!((check(&whole).unwrap().steps, check(&whole).unwrap().denoising_end), (20, None));
    assert_eq!(
        offer().warnings(&whole),
        ["num_inference_steps", "high_noise_frac"].map(|name| format!("{name} has no effect beside image_url"))
    );
    for input in [json!({"prompt": "p", "mask": "AA=="}), json!({"prompt": "p", "mask": "AA==", "image_url": null})] {
        assert_eq!(errors(&input), ["mask was provided without image_url"]);
    }
    // Without a mask the two that belong to it say nothing.
    let none = json!({"image_url": IMAGE, "mask": null, "mask_repaint": "white", "mask_paste": true});
    assert_eq!(start(none).mask, None);
}
