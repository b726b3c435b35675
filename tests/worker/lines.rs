//! Every line of the log that is about a job names it.

use std::time::Duration;

use latentd::worker::{WorkerEnd, WorkerOptions};
use serde_json::{Value, json};

use crate::worker::engine::{OPTIONS, Worker, input, parts, sink};
use crate::worker::lasting::spool;
use crate::worker::log::Log;
use crate::worker::queue::{Queue, Reply, json, status};
use crate::worker::server::{self, Server};

/// How lines begin that are about no job, or about all of them.
const OF_THE_WORKER: [&str; 4] = [
    "no more jobs are taken",
    "worker.drain is over",
    "results that an earlier process left",
    "the queue hands out no batches",
];

/// Lines about jobs that the worker wrote, without those that it writes of itself.
fn of_jobs(log: &Log) -> Vec<Value> {
    let ours = |line: &Value| {
        let (target, text) = (line["target"].as_str().unwrap(), line["fields"]["message"].as_str().unwrap());
        let about = ["::worker", "::deliver"].iter().any(|part| target.contains(part));
        about && !OF_THE_WORKER.iter().any(|start| text.starts_with(start))
    };
    log.lines().into_iter().filter(ours).map(|mut line| line["fields"].take()).collect()
}

#[tokio::test]
async fn a_line_names_its_job_and_its_batch_wherever_it_comes_from() {
    let (log, _guard) = Log::of_this_thread();
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    let server = Server::start(|number, _| server::status(if number % 2 == 0 { "500 Oh" } else { "200 OK" })).await;
    let job = |prompt: &str, more: Value| {
        let webhook = json!({"url": server.url("/"), "headers": {"Host": "x"}});
        let mut job = json!({"id": "j1", "batchId": "b1", "input": input(prompt), "webhook": webhook});
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json(job)
    };
    // Sent again, too large, refused; out of time; with a part that does not arrive; not to be uploaded; given back; and the last is left.
    queue.answer("take", job("a", json!({})));
    queue.answer("done", status(503)).answer("done", status(413)).answer("done", status(404));
    queue.answer("take", job("endless", json!({"policy": {"executionTimeout": 50}})));
    let mut two = input("a");
    two["num_outputs"] = json!(2);
    queue.answer("take", job("a", json!({"input": two}))).answer("stream", status(404));
    let config = json!({"endpointUrl": server.url(""), "accessId": "a", "accessSecret": "b"});
    queue.answer("take", job("a", json!({"s3Config": config})));
    queue.answer("take", job("a", json!({})));
    for answer in [200, 200, 200] {
        queue.answer("done", status(answer));
    }
    queue.answer("done", Reply::Hold);
    let options = WorkerOptions { drain: Duration::from_millis(300), ..OPTIONS };
    let worker = Worker::at(&queue, parts(sink(&queue), spool(root.path())), options).await;
    queue.until("done", 7).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    // What is left can no longer be read when its turn comes.
    let parts = parts(sink(&queue), spool(root.path()));
    for entry in std::fs::read_dir(root.path().join("0/results")).unwrap() {
        std::fs::write(entry.unwrap().path(), "").unwrap();
    }
    queue.answer("take", job("endless", json!({"id": "j2"})));
    let worker = Worker::at(&queue, parts, options).await;
    queue.when(|log| log.iter().any(|asked| asked.path.contains("job_id=j2"))).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);

    let lines = of_jobs(&log);
    let (nameless, named): (Vec<&Value>, Vec<&Value>) =
        lines.iter().partition(|fields| fields["id"] != "j1" && fields["id"] != "j2");
    assert!(nameless.is_empty(), "{nameless:#?}");
    let said =
        |part: &str| named.iter().filter(|line| line["message"].as_str().unwrap().contains(part)).collect::<Vec<_>>();
    for (part, batch) in [
        ("Started.", "b1"),
        ("the job fails: ", "b1"),
        ("Finished.", "b1"),
        ("Given back.", "b1"),
        ("too large for the queue", "b1"),
        ("is not delivered: ", "b1"),
        ("is not delivered yet", "b1"),
        // Nothing beside the job's id is known where these are written.
        ("is sent again in", ""),
        ("is not streamed", ""),
        ("the webhook's header", ""),
        ("the webhook failed", ""),
        ("the webhook was taken", ""),
        ("is damaged", ""),
    ] {
        let lines = said(part);
        assert!(!lines.is_empty(), "no line has {part:?}: {}", log.text());
        assert!(lines.iter().all(|line| line["batch"].as_str().unwrap_or_default() == batch), "{part}: {lines:?}");
    }
}
