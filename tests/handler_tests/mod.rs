//! Runs the folders of `handler-tests/` in the process, on an engine without a model.

#![allow(clippy::unwrap_used)]

mod compare;

use std::path::{Path, PathBuf};
use std::time::Duration;

use compare::{HandlerTest, KINDS, folders, holds, seen};
use latentd::app::run::{Outcome, RenderContext, perform};
use latentd::engine::fake::Fake;
use latentd::engine::host::Host;
use latentd::intake::{Intake, IntakeLimits};
use latentd::job::{Contract, JobRequest, Offer, OfferedModel};
use latentd::models::defaults;
use latentd::net::{Client, Guard};
use serde_json::json;
use tokio_util::sync::CancellationToken;

async fn outcome(job: &str, model: OfferedModel) -> Outcome {
    let request = JobRequest::from_json(job).unwrap();
    let limits = IntakeLimits { bytes: 20 << 20, pixels: 50_000_000, time: Duration::from_secs(30) };
    let intake = Intake::new(Client::new(Guard::default()).unwrap(), limits);
    let offer = Offer { models: vec![model], ..Offer::default() };
    let context = RenderContext { offer, entropy: 40264, log_prompts: false, intake };
    let start = async |_| Ok(Host::start("engine-test", || Ok::<_, &str>(Fake::default())).await?);
    perform(request, &context, start, CancellationToken::new(), |_| ()).await
}

async fn end_as_expected(folders: Vec<PathBuf>, model: OfferedModel) {
    assert!(folders.len() >= 10, "the folders are not there");
    for folder in folders {
        let test = HandlerTest::read(&folder).unwrap();
        let seen = seen(&json!(outcome(&test.job, model.clone()).await.report()));
        assert!(holds(&test.expected, &seen), "{}:\nexpected {}\nseen {seen}", test.name, test.expected);
    }
}

#[tokio::test]
async fn every_job_ends_as_expected() {
    end_as_expected(folders("sd1").unwrap(), OfferedModel::new("emoji", Contract::Sd1)).await;
}

#[tokio::test]
async fn every_job_of_sdxl_ends_as_expected() {
    // Its latentd.json makes pictures small, here as in a worker that has it.
    let defaults = defaults(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/miniature-xl")).unwrap();
    assert_eq!(defaults.contract, Contract::Sdxl);
    end_as_expected(folders("sdxl").unwrap(), OfferedModel::new("miniature-xl", defaults)).await;
}

#[tokio::test]
async fn every_job_of_sdxl_turbo_ends_as_expected() {
    end_as_expected(folders("sdxl_turbo").unwrap(), OfferedModel::new("turbo", Contract::SdxlTurbo)).await;
}

#[tokio::test]
async fn every_job_of_a_refined_model_ends_as_expected() {
    let defaults = defaults(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/miniature-xl")).unwrap();
    let model = OfferedModel::new("miniature-xl", defaults).with_refiner(true);
    end_as_expected(folders("refined").unwrap(), model).await;
}

#[test]
fn every_folder_is_of_one_kind() {
    let kinds = ["sd1"].into_iter().chain(KINDS.map(|(kind, _)| kind));
    let counts = kinds.map(|kind| folders(kind).unwrap().len());
    let all = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("handler-tests")).unwrap().flatten();
    assert_eq!(counts.sum::<usize>(), all.filter(|entry| entry.path().is_dir()).count());
    for contract in Contract::ALL {
        assert!(!folders(contract.name()).unwrap().is_empty(), "{contract}");
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
