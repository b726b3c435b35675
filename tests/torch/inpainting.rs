//! Inpainting models: a UNet that takes a mask and a masked image beside the latents.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use latentd::engine::torch::denoise::graphs::{CaptureCounters, FakeCapture};
use latentd::engine::torch::{Target, TorchEngine};
use latentd::engine::{Engine, Picture, Ticket};
use latentd::job::{Code, Img2Img, Lora, Mask, Shade, Spec};
use latentd::sampler::Sampler;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::torch::drawing::{draw, engine, engine_of, finish, furthest, miniature, only, run, sized, spec};
use crate::torch::starts::{brought, half};

const MODEL: &str = "tiny-nine";
const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";

/// Repaints the left half of a picture of 128×128, which has `red` there and in the right half.
fn begun(sampler: Sampler, strength: f64, [left, right]: [u8; 2]) -> Spec {
    let image = brought(|x, y| [if x < 64 { left } else { right }, 2 * y as u8, x as u8]);
    let mask = brought(|x, _| if x < 64 { [0; 3] } else { [255; 3] });
    let mask = Some(Mask { image: mask, repaint: Shade::Black, paste: false });
    Spec { start: Some(Img2Img { image, strength, mask }), ..spec(sampler, 6, 3) }
}

fn drawn(spec: &Spec) -> Picture {
    only(run(&mut engine(MODEL), spec))
}

#[test]
fn a_job_without_a_mask_is_refused_by_the_name_of_the_field() {
    let mut engine = engine(MODEL);
    let masked = begun(Sampler::Ddim, 0.8, [9, 9]);
    let image = masked.start.clone().map(|start| Img2Img { mask: None, ..start });
    for start in [None, image] {
        let refused = engine.admit(Ticket(1), &Spec { start, ..masked.clone() }).unwrap_err();
        let message = "mask is missing: this model repaints a part of an image, and draws nothing else";
        assert_eq!((refused.code, refused.field.as_deref()), (Code::InvalidInput, Some("mask")));
        assert_eq!(refused.message, message);
        assert!(!engine.busy());
    }
    assert_eq!(run(&mut engine, &masked).pictures.len(), 1, "and the next job is drawn");
}

#[test]
fn what_is_hidden_is_not_seen_and_what_is_kept_is() {
    // From noise alone nothing of the image but what the mask leaves can reach the picture.
    for sampler in [Sampler::Ddim, Sampler::EulerA, Sampler::Heun] {
        let picture = drawn(&begun(sampler, 1.0, [9, 9]));
        assert_eq!(picture, drawn(&begun(sampler, 1.0, [200, 9])), "{sampler}");
        let other = drawn(&begun(sampler, 1.0, [9, 200]));
        assert!(furthest(&half(&picture, 0..32), &half(&other, 0..32)) > 3, "{sampler}");
    }
    let picture = drawn(&begun(Sampler::Ddim, 0.8, [9, 9]));
    assert_ne!(picture, drawn(&begun(Sampler::Ddim, 0.8, [200, 9])), "with less strength it is begun from");
}

#[test]
fn each_image_has_its_own_draw_of_what_is_kept() {
    for strength in [0.7, 1.0] {
        let job = Spec { num_outputs: 3, ..begun(Sampler::Ddpm, strength, [9, 200]) };
        let pictures = run(&mut engine(MODEL), &job).pictures;
        for (seed, picture) in pictures.values() {
            let single = drawn(&Spec { num_outputs: 1, seed: *seed, ..job.clone() });
            assert!(furthest(picture, &single) <= 1, "{strength} {seed}");
        }
        assert!(furthest(&pictures[&0].1, &pictures[&1].1) > 1, "{strength}: seeds do not matter");
    }
}

/// An engine whose evaluations are recorded.
fn recording() -> (TorchEngine, Rc<CaptureCounters>) {
    let counters = Rc::new(CaptureCounters::default());
    (engine(MODEL).with_graphs(Box::new(FakeCapture::new(&counters))), counters)
}

#[test]
fn a_replay_has_the_mask_and_the_image_of_its_job() {
    let (mut recorded, counters) = recording();
    let mut refused = recording();
    refused.1.refuse.set(true);
    let jobs: Vec<(Spec, u32, bool)> = [[9, 200], [200, 9], [9, 200], [90, 90]]
        .into_iter()
        .zip([1.0, 0.8, 1.0, 1.0])
        .map(|(red, strength)| (begun(Sampler::Ddim, strength, red), 3, false))
        .collect();
    assert!(draw(&mut recorded, &jobs) == draw(&mut refused.0, &jobs));
    for (job, ..) in &jobs {
        assert_eq!(only(run(&mut recorded, job)), drawn(job), "alone no row is padded");
    }
    assert!(counters.replayed.get() > 12, "{}", counters.replayed.get());
}

#[test]
fn an_engine_warms_up_for_it() {
    let (engine, counters) = recording();
    let mut engine = engine.with_warm_up(Some(&[(128, 128)]), Some(1));
    while engine.warm_up().unwrap().is_some() {}
    assert_eq!(counters.recorded.get(), 8, "as many as there are numbers of rows");
    let job = Spec { num_outputs: 2, ..begun(Sampler::Ddim, 1.0, [9, 200]) };
    assert_eq!(run(&mut engine, &job).pictures.len(), 2);
    assert_eq!(counters.recorded.get(), 8, "all was there");
}

#[test]
fn a_lora_changes_what_is_drawn() {
    let job = begun(Sampler::Ddim, 1.0, [9, 200]);
    let mut engine = engine(MODEL).with_loras(Some(miniature(MODEL).join("../../loras")));
    let lora = Some(Lora { name: "tiny-kohya".into(), scale: 1.0 });
    let plain = only(run(&mut engine, &job));
    assert!(furthest(&only(run(&mut engine, &Spec { lora, ..job.clone() })), &plain) > 3);
    assert_eq!(plain, drawn(&job));
}

/// A copy of a miniature with a UNet of nine channels, five of which have no weight.
fn blind_copy(model: &str, folder: &Path) {
    let source = miniature(model);
    for entry in walk(&source) {
        let target = folder.join(entry.strip_prefix(&source).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&entry, target).unwrap();
    }
    let config = folder.join("unet/config.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    value["in_channels"] = json!(9);
    fs::write(&config, value.to_string()).unwrap();
    let bytes = fs::read(folder.join(WEIGHTS)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let of_output = 4 * 9 * 2; // four channels of 3×3 in f16
    let conv_in = tensors.tensor("conv_in.weight").unwrap();
    let wide: Vec<u8> =
        conv_in.data().chunks(of_output).flat_map(|kernels| [kernels, &[0; 5 * 9 * 2]].concat()).collect();
    let shape = vec![conv_in.shape()[0], 9, 3, 3];
    let mut all: HashMap<String, TensorView> = tensors.tensors().into_iter().collect();
    all.insert("conv_in.weight".into(), TensorView::new(conv_in.dtype(), shape, &wide).unwrap());
    fs::write(folder.join(WEIGHTS), safetensors::serialize(all, None).unwrap()).unwrap();
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn without_weights_for_mask_and_image_it_draws_from_text_as_the_model_that_has_none() {
    for model in ["tiny-kl", "tiny-xl"] {
        let folder = tempfile::tempdir().unwrap();
        blind_copy(model, folder.path());
        let mut blind = engine_of(folder.path(), Target::REFERENCE);
        // The noise comes first, and the sampler draws none: of all draws only the first reaches the picture.
        let job = begun(Sampler::EulerD, 1.0, [9, 200]);
        let from_text = only(run(&mut engine(model), &Spec { start: None, ..job.clone() }));
        assert_eq!(only(run(&mut blind, &job)), from_text, "{model}");
        let outcome = run(&mut blind, &Spec { num_outputs: 2, guidance_scale: 1.0, ..sized(128, 128, job.clone()) });
        assert_eq!(outcome.pictures.len(), 2);
        // With less strength the image's latents are drawn before it.
        let weaker = only(run(&mut blind, &begun(Sampler::EulerD, 0.99, [9, 200])));
        assert_ne!(weaker, from_text, "{model}");
        blind.admit(Ticket(5), &job).unwrap();
        assert_eq!(only(finish(&mut blind).remove(&Ticket(5)).unwrap()), from_text);
    }
}
