//! Results that outlive their worker, and disks that do not take them.

use std::fs;
use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use latentd::clock::SystemClock;
use latentd::deliver::results::Results;
use latentd::deliver::spool::Spool;
use latentd::deliver::{Payload, Sink, Undelivered};
use latentd::worker::{WorkerEnd, WorkerOptions};
use serde_json::json;
use tokio::runtime::{self, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::worker::engine::{OPTIONS, Worker, input, parts, sink};
use crate::worker::queue::{LONG, Queue, Reply, json, status};

pub(crate) fn spool(root: &Path) -> Spool {
    Spool::open(root, 1 << 30).unwrap()
}

/// How many entries of a kind lie in the spool.
pub(crate) fn entries(root: &Path, kind: &str) -> usize {
    fs::read_dir(root.join("0").join(kind)).unwrap().count()
}

/// A sink that never gets to its first post, and says that it should.
struct Stuck(Arc<Notify>);

impl Sink for Stuck {
    async fn done(&self, _: Payload) -> Result<(), Undelivered> {
        self.0.notify_one();
        pending().await
    }

    async fn progress(&self, _: &str, _: Vec<u8>) -> Result<(), Undelivered> {
        Ok(())
    }

    async fn part(&self, _: Payload) -> Result<(), Undelivered> {
        Ok(())
    }

    fn takes_parts(&self) -> bool {
        true
    }
}

/// Ends everything in it, wherever it is.
async fn kill(runtime: Runtime) {
    let mut killing = JoinSet::new();
    // It waits for what is on a thread just now.
    killing.spawn_blocking(|| runtime.shutdown_timeout(LONG));
    killing.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_worker_killed_before_its_first_post_posts_once_after_its_restart() {
    let (queue, root) = (Arc::new(Queue::start().await), tempfile::tempdir().unwrap());
    let mut two = input("a");
    two["num_outputs"] = json!(2);
    queue.job("j1", two);
    let reached = Arc::new(Notify::new());
    let life = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (there, stuck) = (Arc::clone(&queue), Stuck(Arc::clone(&reached)));
    let folder = root.path().to_owned();
    life.spawn(async move { Worker::at(&there, parts(stuck, spool(&folder)), OPTIONS).await.end().await });
    reached.notified().await;
    kill(life).await;
    assert_eq!((queue.asked("done").len(), entries(root.path(), "results")), (0, 1));

    let answered = Arc::new(Notify::new());
    queue.answer("done", Reply::After(Arc::clone(&answered), Box::new(status(200))));
    let worker = Worker::at(&queue, parts(sink(&queue), spool(root.path())), OPTIONS).await;
    queue.until("done", 1).await;
    // Until it is taken the queue hears that we have it, and a poll says so.
    let takes = queue.until("take", 2).await;
    assert!(takes[1].path.ends_with("job_in_progress=1"), "{takes:?}");
    let posted = queue.routes().len();
    queue.when(|log| log[posted..].iter().any(|asked| asked.path.contains("job_id=j1"))).await;
    answered.notify_one();
    queue.when(|log| log.last().is_some_and(|asked| asked.route() == "ping" && !asked.path.contains("j1"))).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    let [post] = &queue.asked("done")[..] else { panic!("{:?}", queue.routes()) };
    assert!(post.path.ends_with("/j1?gpu=X&isStream=true"), "{}", post.path);
    assert_eq!(post.json()["output"].as_array().unwrap().len(), 2);
    assert_eq!(entries(root.path(), "results"), 0);
}

#[tokio::test]
async fn what_is_not_delivered_when_draining_is_over_is_left_for_the_next_start() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    queue.job("j1", input("a")).answer("done", Reply::Hold);
    let options = WorkerOptions { drain: Duration::from_millis(100), ..OPTIONS };
    let worker = Worker::at(&queue, parts(sink(&queue), spool(root.path())), options).await;
    queue.until("done", 1).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    assert_eq!(entries(root.path(), "results"), 1);

    let worker = Worker::at(&queue, parts(sink(&queue), spool(root.path())), options).await;
    let posts = queue.until("done", 2).await;
    assert_eq!(posts[0].body, posts[1].body);
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    assert_eq!(entries(root.path(), "results"), 0);
}

#[tokio::test]
async fn a_job_that_is_stopped_while_it_is_delivered_leaves_nothing() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    let now = Arc::new(Notify::new());
    let stop = json(json!({"jobsToStop": ["j1"]}));
    queue.job("j1", input("a")).answer("done", Reply::Hold);
    queue.answer("stop", Reply::After(Arc::clone(&now), Box::new(stop)));
    let worker = Worker::at(&queue, parts(sink(&queue), spool(root.path())), OPTIONS).await;
    queue.until("done", 1).await;
    now.notify_one();
    queue.until("take", 2).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    assert_eq!((entries(root.path(), "results"), queue.asked("done").len()), (0, 1));
}

#[tokio::test]
async fn a_full_spool_takes_no_jobs_until_it_drains() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    let (left, _) = Results::open(&spool(root.path()), sink(&queue), Arc::new(SystemClock));
    drop(left.keep("j0", false, LONG, "{}".into()).await);
    drop(left);
    let taken = Arc::new(Notify::new());
    queue.answer("done", Reply::After(Arc::clone(&taken), Box::new(status(200)))).job("j1", input("a"));
    let tiny = Spool::open(root.path(), 1).unwrap();
    let worker = Worker::at(&queue, parts(sink(&queue), tiny), OPTIONS).await;
    queue.until("done", 1).await;
    queue.until("ping", 3).await;
    assert_eq!(queue.asked("take").len(), 0);
    taken.notify_one();
    // Its own result fills it as well, and is delivered all the same.
    queue.until("take", 2).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    assert_eq!((queue.asked("done").len(), entries(root.path(), "results")), (2, 0));
}

#[tokio::test]
async fn a_disk_that_takes_nothing_stops_nothing() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    let parts = parts(sink(&queue), spool(root.path()));
    // As when it is full: whatever is written fails.
    fs::remove_dir(root.path().join("0/results")).unwrap();
    fs::remove_dir(root.path().join("0/webhooks")).unwrap();
    queue.job("j1", input("a")).answer("done", status(500)).job("j2", input("b"));
    let worker = Worker::at(&queue, parts, OPTIONS).await;
    queue.until("take", 3).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    let posts = queue.asked("done");
    assert!(posts.len() == 3 && posts[0].body == posts[1].body, "{:?}", queue.routes());
}

#[tokio::test(start_paused = true)]
async fn a_result_is_delivered_when_its_queue_comes_back() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    for _ in 0..4 {
        queue.answer("done", Reply::Drop).answer("done", status(503)).answer("done", status(429));
    }
    let (results, _) = Results::open(&spool(root.path()), sink(&queue), Arc::new(SystemClock));
    let (body, began) = (br#"{"output":5}"#.as_slice(), Instant::now());
    let kept = results.keep("j1", true, Duration::from_mins(10), body.into()).await;
    results.post(&kept, body.into()).await.unwrap();
    kept.done().await;
    let posts = queue.asked("done");
    assert!(posts.iter().all(|post| post.body.as_bytes() == body && post.path.ends_with("isStream=true")), "{posts:?}");
    assert_eq!((posts.len(), entries(root.path(), "results")), (13, 0));
    assert!((100..400).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_result_that_nobody_waits_for_any_more_is_given_up() {
    let (queue, root) = (Queue::start().await, tempfile::tempdir().unwrap());
    for _ in 0..60 {
        queue.answer("done", Reply::Drop);
    }
    let (results, _) = Results::open(&spool(root.path()), sink(&queue), Arc::new(SystemClock));
    let (body, began) = (br#"{"output":5}"#.as_slice(), Instant::now());
    let kept = results.keep("j1", false, Duration::from_mins(10), body.into()).await;
    let failure = results.post(&kept, body.into()).await.unwrap_err();
    assert!(failure.tries > 20 && failure.why.contains("127.0.0.1"), "{failure:?}");
    assert!((560..=600).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}
