//! What one client can take of the gateway's memory.

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};

use super::*;
use crate::gateway::{ApiKey, Role};

const ROOM: usize = 1 << 20;

/// More than is small, and less than all the room.
const LARGE: usize = 600 << 10;

fn house() -> TestGateway {
    TestGateway::with(GatewaySettings { in_flight: ROOM, ..GatewaySettings::default() })
}

fn text() -> String {
    format!("\"{}\"", "x".repeat(LARGE))
}

impl TestGateway {
    /// A job that has ended with a large output. Returns its id.
    async fn large(&self) -> String {
        let id = self.run(r#"{"input":1}"#).await;
        self.take("w1").await;
        assert_eq!(self.post(&format!("/job-done/w1/{id}"), &format!(r#"{{"output":{}}}"#, text())).await.0, 200);
        id
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_job_holds_none_of_it() {
    let house = house();
    let id = house.run(&format!(r#"{{"input":{}}}"#, text())).await;
    let answers = || house.gateway.budgets.answers.free();
    let mut polls = JoinSet::new();
    for _ in 0..30 {
        polls.spawn(house.asks("GET", &format!("/status-sync/{id}?wait=300000"), ""));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((polls.len(), answers()), (30, ROOM), "nor does one wait for another");
    house.take("w1").await;
    assert_eq!(house.post(&format!("/job-done/w1/{id}"), &format!(r#"{{"output":{}}}"#, text())).await.0, 200);
    while let Some(polled) = polls.join_next().await {
        let (status, object) = polled.unwrap();
        assert!(status == 200 && object.len() > LARGE, "{status}: all are answered, in turn");
    }
    assert_eq!(answers(), ROOM);
}

#[tokio::test(start_paused = true)]
async fn jobs_that_their_workers_do_not_read_are_bounded_together() {
    let house = house();
    let job = format!(r#"{{"input":{}}}"#, text());
    let ids = [house.run(&job).await, house.run(&job).await];
    let unread = house.unread("/job-take/w1?", "*/*").await;
    assert_eq!(house.get("/job-take/w2?").await.0, 204, "its poll ends as ever");
    assert_eq!(house.field(&ids[1], "status").await, "IN_QUEUE");
    let ((status, jobs), ()) = tokio::join!(house.get("/job-take-batch/w2?batch_size=9"), async {
        tokio::time::sleep(Duration::from_secs(9)).await;
        drop(unread);
    });
    assert!(status == 200 && jobs.contains(&ids[1]));
    assert_eq!(house.gateway.budgets.takes.free(), ROOM);
    let mut polls = JoinSet::new();
    for worker in 0..9 {
        polls.spawn(house.asks("GET", &format!("/job-take/w{worker}?"), ""));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((polls.len(), house.gateway.budgets.takes.free()), (9, ROOM), "who waits for a job holds nothing");
}

#[tokio::test(start_paused = true)]
async fn answers_that_nobody_reads_are_bounded_together_and_small_ones_go_on() {
    let house = house();
    let (large, small) = (house.large().await, house.run(r#"{"input":1}"#).await);
    let status = format!("/status/{large}");
    let unread = house.unread(&status, "*/*").await;
    let began = tokio::time::Instant::now();
    let (code, refused) = house.get(&status).await;
    assert!(code == 503 && refused.contains("too much"), "{code} {refused}");
    assert!((40..50).contains(&began.elapsed().as_secs()), "after a while");
    assert_eq!(house.get(&format!("/status/{small}")).now_or_never().unwrap().0, 200);
    house.run(&format!(r#"{{"input":{}}}"#, text())).await;
    assert_eq!(house.large().await.len(), large.len(), "workers and those who submit have room of their own");
    let (read, ()) = tokio::join!(house.get(&status), async {
        tokio::time::sleep(Duration::from_secs(9)).await;
        drop(unread);
    });
    assert!(read.0 == 200 && read.1.len() > LARGE);
    assert_eq!(house.gateway.budgets.answers.free(), ROOM);
}

#[tokio::test(start_paused = true)]
async fn a_part_of_an_answer_that_is_still_to_be_written_holds_its_room() {
    let house = house();
    let id = house.large().await;
    let mut unread = house.unread(&format!("/status/{id}"), "*/*").await;
    let bytes = unread.next().await.unwrap().unwrap();
    drop(unread);
    let held = ROOM - house.gateway.budgets.answers.free();
    assert!(held >= LARGE, "its connection may have it for long: {held}");
    drop(bytes);
    assert_eq!(house.gateway.budgets.answers.free(), ROOM);
}

#[tokio::test(start_paused = true)]
async fn an_event_is_made_when_the_one_before_is_taken() {
    let house = house();
    let id = house.run(r#"{"input":1}"#).await;
    house.take("w1").await;
    for _ in 0..3 {
        assert_eq!(house.post(&format!("/job-stream/w1/{id}"), &format!(r#"{{"output":{}}}"#, text())).await.0, 200);
    }
    let mut events = house.unread(&format!("/stream/{id}"), "text/event-stream").await;
    let free = || house.gateway.budgets.answers.free();
    assert_eq!(free(), ROOM, "nothing was asked for yet");
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let part: Bytes = events.next().await.unwrap().unwrap();
        if part.len() > LARGE {
            assert!(part.starts_with(b"event: chunk\ndata: ") && part.ends_with(b"\n\n"));
            assert!((LARGE..ROOM).contains(&(ROOM - free())), "of one chunk: {}", ROOM - free());
            seen.push(part.len());
        }
        drop(part);
        assert_eq!(free(), ROOM);
    }
    assert_eq!(house.post(&format!("/job-done/w1/{id}"), r#"{"output":[]}"#).await.0, 200);
    let mut rest = String::new();
    while let Some(part) = events.next().await {
        rest.push_str(std::str::from_utf8(&part.unwrap()).unwrap());
    }
    assert!(rest.matches("COMPLETED").count() == 1 && rest.ends_with("\n\n") && !rest.contains("chunk"), "{rest}");
}

#[tokio::test(start_paused = true)]
async fn chunks_are_not_lost_when_there_is_no_room_for_them() {
    let house = house();
    let id = house.run(r#"{"input":1}"#).await;
    house.take("w1").await;
    house.post(&format!("/job-stream/w1/{id}"), &format!(r#"{{"output":{}}}"#, text())).await;
    let all = house.gateway.budgets.answers.reserve(ROOM).await.unwrap();
    // It waits for longer than a reply may be silent.
    let (status, refused) = house.get(&format!("/stream/{id}")).await;
    assert!(status == 200 && refused.contains(r#""status":"IN_PROGRESS""#) && refused.contains("error"), "{refused}");
    drop(all);
    let (status, chunks) = house.get(&format!("/stream/{id}")).await;
    assert!(status == 200 && chunks.len() > LARGE);
    assert_eq!(house.gateway.budgets.answers.free(), ROOM);
}

#[tokio::test(start_paused = true)]
async fn between_events_there_are_signs_of_life() {
    let house = house();
    let id = house.run(r#"{"input":1}"#).await;
    let mut events = house.unread(&format!("/stream/{id}"), "text/event-stream").await;
    let began = tokio::time::Instant::now();
    while events.next().await.unwrap().unwrap() != ":\n\n" {}
    assert_eq!(began.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn uploads_that_never_end_keep_nobody_from_large_jobs_and_no_worker_from_its_result() {
    let house = house();
    let endless = |comes: usize| {
        let parts = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![b' '; comes]))]);
        let request = Request::post("/v2/stable-diffusion-v1/run").header("content-length", LARGE);
        let body = Body::from_stream(parts.chain(futures_util::stream::pending()));
        Box::pin(house.sends(request.body(body).unwrap()))
    };
    let job = format!(r#"{{"input":{}}}"#, text());
    let mut heads: Vec<_> = (0..90).map(|_| endless(9)).collect();
    assert!(heads.iter_mut().all(|head| head.now_or_never().is_none()));
    assert_eq!(house.gateway.budgets.jobs.free(), ROOM, "what has not come takes none");
    house.run(&job).await;
    let mut stalled = endless(LARGE / 2);
    assert!(stalled.as_mut().now_or_never().is_none() && house.gateway.budgets.jobs.free() < LARGE);
    house.large().await;
    let began = tokio::time::Instant::now();
    let ((status, refused), _) = tokio::join!(stalled, house.run(&job));
    assert!(status == 503 && refused.contains("too much"), "{refused}");
    assert!(began.elapsed().as_secs() <= 6, "it held what another waited for: {:?}", began.elapsed());
    assert_eq!(house.gateway.budgets.jobs.free(), ROOM, "given back once it is kept");
    assert_eq!(house.gateway.budgets.results.free(), ROOM);
}

#[tokio::test(start_paused = true)]
async fn who_reads_none_of_its_answers_keeps_no_other_key_from_its_own() {
    let keys = ["evil", "good"].map(|key| ApiKey::new(key, Role::User, None));
    let house = TestGateway::with(GatewaySettings {
        in_flight: 3 << 20,
        keys: [&keys[..], &[ApiKey::new("work", Role::Worker, None)]].concat(),
        ..GatewaySettings::default()
    });
    let ask = |key: &str, method: &str, path: &str, body: &str| {
        let request = Request::builder().method(method).uri(format!("/v2/stable-diffusion-v1{path}"));
        house.sends(request.header("authorization", key).body(Body::from(body.to_owned())).unwrap())
    };
    let id: Value = serde_json::from_str(&ask("good", "POST", "/run", r#"{"input":1}"#).await.1).unwrap();
    let id = id["id"].as_str().unwrap();
    ask("work", "GET", "/job-take/w1", "").await;
    ask("work", "POST", &format!("/job-done/w1/{id}"), &format!(r#"{{"output":{}}}"#, text())).await;
    let status = format!("/status/{id}");
    let mut unread = JoinSet::new();
    for _ in 0..30 {
        let request = Request::get(format!("/v2/stable-diffusion-v1{status}")).header("authorization", "evil");
        let asks = service(&house.gateway).oneshot(request.body(Body::empty()).unwrap());
        unread.spawn(peer::on_connection(None, ConnectionActivity::default(), async move {
            let _unread = asks.await.unwrap();
            std::future::pending::<()>().await;
        }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let free = house.gateway.budgets.answers.free();
    assert!(free >= 3 << 19, "{free}");
    let (status, object) = tokio::time::timeout(Duration::from_secs(9), ask("good", "GET", &status, "")).await.unwrap();
    assert!(status == 200 && object.len() > LARGE);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_memory_is_told_so_when_the_gateway_closes() {
    let house = house();
    let id = house.large().await;
    let _all = house.gateway.budgets.answers.reserve(ROOM).await.unwrap();
    let began = tokio::time::Instant::now();
    let status = format!("/status/{id}");
    let (waited, ()) = tokio::join!(house.get(&status), async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        house.gateway.closing.cancel();
    });
    assert_eq!((waited.0, began.elapsed().as_secs()), (503, 2));
}

#[tokio::test(start_paused = true)]
async fn of_very_many_complaints_few_are_told() {
    let usual = GatewaySettings::default();
    let handler = crate::gateway::Handler::Latentd { models: None, contract: crate::job::Contract::Sd1 };
    let endpoints = usual
        .endpoints
        .iter()
        .map(|endpoint| crate::gateway::Endpoint { handler: handler.clone(), ..endpoint.clone() });
    let house = TestGateway::with(GatewaySettings { endpoints: endpoints.collect(), ..usual });
    let keys: Vec<String> = (0..100_000).map(|number| format!("\"{number}{}\":[]", "k".repeat(50))).collect();
    let (status, reply) = house.post("/run", &format!(r#"{{"input":{{"prompt":"p",{}}}}}"#, keys.join(","))).await;
    assert!(status == 400 && reply.len() < 10_000, "{status} {}", reply.len());
    let errors: Value = serde_json::from_str(&reply).unwrap();
    assert_eq!(errors["errors"][20], "and 99980 more.");
    let (status, reply) = house.post("/run", &format!(r#"{{"input":{{}},{}}}"#, keys.join(","))).await;
    assert!(status == 400 && reply.contains("at most 1024 keys"), "{status} {reply}");
}
