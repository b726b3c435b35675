//! What operators do to the queue of a gateway that serves.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Gateway;

#[test]
fn keys_are_made_listed_and_revoked_while_a_gateway_serves() {
    let folder = tempfile::tempdir().unwrap();
    let key = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
        let store = format!("sqlite:{}", folder.path().join("queue.db").display());
        command.current_dir(folder.path()).env_clear().env("LATENTD_STORE", store).arg("key").args(arguments);
        let ended = command.output().unwrap();
        let (told, why) = (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
        (ended.status.code(), told.trim().to_owned(), why)
    };
    let (code, user, why) = key(&["create", "--role", "user", "--name", "alice"]);
    assert!(code == Some(0) && user.starts_with("ltd_") && why.contains("the first key"), "{user} {why}");
    let (_, worker, why) = key(&["create", "--role", "worker", "--endpoint", "stable-diffusion-v1"]);
    assert_eq!(why, "");
    assert_eq!(key(&["create", "--role", "user", "--name", "alice"]).0, Some(1), "the name is taken");
    assert!(key(&["create", "--role", "user", "--endpoint", "other"]).2.contains("no endpoint"));
    let listed: Value = serde_json::from_str(&key(&["list", "--json"]).1).unwrap();
    assert_eq!((&listed[0]["name"], &listed[1]["role"]), (&"alice".into(), &"worker".into()));
    assert!(!listed.to_string().contains(&user) && !key(&["list"]).1.contains(&worker));
    let gateway = Gateway::start(folder.path(), &[]);
    let health = |key: &str| gateway.asks(key, "GET", "/health", "").0;
    assert_eq!((health(&user), health(&worker), health("")), (200, 401, 401));
    assert_eq!(gateway.asks(&worker, "GET", "/ping/w1?", "").0, 200);
    assert_eq!(key(&["revoke", "alice"]).0, Some(0));
    assert_eq!(key(&["revoke", "alice"]).0, Some(1), "it is gone");
    let began = Instant::now();
    while health(&user) != 401 {
        assert!(began.elapsed() < Duration::from_mins(1));
    }
    assert_eq!(gateway.asks(&worker, "GET", "/ping/w1?", "").0, 200);
}

#[test]
fn a_file_is_served_by_one_gateway_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = Gateway::start(folder.path(), &[]);
    let store = format!("sqlite:{}", folder.path().join("queue.db").display());
    let mut second = Command::new(env!("CARGO_BIN_EXE_latentd"));
    second.current_dir(folder.path()).env_clear().env("LATENTD_STORE", &store).args([
        "gateway",
        "--listen",
        "127.0.0.1:0",
    ]);
    let ended = second.output().unwrap();
    let why = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.code() == Some(1) && why.contains("another gateway serves it"), "{why}");
    first.json("POST", "/run", r#"{"input":1}"#);
    // SIGKILL: nothing is left that keeps another from it.
    drop(first);
    assert_eq!(Gateway::start(folder.path(), &[]).json("GET", "/health", "")["jobs"]["inQueue"], 1);
}

#[test]
fn a_queue_is_copied_while_a_gateway_serves_it() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path(), &[]);
    let backup = |store: &str, to: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
        let ended =
            command.current_dir(folder.path()).env_clear().env("LATENTD_STORE", store).args(["backup", to]).output();
        let ended = ended.unwrap();
        let (told, why) = (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
        (ended.status.code(), told, why)
    };
    let id = gateway.json("POST", "/run", r#"{"input":1}"#)["id"].as_str().unwrap().to_owned();
    let (code, told, why) = backup("sqlite:queue.db", "copy.db");
    assert!(code == Some(0) && told.starts_with("copy.db: 1 jobs, "), "{code:?} {told} {why}");
    let (code, _, why) = backup("sqlite:queue.db", "copy.db");
    assert!(code == Some(1) && why.contains("none is overwritten"), "{code:?} {why}");
    assert_eq!(backup("sqlite:missing.db", "other.db").0, Some(1));
    let (code, _, why) = backup("redis://:s3cret@127.0.0.1:1", "other.db");
    assert!(code == Some(64) && why.contains("BGSAVE") && !why.contains("s3cret"), "{code:?} {why}");
    assert!(!folder.path().join("other.db").exists() && !folder.path().join("missing.db").exists());
    gateway.json("POST", "/run", r#"{"input":2}"#);
    drop(gateway);
    let store = format!("sqlite:{}", folder.path().join("copy.db").display());
    let restored = Gateway::start(folder.path(), &[("LATENTD_STORE", &store)]);
    assert_eq!(restored.json("GET", "/health", "")["jobs"]["inQueue"], 1);
    assert_eq!(restored.json("GET", "/job-take/w1?", "")["id"].as_str(), Some(&*id));
}
