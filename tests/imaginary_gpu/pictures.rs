//! Whole pictures: evaluations as they are, recorded and replayed, and decodes beside them.

use std::path::Path;

use crate::gpu::{Run, draw, run};

/// So many images that they do not fit into one evaluation: some are done while others go on.
const MANY: usize = 10;
/// Steps of which the last are replayed.
const STEPS: &str = "num_inference_steps=8";

fn many(variables: &[(&str, &str)], dtype: &str) -> Run {
    let outputs = format!("num_outputs={MANY}");
    draw(variables, &["--model", "miniature", "--dtype", dtype, "--set", STEPS, "--set", &outputs])
}

/// Jobs of all kinds, several in hand, after a warm-up.
fn stream(variables: &[(&str, &str)]) -> Run {
    let sizes = ["--size", "512x512", "--steps", "8", "--rounds", "1", "--images", "1,2", "--jobs", "24", "--no-rates"];
    let run = run(variables, &[&["bench", "--model", "miniature"][..], &sizes].concat());
    assert!(run.succeeded, "{}", run.stderr);
    run.log.assert_sound();
    run
}

/// What must hold in any arithmetic.
fn assert_drawn_as_meant(dtype: &str) {
    let run = many(&[], dtype);
    run.assert_drew(MANY);
    assert_eq!(run.told("WARN"), 0, "{}", run.stderr);
    assert!(run.log.captures() > 0 && run.log.replays() > 1, "nothing was recorded: {}", run.stderr);
    assert!(
        run.log.capture(1).unwrap().keys().any(|what| what.contains("Normalise")),
        "kernels of our own are not used"
    );
    assert!(!run.log.reads_numbers_late(), "the host waits for a number in the middle of evaluations");

    let (evaluates, decodes) = run.log.streams();
    assert_ne!(evaluates, decodes);
    assert!(
        run.log.priority(evaluates) < run.log.priority(decodes),
        "a decode is as urgent as everybody's evaluations"
    );
    assert!(run.log.evaluates_while_decoding(), "evaluations wait for a decode");
}

#[test]
fn in_f32() {
    assert_drawn_as_meant("f32");
}

#[test]
fn in_f16() {
    assert_drawn_as_meant("f16");
}

#[test]
fn in_bf16() {
    assert_drawn_as_meant("bf16");
}

#[test]
fn a_capture_that_breaks_is_told_once_and_costs_no_picture() {
    let run = many(&[("IMAGINARY_GPU_BREAK_CAPTURES", "1")], "f16");
    run.assert_drew(MANY);
    assert_eq!(run.log.replays(), 0);
    assert_eq!((run.log.captures(), run.told("cannot be recorded"), run.told("WARN")), (1, 1, 1), "{}", run.stderr);

    let run = stream(&[("IMAGINARY_GPU_BREAK_CAPTURES", "1")]);
    assert!(run.log.captures() > 1, "one shape that breaks says nothing of others");
    assert_eq!(run.told("cannot be recorded"), 1, "{}", run.stderr);
}

#[test]
fn without_graphs_and_kernels_the_same_is_drawn() {
    let run = many(&[("LATENTD_CUDA__GRAPHS", "false"), ("LATENTD_CUDA__KERNELS", "false")], "f16");
    run.assert_drew(MANY);
    assert_eq!((run.log.captures(), run.log.tells("Normalise")), (0, false));
}

#[test]
fn jobs_of_all_kinds_at_once_and_a_warm_up_ask_for_nothing_that_is_refused() {
    let run = stream(&[]);
    assert!(run.told("warmed up") == 1 && run.log.captures() > 1, "{}", run.stderr);
    assert!(run.log.evaluates_while_decoding());
}

#[test]
fn sdxl_is_drawn_and_recorded_too() {
    for dtype in ["f16", "bf16"] {
        let run = draw(&[], &["--model", "miniature-xl", "--dtype", dtype, "--set", STEPS]);
        run.assert_drew(1);
        assert!(run.log.captures() > 0 && run.log.replays() > 1, "nothing was recorded: {}", run.stderr);
        assert!(!run.log.reads_numbers_late(), "the host waits for a number in the middle of evaluations");
        assert_eq!(run.told("WARN"), 0, "{}", run.stderr);
    }
}

/// The mask and the masked image are two of the inputs of a recording.
#[test]
fn an_inpainting_model_is_drawn_and_recorded_too() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torch");
    let [model, image, mask] = ["miniatures/tiny-nine", "starts/128x128-0.png", "starts/128x128-0-mask.png"]
        .map(|name| golden.join(name).display().to_string());
    let (image, mask) = (format!("init_image=@{image}"), format!("mask=@{mask}"));
    let inputs =
        ["--set", &image, "--set", &mask, "--set", "width=128", "--set", "height=128", "--set", "prompt_strength=1"];
    for dtype in ["f16", "bf16"] {
        let run = draw(&[], &[&["--model", &model, "--dtype", dtype, "--set", STEPS][..], &inputs].concat());
        run.assert_drew(1);
        assert!(run.log.captures() > 0 && run.log.replays() > 1, "nothing was recorded: {}", run.stderr);
        assert!(!run.log.reads_numbers_late(), "the host waits for a number in the middle of evaluations");
        assert_eq!(run.told("WARN"), 0, "{}", run.stderr);
    }
}
