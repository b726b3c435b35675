//! Pictures that are decoded beside the evaluations are those that are decoded between them, to the bit; they come in the order in which
//! they were begun, and the engine waits for them only when it has nothing else to do. The decoder here is one that any device can have.

use std::rc::Rc;

use latentd::engine::torch::TorchEngine;
use latentd::engine::torch::decode::{DecodeCounters, FakeDecoder};
use latentd::engine::torch::denoise::graphs;
use latentd::engine::{Engine, Event, Ticket};
use latentd::job::{Code, Spec};
use latentd::sampler::Sampler;
use proptest::prelude::*;

use crate::torch::drawing::{draw, engine, finish, jobs, only, run, spec};

/// Pictures under way at the same time.
const MOST: u32 = 4;
/// Looks at a picture that is there only after a wait.
const NEVER: u32 = u32::MAX;

/// An engine whose pictures are there after so many looks.
fn slow(looks: u32) -> (TorchEngine, Rc<DecodeCounters>) {
    let counters = Rc::new(DecodeCounters::default());
    counters.looks.set(looks);
    (engine("tiny").with_decoder(Box::new(FakeDecoder::new(&counters))), counters)
}

fn job(steps: u32, seed: u64) -> Spec {
    spec(Sampler::Ddim, steps, seed)
}

/// What an evaluation tells, in the order in which it does: `p` for progress, `i` for an image, `e` for the end, `f` for a failure, each
/// with its job.
fn advance(engine: &mut TorchEngine) -> Vec<(char, u64)> {
    let events = engine.advance().unwrap().into_iter().map(|(ticket, event)| {
        let what = match event {
            Event::Progress(_) => 'p',
            Event::Image { .. } => 'i',
            Event::Finished(_) => 'e',
            Event::Failed(_) => 'f',
            _ => '?',
        };
        (what, ticket.0)
    });
    events.collect()
}

#[test]
fn others_are_evaluated_while_a_picture_is_developed() {
    let (mut engine, counters) = slow(7);
    engine.admit(Ticket(1), &job(2, 1)).unwrap();
    engine.admit(Ticket(2), &job(9, 2)).unwrap();
    let mut heard = Vec::new();
    while !heard.contains(&('e', 1)) {
        heard.extend(advance(&mut engine));
    }
    let begun = heard.iter().rposition(|heard| *heard == ('p', 1)).unwrap();
    let meanwhile = heard[begun..].iter().filter(|heard| **heard == ('p', 2)).count();
    assert!(meanwhile >= 3, "{heard:?}");
    assert_eq!(counters.waited.get(), 0, "nobody waits for a picture who has something to evaluate");
    assert!(!heard.contains(&('e', 2)));
    assert_eq!(finish(&mut engine)[&Ticket(2)].pictures.len(), 1);
}

#[test]
fn who_has_nothing_to_evaluate_waits_for_the_picture_begun_first() {
    let (mut engine, counters) = slow(NEVER);
    engine.admit(Ticket(1), &Spec { num_outputs: 2, ..job(1, 1) }).unwrap();
    assert_eq!(advance(&mut engine), [('p', 1), ('p', 1)]);
    assert_eq!((engine.busy(), engine.load().lanes, counters.alive()), (true, 2, 2));
    assert_eq!(advance(&mut engine), [('i', 1)]);
    assert_eq!((engine.busy(), engine.load().lanes, counters.alive()), (true, 1, 1));
    assert_eq!(advance(&mut engine), [('i', 1), ('e', 1)]);
    assert_eq!((engine.busy(), engine.load().lanes, counters.alive()), (false, 0, 0));
    assert_eq!(counters.waited.get(), 2);
}

#[test]
fn only_so_many_are_under_way_and_they_come_in_order() {
    for looks in [0, 1, 5, NEVER] {
        let (mut engine, counters) = slow(looks);
        engine.admit(Ticket(1), &Spec { num_outputs: 10, ..job(1, 1) }).unwrap();
        let mut indices = Vec::new();
        while engine.busy() {
            for (_, event) in engine.advance().unwrap() {
                if let Event::Image { index, .. } = event {
                    indices.push(index);
                }
            }
        }
        assert_eq!(indices, (0..10).collect::<Vec<_>>(), "{looks}");
        assert!(counters.most.get() <= MOST, "{looks}: {}", counters.most.get());
        assert_eq!((counters.begun.get(), counters.alive()), (10, 0), "{looks}");
    }
}

#[test]
fn a_picture_that_nobody_wants_is_kept_until_it_is_done() {
    let (mut engine, counters) = slow(NEVER);
    engine.admit(Ticket(1), &Spec { num_outputs: 2, ..job(1, 1) }).unwrap();
    advance(&mut engine);
    engine.cancel(Ticket(1));
    assert_eq!((engine.busy(), engine.load().lanes, counters.alive()), (true, 0, 2));
    // Another of the same name is another job.
    engine.admit(Ticket(1), &job(1, 5)).unwrap();
    let again = only(finish(&mut engine).remove(&Ticket(1)).unwrap());
    assert_eq!(again, only(run(&mut crate::torch::drawing::engine("tiny"), &job(1, 5))));
    assert_eq!((engine.busy(), counters.begun.get(), counters.alive()), (false, 3, 0));
    // Nor is one begun that is cancelled before.
    engine.admit(Ticket(2), &Spec { num_outputs: 10, ..job(1, 1) }).unwrap();
    advance(&mut engine);
    engine.cancel(Ticket(2));
    while engine.busy() {
        assert_eq!(advance(&mut engine), []);
    }
    assert_eq!((counters.begun.get(), counters.alive()), (3 + MOST, 0));
}

#[test]
fn a_picture_that_fails_fails_its_job_and_no_other() {
    let (mut engine, counters) = slow(3);
    engine.admit(Ticket(1), &Spec { num_outputs: 3, ..job(1, 1) }).unwrap();
    engine.admit(Ticket(2), &job(9, 2)).unwrap();
    counters.spoil.set(true);
    assert_eq!(advance(&mut engine), [('p', 1), ('p', 1), ('p', 1), ('p', 2)]);
    counters.spoil.set(false);
    let mut outcomes = finish(&mut engine);
    let failed = outcomes.remove(&Ticket(1)).unwrap();
    assert_eq!((failed.failed.unwrap().code, failed.pictures.len()), (Code::NotFinite, 0));
    let alone = only(run(&mut crate::torch::drawing::engine("tiny"), &job(9, 2)));
    assert!(crate::torch::drawing::furthest(&only(outcomes.remove(&Ticket(2)).unwrap()), &alone) <= 1);
    assert_eq!(counters.alive(), 0);
}

#[test]
fn a_device_that_is_lost_meanwhile_ends_the_engine() {
    let (mut engine, counters) = slow(NEVER);
    engine.admit(Ticket(1), &job(1, 1)).unwrap();
    advance(&mut engine);
    counters.lose.set(true);
    assert!(engine.advance().unwrap_err().to_string().contains("CUDA error"));
    drop(engine);
    assert_eq!(counters.alive(), 0);
}

#[test]
fn out_of_memory_what_can_be_made_again_goes_first_and_the_job_last() {
    let (recorded, counters) = (Rc::new(graphs::CaptureCounters::default()), Rc::new(DecodeCounters::default()));
    let recorder = Box::new(graphs::FakeCapture::new(&recorded));
    let mut engine = engine("tiny").with_graphs(recorder).with_decoder(Box::new(FakeDecoder::new(&counters)));
    let drawn = only(run(&mut engine, &job(8, 1)));
    assert_eq!(recorded.alive(), 1);
    counters.starve.set(1);
    assert_eq!(only(run(&mut engine, &job(8, 1))), drawn);
    assert_eq!((recorded.alive(), counters.begun.get()), (0, 2));
    // Where nothing is left to let go of, which at first is the graph to be, the job fails, and another in hand is drawn.
    engine.admit(Ticket(1), &Spec { num_outputs: 2, ..job(1, 1) }).unwrap();
    engine.admit(Ticket(2), &job(2, 2)).unwrap();
    counters.starve.set(2);
    let mut outcomes = finish(&mut engine);
    assert_eq!(outcomes.remove(&Ticket(1)).unwrap().failed.unwrap().code, Code::OutOfMemory);
    only(outcomes.remove(&Ticket(2)).unwrap());
    assert_eq!(counters.alive(), 0);
}

#[test]
fn an_engine_that_ends_lets_go_of_what_is_under_way() {
    let (mut engine, counters) = slow(NEVER);
    engine.admit(Ticket(1), &job(1, 1)).unwrap();
    advance(&mut engine);
    assert_eq!(counters.alive(), 1);
    drop(engine);
    assert_eq!(counters.alive(), 0);
}

#[test]
fn the_time_of_developing_is_told() {
    let (mut engine, _) = slow(2);
    let timings = run(&mut engine, &Spec { num_outputs: 3, ..job(2, 1) }).timings.unwrap();
    assert_eq!(timings.decode.as_millis(), 3, "a millisecond each, says the fake");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever jobs come and go.
    #[test]
    fn pictures_developed_beside_are_the_same_to_the_bit(jobs in jobs(), looks in 0..12_u32) {
        let (mut beside, counters) = slow(looks);
        let mut between = draw(&mut engine("tiny"), &jobs);
        let beside = draw(&mut beside, &jobs);
        // What is under way when its job is cancelled is dropped.
        between.retain(|at, _| beside.contains_key(at) || !jobs[at.0.0 as usize].2);
        prop_assert!(beside == between);
        prop_assert_eq!(counters.alive(), 0);
    }
}
