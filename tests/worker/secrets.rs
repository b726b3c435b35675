//! What a worker says of its work, at its most talkative.

use latentd::worker::{WorkerEnd, WorkerOptions};
use serde_json::{Value, json};
use tracing::level_filters::LevelFilter;

use crate::worker::engine::{OPTIONS, Worker, input, parts, sink};
use crate::worker::lasting::spool;
use crate::worker::log::Log;
use crate::worker::queue::{Asked, Queue, json, status};
use crate::worker::server::{self, Server};

/// In every place of a job that can hold a secret there is this.
const SECRET: &str = "priv4te";

/// What a PNG begins with in base64.
const PNG: &str = "iVBORw0KGgo";

fn job(id: &str, server: &Server, changes: &Value) -> Value {
    let mut input = input(&format!("{SECRET} prompt"));
    input["negative_prompt"] = json!(format!("{SECRET} negative"));
    let mut job = json!({
        "id": id,
        "input": input,
        "webhook": {"url": server.url("/priv4te?priv4te"), "headers": {"Authorization": SECRET, "Bad\n": SECRET, "Host": SECRET}},
        "s3Config": {"endpointUrl": server.url(""), "accessId": SECRET, "accessSecret": SECRET, "bucketName": "b"},
        "more": SECRET,
    });
    for (key, value) in changes.as_object().unwrap() {
        let inside = ["init_image", "num_outputs"].contains(&key.as_str());
        *if inside { &mut job["input"][key] } else { &mut job[key] } = value.clone();
    }
    job
}

/// The log is that of every test that runs meanwhile, none of which may tell either.
#[tokio::test]
async fn no_log_holds_a_secret_or_an_image() {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(move || writer.clone());
    lines.init();

    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    // Every other call of the receiver and of the storage fails.
    let server = Server::start(|number, request| match number % 2 {
        0 => server::said("500 Oh", &format!("<Code>{SECRET}</Code>{}", request.target)),
        _ => server::status("200 OK"),
    })
    .await;
    let picture = format!("{PNG}priv4te");
    for (id, changes) in [
        ("j1", json!({})),
        ("j2", json!({"s3Config": null, "num_outputs": 2})),
        (
            "j3",
            json!({"s3Config": {"endpointUrl": "http://priv4te:priv4te@priv4te?priv4te", "accessId": SECRET, "accessSecret": SECRET}}),
        ),
        ("j4", json!({"init_image": format!("{}/priv4te.png?priv4te", server.url(""))})),
        ("j5", json!({"init_image": picture})),
        ("j6", json!({"webhook": "http://priv4te:priv4te@10.0.0.1/priv4te"})),
        ("j7", json!({"webhook": "ftp://me:priv4te@h/priv4te"})),
    ] {
        queue.answer("take", json(job(id, &server, &changes)));
    }
    for failure in [500, 429, 413, 404] {
        queue.answer("done", status(failure));
    }
    let parts = parts(sink(&queue), spool(root.path()));
    let worker = Worker::at(&queue, parts, WorkerOptions { slots: 2, ..OPTIONS }).await;
    let posted =
        |log: &Vec<Asked>, id: &str| log.iter().any(|asked| asked.route() == "done" && asked.path.contains(id));
    queue.when(|log| (1..=7).all(|n| posted(log, &format!("/j{n}?")))).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);

    let log = log.text();
    for word in ["j1", "j7", "Finished.", "webhook", "upload"] {
        assert!(log.contains(word), "the log says nothing of {word}: {log}");
    }
    for word in [SECRET, PNG, "KEY123", "MfKQ9r8"] {
        let told: Vec<&str> = log.lines().filter(|line| line.contains(word)).collect();
        assert!(told.is_empty(), "{told:#?}");
    }
}
