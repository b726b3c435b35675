//! Lanes: what a job gets does not depend on who shares the engine with it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use latentd::engine::torch::{Model, PreviewPace, Target, TorchEngine};
use latentd::engine::{Engine, Picture, Ticket};
use latentd::job::{Contract, Img2Img, LoadedImage, Mask, PromptSyntax, Shade, Size, Spec};
use latentd::sampler::Sampler;
use proptest::prelude::*;
use tch::{Device, Kind};

use crate::torch::drawing::{engine, engine_in, finish, furthest, only, psnr, run, spec};

/// A look at every evaluation.
const ALWAYS: PreviewPace = PreviewPace { pause: Duration::ZERO, rest: 0 };

#[test]
fn the_same_job_twice_gives_the_same_bytes() {
    let mut engine = engine("tiny");
    let spec = spec(Sampler::EulerA, 5, 7);
    assert_eq!(only(run(&mut engine, &spec)), only(run(&mut engine, &spec)));
}

/// Jobs of every sampler, of several sizes, steps and guidances, at once; of each its picture from there, and its picture alone.
fn together_and_alone(target: Target) -> Vec<(Spec, Picture, Picture)> {
    let mut shared = engine_in("tiny", target);
    let specs: Vec<Spec> = (0_u32..)
        .zip(Sampler::ALL.iter().copied())
        .map(|(i, sampler)| Spec {
            prompt: format!("picture {i}"),
            negative_prompt: (i % 3 == 0).then(|| "blurry".into()),
            guidance_scale: if i % 4 == 0 { 1.0 } else { 3.0 + f64::from(i) },
            size: Size { width: 128, height: if i % 5 == 4 { 256 } else { 128 } },
            ..spec(sampler, 3 + i % 4, u64::from(i))
        })
        .collect();
    for (i, spec) in (0..).zip(&specs) {
        shared.admit(Ticket(i), spec).unwrap();
    }
    let mut together = finish(&mut shared);
    let mut alone = engine_in("tiny", target);
    let pictures = |(i, spec): (u64, Spec)| {
        let (together, alone) = (only(together.remove(&Ticket(i)).unwrap()), only(run(&mut alone, &spec)));
        (spec, together, alone)
    };
    (0..).zip(specs).map(pictures).collect()
}

#[test]
fn jobs_of_all_kinds_share_evaluations_and_get_what_they_get_alone() {
    for (spec, together, alone) in together_and_alone(Target::REFERENCE) {
        assert!(furthest(&together, &alone) <= 1, "{} by {}", spec.sampler.name(), furthest(&together, &alone));
    }
}

#[test]
fn in_bf16_they_get_nearly_that() {
    for (spec, together, alone) in together_and_alone(Target { device: Device::Cpu, kind: Kind::BFloat16 }) {
        assert!(psnr(&together, &alone) >= 35.0, "{}: {} dB", spec.sampler.name(), psnr(&together, &alone));
    }
}

#[test]
fn image_i_is_the_single_image_of_seed_s_plus_i() {
    let mut engine = engine("tiny");
    let job = Spec { num_outputs: 3, ..spec(Sampler::Ddpm, 4, u64::MAX - 1) };
    let outcome = run(&mut engine, &job);
    assert_eq!(outcome.pictures.len(), 3);
    for (index, (seed, picture)) in outcome.pictures {
        assert_eq!(seed, job.seed.wrapping_add(u64::from(index)));
        let single = only(run(&mut engine, &spec(Sampler::Ddpm, 4, seed)));
        assert!(furthest(&picture, &single) <= 1);
    }
}

#[test]
fn seeds_prompts_and_guidance_matter() {
    let mut engine = engine("tiny");
    let base = spec(Sampler::Ddim, 4, 1);
    let picture = only(run(&mut engine, &base));
    for other in [
        Spec { seed: 2, ..base.clone() },
        Spec { prompt: "a blue pear".into(), ..base.clone() },
        Spec { guidance_scale: 1.0, ..base.clone() },
        Spec { negative_prompt: Some("a blue pear".into()), ..base.clone() },
    ] {
        assert!(furthest(&picture, &only(run(&mut engine, &other))) > 1, "{other:?}");
    }
}

/// As in diffusers, whose pipelines guide only above 1: below, the prompt's prediction is taken as it is, and not weakened.
#[test]
fn a_guidance_of_nothing_draws_as_one_of_one() {
    let mut engine = engine("tiny");
    let base = Spec { guidance_scale: 1.0, ..spec(Sampler::Ddim, 4, 1) };
    let picture = only(run(&mut engine, &base));
    for guidance_scale in [0.0, 0.5] {
        let other = Spec { guidance_scale, negative_prompt: Some("a blue pear".into()), ..base.clone() };
        assert_eq!(only(run(&mut engine, &other)), picture, "{guidance_scale}");
    }
}

#[test]
fn cancelling_a_job_leaves_its_neighbours_alone() {
    let mut engine = engine("tiny");
    let keep = spec(Sampler::Heun, 3, 5);
    engine.admit(Ticket(1), &Spec { num_outputs: 4, steps: 500, ..spec(Sampler::Pndm, 9, 3) }).unwrap();
    engine.admit(Ticket(2), &keep).unwrap();
    engine.advance().unwrap();
    engine.cancel(Ticket(1));
    let mut outcomes = finish(&mut engine);
    assert!(!outcomes.contains_key(&Ticket(1)));
    let alone = only(run(&mut engine, &keep));
    assert!(furthest(&alone, &only(outcomes.remove(&Ticket(2)).unwrap())) <= 1);
}

#[test]
fn evaluations_and_warnings_are_told() {
    let mut engine = engine("tiny");
    let long = "very ".repeat(100);
    let warnings =
        engine.admit(Ticket(0), &Spec { prompt: long, num_outputs: 2, ..spec(Sampler::Heun, 4, 0) }).unwrap();
    assert!(warnings[0].starts_with("prompt has "), "{warnings:?}");
    assert!(warnings[0].contains("cut at 77"), "{warnings:?}");
    let timings = finish(&mut engine).remove(&Ticket(0)).unwrap().timings.unwrap();
    assert_eq!(timings.evaluations, 2 * 7);
    let warnings = engine.admit(Ticket(1), &spec(Sampler::EulerD, 1, 0)).unwrap();
    assert!(warnings[0].contains("num_inference_steps = 1"), "{warnings:?}");
}

/// The model that comes with the program, in the numbers that processors and GPUs multiply fastest.
#[test]
fn bf16_draws_what_f32_draws() {
    tch::set_num_threads(1);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let draw = |target| {
        let model = Model::load(&root.join("models/miniature"), &root.join("models/clip-tokenizer"), target).unwrap();
        let size = Size { width: 512, height: 512 };
        only(run(&mut TorchEngine::new(model), &Spec { size, ..spec(Sampler::KLms, 20, 1) }))
    };
    let (exact, rounded) = (draw(Target::REFERENCE), draw(Target { kind: tch::Kind::BFloat16, ..Target::REFERENCE }));
    let errors = exact.pixels.iter().zip(&rounded.pixels).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
    let mean = errors.sum::<f64>() / exact.pixels.len() as f64;
    let psnr = 10.0 * (255.0_f64.powi(2) / mean).log10();
    assert!(psnr >= 30.0, "{psnr:.1} dB");
    assert!(mean > 0.0, "bf16 was not used");
}

/// One grey all over.
fn plain(Size { width, height }: Size, grey: u8) -> LoadedImage {
    let pixels = vec![grey; (3 * width * height) as usize];
    LoadedImage { picture: Arc::new(Picture { width, height, pixels }), sha256: "00".into() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Whatever validation lets through is drawn, in its size and number, or fails with an error.
    #[test]
    fn every_accepted_job_runs_or_fails_cleanly(
        prompt in any::<String>(),
        negative_prompt in proptest::option::of(any::<String>()),
        (width, height) in (prop::sample::select(Contract::Sd1.sides().all()[..3].to_vec()), prop::sample::select(Contract::Sd1.sides().all()[..3].to_vec())),
        num_outputs in 1..=3_u32,
        steps in 1..=4_u32,
        guidance_scale in 0.0..=20.0,
        sampler in prop::sample::select(Sampler::ALL),
        seed in any::<u64>(),
        denoising_end in proptest::option::of(0.001..0.999),
        start in proptest::option::of((any::<u8>(), 0.0..=1.0)),
        mask in proptest::option::of((any::<u8>(), prop::sample::select(vec![Shade::Black, Shade::White]), any::<bool>())),
    ) {
        let mut engine = engine("tiny").with_previews(ALWAYS);
        let size = Size { width, height };
        let mask = mask.map(|(grey, repaint, paste)| Mask { image: plain(size, grey), repaint, paste });
        let start = start.map(|(grey, strength)| Img2Img { image: plain(size, grey), strength, mask });
        let (prompt_syntax, clip_skip) = (PromptSyntax::ALL[seed as usize / 2 % 2], (seed / 4 % 3) as u32);
        let (model, lora, preview) = ("m".into(), None, seed.is_multiple_of(2));
        let sigmas = sampler.spacings()[seed as usize % sampler.spacings().len()];
        let eta = if sampler.has_eta() { (seed % 3) as f64 / 2.0 } else { 0.0 };
        let spec =
            Spec { model, prompt, negative_prompt, prompt_syntax, clip_skip, size, start, num_outputs, steps, denoising_end, guidance_scale, sampler, sigmas, eta, seed, lora, refine: None, preview };
        if let Err(cause) = engine.admit(Ticket(0), &spec) {
            prop_assert!(!cause.message.is_empty());
        } else {
            let outcome = finish(&mut engine).remove(&Ticket(0)).unwrap();
            prop_assert!(outcome.failed.is_some() || outcome.timings.is_some());
            prop_assert_eq!(outcome.pictures.len(), if outcome.failed.is_none() { num_outputs as usize } else { 0 });
            for (_, picture) in outcome.pictures.values() {
                prop_assert_eq!((picture.width, picture.height), (width, height));
                prop_assert_eq!(picture.pixels.len(), (3 * width * height) as usize);
            }
        }
        prop_assert!(!engine.busy());
    }
}

#[test]
fn previews_are_for_who_asks_and_the_last_is_the_picture() {
    let mut engine = engine("tiny").with_previews(ALWAYS);
    // Each of these ends on the latents that its last evaluation foresees.
    for sampler in [Sampler::EulerD, Sampler::EulerA] {
        let job = spec(sampler, 4, 7);
        let quiet = run(&mut engine, &job);
        let looked = run(&mut engine, &Spec { preview: true, ..job });
        assert_eq!((quiet.previews.len(), looked.previews.len()), (0, 4));
        let (first, last) = (looked.previews[0].clone(), looked.previews[3].clone());
        let picture = only(looked);
        assert_eq!(picture, only(quiet), "looking changes nothing");
        let (far, near) = (furthest(&first, &picture), furthest(&last, &picture));
        assert!(far > 8 && near <= 1, "{}: {far}, then {near}", sampler.name());
    }
}

#[test]
fn a_preview_is_small_and_has_the_picture_s_shape() {
    let mut engine = engine("tiny").with_previews(ALWAYS);
    let size = Size { width: 768, height: 512 };
    let looked = run(&mut engine, &Spec { preview: true, size, ..spec(Sampler::Ddim, 1, 7) });
    let [look] = &looked.previews[..] else { panic!("{}", looked.previews.len()) };
    assert_eq!((look.width, look.height, look.pixels.len()), (256, 168, 256 * 168 * 3));
}

#[test]
fn previews_keep_their_pace() {
    let mut engine = engine("tiny").with_previews(PreviewPace { pause: Duration::from_hours(1), rest: 0 });
    assert_eq!(run(&mut engine, &Spec { preview: true, ..spec(Sampler::Ddim, 8, 7) }).previews.len(), 0);
}
