//! What workers see.

use super::*;

const START: &str = r#"{"input":{"prompt":"p"},"webhook":"https://a.example","s3Config":{"accessId":"a"}}"#;

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
    assert!(status == 200 && job.contains(&id), "the same, anew: {job}");
    assert_eq!(house.field(&id, "retries").await, 1);
}

#[tokio::test(start_paused = true)]
async fn who_is_to_be_started_anew_or_is_not_fit_gets_no_job() {
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
async fn open_polls_of_who_is_to_be_started_anew_end_at_once() {
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

#[tokio::test(start_paused = true)]
async fn a_result_that_cannot_be_kept_fails_its_job_with_the_reason() {
    let house = TestGateway::with(GatewaySettings { max_result: 50, ..GatewaySettings::default() });
    for (body, code, says) in
        [("x".repeat(51), 413, "larger than 50 bytes"), ("{\"output\"".into(), 400, "could not be read")]
    {
        let id = house.run(START).await;
        house.take("w1").await;
        let (status, reply) = house.post(&format!("/job-done/w1/{id}?isStream=false"), &body).await;
        assert!(status == code && reply.contains(says), "{status} {reply}");
        assert_eq!(house.field(&id, "status").await, "FAILED");
        assert!(house.field(&id, "error").await.as_str().unwrap().contains(says));
    }
    let id = house.run(START).await;
    house.take("w1").await;
    assert_eq!(house.post(&format!("/job-done/w1/{id}"), r#"{"output": {"x": NaN}}"#).await.0, 200);
    assert_eq!(house.field(&id, "output").await["x"], Value::Null);
}
