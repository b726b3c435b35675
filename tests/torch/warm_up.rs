//! What an engine does in idle time changes no picture, keeps no job waiting, and leaves the first job of each number of rows nothing to do but
//! to draw.

use std::rc::Rc;

use latentd::engine::torch::TorchEngine;
use latentd::engine::torch::denoise::graphs::{CaptureCounters, FakeCapture};
use latentd::engine::{Engine, Ticket};
use latentd::job::Spec;
use latentd::sampler::Sampler;

use crate::torch::drawing::{draw, engine, finish, furthest, only, run, spec};

/// Latents of 128×128 are a sixteenth of the usual ones: at most 16 rows of them, which are these buckets.
const ROWS: usize = 1;
const BUCKETS: u32 = [1, 2, 3, 4, 6, 8, 12, 16].len() as u32;

/// An engine whose evaluations are recorded, with pictures of 128×128 to make ready for.
fn cold(rows: Option<usize>) -> (TorchEngine, Rc<CaptureCounters>) {
    let counters = Rc::new(CaptureCounters::default());
    let engine =
        engine("tiny").with_graphs(Box::new(FakeCapture::new(&counters))).with_warm_up(Some(&[(128, 128)]), rows);
    (engine, counters)
}

/// Warms up to the end; how many evaluations that took.
fn warm(engine: &mut TorchEngine) -> usize {
    let mut left = usize::MAX;
    std::iter::from_fn(|| engine.warm_up().unwrap())
        .inspect(|now| {
            assert!(*now <= left, "{now} shapes are left after {left}");
            left = *now;
        })
        .count()
}

fn job(images: u32, guidance_scale: f64) -> Spec {
    Spec { num_outputs: images, guidance_scale, ..spec(Sampler::Ddim, 2, 5) }
}

#[test]
fn every_bucket_is_recorded_before_the_first_job_of_it() {
    let (mut engine, counters) = cold(Some(ROWS));
    assert!(warm(&mut engine) > 0);
    assert_eq!((counters.recorded.get(), engine.busy(), engine.load().lanes), (BUCKETS, false, 0));
    assert_eq!(engine.warm_up().unwrap(), None);
    let replayed = counters.replayed.get();
    for images in [1, 2, 3, 4, 6, 8] {
        assert_eq!(run(&mut engine, &job(images, 7.5)).pictures.len(), images as usize);
    }
    run(&mut engine, &job(1, 1.0));
    run(&mut engine, &job(3, 1.0));
    assert_eq!(counters.recorded.get(), BUCKETS, "all was there");
    assert_eq!(counters.replayed.get(), replayed + 2 * 8, "and nothing was evaluated otherwise");
}

#[test]
fn it_changes_no_picture() {
    let (mut warmed, _) = cold(Some(ROWS));
    warm(&mut warmed);
    let jobs = [(job(3, 7.5), 1, false), (job(1, 1.0), 2, false), (Spec { seed: 9, ..job(2, 4.0) }, 0, false)];
    assert!(draw(&mut warmed, &jobs) == draw(&mut cold(Some(ROWS)).0, &jobs));
}

#[test]
fn a_job_that_comes_meanwhile_is_drawn_at_once_and_the_rest_comes_later() {
    let alone = only(run(&mut engine("tiny"), &job(1, 7.5)));
    let evaluations = warm(&mut cold(Some(ROWS)).0);
    for before in [1, 4, evaluations / 2] {
        let (mut engine, counters) = cold(Some(ROWS));
        for _ in 0..before {
            engine.warm_up().unwrap().unwrap();
            assert!(!engine.busy(), "nobody's lanes are nobody's business");
        }
        engine.admit(Ticket(7), &job(1, 7.5)).unwrap();
        assert_eq!(engine.load().lanes, 1, "what was nobody's is let go of");
        let mut outcomes = finish(&mut engine);
        assert_eq!(outcomes.len(), 1, "nothing is told of what nobody asked for");
        assert!(furthest(&only(outcomes.remove(&Ticket(7)).unwrap()), &alone) <= 1);
        warm(&mut engine);
        assert_eq!(counters.recorded.get(), BUCKETS);
    }
}

#[test]
fn rows_that_do_not_fit_into_memory_are_not_tried_again_and_jobs_are_drawn() {
    let (mut engine, counters) = cold(Some(ROWS));
    // The first replay of the shape that comes first: nor will more rows be tried.
    counters.starve.set(1);
    warm(&mut engine);
    assert!(counters.recorded.get() < BUCKETS);
    assert_eq!(run(&mut engine, &job(8, 7.5)).pictures.len(), 8);
}

#[test]
fn a_size_that_the_model_cannot_draw_is_passed_over() {
    let mut engine = engine("tiny").with_warm_up(Some(&[(130, 128), (128, 128)]), Some(ROWS));
    assert!(warm(&mut engine) > 0);
    only(run(&mut engine, &job(1, 7.5)));
}

#[test]
fn where_rows_are_not_given_they_are_measured() {
    let (mut engine, counters) = cold(None);
    warm(&mut engine);
    // How many pay is this machine's to say; what was tried is ready.
    assert!(counters.recorded.get() >= 2, "{}", counters.recorded.get());
    assert_eq!(run(&mut engine, &job(4, 7.5)).pictures.len(), 4);
}
