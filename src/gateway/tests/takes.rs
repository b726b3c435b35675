//! How workers take jobs: polls, batches, how much they read.

use super::super::WebhookCaller;
use super::*;
use crate::net::{Client, Guard};

#[tokio::test(start_paused = true)]
async fn a_job_comes_as_it_was_sent_and_says_how_long_it_waited() {
    let house = TestGateway::new();
    let id = house.run(START).await;
    house.clock.advance(Duration::from_millis(40));
    let job = format!(
        r#"{{"delayTime":40,"id":"{id}","input":{{"prompt":"p"}},"s3Config":{{"accessId":"a"}},"webhook":"https://a.example"}}"#
    );
    assert_eq!(house.get("/job-take/w1&job_in_progress=0").await, (200, job), "a path without `?`");
    assert_eq!(house.get("/job-take/w1?gpu=X&job_in_progress=1").await, (204, String::new()));
}

#[tokio::test(start_paused = true)]
async fn jobs_come_with_who_calls_webhooks() {
    let client = Client::new(Guard::new(Vec::new())).unwrap();
    for (webhooks, caller) in
        [(None, "worker"), (Some(WebhookCaller { client, signer: None, cancelled: true }), "gateway")]
    {
        let house = TestGateway::with(GatewaySettings { webhooks, ..GatewaySettings::default() });
        for path in ["/job-take/w1", "/job-take-batch/w1?batch_size=9"] {
            house.run(START).await;
            let headers = house.head(request("GET", path, &[], "")).await;
            assert_eq!(headers["x-latentd-webhooks"], caller, "{path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn polls_wake_for_a_job_each_the_longest_waiting_first() {
    let house = TestGateway::new();
    let mut polls = JoinSet::new();
    let (first, second) = (house.asks("GET", "/job-take/w1?", ""), house.asks("GET", "/job-take/w2?", ""));
    polls.spawn(first);
    tokio::time::sleep(Duration::from_millis(5)).await;
    polls.spawn(second);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let id = house.run(START).await;
    let (status, job) = polls.join_next().await.unwrap().unwrap();
    assert!(status == 200 && job.contains(&id), "{job}");
    assert_eq!(house.field(&id, "workerId").await, "w1");
    let id = house.run(START).await;
    assert!(polls.join_next().await.unwrap().unwrap().1.contains(&id));
    assert_eq!(house.field(&id, "workerId").await, "w2");
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_what_waits() {
    let house = TestGateway::new();
    let ids = [house.run(START).await, house.run(START).await, house.run(START).await];
    let (_, jobs) = house.get("/job-take-batch/w1?gpu=X&batch_size=2&job_in_progress=0").await;
    let jobs: Vec<Value> = serde_json::from_str(&jobs).unwrap();
    assert_eq!(jobs.iter().map(|job| job["id"].as_str().unwrap()).collect::<Vec<_>>(), ids[..2]);
    let (_, jobs) = house.get("/job-take-batch/w1?gpu=X&batch_size=9&job_in_progress=0").await;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&jobs).unwrap().len(), 1, "it is not waited for more");
}

/// What is too large for a worker to read never arrives, and comes to nothing after a few times.
#[tokio::test(start_paused = true)]
async fn a_batch_is_no_larger_than_its_worker_reads() {
    let house = TestGateway::new();
    let large = format!(r#"{{"input":"{}"}}"#, "x".repeat(9 << 20));
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(house.run(&large).await);
    }
    for wanted in [&ids[..3], &ids[3..]] {
        let (_, jobs) = house.get("/job-take-batch/w1?batch_size=65").await;
        let jobs: Vec<Value> = serde_json::from_str(&jobs).unwrap();
        assert_eq!(jobs.iter().map(|job| job["id"].as_str().unwrap()).collect::<Vec<_>>(), wanted);
    }
}

/// One worker's word must not fail what others can read.
#[tokio::test(start_paused = true)]
async fn a_worker_that_reads_less_than_a_job_may_have_is_refused_and_its_jobs_wait() {
    let house = TestGateway::new();
    let reads = |path: &str, bytes: &str| {
        let request = Request::builder().uri(format!("/v2/stable-diffusion-v1{path}"));
        house.sends(request.header("x-latentd-take-bytes", bytes).body(Body::empty()).unwrap())
    };
    let (id, least) = (house.run(START).await, (20 << 20) + (64 << 10));
    for path in ["/job-take/w1", "/job-take-batch/w1?batch_size=9"] {
        for bytes in ["0", "1", "-1", "all", &(least - 1).to_string()] {
            let (status, why) = reads(path, bytes).await;
            let says = format!("x-latentd-take-bytes should be a number of bytes, {least} at least");
            assert!(status == 400 && why.contains(&says), "{status} {why}");
        }
    }
    assert_eq!(house.field(&id, "status").await, "IN_QUEUE");
    assert!(reads("/job-take/w1", &least.to_string()).await.1.contains(&id));
}

/// As a gateway on the same queue that takes larger jobs may have queued it.
#[tokio::test(start_paused = true)]
async fn a_job_that_its_worker_would_not_read_fails_with_its_size() {
    for path in ["/job-take/w1", "/job-take-batch/w1?batch_size=9"] {
        let first = TestGateway::new();
        let house = first.beside_with(GatewaySettings { max_input: (1000, 1000), ..GatewaySettings::default() });
        let reads = |bytes: usize| {
            let request = Request::builder().uri(format!("/v2/stable-diffusion-v1{path}"));
            house.sends(request.header("x-latentd-take-bytes", bytes).body(Body::empty()).unwrap())
        };
        let large = first.run(&format!(r#"{{"input":"{}"}}"#, "x".repeat(100_000))).await;
        let (status, jobs) = house.get(path).await;
        assert!(status == 200 && jobs.contains(&large), "who says nothing gets it");
        for _ in 0..2 {
            house.get("/ping/w1").await;
            house.clock.advance(Duration::from_secs(11));
        }
        let small = house.run(r#"{"input":"x"}"#).await;
        let (status, jobs) = reads(80_000).await;
        assert!(status == 200 && jobs.contains(&small) && !jobs.contains(&large), "{jobs}");
        let error = house.field(&large, "error").await;
        let error = error.as_str().unwrap_or_default();
        assert_eq!(house.field(&large, "status").await, "FAILED");
        assert!(
            error.starts_with("the job is too large: it has 100") && error.ends_with("its worker reads 80000 at most")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_to_be_restarted_or_is_not_fit_gets_no_job() {
    let house = TestGateway::new();
    let id = house.run(START).await;
    house.take("w1").await;
    assert_eq!(house.post(&format!("/job-done/w1/{id}"), r#"{"output": 1, "stopPod": true}"#).await.0, 200);
    assert_eq!(house.get("/ping/w2?status=unhealthy&check=disk&reason=full&runpod_version=1").await.0, 200);
    let id = house.run(START).await;
    for worker in ["w1", "w2"] {
        assert_eq!(house.get(&format!("/job-take/{worker}?job_in_progress=0")).await.0, 204, "{worker}");
    }
    assert_eq!(house.take("w3").await, id);
    assert!(house.get("/health").await.1.contains(r#""unhealthy":1"#));
}

#[tokio::test(start_paused = true)]
async fn open_polls_of_who_is_to_be_restarted_end_at_once() {
    let house = TestGateway::new();
    let id = house.run(START).await;
    house.take("w1").await;
    let began = tokio::time::Instant::now();
    let polls = async { tokio::join!(house.get("/job-take/w1?job_in_progress=1"), house.get("/job-stop/w1?")) };
    let (polls, done) = tokio::join!(polls, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        house.post(&format!("/job-done/w1/{id}"), r#"{"output": 1, "stopPod": true}"#).await
    });
    assert_eq!((polls.0.0, polls.1.0, done.0), (204, 204, 200));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(house.get("/job-take/w1?job_in_progress=0").await.0, 204);
    assert!(began.elapsed() > Duration::from_secs(20), "what it asks later is held");
}
