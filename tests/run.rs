//! Commands that draw, as processes, with the embedded model.

#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use base64::Engine;
use serde_json::{Value, json};

/// The binary in `folder`, with no variables at all.
fn latentd(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
    command.current_dir(folder).env_clear().args(arguments).args(["--device", "cpu"]);
    command
}

fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::str::from_utf8(&output.stdout).unwrap()
}

/// Size and text chunks of a PNG.
fn look_into(file: &[u8]) -> ((u32, u32), Vec<(String, String)>) {
    let reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
    let info = reader.info();
    let chunks = info.uncompressed_latin1_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone()));
    ((info.width, info.height), chunks.collect())
}

const SMALL: [&str; 8] =
    ["--set", "width=128", "--set", "height=256", "--set", "num_inference_steps=2", "--set", "num_outputs=2"];

#[test]
fn a_prompt_becomes_files_that_are_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [&["run", "A red apple!", "--set", "seed=7"][..], &SMALL].concat();
    let first = latentd(folder.path(), &arguments).output().unwrap();
    let lines: Vec<&str> = stdout(&first).lines().collect();
    assert_eq!(lines[..2], ["a-red-apple-7.png", "a-red-apple-8.png"]);
    assert!(lines[2].starts_with("load ") && lines[2].contains("(4 evaluations)"), "{}", lines[2]);
    assert_eq!(lines.len(), 3);

    let second = latentd(folder.path(), &arguments).output().unwrap();
    assert!(stdout(&second).starts_with("a-red-apple-7-2.png\na-red-apple-8-2.png\n"));
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("a-red-apple-8.png"), read("a-red-apple-8-2.png"), "the same job twice");

    let (size, chunks) = look_into(&read("a-red-apple-8.png"));
    assert_eq!(size, (128, 256));
    assert!(chunks[0].1.starts_with("A red apple!\nSteps: 2, Sampler: LMS, CFG scale: 5, Seed: 8, Size: 128x256, "));
    // The file says how to draw it again, and alone it is the same within the last bits of a float.
    let again = format!(r#"{{"input": {}}}"#, chunks[1].1);
    let again = latentd(folder.path(), &["run", "--test-input", &again]).output().unwrap();
    let again: Value = serde_json::from_str(stdout(&again)).unwrap();
    assert_eq!((again["status"].as_str(), again["output"][0]["seed"].as_u64()), (Some("COMPLETED"), Some(8)));
}

#[test]
fn a_job_becomes_one_line_of_json() {
    let folder = tempfile::tempdir().unwrap();
    let job =
        r#"{"id": "j1", "input": {"prompt": "", "width": 128, "height": 128, "num_inference_steps": 1, "seed": 3}}"#;
    fs::write(folder.path().join("test_input.json"), job).unwrap();
    let output = latentd(folder.path(), &["run", "--out", "pictures"]).output().unwrap();
    assert_eq!(stdout(&output).lines().count(), 1);
    let result: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!((result["status"].as_str(), result["id"].as_str()), (Some("COMPLETED"), Some("j1")));
    assert_eq!(result["timings"]["evaluations"], 1);
    let image = &result["output"][0];
    let file = base64::prelude::BASE64_STANDARD.decode(image["image"].as_str().unwrap()).unwrap();
    assert_eq!((look_into(&file).0, image["seed"].as_u64()), ((128, 128), Some(3)));
    assert_eq!(fs::read(folder.path().join("pictures/j1_0.png")).unwrap(), file);
}

#[test]
fn an_interrupt_ends_the_job_and_is_130() {
    let folder = tempfile::tempdir().unwrap();
    let job =
        r#"{"input": {"prompt": "p", "width": 768, "height": 768, "num_outputs": 10, "num_inference_steps": 500}}"#;
    let mut child = latentd(folder.path(), &["run", "--test-input", job, "--log-level", "debug"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(log.any(|line| line.unwrap().contains("engine ready")), "the engine never was ready");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    // Read on, so that the process is not held up by what it says.
    let last = log.map(Result::unwrap).last();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(130), &b""[..]), "{last:?}");
}

#[test]
fn the_doctor_draws_and_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let healthy = latentd(folder.path(), &["doctor", "--json"]).output().unwrap();
    let report: Value = serde_json::from_str(stdout(&healthy)).unwrap();
    let names: Vec<&str> =
        report["checks"].as_array().unwrap().iter().filter_map(|check| check["name"].as_str()).collect();
    assert_eq!(names, ["libtorch", "cpu", "device", "memory", "disk", "weights", "hashes", "model", "picture"]);
    assert_eq!(report["fit"], true);

    fs::create_dir(folder.path().join("empty")).unwrap();
    let ill = latentd(folder.path(), &["doctor", "--model", "./empty"]).output().unwrap();
    assert_eq!(ill.status.code(), Some(1));
    let said = String::from_utf8(ill.stdout).unwrap();
    assert!(said.contains("FAIL model") && said.contains("no model_index.json"), "{said}");

    let odd = folder.path().join("odd");
    fs::create_dir(&odd).unwrap();
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/models/miniature")).unwrap() {
        let file = file.unwrap();
        symlink(file.path(), odd.join(file.file_name())).unwrap();
    }
    fs::write(odd.join("latentd.json"), r#"{"defaults": {"width": 500}}"#).unwrap();
    let ill = latentd(folder.path(), &["doctor", "--model", "./odd"]).output().unwrap();
    assert_eq!(ill.status.code(), Some(1));
    let said = String::from_utf8(ill.stdout).unwrap();
    assert!(said.contains("FAIL defaults") && said.contains("defaults.width is 500"), "{said}");
}

#[test]
fn an_inpainting_model_draws_with_a_mask_and_says_so_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/torch");
    let model = format!("{golden}/miniatures/tiny-nine");
    let run = |more: &[&str]| {
        let sizes = ["--set", "width=128", "--set", "height=128", "--set", "num_inference_steps=2", "--set", "seed=7"];
        latentd(folder.path(), &[&["run", "a red apple", "--model", &model][..], &sizes, more].concat())
            .output()
            .unwrap()
    };
    let image = format!("init_image=@{golden}/starts/128x128-0.png");
    let mask = format!("mask=@{golden}/starts/128x128-0-mask.png");
    for (more, missing) in [(&[][..], &["init_image", "mask"][..]), (&["--set", &image], &["mask"])] {
        let refused = run(more);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(missing.iter().all(|field| said.contains(&format!("{field} is a required input."))), "{said}");
        assert!(said.contains("mask: this model repaints a part of an image, and draws nothing else"), "{said}");
    }
    let drawn = run(&["--set", &image, "--set", &mask, "--set", "prompt_strength=1"]);
    assert!(stdout(&drawn).starts_with("a-red-apple-7.png\n"), "{}", stdout(&drawn));
    // The doctor gives it something to repaint.
    let healthy = latentd(folder.path(), &["doctor", "--model", &model, "--json"]).output().unwrap();
    let report: Value = serde_json::from_str(stdout(&healthy)).unwrap();
    assert_eq!(report["fit"], true, "{report}");
}

#[test]
fn what_can_be_written_nowhere_is_not_drawn() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), []).unwrap();
    for job in
        [&["run", "a red apple", "--out", "file"][..], &["run", "--test-input", r#"{"input":{}}"#, "--out", "file"]]
    {
        let output = latentd(folder.path(), job).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains("no files can be written to file"), "{said}");
        assert!(!said.contains("engine"), "{said}");
    }
}

#[test]
fn a_benchmark_has_figures_of_all_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let asked =
        ["bench", "--size", "128x128", "--steps", "2", "--rounds", "2", "--images", "1,2", "--jobs", "3", "--no-rates"];
    let table = latentd(folder.path(), &asked).output().unwrap();
    let table = stdout(&table);
    for words in ["| 128x128 | 2 |", "| 2 of 128x128 |", "3 jobs of all kinds, 8 in hand", "resident at most: "] {
        assert!(table.contains(words), "{words}: {table}");
    }

    let figures = |more: &[&str]| -> Value {
        let figures = latentd(folder.path(), &[&asked[..], &["--json"], more].concat()).output().unwrap();
        serde_json::from_str(stdout(&figures)).unwrap()
    };
    let unguided = figures(&["--set", "guidance_scale=0"]);
    let figures = figures(&[]);
    let one = &figures["latency"][0];
    // Without guidance an evaluation has one row instead of two.
    assert_eq!(one["work"], json!(2.0 * unguided["latency"][0]["work"].as_f64().unwrap()));
    let median = |what: &str| one[what]["median"].as_f64().unwrap();
    assert!(["text", "evaluation", "decode", "png"].iter().all(|stage| median(stage) > 0.0), "{one}");
    let parts = median("text") + 2.0 * median("evaluation") + median("decode") + median("png");
    // A middle of two is their mean, so that parts add up.
    assert!(parts < 1.001 * median("total"), "{one}");
    assert!(figures["start"]["ready"].as_f64() > figures["start"]["load"].as_f64(), "{figures}");
    let stream = &figures["stream"];
    assert_eq!((stream["images"].as_u64(), stream["jobs"].as_array().map(Vec::len)), (Some(3), Some(3)));
    assert!(figures["memory"]["resident"].as_u64().unwrap() > 1 << 20, "{figures}");
    assert!(figures.get("rates").is_none());

    let refused = latentd(folder.path(), &["bench", "--set", "guidance_scale=-1"]).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("guidance_scale"), "{told}");
}
