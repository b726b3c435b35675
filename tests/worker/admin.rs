//! What the admin port tells, to whom, and what it lets a client cost.

use std::sync::Arc;
use std::time::Duration;

use latentd::source::JobSource;
use latentd::telemetry::Telemetry;
use latentd::telemetry::admin::AdminPort;
use latentd::telemetry::health::Phase;
use latentd::worker::{WorkerEnd, WorkerOptions};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::select;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::worker::engine::{OPTIONS, Worker, input, source};
use crate::worker::queue::{Queue, Reply, json, status};

/// An admin port that ends with its value.
struct Port {
    address: std::net::SocketAddr,
    task: JoinSet<()>,
}

impl Port {
    async fn open(telemetry: Telemetry) -> Self {
        let admin = AdminPort::listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (address, mut task) = (admin.address(), JoinSet::new());
        task.spawn(async move { match admin.serve(telemetry).await {} });
        Self { address, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Everything that is answered to `request`, until the port hangs up.
    async fn answer(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Status and body of a GET.
    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.answer(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Waits until a scrape has all of these lines.
    async fn until(&self, lines: &[&str]) -> String {
        loop {
            let (status, text) = self.get("/metrics").await;
            assert_eq!(status, 200);
            if lines.iter().all(|line| text.lines().any(|told| told == *line)) {
                return text;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// The number of a line of a scrape.
fn number(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
}

#[tokio::test]
async fn a_scrape_tells_what_the_worker_does() {
    let queue = Queue::start().await;
    let mut three = input("a");
    three["num_outputs"] = json!(3);
    let jobs = json!([
        {"id": "j1", "input": three, "delayTime": 1500},
        {"id": "j2", "input": {}},
        {"id": "j3", "input": input("endless")},
        {"id": "j4", "input": input("endless")},
    ]);
    let now = Arc::new(Notify::new());
    queue.answer("take", status(429)).answer("take", json(jobs)).answer("done", status(500));
    queue.answer("stop", Reply::After(Arc::clone(&now), Box::new(json(json!({"jobsToStop": ["j4"]})))));
    let worker = Worker::start(&queue, WorkerOptions { slots: 4, ..OPTIONS }).await;
    let port = Port::open(worker.telemetry.clone()).await;

    let text =
        port.until(&["latentd_jobs_total{outcome=\"completed\"} 1", "latentd_jobs_total{outcome=\"invalid\"} 1"]).await;
    for (name, expected) in [
        ("latentd_slots", 4.0),
        ("latentd_jobs_taken_total", 4.0),
        ("latentd_jobs_in_hand", 2.0),
        ("latentd_lanes", 2.0),
        ("latentd_queue_wait_seconds_count", 1.0),
        ("latentd_queue_wait_seconds_sum", 1.5),
        ("latentd_takes_total{reply=\"jobs\"}", 1.0),
        ("latentd_takes_total{reply=\"429\"}", 1.0),
        ("latentd_delivery_retries_total{to=\"done\"}", 1.0),
        ("latentd_stage_seconds_count{stage=\"wait\"}", 1.0),
        ("latentd_stage_seconds_count{stage=\"png\"}", 1.0),
        ("latentd_stage_seconds_count{stage=\"fetch\"}", 0.0),
        // Its engine was there.
        ("latentd_stage_seconds_count{stage=\"load\"}", 0.0),
        ("latentd_stage_seconds_count{stage=\"deliver\"}", 2.0),
        ("latentd_device_memory_bytes{engine=\"engine-test\",kind=\"free\"}", f64::from(1 << 30)),
    ] {
        assert!((number(&text, name) - expected).abs() < 1e-9, "{name} is not {expected} in\n{text}");
    }
    // Two evaluations of three rows at least, and of the endless ones as many as there was time for.
    assert!(number(&text, "latentd_evaluation_rows_sum") >= 6.0);
    assert!(number(&text, "latentd_evaluation_seconds_count") >= 2.0);
    assert!(number(&text, "latentd_uptime_seconds") > 0.0);

    now.notify_one();
    port.until(&["latentd_jobs_total{outcome=\"stopped\"} 1", "latentd_lanes 1", "latentd_jobs_in_hand 1"]).await;
    worker.stop.draining.cancel();
    worker.stop.now.cancel();
    let telemetry = worker.telemetry.clone();
    assert_eq!(worker.end().await, WorkerEnd::Drained);
    let text = telemetry.metrics.text();
    assert!((number(&text, "latentd_jobs_total{outcome=\"given_back\"}") - 1.0).abs() < 1e-9, "{text}");
}

#[tokio::test]
async fn an_end_that_nobody_takes_is_counted() {
    let queue = Queue::start().await;
    queue.job("j1", input("a")).answer("done", status(404));
    let worker = Worker::start(&queue, WorkerOptions { max_bytes: Some(100), ..OPTIONS }).await;
    let port = Port::open(worker.telemetry.clone()).await;
    port.until(&["latentd_jobs_undelivered_total 1", "latentd_jobs_total{outcome=\"failed\"} 1"]).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_heartbeat_that_nobody_hears_is_counted() {
    let queue = Queue::start().await;
    for _ in 0..5 {
        queue.answer("ping", status(500));
    }
    let telemetry = Telemetry::default();
    let source = source(&queue).with_metrics(telemetry.metrics.clone());
    tokio::time::pause();
    // The fifth ping is the first try of the second heartbeat.
    select! {
        _ = queue.until("ping", 5) => {}
        never = source.heartbeat(Vec::new) => match never {},
    }
    assert!(telemetry.metrics.text().contains("latentd_heartbeat_failures_total 1\n"));
}

#[tokio::test]
async fn readiness_follows_the_worker() {
    let queue = Queue::start().await;
    queue.job("j1", input("endless"));
    let telemetry = Telemetry::default();
    let port = Port::open(telemetry.clone()).await;
    assert_eq!(port.get("/readyz").await, (503, "loading\n".to_owned()));
    assert_eq!(port.get("/healthz").await, (200, "loading\n".to_owned()));
    telemetry.health.enter(Phase::Unfit);
    assert_eq!(port.get("/healthz").await, (503, "unfit\n".to_owned()));

    let worker = Worker::start(&queue, OPTIONS).await;
    let port = Port::open(worker.telemetry.clone()).await;
    queue.until("take", 1).await;
    assert_eq!(port.get("/readyz").await, (200, "ready\n".to_owned()));
    worker.stop.draining.cancel();
    // It lives still, with a job in hand, and is not ready for another.
    while port.get("/readyz").await != (503, "draining\n".to_owned()) {}
    assert_eq!(port.get("/healthz").await, (200, "draining\n".to_owned()));
    worker.hand.release();
    assert_eq!(worker.end().await, WorkerEnd::Drained);
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let port = Port::open(Telemetry::default()).await;
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 "),
        ("GET /metrics/../healthz HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 "),
        ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", "HTTP/1.1 405 "),
        ("garbage\r\n\r\n", "HTTP/1.1 400 "),
        (&format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(20_000)), "HTTP/1.1 4"),
    ] {
        let mut stream = port.connect().await;
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = vec![0; expected.len()];
        // One that sent more than anybody reads may see its connection reset, which is an answer, too.
        if stream.read_exact(&mut answer).await.is_ok() {
            assert_eq!(String::from_utf8(answer).unwrap(), expected, "{request:.50}");
        } else {
            assert!(request.len() > 10_000, "{request:.50}");
        }
    }
    let head = port.answer("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4") && head.ends_with("\r\n\r\n"), "{head}");
}

/// A client that does not end its request and reads nothing.
async fn slow(port: &Port) -> TcpStream {
    let mut stream = port.connect().await;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-").await.unwrap();
    stream
}

#[tokio::test]
async fn slow_clients_hold_neither_the_port_nor_the_drain() {
    let queue = Queue::start().await;
    queue.job("j1", input("a"));
    let worker = Worker::start(&queue, OPTIONS).await;
    let mut port = Port::open(worker.telemetry.clone()).await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(slow(&port).await);
    }
    queue.until("done", 1).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    // As at the end of the process.
    port.task.shutdown().await;
    for mut client in clients {
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&rest));
    }
}

#[tokio::test]
async fn a_question_is_answered_when_slow_clients_have_had_their_time() {
    let port = Port::open(Telemetry::default()).await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(slow(&port).await);
    }
    // Nothing waits for the clock: it goes on when nothing else does.
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    assert_eq!(port.get("/healthz").await.0, 200);
    assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
}
