//! Webhooks that the worker calls.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use latentd::worker::{End, Manners};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::engine::{MANNERS, Worker, input, office, sink};
use crate::lasting::{letters, spool};
use crate::queue::{Queue, Reply, json, status};
use crate::server::{self, Answer, Request, Server};

/// A job called `j1` that names `server`.
fn job(server: &Server, prompt: &str) -> Value {
    let webhook = json!({"url": server.url("/hook?token=t"), "headers": {"Authorization": "Bearer k"}});
    json!({"id": "j1", "input": input(prompt), "webhook": webhook})
}

async fn worker(queue: &Queue, root: &Path, manners: Manners) -> Worker {
    Worker::at(queue, office(sink(queue), spool(root)), manners).await
}

fn told(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

#[tokio::test]
async fn on_a_bare_queue_the_worker_tells_whom_the_job_names() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    let server = Server::start(|number, _| server::status(if number < 2 { "500 Oh" } else { "200 OK" })).await;
    queue.answer("take", json(job(&server, "a"))).answer("done", status(503));
    let worker = worker(&queue, root.path(), Manners { send_timings: true, ..MANNERS }).await;
    queue.until("done", 1).await;
    assert_eq!(server.asked().len(), 0, "first the queue, then the others");
    queue.until("done", 2).await;
    // Draining waits for all attempts.
    assert_eq!(worker.stop().await, End::Drained);
    let asked = server.asked();
    assert_eq!((asked.len(), letters(root.path(), "webhooks")), (3, 0));
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
    let worker = worker(&queue, root.path(), MANNERS).await;
    let status = told(&server.until(1).await[0]);
    assert_eq!(worker.stop().await, End::Drained);
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
        let mut office = office(sink(&queue), spool(root.path()));
        office.webhooks.as_mut().unwrap().always = always;
        let worker = Worker::at(&queue, office, MANNERS).await;
        queue.until("done", 1).await;
        assert_eq!(worker.stop().await, End::Drained);
        assert_eq!(server.asked().len(), usize::from(always));
    }
}

#[tokio::test]
async fn a_webhook_that_is_under_way_survives_a_restart_under_its_id() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    let server = Server::start(|number, _| if number == 0 { Answer::Silence } else { server::status("200 OK") }).await;
    queue.answer("take", json(job(&server, "a")));
    let manners = Manners { drain: Duration::from_millis(200), ..MANNERS };
    let first = worker(&queue, root.path(), manners).await;
    server.until(1).await;
    assert_eq!(first.stop().await, End::Drained);
    assert_eq!((letters(root.path(), "results"), letters(root.path(), "webhooks")), (0, 1));

    let second = worker(&queue, root.path(), manners).await;
    let asked = server.until(2).await;
    assert_eq!(second.stop().await, End::Drained);
    assert_eq!((asked[0].header("webhook-id"), &asked[0].body), (asked[1].header("webhook-id"), &asked[1].body));
    assert_eq!((server.asked().len(), queue.asked("done").len(), letters(root.path(), "webhooks")), (2, 1, 0));
}

#[tokio::test]
async fn a_webhook_of_a_result_that_is_not_delivered_yet_waits_with_it() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    let server = Server::start(|_, _| server::status("200 OK")).await;
    queue.answer("take", json(job(&server, "a"))).answer("done", Reply::Hold);
    let manners = Manners { drain: Duration::from_millis(100), ..MANNERS };
    let first = worker(&queue, root.path(), manners).await;
    queue.until("done", 1).await;
    assert_eq!(first.stop().await, End::Drained);
    assert_eq!((server.asked().len(), letters(root.path(), "results"), letters(root.path(), "webhooks")), (0, 1, 1));

    let second = worker(&queue, root.path(), manners).await;
    queue.until("done", 2).await;
    server.until(1).await;
    assert_eq!(second.stop().await, End::Drained);
    assert_eq!((server.asked().len(), letters(root.path(), "results"), letters(root.path(), "webhooks")), (1, 0, 0));
}

#[tokio::test]
async fn a_worker_without_an_engine_leaves_webhooks_to_the_next() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    let server = Server::start(|_, _| Answer::Silence).await;
    let panic = json!({"id": "j2", "input": input("panic")});
    queue.answer("take", json(job(&server, "a"))).answer("take", json(panic));
    let worker = worker(&queue, root.path(), MANNERS).await;
    assert_eq!(worker.end().await, End::EngineLost);
    assert_eq!((queue.asked("done").len(), letters(root.path(), "webhooks")), (1, 1));
}

#[tokio::test]
async fn nobody_is_told_of_a_job_that_was_stopped() {
    for (prompt, route) in [("endless", "ping"), ("a", "done")] {
        let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
        let server = Server::start(|_, _| server::status("200 OK")).await;
        let now = Arc::new(Notify::new());
        let stop = json(json!({"jobsToStop": ["j1"]}));
        queue.answer("stop", Reply::After(Arc::clone(&now), Box::new(stop)));
        queue.answer("take", json(job(&server, prompt))).answer("done", Reply::Hold);
        let worker = worker(&queue, root.path(), MANNERS).await;
        queue.until("take", 1).await;
        let listed = |log: &Vec<crate::queue::Asked>| {
            log.iter().any(|asked| asked.route() == route && asked.path.contains("j1"))
        };
        queue.when(listed).await;
        now.notify_one();
        queue.until("take", 2).await;
        assert_eq!(worker.stop().await, End::Drained);
        assert_eq!((server.asked().len(), letters(root.path(), "webhooks")), (0, 0), "{prompt}");
    }
}
