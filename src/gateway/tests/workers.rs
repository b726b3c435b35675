//! What a gateway knows of workers: whose jobs they are, who is gone, whom to stop.

use super::*;

/// Each of them knows of its own job alone; to take their words for one worker's would fail jobs that are being worked on.
#[tokio::test(start_paused = true)]
async fn workers_that_share_an_id_do_not_forsake_each_other_s_jobs() {
    let house = TestGateway::new();
    let beat = async |named: &str| house.get(&format!("/ping/w?runpod_version=1.12.0&job_id={named}")).await;
    let idle = || house.asks("GET", "/job-take/w?job_in_progress=0", "");
    beat("").await;
    let health: Value = serde_json::from_str(&house.get("/health").await.1).unwrap();
    assert_eq!(health["warnings"], Value::Null);
    let mut polls = JoinSet::new();
    for _ in 0..3 {
        polls.spawn(idle());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let id = house.run(START).await;
    assert!(polls.join_next().await.unwrap().unwrap().1.contains(&id));
    for _ in 0..6 {
        // The two others: their heartbeats name nothing, and they poll again and again.
        beat("").await;
        house.clock.advance(Duration::from_secs(9));
        assert_eq!(idle().await.0, 204);
        beat(&id).await;
    }
    assert_eq!(
        (house.field(&id, "status").await, house.field(&id, "retries").await),
        ("IN_PROGRESS".into(), Value::Null)
    );
    let health: Value = serde_json::from_str(&house.get("/health").await.1).unwrap();
    assert!(health["warnings"][0].as_str().unwrap().contains("\"w\""), "{health}");
    house.post(&format!("/job-done/w/{id}"), r#"{"output":1}"#).await;
    assert_eq!(house.field(&id, "status").await, "COMPLETED");
}

/// No two polls are ever open at once: each begins while the ones before work.
#[tokio::test(start_paused = true)]
async fn workers_that_share_an_id_and_begin_one_after_another_do_not_take_each_other_s_jobs() {
    let house = TestGateway::new();
    let (first, second) = (house.run(START).await, house.run(START).await);
    let beat = async |named: &str| house.get(&format!("/ping/w?runpod_version=1.12.0&job_id={named}")).await;
    let warnings = async || serde_json::from_str::<Value>(&house.get("/health").await.1).unwrap()["warnings"].take();
    // Before a heartbeat has named any job.
    for id in [&first, &second] {
        beat("").await;
        assert_eq!(house.take("w").await, *id);
        house.clock.advance(Duration::from_secs(1));
    }
    for _ in 0..4 {
        beat("").await;
        assert_eq!(house.get("/job-take/w?job_in_progress=0").await.0, 204);
        house.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(warnings().await, Value::Null, "it may be one whose jobs did not arrive");
    beat(&first).await;
    assert!(warnings().await[0].as_str().unwrap().contains("\"w\""));
    for _ in 0..3 {
        beat(&first).await;
        beat(&second).await;
        house.clock.advance(Duration::from_secs(10));
        assert_eq!(house.get("/job-take/w?job_in_progress=0").await.0, 204);
    }
    for id in [&first, &second] {
        assert_eq!(
            (house.field(id, "status").await, house.field(id, "retries").await),
            ("IN_PROGRESS".into(), Value::Null)
        );
        house.post(&format!("/job-done/w/{id}"), r#"{"output":1}"#).await;
        assert_eq!(house.field(id, "status").await, "COMPLETED");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_of_a_worker_is_short() {
    let house = TestGateway::new();
    let (long, longest) = ("w".repeat(256), "w".repeat(255));
    for path in ["ping/", "job-take/", "job-take-batch/", "job-stop/"] {
        let (status, why) = house.get(&format!("/{path}{long}?")).await;
        assert!(status == 400 && why.contains("the worker's id should have at most 255 bytes"), "{status} {why}");
    }
    assert_eq!(house.post(&format!("/job-done/{long}/x"), r#"{"output":1}"#).await.0, 400);
    let word = "x".repeat(20_000);
    assert_eq!(house.get(&format!("/ping/{longest}?runpod_version={word}")).await.0, 200);
    let unfit = format!("/ping/{longest}?status=unhealthy&check={word}&reason={word}");
    assert_eq!(house.get(&unfit).await.0, 200);
    let known = house.gateway.registry.export("stable-diffusion-v1", &longest).unwrap();
    assert!(known.len() < 2000, "{}", known.len());
}

#[tokio::test(start_paused = true)]
async fn a_worker_hears_whom_to_stop() {
    let house = TestGateway::new();
    let (id, other) = (house.run(START).await, house.run(START).await);
    house.take("w1").await;
    house.take("w1").await;
    let (stops, cancelled) = tokio::join!(house.get("/job-stop/w1?gpu=X"), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        house.post(&format!("/cancel/{id}"), "").await
    });
    assert_eq!((stops, cancelled.0), ((200, format!(r#"{{"jobsToStop":["{id}"]}}"#)), 200));
    house.get(&format!("/ping/w1?job_id={id},{other}")).await;
    assert_eq!(house.get("/job-stop/w1?gpu=X").await, (204, String::new()), "it may be on its way");
    house.clock.advance(Duration::from_secs(15));
    house.get(&format!("/ping/w1?job_id={id},{other}")).await;
    assert_eq!(house.get("/job-stop/w1?gpu=X").await.1, format!(r#"{{"jobsToStop":["{id}"]}}"#), "it has not heard");
    assert_eq!(house.post(&format!("/job-done/w1/{id}"), r#"{"output": 1}"#).await.0, 200, "too late, and no error");
    assert_eq!(
        (house.field(&id, "status").await, house.field(&other, "status").await),
        ("CANCELLED".into(), "IN_PROGRESS".into())
    );
}

#[tokio::test(start_paused = true)]
async fn what_never_arrived_is_handed_out_again() {
    let house = TestGateway::new();
    let id = house.run(START).await;
    house.take("w1").await;
    for _ in 0..2 {
        assert_eq!(house.get("/ping/w1?gpu=X&runpod_version=1.12.0").await.0, 200);
        house.clock.advance(Duration::from_secs(11));
    }
    assert_eq!((house.field(&id, "status").await, house.field(&id, "retries").await), ("IN_QUEUE".into(), Value::Null));
    assert_eq!(house.take("w2").await, id);
}

#[tokio::test(start_paused = true)]
async fn a_lost_job_is_tried_once_more() {
    let house = TestGateway::new();
    let id = house.run(START).await;
    for worker in ["w1", "w2"] {
        assert_eq!(house.take(worker).await, id);
        let ping = format!("/ping/{worker}?gpu=X&job_id=other%2C{id}&runpod_version=1.12.0");
        assert_eq!(house.get(&ping).await.0, 200);
        house.pass(39).await;
        assert_eq!(
            house.field(&id, "status").await,
            if worker == "w1" { "IN_QUEUE" } else { "FAILED" },
            "its worker is gone"
        );
    }
    assert_eq!(house.field(&id, "error").await, "job timed out after 1 retries");
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_heartbeats_are_far_apart_is_not_gone_between_two() {
    let rules = crate::queue::Rules { lost_after: Duration::from_secs(200), ..crate::queue::Rules::default() };
    let house = TestGateway::with(GatewaySettings { rules, ..GatewaySettings::default() });
    let id = house.run(START).await;
    house.take("w1").await;
    let ping = format!("/ping/w1?job_id={id}&runpod_version=1.12.0");
    for _ in 0..3 {
        assert_eq!(house.get(&ping).await.0, 200);
        house.pass(60).await;
        assert_eq!(house.field(&id, "status").await, "IN_PROGRESS");
    }
    house.pass(91).await;
    assert_eq!(house.field(&id, "status").await, "IN_QUEUE", "silent for three quarters of the time of a lost job");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_another_gateway_hears_is_not_gone() {
    let house = TestGateway::new();
    let other = house.beside();
    let id = house.run(START).await;
    house.take("w1").await;
    let ping = format!("/ping/w1?job_id={id}&runpod_version=1.12.0");
    assert_eq!(house.get(&ping).await.0, 200);
    for _ in 0..5 {
        house.pass(10).await;
        assert_eq!(other.get(&ping).await.0, 200);
    }
    assert_eq!(house.field(&id, "status").await, "IN_PROGRESS");
    house.pass(31).await;
    assert_eq!(house.field(&id, "status").await, "IN_QUEUE", "now nobody does");
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_worker_went_with_the_gateway_before_is_tried_once_more() {
    let before = TestGateway::new();
    let id = before.run(START).await;
    assert_eq!(before.get("/ping/w1?runpod_version=1.12.0").await.0, 200);
    before.take("w1").await;
    let progress = r#"{"status": "IN_PROGRESS", "output": 1}"#;
    assert_eq!(before.post(&format!("/job-done/w1/{id}"), progress).await.0, 200);
    before.clock.advance(Duration::from_secs(100));
    let house = before.beside();
    drop(before);
    house.pass(39).await;
    assert_eq!(house.field(&id, "status").await, "IN_PROGRESS", "nobody could hear its worker");
    house.pass(1).await;
    assert_eq!(house.take("w1").await, id);
    assert_eq!(house.post(&format!("/job-done/w1/{id}"), progress).await.0, 200);
    // Another comes under its name again and again, and knows of no job.
    for _ in 0..3 {
        assert_eq!(house.get("/ping/w1?runpod_version=1.12.0").await.0, 200);
        house.pass(13).await;
        assert_eq!(house.field(&id, "status").await, "IN_PROGRESS");
    }
    house.pass(1).await;
    assert_eq!(house.field(&id, "status").await, "FAILED");
}

#[tokio::test(start_paused = true)]
async fn a_silent_worker_that_never_beat_has_its_execution_timeout() {
    let house = TestGateway::new();
    house.pass(30).await;
    let id = house.run(r#"{"input":{},"policy":{"executionTimeout":300000}}"#).await;
    house.take("w1").await;
    house.pass(299).await;
    assert_eq!(house.field(&id, "status").await, "IN_PROGRESS");
    house.pass(1).await;
    assert_eq!(house.field(&id, "status").await, "TIMED_OUT");
    assert_eq!(house.get("/job-stop/w1?gpu=X").await.1, format!(r#"{{"jobsToStop":["{id}"]}}"#));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_says_it_has_nothing_has_lost_what_it_had() {
    let house = TestGateway::new();
    let id = house.run(START).await;
    assert_eq!(house.get(&format!("/ping/w1?job_id={id}&runpod_version=1.12.0")).await.0, 200);
    house.take("w1").await;
    assert_eq!(house.get(&format!("/ping/w1?job_id={id}&runpod_version=1.12.0")).await.0, 200);
    // Held until no other worker under its id can have the job.
    house.clock.advance(Duration::from_secs(5));
    let ((status, job), ()) = tokio::join!(house.get("/job-take/w1?job_in_progress=0"), async {
        tokio::time::sleep(Duration::from_secs(14)).await;
        assert_eq!(house.field(&id, "retries").await, Value::Null);
        house.clock.advance(Duration::from_secs(15));
    });
    assert!(status == 200 && job.contains(&id), "the same, again: {job}");
    assert_eq!(house.field(&id, "retries").await, 1);
}
