//! Gateways that share a queue in a Redis.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::Gateway;
use crate::redis_server::Server;

#[test]
fn two_gateways_share_the_queue_in_a_redis() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&["--requirepass", "s3cret"]));
    let url = format!("redis://:s3cret@127.0.0.1:{}/3", server.port());
    let store = [("LATENTD_STORE", url.as_str())];
    let (one, other) = (Gateway::start(folder.path(), &store), Gateway::start(folder.path(), &store));
    let result = thread::scope(|scope| {
        // Both wait before there is anything to wait for.
        let taken = scope.spawn(|| other.json("GET", "/job-take/w1?", ""));
        let result = scope.spawn(|| one.json("POST", "/runsync?wait=60000", r#"{"input":{"n":1}}"#));
        let taken = taken.join().unwrap();
        assert_eq!(taken["input"]["n"], 1);
        let (began, id) = (Instant::now(), taken["id"].as_str().unwrap());
        assert_eq!(other.asks("", "POST", &format!("/job-done/w1/{id}?isStream=false"), r#"{"output":"x"}"#).0, 200);
        let result = result.join().unwrap();
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        result
    });
    assert_eq!((result["status"].as_str(), result["output"].as_str()), (Some("COMPLETED"), Some("x")));
    for gateway in [&one, &other] {
        assert_eq!(gateway.json("GET", "/health", "")["jobs"]["completed"], 1);
    }
    let shown = Command::new(env!("CARGO_BIN_EXE_latentd")).args(["config", "show"]).env_clear().envs(store).output();
    let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
    assert!(shown.contains("redis://***@127.0.0.1:") && !shown.contains("s3cret"), "{shown}");
}

#[test]
fn a_client_s_requests_are_counted_at_all_gateways_and_by_each_while_redis_is_away() {
    let (folder, mut server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let variables = [("LATENTD_STORE", server.url()), ("LATENTD_LIMITS", "true".to_owned())];
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let gateways = [Gateway::start(folder.path(), &variables), Gateway::start(folder.path(), &variables)];
    let purge = |number: usize| gateways[number % 2].asks("", "POST", "/purge-queue", "").0;
    // Two in ten seconds; each alone would let all four pass.
    let answers: Vec<u16> = (0..4).map(purge).collect();
    assert!(answers[0] == 200 && answers[1] == 200 && answers[2..].contains(&429), "{answers:?}");
    server.kill();
    let (began, answers): (_, Vec<u16>) = (Instant::now(), (0..6).map(|_| purge(0)).collect());
    assert!(answers.contains(&429) && answers.iter().all(|status| [429, 503].contains(status)), "{answers:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn what_one_gateway_knows_of_a_worker_another_knows_too() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let url = server.url();
    let store = [("LATENTD_STORE", url.as_str())];
    let (one, other) = (Gateway::start(folder.path(), &store), Gateway::start(folder.path(), &store));
    let sees = |gateway: &Gateway, class: &str, count: u64| {
        let began = Instant::now();
        while gateway.json("GET", "/health", "")["workers"][class] != count {
            assert!(began.elapsed() < Duration::from_mins(1), "{class}");
        }
    };
    for worker in ["w1", "w2", "w3"] {
        one.asks("", "GET", &format!("/ping/{worker}?runpod_version=1.12.0"), "");
    }
    sees(&other, "initializing", 3);
    one.asks("", "GET", "/ping/w1?status=unhealthy&check=gpu&reason=lost", "");
    sees(&other, "unhealthy", 1);
    let id = one.json("POST", "/run", r#"{"input":1}"#)["id"].as_str().unwrap().to_owned();
    one.json("GET", "/job-take/w2?job_in_progress=0", "");
    thread::scope(|scope| {
        // Open there, and ended at once when the worker is to be restarted: it would be held for twenty seconds.
        let poll = scope.spawn(|| {
            let began = Instant::now();
            (other.asks("", "GET", "/job-take/w4?job_in_progress=1", "").0, began.elapsed())
        });
        sees(&other, "idle", 1);
        one.asks("", "POST", &format!("/job-done/w4/{id}"), r#"{"output":1,"stopPod":true}"#);
        let (status, held) = poll.join().unwrap();
        assert!(status == 204 && held < Duration::from_secs(15), "{status} {held:?}");
    });
    let id = one.json("POST", "/run", r#"{"input":2}"#)["id"].as_str().unwrap().to_owned();
    assert_eq!(other.json("GET", "/job-take/w3?", "")["id"].as_str(), Some(&*id));
    // Another that comes later learns of it from the store.
    one.asks("", "GET", "/ping/w1?status=unhealthy&check=gpu&reason=lost", "");
    drop((one, other));
    let third = Gateway::start(folder.path(), &store);
    sees(&third, "unhealthy", 1);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "heartbeats have a pace")]
fn workers_under_one_id_are_seen_to_be_several_though_each_asks_another_gateway() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let url = server.url();
    let store = [("LATENTD_STORE", url.as_str())];
    let (one, other) = (Gateway::start(folder.path(), &store), Gateway::start(folder.path(), &store));
    let beat = |gateway: &Gateway, named: &str| {
        gateway.asks("", "GET", &format!("/ping/w?job_id={named}&runpod_version=1.12.0"), "")
    };
    for gateway in [&one, &other] {
        beat(gateway, "");
    }
    let id = one.json("POST", "/run", r#"{"input":1}"#)["id"].as_str().unwrap().to_owned();
    assert_eq!(one.json("GET", "/job-take/w?job_in_progress=0", "")["id"].as_str(), Some(&*id));
    beat(&one, &id);
    thread::scope(|scope| {
        let poll = scope.spawn(|| other.json("GET", "/job-take/w?job_in_progress=0", ""));
        let began = Instant::now();
        for gateway in [&one, &other] {
            while !gateway.json("GET", "/health", "")["warnings"].is_array() {
                beat(&one, &id);
                thread::sleep(Duration::from_millis(100));
                assert!(began.elapsed() < Duration::from_secs(15), "there is no warning");
            }
        }
        let second = one.json("POST", "/run", r#"{"input":2}"#);
        assert_eq!(poll.join().unwrap()["id"], second["id"]);
    });
    let job = one.json("GET", &format!("/status/{id}"), "");
    assert_eq!((job["status"].as_str(), job["retries"].as_u64()), (Some("IN_PROGRESS"), None));
}

#[test]
fn a_gateway_outlives_its_redis() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let gateway = Gateway::start(folder.path(), &[("LATENTD_STORE", &server.url())]);
    let id = gateway.json("POST", "/run", r#"{"input":1}"#)["id"].as_str().unwrap().to_owned();
    server.kill();
    let (status, reply) = gateway.asks("", "POST", "/run", r#"{"input":2}"#);
    assert!(status == 503 && reply.contains("cannot be reached"), "{status} {reply}");
    server.start_again();
    assert_eq!(gateway.json("GET", "/job-take/w1?", "")["id"].as_str(), Some(&*id));
}

/// Lays `ca.pem`, and `redis.pem` and `redis.key` for 127.0.0.1 that it vouches for, in a folder.
fn lay_certificates(folder: &Path) {
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    fs::write(folder.join("names"), "subjectAltName = IP:127.0.0.1").unwrap();
    for words in [
        format!("req -x509 {new} -subj /CN=CA -addext subjectAltName=IP:127.0.0.1 -keyout ca.key -out ca.pem"),
        format!("req {new} -subj /CN=redis -keyout redis.key -out asked.pem"),
        "x509 -req -in asked.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out redis.pem".into(),
    ] {
        let done = Command::new("openssl").args(words.split(' ')).current_dir(folder).output();
        let done = done.unwrap_or_else(|cause| panic!("openssl makes the certificates: {cause}"));
        assert!(done.status.success(), "{words}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn a_redis_with_tls_is_used_if_its_certificate_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    lay_certificates(folder.path());
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (own, key, ca) = (at("redis.pem"), at("redis.key"), at("ca.pem"));
    let tls = ["--port", "0", "--tls-port", "%p", "--tls-auth-clients", "no"];
    let files = ["--tls-cert-file", &own, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let server = Server::start(&[&tls[..], &files[..], &["--requirepass", "s3cret"]].concat());
    let url = format!("rediss://:s3cret@127.0.0.1:{}", server.port());
    let gateway = Gateway::start(folder.path(), &[("LATENTD_STORE", &url), ("SSL_CERT_FILE", &ca)]);
    let id = gateway.json("POST", "/run", r#"{"input":1}"#)["id"].as_str().unwrap().to_owned();
    assert_eq!(gateway.json("GET", "/job-take/w1?", "")["id"].as_str(), Some(&*id));
    let told = refuses(folder.path(), &url, &[]);
    assert!(told.contains("does not believe its certificate") && told.contains("SSL_CERT_FILE"), "{told}");
    // A CA's own, as `openssl req -x509` makes one by default.
    let files = ["--tls-cert-file", &ca, "--tls-key-file", &at("ca.key"), "--tls-ca-cert-file", &ca];
    let server = Server::start(&[&tls[..], &files[..]].concat());
    let url = format!("rediss://:s3cret@127.0.0.1:{}", server.port());
    let told = refuses(folder.path(), &url, &[("SSL_CERT_FILE", &ca)]);
    assert!(told.contains("it is that of a CA") && told.contains("CA:FALSE"), "{told}");
}

/// What a gateway says that does not begin with this store.
fn refuses(folder: &Path, url: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
    command.arg("gateway").current_dir(folder).env_clear();
    command.envs(variables.iter().copied());
    let ended = command.env("LATENTD_LISTEN", "127.0.0.1:0").env("LATENTD_STORE", url).output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    let place = url.replace(":s3cret@", "***@");
    assert!(ended.status.code() == Some(1) && told.contains(&format!("the queue cannot be opened: {place}")), "{told}");
    assert!(!told.contains("s3cret"), "{told}");
    told
}

#[test]
fn without_its_redis_a_gateway_does_not_begin_and_says_why() {
    let (folder, mut server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    server.kill();
    refuses(folder.path(), &format!("redis://:s3cret@127.0.0.1:{}", server.port()), &[]);
}
