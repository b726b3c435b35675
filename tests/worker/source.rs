//! The queue's answers, one by one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use latentd::source::{JobSource, NextPoll, QueueInfo, Taken};
use serde_json::json;
use tokio::select;
use tokio_util::sync::CancellationToken;

use crate::worker::engine::source;
use crate::worker::queue::{Queue, Reply, json, status, text};

/// What one poll comes to: ids of jobs, or what to do after an error.
async fn taken(reply: Reply) -> Result<Vec<Option<String>>, NextPoll> {
    let queue = Queue::start().await;
    // Known before: else a 404 is the end.
    queue.answer("take", status(204)).answer("take", reply);
    let source = source(&queue);
    let enough = CancellationToken::new();
    assert_eq!(source.take(1, false, &enough).await.unwrap(), Taken::default());
    let jobs = source.take(1, false, &enough).await.map_err(|cause| cause.next)?.jobs;
    Ok(jobs.into_iter().map(|job| job.map(|job| job.id).ok()).collect())
}

#[tokio::test]
async fn every_answer_to_a_poll_has_its_meaning() {
    let job = json!({"id": "j1", "input": {}});
    let jobs = Ok(vec![Some("j1".to_owned())]);
    let (nothing, again) = (Ok(vec![]), Err(NextPoll::Retry(Duration::ZERO)));
    assert_eq!(taken(status(204)).await, nothing);
    assert_eq!(taken(status(400)).await, Err(NextPoll::Nothing));
    assert_eq!(taken(status(429)).await, Err(NextPoll::Retry(Duration::from_secs(5))));
    let told = Reply::Answer { status: 429, kind: "", more: "Retry-After: 9\r\n", body: vec![] };
    assert_eq!(taken(told).await, Err(NextPoll::Retry(Duration::from_secs(9))));
    for error in [401, 403, 404, 500, 502, 503] {
        assert_eq!(taken(status(error)).await, again, "{error}");
    }
    assert_eq!(taken(Reply::Drop).await, again);
    assert_eq!(taken(json(job.clone())).await, jobs);
    assert_eq!(taken(json(json!([job]))).await, jobs);
    assert_eq!(taken(json(json!([]))).await, nothing);
    assert_eq!(taken(json(json!([{"input": 1}, job]))).await, Ok(vec![None, Some("j1".into())]));
    assert_eq!(taken(json(json!({"id": "j1"}))).await, Ok(vec![None]));
    let html = |body: &str| Reply::Answer { status: 200, kind: "text/html", more: "", body: body.into() };
    for garbage in [html(&job.to_string()), html(""), text(""), text("{"), text("5"), status(200)] {
        assert_eq!(taken(garbage).await, again);
    }
}

#[tokio::test]
async fn a_gateway_says_that_it_is_one_and_who_calls_webhooks() {
    let queue = Queue::start().await;
    let told = |more| Reply::Answer { status: 200, kind: "application/json", more, body: b"[]".to_vec() };
    for more in ["", "X-Latentd-Webhooks: gateway\r\n", "x-latentd-webhooks: worker\r\n"] {
        queue.answer("take", told(more));
    }
    let (source, enough) = (source(&queue), CancellationToken::new());
    for (gateway, calls_webhooks) in [(false, false), (true, true), (true, false)] {
        let queue = QueueInfo { gateway, calls_webhooks };
        assert_eq!(source.take(1, false, &enough).await.unwrap(), Taken { jobs: vec![], queue });
    }
}

#[tokio::test]
async fn a_redirect_is_followed_without_the_key() {
    let (queue, other) = (Queue::start().await, Queue::start().await);
    let more: &'static str = format!("Location: {}/job-take/x\r\n", other.base()).leak();
    queue.answer("take", Reply::Answer { status: 307, kind: "", more, body: vec![] });
    other.job("j1", json!({}));
    let jobs = source(&queue).take(1, false, &CancellationToken::new()).await.unwrap().jobs;
    assert_eq!(jobs.len(), 1);
    assert_eq!(queue.asked("take")[0].headers["authorization"], "KEY123");
    // Another port is another host.
    assert_eq!(other.asked("take")[0].headers.get("authorization"), None);
}

#[tokio::test]
async fn a_queue_that_never_was_there_is_the_end() {
    let queue = Queue::start().await;
    queue.answer("take", status(404));
    let error = source(&queue).take(1, false, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.next, NextPoll::Stop);
    assert!(error.why.contains("RUNPOD_WEBHOOK_GET_JOB"), "{}", error.why);
}

#[tokio::test]
async fn a_queue_without_batches_is_asked_for_one_job_at_a_time() {
    let queue = Queue::start().await;
    queue.answer("take-batch", status(404)).job("j1", json!({}));
    let (source, enough) = (source(&queue), CancellationToken::new());
    assert_eq!(source.take(3, false, &enough).await.unwrap_err().next, NextPoll::Again);
    assert_eq!(source.take(3, false, &enough).await.unwrap().jobs.len(), 1);
    assert_eq!(queue.asked("take")[0].path, "/v2/ep1/job-take/pod-abc?gpu=X&job_in_progress=0");
}

#[tokio::test]
async fn batches_that_worked_are_asked_for_again() {
    let queue = Queue::start().await;
    let job = json(json!([{"id": "j1", "input": {}}]));
    queue.answer("take-batch", status(204)).answer("take-batch", status(404)).answer("take-batch", job);
    let (source, enough) = (source(&queue), CancellationToken::new());
    assert_eq!(source.take(3, false, &enough).await.unwrap(), Taken::default());
    assert_eq!(source.take(3, false, &enough).await.unwrap_err().next, NextPoll::Retry(Duration::ZERO));
    assert_eq!(source.take(3, false, &enough).await.unwrap().jobs.len(), 1);
    assert_eq!(queue.asked("take-batch").len(), 3);
}

#[tokio::test]
async fn who_got_too_large_an_answer_asks_for_fewer_jobs() {
    let queue = Queue::start().await;
    let two = || json(json!([{"id": "j1", "input": {}}, {"id": "j2", "input": {}}]));
    let too_large = || Reply::Announced((256 << 20) + 1);
    queue.answer("take-batch", too_large()).answer("take-batch", too_large()).answer("take-batch", status(204));
    queue.answer("take-batch", two()).answer("take-batch", two());
    let (source, enough) = (source(&queue), CancellationToken::new());
    let mut said = Vec::new();
    for _ in 0..6 {
        let taken = source.take(9, false, &enough);
        said.push(taken.await.map(|taken| taken.jobs.len()).map_err(|cause| (cause.next, cause.why)));
        if said.len() == 5 {
            queue.answer("take-batch", too_large());
        }
    }
    let why = |jobs: usize| {
        let why = format!(
            "the answer for {jobs} jobs has more than 268435456 bytes and is not read: {} are asked for next",
            jobs / 2
        );
        Err((NextPoll::Retry(Duration::ZERO), why))
    };
    assert_eq!(said, [why(9), why(4), Ok(0), Ok(2), Ok(2), why(8)]);
    let asked = queue.asked("take-batch");
    let sizes = asked.iter().map(|asked| asked.path.split_once("batch_size=").unwrap().1.split_once('&').unwrap().0);
    assert_eq!(sizes.collect::<Vec<_>>(), ["9", "4", "2", "2", "4", "8"]);
}

#[tokio::test]
async fn a_poll_without_an_answer_is_no_empty_answer() {
    let queue = Queue::start().await;
    let (source, enough) = (source(&queue), CancellationToken::new());
    let silence = async {
        queue.until("take", 1).await;
        tokio::time::pause();
    };
    let error = tokio::join!(source.take(1, false, &enough), silence).0.unwrap_err();
    assert_eq!(error.next, NextPoll::Nothing);
    assert!(error.why.contains("90 s"), "{}", error.why);
}

#[tokio::test]
async fn a_poll_looks_like_the_sdk_s() {
    let queue = Queue::start().await;
    queue.answer("take", status(204));
    source(&queue).take(3, true, &CancellationToken::new()).await.unwrap();
    let asked = &queue.asked("take-batch")[0];
    assert_eq!(asked.method, "GET");
    assert_eq!(asked.path, "/v2/ep1/job-take-batch/pod-abc?gpu=X&batch_size=3&job_in_progress=1");
    let headers: Vec<(&str, &str)> =
        asked.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let address = queue.address.to_string();
    let expected = [
        ("accept", "*/*"),
        ("authorization", "KEY123"),
        ("content-type", "application/json"),
        ("host", &address),
        ("user-agent", concat!("latentd/", env!("CARGO_PKG_VERSION"))),
        ("x-latentd-take-bytes", "268435456"),
    ];
    assert_eq!(headers, expected);
}

#[tokio::test]
async fn an_open_poll_is_broken_off() {
    let queue = Queue::start().await;
    let (source, enough) = (source(&queue), CancellationToken::new());
    let poll = source.take(1, false, &enough);
    let stopper = async {
        queue.until("take", 1).await;
        enough.cancel();
    };
    assert_eq!(tokio::join!(poll, stopper).0.unwrap(), Taken::default());
    queue.until("gone take", 1).await;
}

#[tokio::test]
async fn heartbeats_list_what_is_held_and_survive_errors() {
    let queue = Queue::start().await;
    for reply in [status(500), Reply::Drop, status(404), status(204)] {
        queue.answer("ping", reply);
    }
    let source = source(&queue);
    let held = || vec!["c1".to_owned(), "c2".to_owned()];
    select! {
        pings = queue.until("ping", 6) => {
            let expected = format!(
                "/v2/ep1/ping/pod-abc?gpu=X&job_id=c1%2Cc2&runpod_version=latentd%2F{}", env!("CARGO_PKG_VERSION")
            );
            assert!(pings.iter().all(|ping| ping.path == expected && ping.method == "GET"), "{pings:?}");
            assert_eq!(pings[0].headers["authorization"], "KEY123");
        }
        never = source.heartbeat(held) => match never {},
    }
}

#[tokio::test]
async fn stops_are_heard_through_everything_else() {
    let queue = Queue::start().await;
    let listed = json(json!({"jobsToStop": ["c2", 5, "nope"]}));
    for reply in [status(204), text("<html>"), json(json!({"jobsToStop": []})), listed] {
        queue.answer("stop", reply);
    }
    let source = source(&queue);
    let stopped = Arc::new(Mutex::new(Vec::new()));
    select! {
        stops = queue.until("stop", 5) => {
            assert!(stops.iter().all(|stop| stop.path == "/v2/ep1/job-stop/pod-abc?gpu=X"), "{stops:?}");
        }
        never = source.watch_stops(|id| stopped.lock().unwrap().push(id.to_owned())) => match never {},
    }
    assert_eq!(*stopped.lock().unwrap(), ["c2", "nope"]);
}
