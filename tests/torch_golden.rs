//! Calls and pictures of tiny models, plain and with LoRAs, against what diffusers computed, frozen in
//! `tests/golden/torch` by `scripts/parity/goldens.py`, of SDXL in `tests/golden/torch-xl` by `scripts/parity/xl_goldens.py`, and of distilled
//! models of both in `tests/golden/torch-fast` by `scripts/parity/fast_pictures.py`, and with prompts of all kinds in `tests/golden/torch-prompts` by
//! `scripts/parity/prompts.py`: the same comparison as `make parity`, without Python.

#![cfg(feature = "torch")]
#![allow(clippy::print_stdout, reason = "the report is a table; cargo shows it when a test fails")]

#[path = "../examples/parity/calls.rs"]
mod calls;
#[path = "../examples/parity/loras.rs"]
mod loras;
#[path = "../examples/parity/pictures.rs"]
mod pictures;
#[path = "../examples/parity/report.rs"]
mod report;

use std::path::Path;
use std::process::ExitCode;

use report::Report;

/// Folders of goldens.
const SD1: &str = "torch";
const SDXL: &str = "torch-xl";
const FAST: &str = "torch-fast";
const PROMPTS: &str = "torch-prompts";

fn within_bounds(folder: &str, check: impl FnOnce(&Path, &mut Report) -> anyhow::Result<()>) {
    tch::set_num_threads(1);
    let mut report = Report::new();
    if let Err(error) = check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder), &mut report) {
        report.broken("goldens", &error);
    }
    assert_eq!(report.finish(), ExitCode::SUCCESS);
}

#[test]
fn single_calls_are_the_reference_s() {
    within_bounds(SD1, calls::check);
}

#[test]
fn pictures_are_the_reference_s() {
    within_bounds(SD1, |dir, report| pictures::check(dir, "pictures", report));
}

#[test]
fn loras_change_pictures_as_in_the_reference() {
    within_bounds(SD1, loras::check);
}

#[test]
fn single_calls_of_sdxl_are_the_reference_s() {
    within_bounds(SDXL, calls::check);
}

#[test]
fn pictures_of_sdxl_are_the_reference_s() {
    within_bounds(SDXL, |dir, report| pictures::check(dir, "pictures", report));
}

#[test]
fn pictures_of_sdxl_and_its_refiner_are_the_reference_s() {
    within_bounds(SDXL, |dir, report| pictures::check(dir, "refined", report));
}

#[test]
fn pictures_of_distilled_models_are_the_reference_s() {
    within_bounds(FAST, |dir, report| pictures::check(dir, "pictures", report));
}

#[test]
fn weights_chunks_layers_left_out_and_textual_inversions_are_the_reference_s() {
    within_bounds(PROMPTS, |dir, report| pictures::check(dir, "pictures", report));
}

#[test]
fn loras_like_those_of_lcm_change_pictures_as_in_the_reference() {
    within_bounds(FAST, loras::check);
}
