//! `latentd model` as a process: what it prints, its exit codes, and a kill in the middle.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::models_pull::hub::{COMMIT, UNET, assert_whole, behaved, file, part, pull_small};
use crate::models_pull::server::{Server, Then, announced, said};

/// The binary in a folder of its own, with `models` as its models and no variables but these.
fn command(models: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
    command.current_dir(models.parent().unwrap()).env_clear().env("LATENTD_MODELS_DIR", models);
    command.envs(variables.iter().copied()).args(arguments);
    command
}

async fn latentd(models: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> (i32, String, String) {
    let mut command = command(models, variables, arguments);
    let mut waiting = JoinSet::new();
    waiting.spawn_blocking(move || command.output().unwrap());
    told(waiting.join_next().await.unwrap().unwrap())
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// A folder with an empty folder `models` in it.
fn models() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    fs::create_dir(&models).unwrap();
    (folder, models)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_says_what_it_does_and_what_to_do_next() {
    let server = Server::start(|_, request| behaved(request)).await;
    let (_folder, models) = models();
    let endpoint = server.url("");
    let variables = [("HF_ENDPOINT", endpoint.as_str()), ("HF_TOKEN", "hf_s3cret")];
    let (code, stdout, stderr) = latentd(&models, &variables, &["model", "pull", "o/small"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert_whole(&models, "small");
    for words in [
        format!("o/small at {COMMIT}").as_str(),
        "licence: creativeml-openrail-m",
        "9 files",
        "hashes published of 3",
        "--model small",
    ] {
        assert!(stdout.contains(words), "{stdout}");
    }
    assert!(stderr.contains(&format!("{UNET}: done")), "{stderr}");
    assert!(!stdout.contains("s3cret") && !stderr.contains("s3cret"));
    assert_eq!(server.asked()[0].header("authorization"), "Bearer hf_s3cret");
    let asked = server.asked().len();
    let (code, stdout, _) = latentd(&models, &variables, &["model", "pull", "o/small"]).await;
    assert!(code == 0 && stdout.contains("already, pulled from the same place"), "{stdout}");
    assert_eq!(server.asked().len(), asked + 1, "the hub says what it would be");
    let (code, _, stderr) = latentd(&models, &variables, &["model", "pull", "o/small@other", "--name", "small"]).await;
    assert!(code == 1 && stderr.contains("no such revision"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_may_be_the_one_that_the_hub_s_tools_left() {
    let server = Server::start(|_, request| behaved(request)).await;
    let (folder, models) = models();
    fs::write(folder.path().join("token"), "hf_left\n").unwrap();
    let endpoint = server.url("");
    let variables = [("HF_ENDPOINT", endpoint.as_str()), ("HF_HOME", folder.path().to_str().unwrap())];
    let (code, ..) = latentd(&models, &variables, &["model", "pull", "o/small", "--jobs", "1"]).await;
    assert_eq!((code, server.asked()[0].header("authorization")), (0, "Bearer hf_left"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_killed_is_gone_on_with() {
    let server = Server::start(|number, request| match (request.target.ends_with(UNET), number) {
        (true, 0) => {
            let never = Arc::new(Semaphore::new(0));
            announced(
                "200 OK",
                "ETag: \"t\"\r\n",
                file(UNET).len(),
                &file(UNET)[..50_000],
                Then::Wait(never, Vec::new()),
            )
        }
        (true, _) => part(&file(UNET), "t", request.from()),
        _ => behaved(request),
    })
    .await;
    let (_folder, models) = models();
    let endpoint = server.url("");
    let variables = [("HF_ENDPOINT", endpoint.as_str())];
    let mut child = command(&models, &variables, &["model", "pull", "o/small"]).stdout(Stdio::piped()).spawn().unwrap();
    let there = models.join(".pull-small").join(format!("{UNET}.part"));
    while fs::metadata(&there).map_or(0, |file| file.len()) < 50_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (code, list, _) = latentd(&models, &[], &["model", "list"]).await;
    assert!(code == 0 && list.contains("not pulled to its end"), "{list}");
    let (code, _, taken) = latentd(&models, &variables, &["model", "pull", "o/small"]).await;
    assert!(code == 1 && taken.contains("another process is pulling"), "{taken}");
    child.kill().unwrap();
    child.wait().unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!said.contains("draw with it"), "{said}");
    let (code, _, stderr) = latentd(&models, &variables, &["model", "pull", "o/small"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert_whole(&models, "small");
    let asked = server.asked_for(UNET);
    assert_eq!((asked.len(), asked[1].header("range")), (2, "bytes=50000-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_it_with_130() {
    let server = Server::start(|_, request| {
        let wait = Then::Wait(Arc::new(Semaphore::new(0)), Vec::new());
        if request.target.ends_with(UNET) {
            announced("200 OK", "", file(UNET).len(), b"", wait)
        } else {
            behaved(request)
        }
    })
    .await;
    let (_folder, models) = models();
    let endpoint = server.url("");
    let mut pull = command(&models, &[("HF_ENDPOINT", &endpoint)], &["model", "pull", "o/small"]);
    let child = pull.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while server.asked_for(UNET).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut waiting = JoinSet::new();
    waiting.spawn_blocking(move || child.wait_with_output().unwrap());
    let (code, _, stderr) = told(waiting.join_next().await.unwrap().unwrap());
    assert!(code == 130 && stderr.contains("what came is kept"), "{code}: {stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_model_is_removed() {
    let server = Server::start(|_, _| said("200 OK", "", b"<html><body>sign in</body></html>")).await;
    let (_folder, models) = models();
    let url = server.url("/a.safetensors");
    let (code, _, stderr) = latentd(&models, &[], &["model", "pull", &url]).await;
    assert!(code == 1 && stderr.contains("a.safetensors: its header would have"), "{stderr}");
    assert_eq!(fs::read_dir(&models).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_for_is_64() {
    let (_folder, models) = models();
    for (arguments, words) in [
        (&["model", "pull", "nothing"][..], "sd-1.5"),
        (&["model", "pull", "o/r", "--sha256", "x"], "64 hexadecimal digits"),
        (&["model", "pull", "o/r", "--variant", "fp8"], "fp16"),
        (&["model", "pull", "o/r", "--jobs", "0"], "--jobs"),
        (&["model", "verify", "nothing"], "there is no model"),
        (&["model"], "pull"),
    ] {
        let (code, _, stderr) = latentd(&models, &[], arguments).await;
        assert!(code == 64 && stderr.contains(words), "{arguments:?}: {code} {stderr}");
    }
    let (code, _, stderr) = latentd(&models, &[("HF_ENDPOINT", "hub.example")], &["model", "pull", "o/r"]).await;
    assert!(code == 64 && stderr.contains("hub.endpoint = \"hub.example\" (from HF_ENDPOINT)"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_verified_by_its_hashes() {
    let server = Server::start(|_, request| behaved(request)).await;
    let (_folder, models) = models();
    pull_small(&server.url(""), &models).await.ended.unwrap();
    let verify = async || latentd(&models, &[], &["model", "verify", "small"]).await;
    let (code, stdout, stderr) = verify().await;
    assert!(code == 0 && stdout.ends_with("small is sound\n"), "{stdout}{stderr}");
    assert_eq!(stdout.matches("as it should be").count(), 9, "{stdout}");
    let unet = models.join("small").join(UNET);
    let whole = fs::read(&unet).unwrap();
    let mut other = whole.clone();
    *other.last_mut().unwrap() ^= 1;
    for (harm, words) in [
        (Some(other), "DIFFERS"),
        (Some(whole[..whole.len() - 1].to_vec()), "the copy broke off"),
        (None, "CANNOT BE READ"),
    ] {
        match harm {
            Some(bytes) => fs::write(&unet, bytes).unwrap(),
            None => fs::remove_file(&unet).unwrap(),
        }
        let (code, stdout, _) = verify().await;
        assert!(code == 1 && stdout.contains(words) && stdout.contains(UNET), "{words}: {stdout}");
    }
    fs::write(&unet, &whole).unwrap();
    fs::write(models.join("small/vae/more.safetensors"), crate::models_pull::hub::weights(1, 1)).unwrap();
    let (code, stdout, _) = verify().await;
    assert!(code == 1 && stdout.contains("vae/more.safetensors: IS NOT LISTED"), "{stdout}");
    fs::remove_file(models.join("small/vae/more.safetensors")).unwrap();
    fs::remove_file(models.join("small/SHA256SUMS")).unwrap();
    let (code, stdout, _) = verify().await;
    assert!(code == 0 && stdout.contains("they were not compared"), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_tells_of_all_and_of_what_is_broken() {
    let server = Server::start(|_, request| behaved(request)).await;
    let (folder, models) = models();
    pull_small(&server.url(""), &models).await.ended.unwrap();
    fs::create_dir_all(models.join("torn/unet")).unwrap();
    fs::write(models.join("torn/unet/w.safetensors"), "short").unwrap();
    fs::write(models.join("old.ckpt"), "").unwrap();
    let text = "model = 'small'\n[[models]]\nname = 'gone'\n[[models]]\nname = 'twice'\npath = 'models/small'\n";
    fs::write(folder.path().join("latentd.toml"), text).unwrap();
    let (code, stdout, stderr) = latentd(&models, &[], &["model", "list", "--json"]).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    let rows: Vec<Value> = serde_json::from_str(&stdout).unwrap();
    let row = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap();
    assert_eq!(rows.len(), 5, "{stdout}");
    let small = row("small");
    assert_eq!((&small["family"], &small["licence"]), (&"sd1".into(), &"creativeml-openrail-m".into()));
    assert_eq!((&small["source"], &small["fault"]), (&format!("o/small@{COMMIT}").into(), &Value::Null));
    assert!(small["bytes"].as_u64().unwrap() > 105_000, "{small}");
    assert_eq!(row("twice")["family"], "sd1");
    for (name, words) in [("torn", "too few for a header"), ("old.ckpt", "a pickle"), ("gone", "models.gone")] {
        assert!(row(name)["fault"].as_str().unwrap().contains(words), "{stdout}");
    }
    let (_, table, _) = latentd(&models, &[], &["model", "list"]).await;
    assert!(table.starts_with("NAME      FAMILY  SIZE") && table.contains("\n  → "), "{table}");
}
