//! Runs the folders of `handler-tests/` in the process, on an engine without a model.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use latentd::app::run::{Outcome, Terms, perform};
use latentd::engine::fake::Fake;
use latentd::engine::host::Host;
use latentd::intake::{Intake, Limits};
use latentd::job::{Offer, Request};
use latentd::net::{Client, Guard};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

fn folders() -> Vec<PathBuf> {
    let all = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("handler-tests")).unwrap();
    let mut folders: Vec<PathBuf> = all.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn json_file(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap())
        .unwrap_or_else(|cause| panic!("{}: {cause}", path.display()))
}

async fn outcome(job: &Value) -> Outcome {
    let request = Request::from_json(&job.to_string()).unwrap();
    let limits = Limits { bytes: 20 << 20, pixels: 50_000_000, time: Duration::from_secs(30) };
    let intake = Intake::new(Client::new(Guard::default()).unwrap(), limits);
    let offer = Offer { model: "miniature".into(), ..Offer::default() };
    let terms = Terms { offer, entropy: 40264, log_prompts: false, intake };
    let start = async || Ok(Host::start("engine-test", || Ok::<_, &str>(Fake::default())).await?);
    perform(request, &terms, start, CancellationToken::new(), |_| ()).await
}

/// The result in the terms of `expect.json`: images are looked into instead of compared.
fn seen(outcome: Outcome) -> Value {
    let mut seen = json!(outcome.report());
    let images = seen.as_object_mut().unwrap().remove("output").unwrap_or_default();
    seen["images"] = images.as_array().into_iter().flatten().map(look_into).collect();
    seen
}

fn look_into(image: &Value) -> Value {
    use base64::Engine;
    let file = base64::prelude::BASE64_STANDARD.decode(image["image"].as_str().unwrap()).unwrap();
    let reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
    json!({"seed": image["seed"], "width": reader.info().width, "height": reader.info().height})
}

/// Whether all that `expected` says holds of `seen`.
fn holds(expected: &Value, seen: &Value) -> bool {
    match (expected, seen) {
        (Value::Object(expected), Value::Object(seen)) => {
            expected.iter().all(|(key, value)| seen.get(key).is_some_and(|seen| holds(value, seen)))
        }
        (Value::Array(expected), Value::Array(seen)) => {
            expected.len() == seen.len() && expected.iter().zip(seen).all(|(expected, seen)| holds(expected, seen))
        }
        _ => expected == seen,
    }
}

#[tokio::test]
async fn every_job_ends_as_expected() {
    let folders = folders();
    assert!(folders.len() >= 12, "the folders are not there");
    for folder in folders {
        let expected = json_file(&folder.join("expect.json"));
        let seen = seen(outcome(&json_file(&folder.join("job.json"))).await);
        assert!(holds(&expected, &seen), "{}:\nexpected {expected}\nseen {seen}", folder.display());
    }
}

#[test]
fn expectations_can_fail() {
    let seen = json!({"status": "COMPLETED", "images": [{"seed": 1, "width": 8}]});
    assert!(holds(&json!({"images": [{"width": 8}]}), &seen));
    for wrong in [json!({"images": [{"width": 9}]}), json!({"images": []}), json!({"error": "x"}), json!([])] {
        assert!(!holds(&wrong, &seen), "{wrong}");
    }
}
