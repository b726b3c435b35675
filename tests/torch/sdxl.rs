//! What SDXL has that SD v1 has not, on a tiny model of it.

use std::rc::Rc;

use latentd::engine::torch::Target;
use latentd::engine::torch::denoise::graphs::{CaptureCounters, FakeCapture};
use latentd::job::Spec;
use latentd::sampler::Sampler;
use proptest::prelude::*;
use tch::{Device, Kind};

use crate::torch::drawing::{draw, engine, engine_in, jobs, only, psnr, run, sized, spec};

const MODEL: &str = "tiny-xl";

fn drawn(spec: &Spec) -> latentd::engine::Picture {
    only(run(&mut engine(MODEL), spec))
}

#[test]
fn no_negative_prompt_is_not_the_empty_one() {
    let none = spec(Sampler::Ddim, 3, 1);
    let empty = Spec { negative_prompt: Some(String::new()), ..none.clone() };
    assert_ne!(drawn(&none), drawn(&empty));
    let unguided = |spec: &Spec| Spec { guidance_scale: 1.0, ..spec.clone() };
    assert_eq!(drawn(&unguided(&none)), drawn(&unguided(&empty)), "nothing is kept away from");
}

#[test]
fn denoising_ends_where_it_is_told_to() {
    let whole = spec(Sampler::Ddim, 10, 1);
    let evaluations = |end| {
        let outcome = run(&mut engine(MODEL), &Spec { denoising_end: end, ..whole.clone() });
        outcome.timings.unwrap().evaluations
    };
    // Timesteps are 901, 801 … 1, and those from 200 up are kept.
    assert_eq!([None, Some(0.8), Some(0.05)].map(evaluations), [10, 8, 0]);
    let early = Spec { denoising_end: Some(0.8), ..whole.clone() };
    assert_ne!(drawn(&early), drawn(&whole));
    let (pure, warnings) = {
        let mut engine = engine(MODEL);
        let nothing = Spec { denoising_end: Some(0.05), ..whole };
        let warnings = latentd::engine::Engine::admit(&mut engine, latentd::engine::Ticket(0), &nothing).unwrap();
        (crate::torch::drawing::finish(&mut engine).len(), warnings)
    };
    assert!(pure == 1 && warnings.iter().any(|warning| warning.contains("noise")), "{warnings:?}");
}

#[test]
fn bf16_draws_what_f32_draws() {
    let bf16 = Target { device: Device::Cpu, kind: Kind::BFloat16 };
    for sampler in [Sampler::EulerD, Sampler::DpmM] {
        let spec = spec(sampler, 10, 5);
        let rounded = only(run(&mut engine_in(MODEL, bf16), &spec));
        let psnr = psnr(&rounded, &drawn(&spec));
        assert!(psnr >= 30.0, "{sampler:?}: {psnr} dB");
    }
}

#[test]
fn an_autoencoder_that_says_it_overflows_computes_in_f32_beside_a_unet_in_f16() {
    let half = Target { device: Device::Cpu, kind: Kind::Half };
    let spec = spec(Sampler::EulerD, 3, 5);
    let rounded = only(run(&mut engine_in(MODEL, half), &spec));
    assert!(psnr(&rounded, &drawn(&spec)) >= 40.0, "{} dB", psnr(&rounded, &drawn(&spec)));
}

#[test]
fn what_is_replayed_hears_of_other_prompts_sizes_and_none() {
    let counters = Rc::new(CaptureCounters::default());
    let mut recording = engine(MODEL).with_graphs(Box::new(FakeCapture::new(&counters)));
    let base = spec(Sampler::EulerA, 12, 1);
    for other in [
        base.clone(),
        Spec { prompt: "a blue pear".into(), ..base.clone() },
        Spec { negative_prompt: Some(String::new()), ..base.clone() },
        Spec { negative_prompt: Some("a blue pear".into()), ..base.clone() },
        sized(64, 256, base.clone()),
        base.clone(),
    ] {
        assert_eq!(only(run(&mut recording, &other)), drawn(&other), "{other:?}");
    }
    assert!(
        counters.recorded.get() == 2 && counters.replayed.get() > 0,
        "{} {}",
        counters.recorded.get(),
        counters.replayed.get()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn jobs_of_all_kinds_share_evaluations_and_get_what_they_get_alone(jobs in jobs()) {
        // Rows are padded to the same numbers in both, whoever shares them: what is asked is that each gets its own.
        let counters = Rc::new(CaptureCounters::default());
        counters.refuse.set(true);
        let mut together = engine(MODEL).with_graphs(Box::new(FakeCapture::new(&counters)));
        let pictures = draw(&mut together, &jobs);
        for ((ticket, index), picture) in pictures {
            let spec = &jobs[ticket.0 as usize].0;
            let alone = Spec { seed: spec.seed_of(index), num_outputs: 1, ..spec.clone() };
            prop_assert!(psnr(&picture, &drawn(&alone)) >= 60.0);
        }
    }
}
