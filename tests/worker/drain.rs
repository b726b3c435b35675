//! A worker that is told to stop.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use latentd::deliver::spool::Spool;
use latentd::engine::fake::Fake;
use latentd::job::Delivered;
use latentd::source::{JobSource, QueueInfo, TakeError, Taken};
use latentd::stop::Stop;
use latentd::telemetry::Telemetry;
use latentd::telemetry::health::Phase;
use latentd::worker::{WorkerEnd, WorkerOptions, work};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::worker::engine::{OPTIONS, Worker, input, parts, resources, sink};
use crate::worker::queue::{Queue, Reply, status};

#[tokio::test]
async fn an_idle_worker_breaks_its_poll_off_and_ends() {
    let queue = Queue::start().await;
    let worker = Worker::start(&queue, OPTIONS).await;
    queue.until("take", 1).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    queue.until("gone take", 1).await;
    assert_eq!((queue.asked("take").len(), queue.asked("done").len()), (1, 0));
}

#[tokio::test]
async fn a_busy_worker_takes_no_more_and_delivers_what_it_has() {
    let queue = Queue::start().await;
    queue.job("j1", input("endless")).answer("done", status(500));
    let worker = Worker::start(&queue, WorkerOptions { slots: 2, ..OPTIONS }).await;
    queue.until("take", 1).await;
    worker.stop.draining.cancel();
    queue.until("gone take", 1).await;
    // It lives, and says so, until the last is delivered.
    let pings = queue.asked("ping").len();
    queue.until("ping", pings + 3).await;
    worker.hand.release();
    assert_eq!(worker.end().await, WorkerEnd::Drained);
    let last = queue.asked("done").pop().unwrap().json();
    assert!(last["output"][0]["seed"] == 7, "{last}");
    assert_eq!(queue.asked("take").len() + queue.asked("take-batch").len(), 2);
}

#[tokio::test]
async fn what_is_not_done_in_time_is_given_back_without_a_word() {
    for signals in [1, 2] {
        let queue = Queue::start().await;
        queue.job("j1", input("endless"));
        let drain = Duration::from_millis(if signals == 1 { 100 } else { 100_000 });
        let worker = Worker::start(&queue, WorkerOptions { drain, ..OPTIONS }).await;
        queue.when(|log| log.iter().any(|asked| asked.path.contains("job_id=j1"))).await;
        worker.stop.draining.cancel();
        if signals == 2 {
            worker.stop.now.cancel();
        }
        assert_eq!(worker.end().await, WorkerEnd::Drained);
        assert_eq!(queue.asked("done").len(), 0);
    }
}

#[tokio::test]
async fn a_delivery_is_not_waited_for_without_end() {
    let queue = Queue::start().await;
    queue.job("j1", input("a")).answer("done", Reply::Hold);
    let worker = Worker::start(&queue, WorkerOptions { drain: Duration::from_millis(100), ..OPTIONS }).await;
    queue.until("done", 1).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
}

/// A queue that hands a job out in the moment in which it is told that it is enough.
struct Late(Arc<AtomicUsize>);

impl JobSource for Late {
    async fn take(&self, _: usize, _: bool, enough: &CancellationToken) -> Result<Taken, TakeError> {
        enough.cancelled().await;
        let job = Delivered::from_value(json!({"id": "late", "input": input("a")}));
        Ok(Taken { jobs: vec![job], queue: QueueInfo::default() })
    }

    async fn heartbeat(&self, held: impl Fn() -> Vec<String> + Send + Sync) -> Infallible {
        loop {
            self.0.fetch_add(held().len(), Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
    }

    async fn watch_stops(&self, _: impl Fn(&str) + Send + Sync) -> Infallible {
        pending().await
    }
}

#[tokio::test]
async fn a_job_that_comes_while_draining_is_given_back() {
    let queue = Queue::start().await;
    let (stop, listed) = (Stop::default(), Arc::new(AtomicUsize::new(0)));
    let ready = async || Ok::<_, Infallible>((resources(Fake::default()).await, OPTIONS));
    let there = || (Late(Arc::clone(&listed)), parts(sink(&queue), Spool::in_memory(1)), Telemetry::default());
    stop.draining.cancel();
    let (source, parts, telemetry) = there();
    assert_eq!(work(&source, parts, telemetry, ready(), stop).await, Ok(WorkerEnd::Drained));
    let stop = Stop::default();
    let (source, parts, telemetry) = there();
    let worker = work(&source, parts, telemetry.clone(), ready(), stop.clone());
    let stopper = async {
        while telemetry.health.phase() != Phase::Ready {
            tokio::task::yield_now().await;
        }
        stop.draining.cancel();
    };
    assert_eq!(tokio::join!(worker, stopper).0, Ok(WorkerEnd::Drained));
    assert_eq!((queue.routes(), listed.load(Ordering::SeqCst)), (vec![], 0));
}
