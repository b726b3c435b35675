//! Between the start of the process and its first job: what an earlier process left is seen to already.

use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use latentd::clock::SystemClock;
use latentd::deliver::results::Results;
use latentd::telemetry::Telemetry;
use latentd::telemetry::health::Phase;
use latentd::worker::WorkerEnd;
use tokio::sync::Notify;

use crate::worker::engine::{OPTIONS, Patient, Worker, parts, resources, sink};
use crate::worker::lasting::{entries, spool};
use crate::worker::queue::{LONG, Queue, Reply, status};

/// As an earlier process leaves the end of the job `j0`.
async fn leave(queue: &Queue, root: &Path, body: &'static str) {
    let (results, _) = Results::open(&spool(root), sink(queue), Arc::new(SystemClock));
    drop(results.keep("j0", false, LONG, body.into()).await);
}

#[tokio::test]
async fn what_was_left_is_sent_while_the_engine_loads() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    leave(&queue, root.path(), r#"{"output":5}"#).await;
    let (taken, loaded) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    queue.answer("done", Reply::After(Arc::clone(&taken), Box::new(status(200))));
    let load = Arc::clone(&loaded);
    let ready = async move {
        load.notified().await;
        Ok((resources(Patient::default()).await, OPTIONS))
    };
    let worker = Worker::when(&queue, parts(sink(&queue), spool(root.path())), Telemetry::default(), ready);
    queue.when(|log| log.iter().any(|asked| asked.route() == "ping" && asked.path.contains("job_id=j0"))).await;
    queue.until("done", 1).await;
    taken.notify_one();
    queue.when(|log| log.last().is_some_and(|asked| asked.route() == "ping" && !asked.path.contains("j0"))).await;
    assert_eq!((worker.telemetry.health.phase(), entries(root.path(), "results")), (Phase::Loading, 0));
    assert_eq!(queue.asked("take").len(), 0);
    loaded.notify_one();
    queue.until("take", 1).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
}

#[tokio::test]
async fn a_worker_that_cannot_work_sends_what_was_left_before_it_ends() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    leave(&queue, root.path(), r#"{"output":5}"#).await;
    let parts = parts(sink(&queue), spool(root.path()));
    let worker = Worker::when(&queue, parts, Telemetry::default(), async { Err("no device") });
    assert_eq!(worker.came_to().await, Err("no device"));
    assert_eq!((queue.asked("done").len(), entries(root.path(), "results")), (1, 0));
}

#[tokio::test]
async fn a_worker_that_cannot_work_waits_for_no_queue_without_end() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    leave(&queue, root.path(), r#"{"output":5}"#).await;
    queue.answer("done", Reply::Hold);
    let posted = Arc::new(Notify::new());
    let parts = parts(sink(&queue), spool(root.path()));
    let unfit = Arc::clone(&posted);
    let worker = Worker::when(&queue, parts, Telemetry::default(), async move {
        unfit.notified().await;
        Err("no device")
    });
    queue.until("done", 1).await;
    // Whatever it waits for from here on is over at once.
    tokio::time::pause();
    posted.notify_one();
    assert_eq!(worker.came_to().await, Err("no device"));
    assert_eq!(entries(root.path(), "results"), 1);
}

#[tokio::test]
async fn a_stop_while_the_engine_loads_leaves_the_rest_on_disk() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    leave(&queue, root.path(), r#"{"output":5}"#).await;
    queue.answer("done", Reply::Hold);
    let worker = Worker::when(&queue, parts(sink(&queue), spool(root.path())), Telemetry::default(), pending());
    queue.until("done", 1).await;
    let asked = tokio::time::Instant::now();
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    assert!(asked.elapsed() < Duration::from_mins(1), "{:?}", asked.elapsed());
    assert_eq!(entries(root.path(), "results"), 1);
}

#[tokio::test]
async fn a_successor_does_not_ask_to_be_replaced() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    leave(&queue, root.path(), r#"{"output":5,"stopPod":true}"#).await;
    let worker = Worker::at(&queue, parts(sink(&queue), spool(root.path())), OPTIONS).await;
    assert_eq!(queue.until("done", 1).await[0].body, r#"{"output":5}"#);
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
}
