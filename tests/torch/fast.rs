//! Distilled models: a UNet that is told the guidance scale, on tiny models of SD v1 and SDXL.

use std::path::{Path, PathBuf};

use latentd::engine::torch::Target;
use latentd::engine::{Engine, Ticket};
use latentd::job::Spec;
use latentd::sampler::Sampler;

use crate::torch::drawing::{engine_of, finish, furthest, only, run, spec};

const MODELS: [&str; 2] = ["tiny-lcm", "tiny-xl-turbo"];

fn miniature(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torch-fast/miniatures").join(model)
}

fn guided(scale: f64, seed: u64) -> Spec {
    Spec { guidance_scale: scale, ..spec(Sampler::Lcm, 3, seed) }
}

#[test]
fn guidance_takes_one_row_and_jobs_with_different_scales_share_an_evaluation() {
    for model in MODELS {
        let mut engine = engine_of(&miniature(model), Target::REFERENCE);
        // As many as a processor evaluates at once.
        let scales = [1.0, 8.0];
        let alone = scales.map(|scale| only(run(&mut engine, &guided(scale, 5))));
        let without = only(run(&mut engine, &guided(0.0, 5)));
        assert!(furthest(&alone[0], &alone[1]) > 1 && furthest(&without, &alone[0]) > 1, "{model}: it is not told");
        for (number, scale) in (0..).zip(scales) {
            engine.admit(Ticket(number), &guided(scale, 5)).unwrap();
        }
        engine.advance().unwrap();
        assert_eq!(engine.load().rows, scales.len(), "{model}");
        let outcomes = finish(&mut engine);
        for ((ticket, outcome), alone) in outcomes.into_iter().zip(&alone) {
            assert!(furthest(&only(outcome), alone) <= 1, "{model} {ticket:?}");
        }
    }
}

#[test]
fn a_negative_prompt_warns_that_it_has_no_effect() {
    for model in MODELS {
        let mut engine = engine_of(&miniature(model), Target::REFERENCE);
        let negative = |text: &str| Spec { negative_prompt: Some(text.into()), ..guided(8.0, 5) };
        let plain = only(run(&mut engine, &guided(8.0, 5)));
        let warnings = engine.admit(Ticket(1), &negative("blue")).unwrap();
        assert_eq!(
            warnings,
            ["negative_prompt has no effect: this model was distilled to follow guidance_scale without one"]
        );
        let outcome = finish(&mut engine).remove(&Ticket(1)).unwrap();
        assert_eq!(only(outcome), plain);
        assert_eq!(engine.admit(Ticket(2), &negative("")).unwrap(), [""; 0]);
    }
}
