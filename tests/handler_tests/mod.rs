//! Runs the folders of `handler-tests/` in the process, on an engine without a model.

#![allow(clippy::unwrap_used)]

mod compare;

use std::time::Duration;

use compare::{HandlerTest, folders, holds, seen};
use latentd::app::run::{Outcome, RenderContext, perform};
use latentd::engine::fake::Fake;
use latentd::engine::host::Host;
use latentd::intake::{Intake, IntakeLimits};
use latentd::job::{Contract, JobRequest, Offer, OfferedModel};
use latentd::net::{Client, Guard};
use serde_json::json;
use tokio_util::sync::CancellationToken;

async fn outcome(job: &str) -> Outcome {
    let request = JobRequest::from_json(job).unwrap();
    let limits = IntakeLimits { bytes: 20 << 20, pixels: 50_000_000, time: Duration::from_secs(30) };
    let intake = Intake::new(Client::new(Guard::default()).unwrap(), limits);
    let offer = Offer { models: vec![OfferedModel::new("emoji", Contract::Sd1)], ..Offer::default() };
    let context = RenderContext { offer, entropy: 40264, log_prompts: false, intake };
    let start = async |_| Ok(Host::start("engine-test", || Ok::<_, &str>(Fake::default())).await?);
    perform(request, &context, start, CancellationToken::new(), |_| ()).await
}

#[tokio::test]
async fn every_job_ends_as_expected() {
    let folders = folders().unwrap();
    assert!(folders.len() >= 50, "the folders are not there");
    for folder in folders {
        let test = HandlerTest::read(&folder).unwrap();
        let seen = seen(&json!(outcome(&test.job).await.report()));
        assert!(holds(&test.expected, &seen), "{}:\nexpected {}\nseen {seen}", test.name, test.expected);
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
