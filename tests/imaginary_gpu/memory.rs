//! Memory that ends somewhere between the load of a model and its last picture.

use std::ops::RangeInclusive;

use crate::gpu::{Run, draw};

const IMAGES: usize = 10;
/// MiB: from too little for one image to enough for all.
const LIMITS: RangeInclusive<u32> = 60..=300;
/// MiB from one to the next.
const APART: usize = 20;

fn with(memory: u32) -> Run {
    let (memory, outputs) = (memory.to_string(), format!("num_outputs={IMAGES}"));
    let variables = [("IMAGINARY_GPU_MEMORY", memory.as_str()), ("LATENTD_CUDA__ROWS", "16")];
    let job = ["--set", "num_inference_steps=8", "--set", &outputs];
    draw(&variables, &[&["--model", "emoji", "--dtype", "f16"][..], &job].concat())
}

/// What it ended with, one line without libtorch's stack of frames.
fn last_words(run: &Run) -> &str {
    let mut said = run.stderr.lines().filter(|line| !line.starts_with("20"));
    let words = said.next().unwrap_or_default();
    assert_eq!(said.next(), None, "more than one line: {}", run.stderr);
    assert!(words.starts_with("latentd: "), "{}", run.stderr);
    words
}

#[test]
fn a_job_is_drawn_whole_or_ends_with_one_line() {
    let runs: Vec<(u32, Run)> = LIMITS.step_by(APART).map(|memory| (memory, with(memory))).collect();
    for (memory, run) in &runs {
        run.log.assert_sound();
        if run.succeeded {
            assert_eq!(run.drawn(), IMAGES, "at {memory} MiB: {}", run.stderr);
        } else {
            assert!(last_words(run).contains("out of memory"), "at {memory} MiB: {}", run.stderr);
        }
    }
    let some = |what: &str, holds: &dyn Fn(&Run) -> bool| {
        assert!(runs.iter().any(|(_, run)| holds(run)), "no limit is met by {what}: other limits are needed");
    };
    some("a load or an evaluation", &|run| !run.succeeded && !run.stderr.contains("while decoding"));
    some("a decode", &|run| !run.succeeded && run.stderr.contains("while decoding"));
    some("an evaluation that can do without graphs", &|run| {
        run.succeeded && run.told("letting go of the CUDA graphs") > 0
    });
    some("nothing", &|run| run.succeeded && run.told("out of memory") == 0);
}
