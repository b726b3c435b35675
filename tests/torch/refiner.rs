//! A refiner after a base model, on tiny models of both.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use latentd::config::{Config, Environment, Flags};
use latentd::engine::torch::denoise::graphs::{CaptureCounters, FakeCapture};
use latentd::engine::torch::{Target, TorchEngine};
use latentd::engine::{Engine, EngineLoad, Picture, Ticket};
use latentd::job::{Img2Img, LoadedImage, Lora, Refine, RefineMode, Spec};
use latentd::sampler::Sampler;

use crate::torch::drawing::{engine, finish, miniature, only, psnr, run, spec};

const MODEL: &str = "tiny-xl";

fn path() -> PathBuf {
    miniature(MODEL).join("../../refiners/tiny-refiner")
}

fn refined() -> TorchEngine {
    engine(MODEL).with_refiner(&path(), Path::new("nowhere")).unwrap()
}

fn with(refine: RefineMode, steps: u32, strength: f64, spec: Spec) -> Spec {
    Spec { refine: Some(Refine { steps, mode: refine, strength }), ..spec }
}

/// By noise on what the base model makes in 3 steps.
fn by_strength(steps: u32, strength: f64) -> Spec {
    with(RefineMode::Strength, steps, strength, spec(Sampler::Ddim, 3, 5))
}

/// From a grey picture.
fn from_image(strength: f64) -> Spec {
    let base = spec(Sampler::Ddim, 4, 5);
    let pixels = vec![90; (3 * base.size.width * base.size.height) as usize];
    let picture = Arc::new(Picture { width: base.size.width, height: base.size.height, pixels });
    let image = LoadedImage { picture, sha256: String::new() };
    Spec { start: Some(Img2Img { image, strength, mask: None }), ..base }
}

fn drawn(engine: &mut TorchEngine, spec: &Spec) -> Picture {
    only(run(engine, spec))
}

fn warnings(spec: &Spec) -> Vec<String> {
    refined().admit(Ticket(0), spec).unwrap()
}

#[test]
fn a_refiner_makes_its_own_share_of_steps_after_the_base_model() {
    let base = spec(Sampler::Ddim, 3, 5);
    for (spec, evaluations) in [
        (by_strength(10, 0.3), 3 + 3),
        (by_strength(2, 1.0), 3 + 2),
        (with(RefineMode::Ensemble, 10, 0.3, Spec { steps: 10, denoising_end: Some(0.8), ..base.clone() }), 8 + 2),
        (base.clone(), 3),
        (from_image(0.5), 2),
    ] {
        let outcome = run(&mut refined(), &spec);
        assert_eq!(outcome.timings.as_ref().unwrap().evaluations, evaluations, "{spec:?}");
        only(outcome);
    }
    let alone = drawn(&mut engine(MODEL), &base);
    assert_eq!(drawn(&mut refined(), &base), alone, "it is not asked for");
    assert_ne!(drawn(&mut refined(), &by_strength(10, 0.3)), alone);
    assert_eq!(drawn(&mut engine(MODEL), &by_strength(10, 0.3)), alone, "there is none");
}

#[test]
fn a_strength_that_leaves_no_step_is_warned_of() {
    let none = by_strength(10, 0.05);
    assert_eq!(drawn(&mut refined(), &none), drawn(&mut engine(MODEL), &none));
    assert_eq!(
        warnings(&none),
        [
            "the strength leaves none of refiner_inference_steps = 10 to the refiner, so the picture is the base model's alone"
        ]
    );
    assert_eq!(warnings(&by_strength(10, 0.3)), [""; 0]);
}

#[test]
fn the_text_that_both_read_is_warned_of_once() {
    let long = Spec { prompt: "one thing after another and ".repeat(40), ..by_strength(10, 0.3) };
    let told = warnings(&long);
    assert!(told.len() == 1 && told[0].contains("was cut at 77"), "{told:?}");
}

#[test]
fn from_an_image_the_refiner_draws_alone_and_by_its_own_guidance() {
    let plain = drawn(&mut refined(), &from_image(0.5));
    assert_ne!(plain, drawn(&mut engine(MODEL), &from_image(0.5)));
    let other =
        Spec { guidance_scale: 1.0, sampler: Sampler::Heun, negative_prompt: Some("x".into()), ..from_image(0.5) };
    assert_eq!(drawn(&mut refined(), &other), plain);
    let changed = Spec { lora: Some(Lora { name: "ink".into(), scale: 1.0 }), ..from_image(0.5) };
    assert!(warnings(&changed)[0].contains("lora has no effect"));
}

#[test]
fn an_ensemble_goes_on_from_latents_of_either_scale() {
    let ensemble = |sampler| {
        let base = Spec { denoising_end: Some(0.6), ..spec(sampler, 20, 5) };
        drawn(&mut refined(), &with(RefineMode::Ensemble, 20, 0.3, base))
    };
    // DDIM without noise of its own makes Euler's steps, and keeps latents in another scale.
    let likeness = psnr(&ensemble(Sampler::Ddim), &ensemble(Sampler::EulerD));
    assert!(likeness >= 35.0, "{likeness} dB");
}

#[test]
fn jobs_that_a_refiner_is_at_share_its_evaluations() {
    let mut engine = refined();
    engine.admit(Ticket(0), &by_strength(4, 1.0)).unwrap();
    // The first goes over to the refiner.
    for _ in 0..3 {
        engine.advance().unwrap();
    }
    engine.admit(Ticket(1), &from_image(1.0)).unwrap();
    engine.advance().unwrap();
    assert_eq!(engine.load(), EngineLoad { lanes: 2, rows: 4 });
    let outcomes = finish(&mut engine);
    for (ticket, alone) in [(Ticket(0), by_strength(4, 1.0)), (Ticket(1), from_image(1.0))] {
        let (_, picture) = &outcomes[&ticket].pictures[&0];
        assert!(psnr(picture, &drawn(&mut refined(), &alone)) >= 45.0, "{ticket:?}");
    }
}

#[test]
fn the_first_job_finds_the_refiner_s_evaluations_recorded() {
    let counters = Rc::new(CaptureCounters::default());
    let engine = refined().with_graphs(Box::new(FakeCapture::new(&counters)));
    let mut engine = engine.with_warm_up(Some(&[(128, 128)]), Some(1));
    while engine.warm_up().unwrap().is_some() {}
    let recorded = counters.recorded.get();
    let job = Spec { num_outputs: 2, ..by_strength(4, 1.0) };
    assert_eq!(run(&mut engine, &job).pictures.len(), 2);
    assert_eq!(counters.recorded.get(), recorded, "nothing was left to record");
}

#[test]
fn what_no_refiner_can_do_is_refused_by_name() {
    let ensemble = with(RefineMode::Ensemble, 10, 0.3, spec(Sampler::Ddim, 10, 5));
    let refused = refined().admit(Ticket(0), &ensemble).unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("refine"));
    assert!(refused.message.contains("without high_noise_frac"), "{refused}");
    let ended = Spec { denoising_end: Some(0.8), ..ensemble };
    let refused = engine(MODEL).admit(Ticket(0), &ended).unwrap_err();
    assert!(refused.message.contains("has set no refiner"), "{refused}");
}

#[test]
fn what_is_no_refiner_and_what_is_no_model_are_told() {
    let other = engine(MODEL).with_refiner(&miniature(MODEL), Path::new("nowhere")).unwrap_err().to_string();
    assert!(other.contains("this model is of the family sdxl, which is no refiner"), "{other}");
    let other = engine("tiny").with_refiner(&path(), Path::new("nowhere")).unwrap_err().to_string();
    assert!(other.contains("a refiner goes on after a model of the family sdxl, and not of sd1"), "{other}");
    let config = Config::load(&Flags::default(), &Environment::default()).unwrap();
    let load =
        |model: &Path| TorchEngine::load((model, Some(&path())), Path::new("nowhere"), Target::REFERENCE, &config.cuda);
    let refiner = load(&path()).unwrap_err().to_string();
    assert!(refiner.contains("this is a refiner, which draws after a base model"), "{refiner}");
    tch::set_num_threads(1);
    let drawn = only(run(&mut load(&miniature(MODEL)).unwrap(), &by_strength(10, 0.3)));
    assert_eq!(drawn, only(run(&mut refined(), &by_strength(10, 0.3))));
}
