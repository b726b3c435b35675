//! Evaluations that are recorded and replayed give what they give when they are made, to the bit, whatever changes between them. The
//! recorder here is one that any device can have.

use std::rc::Rc;

use latentd::engine::torch::TorchEngine;
use latentd::engine::torch::denoise::graphs::{CaptureCounters, FakeCapture};
use latentd::job::Spec;
use latentd::sampler::Sampler;
use proptest::prelude::*;

use crate::torch::drawing::{draw, engine, jobs, only, run, sized, spec};

/// Evaluations of a shape before it is recorded.
const WARM: u32 = 4;
/// Graphs at the same time.
const MOST: u32 = 16;

/// An engine whose evaluations are recorded.
fn recording() -> (TorchEngine, Rc<CaptureCounters>) {
    let counters = Rc::new(CaptureCounters::default());
    (engine("tiny").with_graphs(Box::new(FakeCapture::new(&counters))), counters)
}

/// One that pads its rows in the same way, and never records.
fn refusing() -> TorchEngine {
    let (engine, counters) = recording();
    counters.refuse.set(true);
    engine
}

#[test]
fn a_shape_is_recorded_once_and_replayed_from_then_on() {
    let (mut engine, counters) = recording();
    let job = spec(Sampler::Ddim, WARM, 1);
    run(&mut engine, &job);
    assert_eq!((counters.recorded.get(), counters.replayed.get()), (0, 0));
    run(&mut engine, &job);
    assert_eq!((counters.recorded.get(), counters.replayed.get()), (1, WARM));
    run(&mut engine, &Spec { guidance_scale: 1.0, steps: 1, ..job.clone() });
    run(&mut engine, &sized(192, 128, Spec { steps: 1, ..job }));
    assert_eq!((counters.recorded.get(), counters.replayed.get()), (1, WARM), "other shapes are other graphs");
}

#[test]
fn what_changes_between_replays_reaches_them() {
    let (mut engine, counters) = recording();
    // None of these needs padding, so an engine that has never heard of graphs draws the same bits.
    let mut plain = crate::torch::drawing::engine("tiny");
    let base = spec(Sampler::EulerA, 3 * WARM, 1);
    let first = only(run(&mut plain, &base));
    for other in [
        base.clone(),
        Spec { seed: 2, ..base.clone() },
        Spec { prompt: "a blue pear".into(), ..base.clone() },
        Spec { negative_prompt: Some("a blue pear".into()), ..base.clone() },
        Spec { sampler: Sampler::Ddim, steps: 5, ..base.clone() },
        Spec { guidance_scale: 1.0, ..base.clone() },
        Spec { guidance_scale: 3.0, ..base.clone() },
        base.clone(),
    ] {
        let drawn = only(run(&mut engine, &other));
        assert_eq!(drawn, only(run(&mut plain, &other)), "{other:?}");
        assert_eq!(drawn == first, other == base, "{other:?}");
    }
    assert_eq!(counters.recorded.get(), 2, "with guidance and without");
}

#[test]
fn what_cannot_be_recorded_is_evaluated() {
    let mut refusing = refusing();
    let job = spec(Sampler::Heun, 2 * WARM, 3);
    assert_eq!(only(run(&mut refusing, &job)), only(run(&mut engine("tiny"), &job)));
}

#[test]
fn there_are_only_so_many_graphs() {
    let (mut engine, counters) = recording();
    for i in 0..MOST + 3 {
        run(&mut engine, &sized(64 + 8 * i, 64, spec(Sampler::Ddim, WARM + 1, 1)));
        assert_eq!((counters.recorded.get(), counters.alive()), (i + 1, (i + 1).min(MOST)));
    }
    // The last used is there still, the first is not.
    run(&mut engine, &sized(64 + 8 * (MOST + 2), 64, spec(Sampler::Ddim, WARM + 1, 1)));
    assert_eq!(counters.recorded.get(), MOST + 3);
    run(&mut engine, &sized(64, 64, spec(Sampler::Ddim, WARM + 1, 1)));
    assert_eq!(counters.recorded.get(), MOST + 4);
}

#[test]
fn graphs_go_first_when_memory_runs_out() {
    let (mut engine, counters) = recording();
    let job = spec(Sampler::EulerA, 4 * WARM, 5);
    let drawn = only(run(&mut engine, &job));
    assert_eq!(counters.alive(), 1);
    counters.starve.set(1);
    assert_eq!(only(run(&mut engine, &job)), drawn, "no evaluation is lost or made twice");
    assert_eq!((counters.recorded.get(), counters.alive()), (2, 1), "it was let go, and made again");
    // Where it goes on like that, there are none in the end.
    counters.starve.set(u32::MAX);
    for _ in 0..4 {
        assert_eq!(only(run(&mut engine, &job)), drawn);
    }
    assert_eq!(counters.alive(), 0);
    let recorded = counters.recorded.get();
    assert_eq!(only(run(&mut engine, &job)), drawn);
    assert_eq!(counters.recorded.get(), recorded);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever jobs share evaluations, come and go: rows that are padded, texts that change places, lanes that leave.
    #[test]
    fn replays_are_evaluations_to_the_bit(jobs in jobs()) {
        let replayed = draw(&mut recording().0, &jobs);
        prop_assert!(replayed == draw(&mut refusing(), &jobs));
    }
}
