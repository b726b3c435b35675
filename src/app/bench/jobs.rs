//! The jobs of a stream: some of all kinds, or those of a file.

use std::fs;

use serde_json::{Value, json};

use crate::app::cli::BenchArgs;

/// Kinds of jobs by steps, sampler and guidance: no two next to each other are alike, and none lasts as long as the one before.
const KINDS: [(u32, &str, f64); 6] = [
    (20, "DDIM", 7.5),
    (30, "K_EULER", 7.5),
    (10, "DPMSolverMultistep", 5.0),
    (25, "K_EULER_ANCESTRAL", 7.5),
    (50, "PNDM", 7.5),
    (15, "KLMS", 1.0),
];

/// The jobs that are asked for, as inputs.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn read(args: &BenchArgs) -> Result<Vec<Value>, String> {
    let Some(file) = &args.job_file else { return Ok((0..args.jobs).map(|number| of(args, number)).collect()) };
    let text = fs::read_to_string(file).map_err(|cause| format!("{}: {cause}", file.display()))?;
    let jobs = serde_json::from_str(&text);
    jobs.map_err(|cause| format!("{} should be a JSON array of inputs: {cause}", file.display()))
}

fn of(args: &BenchArgs, number: u32) -> Value {
    let (steps, scheduler, guidance) = KINDS[number as usize % KINDS.len()];
    let size = args.sizes[0];
    json!({
        "prompt": "a red apple", "width": size.width, "height": size.height, "num_inference_steps": steps, "scheduler": scheduler,
        "guidance_scale": guidance, "seed": number,
    })
}
