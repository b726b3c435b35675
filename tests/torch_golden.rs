//! Calls and pictures of tiny models, plain and with LoRAs, against what diffusers computed, frozen in
//! `tests/golden/torch` by `scripts/parity/goldens.py`, of SDXL in `tests/golden/torch-xl` by `scripts/parity/xl_goldens.py`, and of distilled
//! models of both in `tests/golden/torch-fast` by `scripts/parity/fast_pictures.py`, of other scheduler files and samplers in
//! `tests/golden/torch-more` by `scripts/parity/more_pictures.py`, and with prompts of all kinds in `tests/golden/torch-prompts` by
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

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use report::Report;

/// Folders of goldens.
const SD1: &str = "torch";
const SDXL: &str = "torch-xl";
const FAST: &str = "torch-fast";
const MORE: &str = "torch-more";
const PROMPTS: &str = "torch-prompts";

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn within_bounds(folder: &str, check: impl FnOnce(&Path, &mut Report) -> anyhow::Result<()>) {
    tch::set_num_threads(1);
    let mut report = Report::new();
    if let Err(error) = check(&goldens().join(folder), &mut report) {
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

/// The same weights with the scheduler file `said`, as a folder of a model.
fn with_scheduler(folder: &Path, said: &Path) -> io::Result<()> {
    fs::create_dir_all(folder.join("scheduler"))?;
    fs::copy(said, folder.join("scheduler/scheduler_config.json"))?;
    let tiny = goldens().join(SD1).join("miniatures/tiny");
    ["model_index.json", "text_encoder", "tokenizer", "unet", "vae"]
        .into_iter()
        .try_for_each(|part| symlink(tiny.join(part), folder.join(part)))
}

#[test]
fn pictures_of_other_samplers_and_scheduler_files_are_the_reference_s() {
    within_bounds(MORE, |golden, report| {
        let dir = tempfile::tempdir()?;
        for part in ["pictures", "pictures.jsonl", "starts"] {
            symlink(golden.join(part), dir.path().join(part))?;
        }
        for said in fs::read_dir(golden.join("schedulers"))? {
            let said = said?.path();
            let model = said.file_stem().unwrap_or_default();
            with_scheduler(&dir.path().join("miniatures").join(model), &said)?;
        }
        pictures::check(dir.path(), "pictures", report)
    });
}
