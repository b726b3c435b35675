//! Draws with tiny models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use latentd::engine::torch::{Model, Target, TorchEngine};
use latentd::engine::{Engine, EngineTimings, Event, Picture, Ticket};
use latentd::job::{JobError, PromptSyntax, Size, Spec};
use latentd::sampler::{Sampler, SigmaSpacing};
use proptest::prelude::*;

/// An engine on one of the tiny models of the goldens, in the reference's arithmetic.
pub(crate) fn engine(model: &str) -> TorchEngine {
    engine_in(model, Target::REFERENCE)
}

/// The same in another.
pub(crate) fn engine_in(model: &str, target: Target) -> TorchEngine {
    // Tests run beside each other; threads that wait for each other on few cores are slower than one.
    tch::set_num_threads(1);
    engine_of(&miniature(model), target)
}

/// The folder of a tiny model, of either family.
pub(crate) fn miniature(model: &str) -> PathBuf {
    let goldens = if model.ends_with("-xl") { "torch-xl" } else { "torch" };
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(goldens).join("miniatures").join(model)
}

/// An engine on the model in `folder`.
pub(crate) fn engine_of(folder: &Path, target: Target) -> TorchEngine {
    TorchEngine::new(Model::load(folder, &folder.join("tokenizer"), target).unwrap())
}

/// A job of one image, 128×128.
pub(crate) fn spec(sampler: Sampler, steps: u32, seed: u64) -> Spec {
    Spec {
        model: "m".into(),
        prompt: "a red apple".into(),
        negative_prompt: None,
        prompt_syntax: PromptSyntax::Plain,
        clip_skip: 0,
        size: Size { width: 128, height: 128 },
        num_outputs: 1,
        steps,
        guidance_scale: 7.5,
        sampler,
        seed,
        start: None,
        lora: None,
        preview: false,
        denoising_end: None,
        refine: None,
        sigmas: SigmaSpacing::Default,
        eta: 0.0,
    }
}

/// `spec` in another size.
pub(crate) fn sized(width: u32, height: u32, spec: Spec) -> Spec {
    Spec { size: Size { width, height }, ..spec }
}

/// What became of a job.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) pictures: BTreeMap<u32, (u64, Picture)>,
    pub(crate) previews: Vec<Picture>,
    pub(crate) timings: Option<EngineTimings>,
    pub(crate) failed: Option<JobError>,
}

/// Runs the engine until it has nothing to do; outcomes by ticket.
pub(crate) fn finish(engine: &mut TorchEngine) -> BTreeMap<Ticket, Outcome> {
    let mut outcomes: BTreeMap<Ticket, Outcome> = BTreeMap::new();
    while engine.busy() {
        for (ticket, event) in engine.advance().unwrap() {
            let outcome = outcomes.entry(ticket).or_default();
            assert!(outcome.timings.is_none() && outcome.failed.is_none(), "an event after the last");
            match event {
                Event::Preview(picture) => outcome.previews.push(picture),
                Event::Image { index, seed, picture } => drop(outcome.pictures.insert(index, (seed, picture))),
                Event::Finished(timings) => outcome.timings = Some(timings),
                Event::Failed(cause) => outcome.failed = Some(cause),
                _ => {}
            }
        }
    }
    outcomes
}

/// Runs one job alone.
pub(crate) fn run(engine: &mut TorchEngine, spec: &Spec) -> Outcome {
    engine.admit(Ticket(0), spec).unwrap();
    finish(engine).remove(&Ticket(0)).unwrap()
}

/// Draws `jobs`, each of which comes after so many evaluations more; some are cancelled when the next has come.
pub(crate) fn draw(engine: &mut TorchEngine, jobs: &[(Spec, u32, bool)]) -> BTreeMap<(Ticket, u32), Picture> {
    let mut pictures = BTreeMap::new();
    let mut advance = |engine: &mut TorchEngine| {
        for (ticket, event) in engine.advance().unwrap() {
            match event {
                Event::Image { index, picture, .. } => drop(pictures.insert((ticket, index), picture)),
                Event::Failed(cause) => panic!("{cause}"),
                _ => {}
            }
        }
    };
    for (number, (spec, evaluations, _)) in (0..).zip(jobs) {
        engine.admit(Ticket(number), spec).unwrap();
        if number > 0 && jobs[number as usize - 1].2 {
            engine.cancel(Ticket(number - 1));
        }
        (0..*evaluations).for_each(|_| advance(engine));
    }
    while engine.busy() {
        advance(engine);
    }
    pictures
}

/// Jobs of all kinds, for [`draw`].
pub(crate) fn jobs() -> impl Strategy<Value = Vec<(Spec, u32, bool)>> {
    let words = prop::sample::select(vec!["a red apple", "a blue pear", ""]);
    let job = (
        (words.clone(), words, prop::sample::select(vec![1.0, 7.5])),
        (prop::sample::select(Sampler::ALL), 1..12_u32, 1..=3_u32, 0..9_u64),
        prop::sample::select(vec![(128, 128), (128, 128), (64, 128)]),
        (0..8_u32, any::<bool>()),
    );
    let job = job.prop_map(
        |((prompt, away, guidance_scale), (sampler, steps, num_outputs, seed), (w, h), (after, cancel))| {
            let negative_prompt = Some(away.to_owned());
            let wish = Spec {
                prompt: prompt.into(),
                negative_prompt,
                guidance_scale,
                num_outputs,
                ..spec(sampler, steps, seed)
            };
            (sized(w, h, wish), after, cancel)
        },
    );
    prop::collection::vec(job, 1..7)
}

/// The first image of a job that must not fail.
pub(crate) fn only(mut outcome: Outcome) -> Picture {
    assert!(outcome.failed.is_none(), "{:?}", outcome.failed);
    outcome.pictures.remove(&0).unwrap().1
}

/// The largest difference of any value.
pub(crate) fn furthest(a: &Picture, b: &Picture) -> u8 {
    assert_eq!((a.width, a.height), (b.width, b.height));
    a.pixels.iter().zip(&b.pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

/// Peak signal by noise, in decibels; infinite of equal ones.
pub(crate) fn psnr(a: &Picture, b: &Picture) -> f64 {
    assert_eq!((a.width, a.height), (b.width, b.height));
    let squares: f64 = a.pixels.iter().zip(&b.pixels).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    10.0 * (255.0_f64.powi(2) * a.pixels.len() as f64 / squares).log10()
}
