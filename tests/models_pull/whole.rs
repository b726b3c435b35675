//! Pulls that end well.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use latentd::models::{Manifest, Order, PullError};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::models_pull::hub::{
    COMMIT, PULLED, UNET, assert_whole, behaved, file, part, pull_order, pull_small, sha256, weights,
};
use crate::models_pull::server::{Server, Then, announced, moved, said};

fn order(what: &str) -> Order {
    Order { what: what.into(), ..Order::default() }
}

#[tokio::test]
async fn a_repository_becomes_a_model_that_says_where_it_came_from() {
    let (server, models) = (Server::start(|_, request| behaved(request)).await, tempfile::tempdir().unwrap());
    pull_small(&server.url(""), models.path()).await.ended.unwrap();
    assert_whole(models.path(), "small");
    assert_eq!(server.asked().len(), 1 + PULLED, "each file once");
    assert!(server.asked().iter().all(|request| request.header("authorization").is_empty()));
    let about = Manifest::read(&models.path().join("small")).unwrap().unwrap();
    assert_eq!((about.repository.as_deref(), about.revision.as_deref()), (Some("o/small"), Some(COMMIT)));
    assert_eq!((about.family.as_str(), about.licence.as_deref()), ("sd1", Some("creativeml-openrail-m")));
    assert_eq!(about.pulled.as_deref(), Some("2026-11-18T11:06:40Z"));
    let unet = about.files.iter().find(|listed| listed.path.as_str() == UNET).unwrap();
    assert_eq!((unet.bytes, unet.sha256.to_string()), (Some(file(UNET).len() as u64), sha256(&file(UNET))));
}

#[tokio::test]
async fn a_revision_and_a_name_can_be_chosen() {
    let server = Server::start(|_, request| {
        if request.target.starts_with("/api/") {
            let answer = behaved(&request.at("/api/models/o/small/revision/main?blobs=true"));
            return if request.target.contains("/revision/refs%2Fpr%2F1?") { answer } else { said("404 No", "", b"") };
        }
        behaved(request)
    })
    .await;
    let models = tempfile::tempdir().unwrap();
    let named = Order { name: Some("mine".into()), ..order("o/small@refs/pr/1") };
    pull_order(&server.url(""), models.path(), None, named).await.ended.unwrap();
    assert_whole(models.path(), "mine");
    let again = Order { name: Some("mine".into()), revision: Some("refs/pr/1".into()), ..order("o/small") };
    let again = pull_order(&server.url(""), models.path(), None, again).await;
    assert!(again.fault().contains("is there already"), "{}", again.fault());
    assert_whole(models.path(), "mine");
}

#[tokio::test]
async fn the_token_goes_to_the_hub_and_not_where_it_redirects_to() {
    let store = Server::start(|_, request| part(&file(UNET), "store", request.from())).await;
    let elsewhere = store.url("/signed?s=1");
    let server = Server::start(
        move |_, request| {
            if request.target.ends_with(UNET) { moved(&elsewhere) } else { behaved(request) }
        },
    )
    .await;
    let models = tempfile::tempdir().unwrap();
    pull_order(&server.url(""), models.path(), Some("hf_s3cret"), order("o/small")).await.ended.unwrap();
    assert_whole(models.path(), "small");
    assert!(server.asked().iter().all(|request| request.header("authorization") == "Bearer hf_s3cret"));
    let stored = store.asked();
    assert_eq!((stored.len(), stored[0].header("authorization")), (1, ""));
}

#[tokio::test]
async fn a_mirror_may_lie_below_a_path() {
    let server = Server::start(|_, request| {
        let inner = request.target.strip_prefix("/hub/mirror").unwrap_or("/none").to_owned();
        behaved(&request.at(&inner))
    })
    .await;
    let models = tempfile::tempdir().unwrap();
    pull_small(&server.url("/hub/mirror/"), models.path()).await.ended.unwrap();
    assert_whole(models.path(), "small");
}

#[tokio::test]
async fn the_file_at_a_url_gets_a_folder_of_its_own() {
    let bytes = weights(50_000, 9);
    let sum = sha256(&bytes);
    let linked = format!("X-Linked-Etag: \"{sum}\"\r\n");
    for (headers, sha256) in [("", None), (linked.as_str(), None), ("", latentd::models::Digest::parse(&sum))] {
        let (answer, headers) = (bytes.clone(), headers.to_owned());
        let server = Server::start(move |_, _| said("200 OK", &headers, &answer)).await;
        let models = tempfile::tempdir().unwrap();
        let url = server.url("/dir/My%20Model.safetensors?token=s3cret");
        pull_order(&server.url(""), models.path(), None, Order { sha256, ..order(&url) }).await.ended.unwrap();
        let folder = models.path().join("My-20Model");
        assert_eq!(fs::read(folder.join("My-20Model.safetensors")).unwrap(), bytes);
        let about = fs::read_to_string(folder.join("model.json")).unwrap();
        assert!(about.contains("/dir/My%20Model.safetensors\"") && !about.contains("s3cret"), "{about}");
        assert_eq!(fs::read_to_string(folder.join("SHA256SUMS")).unwrap(), format!("{sum}  My-20Model.safetensors\n"));
    }
}

#[tokio::test]
async fn a_file_is_of_the_family_that_its_tensors_tell() {
    for (names, family) in [
        (&["model.diffusion_model.a", "cond_stage_model.transformer.b"][..], "sd1"),
        (
            &["model.diffusion_model.a", "conditioner.embedders.0.transformer.b", "conditioner.embedders.1.model.c"],
            "sdxl",
        ),
        (&["model.diffusion_model.a", "conditioner.embedders.0.model.b"], "sdxl-refiner"),
        (&["a"], "other"),
    ] {
        let header = json!(names.iter().map(|name| (*name, json!({}))).collect::<BTreeMap<_, _>>()).to_string();
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        let server = Server::start(move |_, _| said("200 OK", "", &bytes)).await;
        let models = tempfile::tempdir().unwrap();
        pull_order(&server.url(""), models.path(), None, order(&server.url("/a.safetensors"))).await.ended.unwrap();
        let about = Manifest::read(&models.path().join("a")).unwrap().unwrap();
        assert_eq!(about.family, family, "{names:?}");
    }
}

#[tokio::test]
async fn the_page_of_a_file_is_taken_for_the_file() {
    let server = Server::start(|_, _| said("200 OK", "", &weights(9, 9))).await;
    let models = tempfile::tempdir().unwrap();
    let url = server.url("/o/r/blob/main/a.safetensors");
    pull_order(&server.url(""), models.path(), None, order(&url)).await.ended.unwrap();
    assert!(server.asked().iter().all(|request| request.target == "/o/r/resolve/main/a.safetensors"));
}

#[tokio::test]
async fn two_pulls_at_once_do_not_meet() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let server = Server::start(move |_, request| {
        if request.target.ends_with(UNET) {
            let bytes = file(UNET);
            return announced("200 OK", "", bytes.len(), &[], Then::Wait(Arc::clone(&held), bytes));
        }
        behaved(request)
    })
    .await;
    let (endpoint, models) = (server.url(""), tempfile::tempdir().unwrap());
    let first = pull_small(&endpoint, models.path());
    let second = async {
        while server.asked_for(UNET).is_empty() {
            tokio::task::yield_now().await;
        }
        let second = pull_small(&endpoint, models.path()).await;
        gate.add_permits(1);
        second
    };
    let (first, second) = tokio::join!(first, second);
    assert!(matches!(second.ended, Err(PullError::Locked(_))), "{:?}", second.ended);
    first.ended.unwrap();
    assert_whole(models.path(), "small");
}

#[test]
fn known_models_hold_what_the_tests_ask_for() {
    let known = Manifest::known("sd-1.5").unwrap();
    assert_eq!(known.repository.as_deref(), Some("stable-diffusion-v1-5/stable-diffusion-v1-5"));
    assert_eq!(known.revision.map(|commit| commit.len()), Some(40));
}

#[tokio::test]
async fn a_known_model_is_the_one_that_is_known() {
    let answer = |sum: &str| {
        let mut files: Vec<(&str, Vec<u8>)> = crate::models_pull::hub::files();
        files.retain(|(path, _)| *path != ".gitattributes");
        let mut answer = crate::models_pull::hub::listing(&files);
        for sibling in answer["siblings"].as_array_mut().unwrap() {
            if sibling["rfilename"] == UNET {
                sibling["lfs"]["sha256"] = Value::from(sum);
            }
        }
        answer.to_string()
    };
    let other = answer(&"0".repeat(64));
    let server = Server::start(move |_, request| {
        let known = "/api/models/stable-diffusion-v1-5/stable-diffusion-v1-5/revision/451f4fe16113bff5a5d2269ed5ad43b0592e9a14?blobs=true";
        if request.target == known { said("200 OK", "", other.as_bytes()) } else { said("404 No", "", b"") }
    })
    .await;
    let models = tempfile::tempdir().unwrap();
    let outcome = pull_order(&server.url(""), models.path(), None, order("sd-1.5")).await;
    assert!(matches!(outcome.ended, Err(PullError::Exchanged { .. })), "{:?}", outcome.ended);
    assert_eq!(fs::read_dir(models.path()).unwrap().count(), 0);
}
