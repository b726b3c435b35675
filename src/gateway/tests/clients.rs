//! What clients see.

use axum::body::Body;
use axum::http::Request;
use futures_util::FutureExt;

use super::*;
use crate::gateway::{ApiKey, Role};
use crate::store::{SqliteStore, Store};

const START: &str = r#"{"input":{"prompt":"p"}}"#;

#[tokio::test(start_paused = true)]
async fn a_job_is_seen_on_its_way() {
    let house = TestGateway::new();
    let id = house.run(START).await;
    let input = r#""input":{"prompt":"p"}"#;
    assert_eq!(
        house.get(&format!("/status/{id}")).await,
        (200, format!(r#"{{"id":"{id}",{input},"status":"IN_QUEUE"}}"#))
    );
    house.clock.advance(Duration::from_millis(30));
    assert_eq!(house.take("w1").await, id);
    house.clock.advance(Duration::from_millis(50));
    let progress = r#"{"status": "IN_PROGRESS", "output": {"step": 3}}"#;
    assert_eq!(house.post(&format!("/job-done/w1/{id}?gpu=X&isStream=false"), progress).await.0, 200);
    let shown = format!(
        r#"{{"delayTime":30,"executionTime":50,"id":"{id}",{input},"output":{{"step": 3}},"status":"IN_PROGRESS","workerId":"w1"}}"#
    );
    assert_eq!(house.get(&format!("/status/{id}")).await, (200, shown));
    let end = r#"{"output": [{"seed": 7}], "timings": {"total": 5}}"#;
    assert_eq!(house.post(&format!("/job-done/w1/{id}?isStream=false"), end).await.0, 200);
    let shown = r#""output":[{"seed": 7}],"status":"COMPLETED","timings":{"total": 5},"workerId":"w1"}"#;
    assert_eq!(
        house.post(&format!("/status/{id}"), "{}").await,
        (200, format!(r#"{{"delayTime":30,"executionTime":50,"id":"{id}",{shown}"#))
    );
    let old = Request::get(format!("/v1/stable-diffusion-v1/status/{id}")).body(Body::empty()).unwrap();
    let old = house.sends(old).await.1;
    assert!(old.contains(&format!(r#""gpu":"0","id":"{id}",{input}"#)), "{old}");
}

/// What looks with HEAD whether a URL is there, as proxies and browsers do, takes nothing away.
#[tokio::test(start_paused = true)]
async fn a_head_does_nothing() {
    let house = TestGateway::new();
    let id = house.run(START).await;
    let head = async |path: &str| {
        let request = Request::head(format!("/v2/stable-diffusion-v1{path}")).body(Body::empty()).unwrap();
        let reply = service(&house.gateway).oneshot(request).await.unwrap();
        (reply.status().as_u16(), reply.headers().get("allow").map(|allow| allow.to_str().unwrap().to_owned()))
    };
    let refused = |methods: &str| (405, Some(methods.to_owned()));
    for path in ["/job-take/w1?", "/job-take-batch/w1?", "/job-stop/w1?"] {
        assert_eq!(head(path).await, refused("GET"), "{path}");
    }
    assert_eq!(house.take("w1").await, id);
    assert_eq!(house.post(&format!("/job-stream/w1/{id}"), r#"{"output":7}"#).await.0, 200);
    for operation in ["stream", "cancel"] {
        assert_eq!(head(&format!("/{operation}/{id}")).await, refused("GET, POST"));
    }
    assert_eq!(head(&format!("/status/{id}")).await, (200, None));
    assert!(house.get(&format!("/stream/{id}")).await.1.contains(r#"{"output":7}"#));
    assert_eq!(house.field(&id, "status").await, "IN_PROGRESS");
}

#[tokio::test(start_paused = true)]
async fn runsync_answers_at_the_end_or_when_its_time_is_over() {
    let house = TestGateway::new();
    let (waiting, working) = tokio::join!(house.post("/runsync?wait=2000", START), async {
        let id = house.take("w1").await;
        house.post(&format!("/job-done/w1/{id}"), r#"{"output": 1}"#).await
    });
    assert_eq!(working.0, 200);
    assert!(
        waiting.1.contains(r#""output":1,"status":"COMPLETED""#) && waiting.1.contains(r#""id":"sync-"#),
        "{waiting:?}"
    );
    let (status, late) = house.post("/runsync?wait=2000", START).await;
    assert!(status == 200 && late.ends_with(r#""status":"IN_QUEUE"}"#), "{late}");
    let id = serde_json::from_str::<Value>(&late).unwrap()["id"].as_str().unwrap().to_owned();
    let poll = format!("/status-sync/{id}?wait=90000");
    let (polled, _) = tokio::join!(house.get(&poll), async {
        house.take("w1").await;
        house.post(&format!("/job-done/w1/{id}"), r#"{"error": {"code": 3}}"#).await
    });
    assert!(polled.1.contains(r#""error":"{\"code\":3}""#) && polled.1.contains("FAILED"), "{polled:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_last_chunk() {
    let house = TestGateway::new();
    let id = house.run(START).await;
    let stream = format!("/stream/{id}");
    assert_eq!(house.get(&stream).await, (200, r#"{"status":"IN_QUEUE","stream":[]}"#.into()), "after five seconds");
    house.take("w1").await;
    let chunk = async |text: &str| {
        house.post(&format!("/job-stream/w1/{id}?isStream=false"), &format!(r#"{{"output": {text}}}"#)).await.0
    };
    assert_eq!(chunk(r#"{"n": 1}"#).await, 200);
    let (seen, _) = tokio::join!(house.get(&stream), chunk("2"));
    assert_eq!(seen.1, r#"{"status":"IN_PROGRESS","stream":[{"output":{"n": 1}}]}"#);
    assert_eq!(chunk(&format!("\"{}\"", "x".repeat(1 << 20))).await, 200);
    assert_eq!(house.post(&format!("/job-done/w1/{id}?isStream=true"), r#"{"output": []}"#).await.0, 200);
    assert_eq!(house.get(&stream).await.1, r#"{"status":"IN_PROGRESS","stream":[{"output":2}]}"#, "not yet");
    let last = house.get(&stream).await.1;
    assert!(last.starts_with(r#"{"status":"COMPLETED","stream":[{"output":"xxx"#), "{}", &last[..80]);
    assert_eq!(house.get(&stream).await.1, r#"{"status":"COMPLETED","stream":[]}"#);
}

#[tokio::test(start_paused = true)]
async fn jobs_are_cancelled_retried_and_purged() {
    let house = TestGateway::new();
    let [first, second, third] = [house.run(START).await, house.run(START).await, house.run(START).await];
    house.take("w1").await;
    let cancelled = (200, format!(r#"{{"id":"{second}","status":"CANCELLED"}}"#));
    assert_eq!(house.post(&format!("/cancel/{second}"), "").await, cancelled);
    assert_eq!(house.post(&format!("/cancel/{second}"), "{}").await, cancelled, "again");
    assert_eq!(house.post("/purge-queue", "").await, (200, r#"{"removed":1,"status":"completed"}"#.into()));
    assert_eq!(house.field(&third, "status").await, "CANCELLED");
    assert_eq!(house.post(&format!("/retry/{first}"), "").await.0, 400);
    house.post(&format!("/job-done/w1/{first}"), r#"{"error": "e", "output": 1}"#).await;
    assert_eq!((house.field(&first, "error").await, house.field(&first, "output").await), ("e".into(), 1.into()));
    assert_eq!(
        house.post(&format!("/retry/{first}"), "").await,
        (200, format!(r#"{{"id":"{first}","status":"IN_QUEUE"}}"#))
    );
    assert_eq!(house.field(&first, "output").await, Value::Null);
    let jobs = r#""jobs":{"completed":0,"failed":1,"inProgress":0,"inQueue":1,"retried":0}"#;
    let workers = r#""workers":{"idle":1,"initializing":0,"ready":1,"running":0,"throttled":0,"unhealthy":0}"#;
    assert_eq!(house.get("/health").await, (200, format!("{{{jobs},{workers}}}")));
}

#[tokio::test(start_paused = true)]
async fn results_are_kept_for_their_time() {
    let house = TestGateway::new();
    let id = house.run(START).await;
    house.take("w1").await;
    house.post(&format!("/job-done/w1/{id}"), r#"{"output": 1}"#).await;
    house.pass(30 * 60 - 1).await;
    assert_eq!(house.field(&id, "status").await, "COMPLETED");
    house.pass(1).await;
    assert_eq!(house.get(&format!("/status/{id}")).await.0, 404);
    let id = house.run(r#"{"input":{},"webhook":"https://a.example","policy":{"ttl":10000}}"#).await;
    house.clock.advance(Duration::from_secs(10));
    assert_eq!(house.get(&format!("/status/{id}")).await.0, 404, "at once");
    assert_eq!(house.get("/job-take/w1").await.0, 204, "and no worker gets it");
    house.pass(1).await;
    assert_eq!(house.store.next_due().await.unwrap(), None, "nothing is left of either");
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_said() {
    let house = TestGateway::with(GatewaySettings { max_input: (100, 200), ..GatewaySettings::default() });
    let long = format!(r#"{{"input":"{}"}}"#, "x".repeat(100));
    for (method, path, body, status, says) in [
        ("POST", "/run", "{", 400, "no JSON"),
        ("POST", "/run", "[]", 400, "JSON object"),
        ("POST", "/run", "{}", 400, "`input` is missing"),
        ("POST", "/run?ttl=x", START, 400, "`ttl`"),
        ("POST", "/run", &long, 413, "100 bytes"),
        ("POST", "/runsync?wait=1000", &long, 200, "IN_QUEUE"),
        ("GET", "/run", "", 405, "method"),
        ("GET", "/status/unknown", "", 404, "unknown"),
        ("POST", "/cancel/unknown", "", 404, "unknown"),
        ("GET", "/nothing", "", 404, "no such route"),
        ("POST", "/job-done/w/unknown", "{}", 404, "unknown"),
    ] {
        let (code, reply) = house.asks(method, path, body).await;
        assert!(code == status && reply.contains(says), "{method} {path} {body}: {code} {reply}");
        assert!(code == 200 || serde_json::from_str::<Value>(&reply).unwrap()["error"].is_string());
    }
    let other = Request::get("/v2/other/health").body(Body::empty()).unwrap();
    let (code, reply) = house.sends(other).await;
    assert!(code == 404 && reply.contains("other"), "{reply}");
}

#[tokio::test(start_paused = true)]
async fn an_encoded_body_is_refused_wherever_one_is_read() {
    let house = TestGateway::new();
    let id = house.run(r#"{"input":1}"#).await;
    house.take("w1").await;
    let send = |path: &str, coding: &str| {
        let request = Request::builder().method("POST").uri(format!("/v2/stable-diffusion-v1{path}"));
        house.sends(request.header("content-encoding", coding).body(Body::from(r#"{"input":1}"#)).unwrap())
    };
    for path in ["/run", "/runsync", &format!("/job-done/w1/{id}"), &format!("/job-stream/w1/{id}")] {
        for coding in ["gzip", "identity, br"] {
            let (status, reply) = send(path, coding).await;
            assert!(status == 415 && reply.contains(&format!("the body is encoded ({coding})")), "{path}: {reply}");
        }
    }
    for coding in ["", "Identity"] {
        assert_eq!(send("/run", coding).await.0, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_transfer_coding_that_is_not_known_is_not_taken_for_the_body() {
    let house = TestGateway::new();
    for (coding, status) in [("gzip, chunked", 501), ("chunked", 200), ("Chunked", 200)] {
        let request = Request::post("/v2/stable-diffusion-v1/run").header("transfer-encoding", coding);
        let (code, reply) = house.sends(request.body(Body::from(r#"{"input":1}"#)).unwrap()).await;
        assert!(code == status && (code == 200 || reply.contains("gzip, chunked")), "{coding}: {code} {reply}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_keys_another_word_with_each_request_is_no_other_client() {
    let house = TestGateway::new();
    let ask = |key: String| {
        let request = Request::get("/v2/stable-diffusion-v1/status/x").header("authorization", key);
        house.sends(request.body(Body::empty()).unwrap())
    };
    let mut codes = std::collections::BTreeMap::new();
    for number in 0..2100 {
        *codes.entry(ask(number.to_string()).await.0).or_insert(0) += 1;
    }
    assert_eq!(codes, [(404, 2000), (429, 100)].into());
}

#[tokio::test]
async fn a_purge_goes_on_though_its_client_has_gone() {
    let folder = tempfile::tempdir().unwrap();
    let settings = GatewaySettings::default();
    let store = SqliteStore::open(&folder.path().join("queue.db"), settings.rules.clone(), None).unwrap();
    let gateway = Gateway::open(Arc::new(store), Arc::new(crate::clock::SystemClock), settings).await.unwrap();
    let ask = |path: &str, body: &str| {
        let request = Request::post(format!("/v2/stable-diffusion-v1/{path}"));
        service(&gateway).oneshot(request.body(Body::from(body.to_owned())).unwrap())
    };
    for _ in 0..100 {
        ask("run", r#"{"input":1}"#).await.unwrap();
    }
    drop(ask("purge-queue", "").now_or_never());
    let counts = async || gateway.store.counts("stable-diffusion-v1").await.unwrap();
    while counts().await.in_queue > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    ask("run", r#"{"input":1}"#).await.unwrap();
    let purged = to_bytes(ask("purge-queue", "").await.unwrap().into_body(), usize::MAX).await.unwrap();
    assert_eq!(purged, r#"{"removed":1,"status":"completed"}"#);
}

#[tokio::test(start_paused = true)]
async fn without_a_key_nothing_is_told() {
    let keys = vec![ApiKey::new("user", Role::User, None), ApiKey::new("work", Role::Worker, None)];
    let house = TestGateway::with(GatewaySettings { keys, ..GatewaySettings::default() });
    let ask = async |method: &str, path: &str, key: &str| {
        let request = Request::builder().method(method).uri(format!("/v2/{path}")).header("authorization", key);
        house.sends(request.body(Body::empty()).unwrap()).await.0
    };
    for (method, path, key, status) in [
        ("GET", "stable-diffusion-v1/health", "Bearer user", 200),
        ("GET", "stable-diffusion-v1/health", "user", 200),
        ("GET", "stable-diffusion-v1/health", "work", 401),
        ("GET", "stable-diffusion-v1/health", "", 401),
        ("POST", "stable-diffusion-v1/run", "Bearer wrong", 401),
        ("GET", "stable-diffusion-v1/job-take/w", "user", 401),
        ("GET", "stable-diffusion-v1/job-take/w", "work", 204),
        ("GET", "other/health", "", 401),
        ("GET", "other/health", "user", 404),
    ] {
        assert_eq!(ask(method, path, key).await, status, "{method} {path} {key}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_shows_that_it_lives_and_ends_in_a_status_object() {
    let house = TestGateway::new();
    let id = house.run(START).await;
    let stands = format!(r#"{{"id":"{id}","input":{{"prompt":"p"}},"status":"IN_QUEUE"}}"#);
    for (poll, spaces, ends) in [
        (format!("/status-sync/{id}?wait=14000"), "", &*stands),
        (format!("/status-sync/{id}?wait=50000"), "   ", &*stands),
        (format!("/stream/{id}?wait=31000"), "  ", r#"{"status":"IN_QUEUE","stream":[]}"#),
    ] {
        assert_eq!(house.get(&poll).await, (200, format!("{spaces}{ends}")), "{poll}");
    }
    let sync = house.post("/runsync?wait=50000", START).await;
    assert!(sync.0 == 200 && sync.1.starts_with("   {"), "{sync:?}");
}

#[tokio::test(start_paused = true)]
async fn what_ends_a_long_poll_early_keeps_its_status_and_late_it_is_told_in_the_body() {
    let house = TestGateway::new();
    let short = r#"{"input":{"prompt":"p"},"policy":{"ttl":40000}}"#;
    let poll = async |id: &str| house.get(&format!("/status-sync/{id}?wait=90000")).await;
    let id = house.run(short).await;
    let (early, ()) = tokio::join!(poll(&id), house.pass(41));
    assert_eq!(early.0, 404, "{early:?}");
    let id = house.run(short).await;
    let (late, ()) = tokio::join!(poll(&id), async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        house.pass(41).await;
    });
    assert!(late.0 == 200 && late.1.starts_with(" {"), "{late:?}");
    let body: Value = serde_json::from_str(&late.1).unwrap();
    assert_eq!((&body["id"], &body["status"]), (&id.into(), &"TIMED_OUT".into()));
}
