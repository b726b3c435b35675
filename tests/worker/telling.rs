//! Webhooks that the worker calls.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use latentd::worker::{WorkerEnd, WorkerOptions};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::worker::engine::{OPTIONS, Worker, input, parts, sink};
use crate::worker::lasting::{entries, spool};
use crate::worker::log::Log;
use crate::worker::queue::{Queue, Reply, json, status};
use crate::worker::server::{self, Answer, Request, Server};

/// A job called `j1` that names `server`.
fn job(server: &Server, prompt: &str) -> Value {
    let webhook = json!({"url": server.url("/hook?token=t"), "headers": {"Authorization": "Bearer k"}});
    json!({"id": "j1", "input": input(prompt), "webhook": webhook})
}

async fn worker(queue: &Queue, root: &Path, options: WorkerOptions) -> Worker {
    Worker::at(queue, parts(sink(queue), spool(root)), options).await
}

fn told(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

#[tokio::test]
async fn on_a_bare_queue_the_worker_tells_whom_the_job_names() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    let server = Server::start(|number, _| server::status(if number < 2 { "500 Oh" } else { "200 OK" })).await;
    queue.answer("take", json(job(&server, "a"))).answer("done", status(503));
    let worker = worker(&queue, root.path(), WorkerOptions { send_timings: true, ..OPTIONS }).await;
    queue.until("done", 1).await;
    assert_eq!(server.asked().len(), 0, "first the queue, then the others");
    queue.until("done", 2).await;
    // Draining waits for all attempts.
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    let asked = server.asked();
    assert_eq!((asked.len(), entries(root.path(), "webhooks")), (3, 0));
    for request in &asked {
        assert_eq!((request.target.as_str(), request.header("authorization")), ("/hook?token=t", "Bearer k"));
        assert_eq!(request.header("webhook-id"), asked[0].header("webhook-id"));
        assert_eq!(request.body, asked[0].body);
    }
    let (status, result) = (told(&asked[0]), queue.asked("done")[1].json());
    let keys: Vec<&String> = status.as_object().unwrap().keys().collect();
    let expected =
        ["delayTime", "executionTime", "id", "input", "output", "status", "timings", "warnings", "webhook", "workerId"];
    assert_eq!(keys, expected);
    assert_eq!(
        (&status["status"], &status["id"], &status["workerId"]),
        (&json!("COMPLETED"), &json!("j1"), &json!("pod-abc"))
    );
    assert_eq!((&status["input"], &status["webhook"]), (&input("a"), &json!(server.url("/hook?token=t"))));
    for key in ["output", "timings", "warnings"] {
        assert_eq!(status[key], result[key], "{key}");
    }
}

#[tokio::test]
async fn a_job_that_fails_is_told_too() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    let server = Server::start(|_, _| server::status("200 OK")).await;
    let webhook = server.url("/");
    queue.answer("take", json(json!({"id": "j1", "input": {"prompt": "p", "width": 5}, "webhook": webhook})));
    let worker = worker(&queue, root.path(), OPTIONS).await;
    let status = told(&server.until(1).await[0]);
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    assert_eq!(
        (&status["status"], &status["error"]),
        (&json!("FAILED"), &json!(r#"["width does not meet the constraints."]"#))
    );
}

#[tokio::test]
async fn a_gateway_of_our_own_calls_webhooks_itself_unless_the_worker_always_does() {
    for always in [false, true] {
        let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
        let server = Server::start(|_, _| server::status("200 OK")).await;
        let more = "X-Latentd-Webhooks: gateway\r\n";
        let body = job(&server, "a").to_string().into();
        queue.answer("take", Reply::Answer { status: 200, kind: "application/json", more, body });
        let mut parts = parts(sink(&queue), spool(root.path()));
        parts.webhooks.as_mut().unwrap().always = always;
        let worker = Worker::at(&queue, parts, OPTIONS).await;
        queue.until("done", 1).await;
        assert_eq!(worker.stop().await, WorkerEnd::Drained);
        assert_eq!(server.asked().len(), usize::from(always));
    }
}

#[tokio::test]
async fn a_webhook_that_is_under_way_survives_a_restart_under_its_id() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    let server = Server::start(|number, _| if number == 0 { Answer::Silence } else { server::status("200 OK") }).await;
    queue.answer("take", json(job(&server, "a")));
    let options = WorkerOptions { drain: Duration::from_millis(200), ..OPTIONS };
    let first = worker(&queue, root.path(), options).await;
    server.until(1).await;
    assert_eq!(first.stop().await, WorkerEnd::Drained);
    assert_eq!((entries(root.path(), "results"), entries(root.path(), "webhooks")), (0, 1));

    let second = worker(&queue, root.path(), options).await;
    let asked = server.until(2).await;
    assert_eq!(second.stop().await, WorkerEnd::Drained);
    assert_eq!((asked[0].header("webhook-id"), &asked[0].body), (asked[1].header("webhook-id"), &asked[1].body));
    assert_eq!((server.asked().len(), queue.asked("done").len(), entries(root.path(), "webhooks")), (2, 1, 0));
}

/// A worker that was to deliver the end of `j1`, of which nothing had arrived when it ended.
async fn left(queue: &Queue, root: &Path, server: &Server) {
    queue.answer("take", json(job(server, "a"))).answer("done", Reply::Hold);
    let first = worker(queue, root, WorkerOptions { drain: Duration::from_millis(100), ..OPTIONS }).await;
    queue.until("done", 1).await;
    assert_eq!(first.stop().await, WorkerEnd::Drained);
    assert_eq!((server.asked().len(), entries(root, "results"), entries(root, "webhooks")), (0, 1, 1));
}

#[tokio::test]
async fn a_webhook_that_was_left_waits_for_its_result() {
    // Taken, and never to be taken.
    for answer in [200, 404] {
        let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
        let server = Server::start(|_, _| server::status("200 OK")).await;
        left(&queue, root.path(), &server).await;
        let now = Arc::new(Notify::new());
        queue.answer("done", status(503)).answer("done", Reply::After(Arc::clone(&now), Box::new(status(answer))));
        let second = worker(&queue, root.path(), OPTIONS).await;
        queue.until("done", 3).await;
        let pings = queue.asked("ping").len();
        queue.until("ping", pings + 3).await;
        assert_eq!(server.asked().len(), 0, "first the queue, then the others");
        now.notify_one();
        let asked = server.until(1).await;
        assert_eq!(told(&asked[0])["status"], "COMPLETED");
        assert_eq!(second.stop().await, WorkerEnd::Drained);
        let left = (entries(root.path(), "results"), entries(root.path(), "webhooks"));
        assert_eq!((server.asked().len(), left), (1, (0, 0)), "{answer}");
    }
}

#[tokio::test]
async fn a_webhook_that_was_left_is_sent_when_nobody_waits_for_its_result() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    let server = Server::start(|_, _| server::status("200 OK")).await;
    left(&queue, root.path(), &server).await;
    // As when its time was over before this start.
    let results = root.path().join("0/results");
    std::fs::remove_dir_all(results).unwrap();
    let second = worker(&queue, root.path(), OPTIONS).await;
    server.until(1).await;
    assert_eq!(second.stop().await, WorkerEnd::Drained);
    assert_eq!((queue.asked("done").len(), entries(root.path(), "webhooks")), (1, 0));
}

#[tokio::test]
async fn a_result_that_the_queue_finds_too_large_fails_the_job_for_everybody() {
    for restarted in [false, true] {
        let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
        let server = Server::start(|_, _| server::status("200 OK")).await;
        let (log, _guard) = Log::of_this_thread();
        if restarted {
            left(&queue, root.path(), &server).await;
        } else {
            queue.answer("take", json(job(&server, "a")));
        }
        queue.answer("done", status(503)).answer("done", status(413)).answer("done", status(500));
        let worker = worker(&queue, root.path(), OPTIONS).await;
        let asked = server.until(1).await;
        assert_eq!(worker.stop().await, WorkerEnd::Drained);

        let posts = queue.asked("done");
        let [.., large, again, last] = &posts[..] else { panic!("{:?}", queue.routes()) };
        let why = format!("the result has {} bytes, which is more than the queue takes", large.body.len());
        assert_eq!((again.json(), last.json()), (json!({"error": why}), json!({"error": why})));
        let status = told(&asked[0]);
        assert_eq!((&status["status"], &status["error"]), (&json!("FAILED"), &json!(why)));
        assert_eq!((&status["input"], status.get("output")), (&input("a"), None));
        let [finished] = &log.said("Finished.")[..] else { panic!("{}", log.text()) };
        assert_eq!((&finished["id"], &finished["status"]), (&json!("j1"), &json!("FAILED")));
        assert_eq!((server.asked().len(), entries(root.path(), "webhooks")), (1, 0));
    }
}

#[tokio::test]
async fn an_error_that_is_too_large_as_well_ends_it() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    let server = Server::start(|_, _| server::status("200 OK")).await;
    queue.answer("take", json(job(&server, "a"))).answer("done", status(413)).answer("done", status(413));
    let worker = worker(&queue, root.path(), OPTIONS).await;
    let asked = server.until(1).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    assert_eq!((queue.asked("done").len(), &told(&asked[0])["status"]), (2, &json!("FAILED")));
}

#[tokio::test]
async fn a_worker_without_an_engine_leaves_webhooks_to_the_next() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    let server = Server::start(|_, _| Answer::Silence).await;
    let panic = json!({"id": "j2", "input": input("panic")});
    queue.answer("take", json(job(&server, "a"))).answer("take", json(panic));
    let worker = worker(&queue, root.path(), OPTIONS).await;
    assert_eq!(worker.end().await, WorkerEnd::EngineLost);
    assert_eq!((queue.asked("done").len(), entries(root.path(), "webhooks")), (1, 1));
}

/// What is told of a job that the queue stops, while it is drawn or while its end is delivered.
async fn stopped(prompt: &str, changes: Value, cancelled: bool) -> Vec<Value> {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    let server = Server::start(|_, _| server::status("200 OK")).await;
    let now = Arc::new(Notify::new());
    let stop = json(json!({"jobsToStop": ["j1"]}));
    queue.answer("stop", Reply::After(Arc::clone(&now), Box::new(stop)));
    let mut job = job(&server, prompt);
    job.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    queue.answer("take", json(job)).answer("done", Reply::Hold);
    let mut parts = parts(sink(&queue), spool(root.path()));
    parts.webhooks.as_mut().unwrap().cancelled = cancelled;
    let worker = Worker::at(&queue, parts, OPTIONS).await;
    let route = if prompt == "endless" { "ping" } else { "done" };
    let listed = |log: &Vec<crate::worker::queue::Asked>| {
        log.iter().any(|asked| asked.route() == route && asked.path.contains("j1"))
    };
    queue.when(listed).await;
    now.notify_one();
    queue.until("take", 2).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    let left = (entries(root.path(), "results"), entries(root.path(), "webhooks"));
    assert_eq!((left, queue.asked("done").len()), ((0, 0), usize::from(route == "done")), "{prompt}");
    server.asked().iter().map(told).collect()
}

#[tokio::test]
async fn a_job_that_its_queue_stopped_is_told_as_cancelled() {
    for prompt in ["endless", "a"] {
        let told = stopped(prompt, json!({"delayTime": 1500}), true).await;
        let [status] = &told[..] else { panic!("{told:?}") };
        let keys: Vec<&String> = status.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["delayTime", "executionTime", "id", "input", "status", "webhook", "workerId"]);
        assert_eq!((&status["status"], &status["delayTime"]), (&json!("CANCELLED"), &json!(1500)), "{prompt}");
        assert_eq!(stopped(prompt, json!({}), false).await, [json!(null); 0], "webhook.cancelled = false");
    }
}

/// A queue that keeps to the policy by its own clock stops the job a moment before we do.
#[tokio::test]
async fn a_job_that_is_stopped_at_the_end_of_its_time_is_told_as_timed_out() {
    for cancelled in [true, false] {
        let told = stopped("endless", json!({"policy": {"executionTimeout": 1000}}), cancelled).await;
        assert_eq!(told.len(), 1);
        let why = "the job took longer than the 1000 ms that its policy gives it";
        assert_eq!((&told[0]["status"], &told[0]["error"]), (&json!("TIMED_OUT"), &json!(why)));
    }
}

#[tokio::test]
async fn a_job_whose_time_is_over_is_told_as_timed_out() {
    for (policy, told_so) in [(json!({"executionTimeout": 100}), "100 ms"), (json!({"ttl": 60_000}), "(ttl)")] {
        let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
        let server = Server::start(|_, _| server::status("200 OK")).await;
        let mut job = job(&server, "endless");
        (job["policy"], job["delayTime"]) = (policy, json!(60_000));
        queue.answer("take", json(job));
        let worker = worker(&queue, root.path(), OPTIONS).await;
        let status = told(&server.until(1).await[0]);
        assert_eq!(worker.stop().await, WorkerEnd::Drained);
        assert_eq!((&status["status"], &status["delayTime"]), (&json!("TIMED_OUT"), &json!(60_000)));
        assert_eq!(queue.asked("done")[0].json(), json!({"error": status["error"]}));
        assert!(status["error"].as_str().unwrap().contains(told_so), "{status}");
    }
}

#[tokio::test]
async fn nobody_is_told_of_a_job_that_was_given_back() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    let server = Server::start(|_, _| server::status("200 OK")).await;
    queue.answer("take", json(job(&server, "endless")));
    let worker = worker(&queue, root.path(), WorkerOptions { drain: Duration::from_millis(100), ..OPTIONS }).await;
    queue.when(|log| log.iter().any(|asked| asked.path.contains("job_id=j1"))).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    assert_eq!((server.asked().len(), entries(root.path(), "webhooks")), (0, 0));
}
