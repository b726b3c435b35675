//! Hosts that say no, repositories that are of no use, and answers that mean harm: each is told with what to do.

use std::fs;
use std::net::TcpListener;

use latentd::models::{Order, PullError};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::models_pull::hub::{COMMIT, UNET, behaved, files, listing, pull_order, pull_small};
use crate::models_pull::server::{Server, said};

/// What a pull fails of when the API answers this.
async fn why(status: &'static str, headers: &'static str, body: String, token: Option<&str>) -> String {
    let server = Server::start(move |_, _| said(status, headers, body.as_bytes())).await;
    let models = tempfile::tempdir().unwrap();
    let order = Order { what: "o/small".into(), ..Order::default() };
    let outcome = pull_order(&server.url(""), models.path(), token, order).await;
    assert_eq!(server.asked().len(), 1, "it is not asked again");
    assert_eq!(fs::read_dir(models.path()).unwrap().count(), 0, "nothing is made");
    outcome.fault()
}

#[tokio::test]
async fn a_hub_that_says_no_is_told_with_what_to_do() {
    let none = String::new;
    let gated = "X-Error-Code: GatedRepo\r\n";
    let without = why("401 Unauthorized", gated, none(), None).await;
    assert!(without.contains("accept its terms on http://127.0.0.1") && without.contains("set HF_TOKEN"), "{without}");
    let wrong = why("401 Unauthorized", "", none(), Some("hf_s3cret")).await;
    assert!(wrong.contains("not accepted") && !wrong.contains("hf_s3cret"), "{wrong}");
    let forbidden = why("403 Forbidden", gated, none(), Some("hf_s3cret")).await;
    assert!(forbidden.contains("/o/small with the token's own account"), "{forbidden}");
    let gone = why("404 Not Found", "X-Error-Code: RepoNotFound\r\n", none(), None).await;
    assert!(gone.contains("check the spelling") && gone.contains("o/small at main"), "{gone}");
    let revision = why("404 Not Found", "X-Error-Code: RevisionNotFound\r\n", none(), None).await;
    assert!(revision.contains("no such revision"), "{revision}");
    let html = why("200 OK", "", "<html>".into(), None).await;
    assert!(html.contains("not that of a model hub") && html.contains("HF_ENDPOINT"), "{html}");
}

#[tokio::test]
async fn a_file_that_is_refused_ends_the_pull() {
    let server = Server::start(|_, request| {
        if request.target.ends_with(UNET) {
            said("403 Forbidden", "X-Error-Code: GatedRepo\r\n", b"")
        } else {
            behaved(request)
        }
    })
    .await;
    let models = tempfile::tempdir().unwrap();
    let outcome = pull_small(&server.url(""), models.path()).await;
    assert!(matches!(outcome.ended, Err(PullError::Refused { .. })), "{:?}", outcome.ended);
    assert!(outcome.fault().contains(&format!("/o/small at {COMMIT}")), "{}", outcome.fault());
    assert_eq!(server.asked_for(UNET).len(), 1);
}

#[tokio::test]
async fn a_host_that_is_not_there_is_told() {
    let models = tempfile::tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let outcome = pull_small(&format!("http://{address}"), models.path()).await;
    assert!(
        outcome.fault().contains("no connection") && outcome.fault().contains("HF_ENDPOINT"),
        "{}",
        outcome.fault()
    );
    // What speaks no TLS.
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", plain.local_addr().unwrap());
    let answer = async {
        loop {
            let (mut stream, _) = plain.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
    };
    let outcome = tokio::select! {
        outcome = pull_small(&endpoint, models.path()) => outcome,
        () = answer => panic!("it answers for ever"),
    };
    let said = outcome.fault();
    assert!(said.contains("no connection") || said.contains("no CA certificates"), "{said}");
}

#[tokio::test]
async fn a_path_that_leads_out_is_refused() {
    for path in ["../../evil.safetensors", "unet/../../../evil", "/etc/passwd", "unet\\..\\evil"] {
        let mut answer = listing(&files());
        answer["siblings"].as_array_mut().unwrap().push(json!({"rfilename": path, "size": 1}));
        let said = why("200 OK", "", answer.to_string(), None).await;
        assert!(said.contains("which lies outside"), "{said}");
    }
}

#[tokio::test]
async fn what_would_not_load_is_not_fetched() {
    for (keep, more, words) in [
        (&["model_index.json"][..], &[][..], "no scheduler/scheduler_config.json"),
        (&["README.md"], &["sd-v1-4.ckpt"], "sd-v1-4.ckpt only as a pickle"),
        (&["README.md"], &["a.safetensors"], "pull the URL of one of them (a.safetensors)"),
    ] {
        let mut some = files();
        some.retain(|(path, _)| keep.contains(path));
        some.extend(more.iter().map(|path| (*path, vec![0])));
        let said = why("200 OK", "", listing(&some).to_string(), None).await;
        assert!(said.starts_with("o/small: ") && said.contains(words), "{said}");
    }
    let mut unet = files();
    unet.retain(|(path, _)| !path.ends_with(".safetensors"));
    let said = why("200 OK", "", listing(&unet).to_string(), None).await;
    assert!(said.contains("no text_encoder/model.safetensors"), "{said}");
}

#[tokio::test]
async fn another_family_is_known_by_its_configuration() {
    let server = Server::start(|_, request| {
        let unet = br#"{"in_channels": 4, "cross_attention_dim": 1024}"#;
        let mut all = files();
        all.iter_mut().filter(|(path, _)| *path == "unet/config.json").for_each(|(_, bytes)| *bytes = unet.to_vec());
        match request.target.as_str() {
            target if target.starts_with("/api/") => said("200 OK", "", listing(&all).to_string().as_bytes()),
            target if target.ends_with("/unet/config.json") => said("200 OK", "", unet),
            _ => behaved(request),
        }
    })
    .await;
    let models = tempfile::tempdir().unwrap();
    let outcome = pull_small(&server.url(""), models.path()).await;
    assert!(matches!(outcome.ended, Err(PullError::Family(..))), "{:?}", outcome.ended);
    assert_eq!(server.asked_for(".safetensors").len(), 0, "no weights were fetched");
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_told_without_a_call() {
    let server = Server::start(|_, _| said("200 OK", "", b"")).await;
    let models = tempfile::tempdir().unwrap();
    let file = server.url("/a.safetensors");
    let (sha256, some) = (latentd::models::Digest::parse(&"0".repeat(64)), || Some("x".to_owned()));
    for (order, words) in [
        (Order { what: "nothing".into(), ..Order::default() }, "sd-1.5"),
        (Order { what: "ftp://h/a.safetensors".into(), ..Order::default() }, "neither a repository"),
        (Order { what: "o/r@a".into(), revision: some(), ..Order::default() }, "named twice"),
        (Order { what: "o/r".into(), sha256, ..Order::default() }, "--sha256 is for the URL"),
        (
            Order { what: file, revision: some(), ..Order::default() },
            "--revision, --variant and --vae are for repositories",
        ),
        (Order { what: server.url("/a.ckpt"), ..Order::default() }, "a.ckpt only as a pickle"),
        (Order { what: server.url("/download/17"), ..Order::default() }, "--name"),
    ] {
        let outcome = pull_order(&server.url(""), models.path(), None, order).await;
        assert!(outcome.fault().contains(words), "{}", outcome.fault());
    }
    assert_eq!(server.asked(), []);
    let order = Order { what: server.url("/a.safetensors"), name: Some("../a".into()), ..Order::default() };
    let outcome = pull_order(&server.url(""), models.path(), None, order).await;
    assert!(matches!(outcome.ended, Err(PullError::Name(_))), "{:?}", outcome.ended);
}
