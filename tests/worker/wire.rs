//! What a queue reads of our requests, beside what it reads of the RunPod SDK's.
//!
//! `wire.jsonl` holds requests of runpod 1.12.0 (Python 3.11) as they came over a loopback connection, one of a kind, cut down to what a
//! queue may read. Ours are equal to them but for what differs on purpose:
//!
//! * the user agent, the encodings that are accepted, and whether a connection is kept: each client has its own;
//! * `runpod_version` of heartbeats, which says who we are;
//! * ids in heartbeats, which are in ascending order; the SDK's order is that of a Python set;
//! * the type before the `reason` of a worker that is not fit, where Python has an exception's;
//! * spaces in JSON, and what `output` holds: images, and in progress updates evaluations;
//! * `timings` and `warnings` beside `output`.
//!
//! The SDK also leaves the `X-Request-ID` of its last result on later polls, which says nothing of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use latentd::net::Url;
use latentd::worker::{WorkerEnd, WorkerOptions};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use crate::worker::engine::{OPTIONS, Worker, input, source};
use crate::worker::queue::{Asked, Queue, Reply, json};

/// A request of the SDK.
#[derive(Deserialize)]
struct Recorded {
    name: String,
    method: String,
    target: String,
    /// Names in lower case.
    headers: BTreeMap<String, String>,
    body: String,
}

/// What a queue reads of a request.
#[derive(Debug, PartialEq)]
struct Read {
    method: String,
    path: String,
    /// In ascending order: to a queue there is none.
    parameters: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    /// The keys of a body in their order, with the kind of their values, or the values where a queue goes by them.
    body: Vec<(String, Value)>,
}

/// Headers that a queue goes by.
const HEADERS: [&str; 5] = ["accept", "authorization", "charset", "content-type", "x-request-id"];

fn read(method: &str, target: &str, headers: &BTreeMap<String, String>, body: &str) -> Read {
    let url: Url = format!("http://queue{target}").parse().unwrap();
    let parameters = url.query_pairs().map(|(name, value)| match &*name {
        "runpod_version" => (name.into_owned(), "somebody".to_owned()),
        "job_id" => {
            let mut ids: Vec<&str> = value.split(',').collect();
            ids.sort_unstable();
            (name.into_owned(), ids.join(","))
        }
        "reason" => (name.into_owned(), value.split_once(": ").unwrap().1.to_owned()),
        _ => (name.into_owned(), value.into_owned()),
    });
    let headers = headers.iter().filter(|(name, _)| HEADERS.contains(&name.as_str()));
    let body: Map<String, Value> = if body.is_empty() { Map::new() } else { serde_json::from_str(body).unwrap() };
    let ours = |key: &str| ["timings", "warnings"].contains(&key);
    let body = body.into_iter().filter(|(key, _)| !ours(key)).map(|(key, value)| match key.as_str() {
        "output" => (key, json!("anything")),
        "error" => (key, json!(if value.is_string() { "text" } else { "no text" })),
        _ => (key, value),
    });
    Read {
        method: method.into(),
        path: url.path().into(),
        parameters: parameters.collect(),
        headers: headers.map(|(name, value)| (name.clone(), value.clone())).collect(),
        body: body.collect(),
    }
}

/// The first request on a route that this holds of.
async fn first(queue: &Queue, route: &str, holds: impl Fn(&Asked) -> bool) -> Asked {
    let wanted = |asked: &&Asked| asked.route() == route && holds(asked);
    queue.when(|log| log.iter().any(|asked| wanted(&asked))).await;
    queue.asked(route).into_iter().find(|asked| holds(asked)).unwrap()
}

/// What a worker of ours sends when it is given this job, between its first poll and the end of the job.
async fn of_a_job(id: &str, input: Value, options: WorkerOptions) -> Queue {
    let queue = Queue::start().await;
    queue.job(id, input);
    let worker = Worker::start(&queue, options).await;
    queue.until("stop", 1).await;
    if id == "j10" {
        queue.until("progress", 1).await;
        worker.hand.release();
    }
    queue.until("done", 1).await;
    if options.refresh {
        // It ends by itself.
        assert_eq!(worker.end().await, WorkerEnd::Drained);
        return queue;
    }
    queue.when(|log| log.iter().any(|asked| asked.route() == "ping" && !asked.path.contains("job_id"))).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    queue
}

/// What it sends with three jobs in hand, one of which is stopped.
async fn of_several() -> [Asked; 3] {
    let queue = Queue::start().await;
    let jobs = ["c1", "c2", "c3"].map(|id| json!({"id": id, "input": input("endless")}));
    let now = Arc::new(Notify::new());
    let stop = json(json!({"jobsToStop": ["c2", "nope"]}));
    queue.answer("take", json(json!(jobs))).answer("stop", Reply::After(Arc::clone(&now), Box::new(stop)));
    let worker = Worker::start(&queue, WorkerOptions { slots: 3, ..OPTIONS }).await;
    let batch = first(&queue, "take-batch", |_| true).await;
    let ping = first(&queue, "ping", |asked| asked.path.matches("%2C").count() == 2).await;
    now.notify_one();
    let busy = first(&queue, "take", |_| true).await;
    worker.hand.release();
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    [batch, ping, busy]
}

/// Ours, by the names of the recorded ones.
async fn ours() -> BTreeMap<&'static str, Asked> {
    let (mut wrong, mut two) = (input("a"), input("a"));
    wrong["init_image"] = json!("http://127.0.0.1:9/x.png");
    two["num_outputs"] = json!(2);
    let plain = of_a_job("j1", input("a"), WorkerOptions { send_timings: true, ..OPTIONS }).await;
    let failed = of_a_job("j3", wrong, OPTIONS).await;
    let endless = of_a_job("j10", input("endless"), OPTIONS).await;
    let refreshed = of_a_job("r1", input("a"), WorkerOptions { refresh: true, ..OPTIONS });
    let streamed = of_a_job("g1", two, OPTIONS).await;
    let [batch, ping_busy, take_busy] = of_several().await;
    let unfit = Queue::start().await;
    source(&unfit).unhealthy("my_check", "model file missing").await;
    BTreeMap::from([
        ("take, idle", first(&plain, "take", |_| true).await),
        ("take of several", batch),
        ("take, busy", take_busy),
        ("ping, idle", first(&plain, "ping", |asked| !asked.path.contains("job_id")).await),
        ("ping, busy", ping_busy),
        ("ping, unfit", first(&unfit, "ping", |_| true).await),
        ("stop", first(&plain, "stop", |_| true).await),
        ("done", first(&plain, "done", |_| true).await),
        ("done, failed", first(&failed, "done", |_| true).await),
        ("done, refresh", first(&refreshed.await, "done", |_| true).await),
        ("done, streamed", first(&streamed, "done", |_| true).await),
        ("progress", first(&endless, "progress", |_| true).await),
        ("stream", first(&streamed, "stream", |_| true).await),
    ])
}

#[tokio::test]
async fn a_queue_reads_the_same_of_us_as_of_the_sdk() {
    let mut ours = ours().await;
    for line in include_str!("wire.jsonl").lines() {
        let sdk: Recorded = serde_json::from_str(line).unwrap();
        let asked = ours.remove(sdk.name.as_str()).unwrap();
        let told = read(&asked.method, &asked.path, &asked.headers, &asked.body);
        assert_eq!(told, read(&sdk.method, &sdk.target, &sdk.headers, &sdk.body), "{}", sdk.name);
        let version = asked.path.contains(concat!("runpod_version=latentd%2F", env!("CARGO_PKG_VERSION")));
        assert_eq!(version, sdk.name.starts_with("ping"), "{}", asked.path);
    }
    assert!(ours.is_empty(), "nothing of the SDK's to compare with: {:?}", ours.keys());
}

/// What would be a difference to a queue is one here.
#[test]
fn what_a_queue_would_notice_is_noticed() {
    let headers = |kind: &str| BTreeMap::from([("content-type".to_owned(), kind.to_owned())]);
    let seen = |method, target, kind, body| read(method, target, &headers(kind), body);
    let usual = seen("POST", "/a/j?isStream=true", "text/plain", r#"{"error": "x", "stopPod": true}"#);
    for other in [
        seen("GET", "/a/j?isStream=true", "text/plain", r#"{"error": "x", "stopPod": true}"#),
        seen("POST", "/a/k?isStream=true", "text/plain", r#"{"error": "x", "stopPod": true}"#),
        seen("POST", "/a/j?isStream=false", "text/plain", r#"{"error": "x", "stopPod": true}"#),
        seen("POST", "/a/j?isStream=true", "text/html", r#"{"error": "x", "stopPod": true}"#),
        seen("POST", "/a/j?isStream=true", "text/plain", r#"{"error": ["x"], "stopPod": true}"#),
        seen("POST", "/a/j?isStream=true", "text/plain", r#"{"error": "x", "stopPod": false}"#),
        seen("POST", "/a/j?isStream=true", "text/plain", r#"{"error": "x"}"#),
    ] {
        assert_ne!(usual, other);
    }
}
