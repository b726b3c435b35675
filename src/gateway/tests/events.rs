//! How clients follow a job: a wait, a stream of events, what is said after the head.

use super::*;

#[tokio::test(start_paused = true)]
async fn who_waits_knows_the_job_at_once() {
    let house = TestGateway::new();
    let head = house.head(request("POST", "/runsync", &[], r#"{"input":1}"#)).await;
    let id = head["x-job-id"].to_str().unwrap();
    assert_eq!(house.field(id, "status").await, "IN_QUEUE");
    let key = [("idempotency-key", "k")];
    let ids = [0, 1].map(|_| house.head(request("POST", "/runsync", &key, r#"{"input":1}"#)));
    let [one, two] = ids;
    assert_eq!(one.await["x-job-id"], two.await["x-job-id"]);
    // Once its result is no longer kept, nothing would come of waiting for it.
    for id in [house.take("w1").await, house.take("w1").await] {
        house.post(&format!("/job-done/w1/{id}"), r#"{"output":1}"#).await;
    }
    house.pass(301).await;
    assert_eq!(house.sends(request("POST", "/runsync", &key, r#"{"input":1}"#)).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn events_tell_a_job_s_way_and_end_with_it() {
    let house = TestGateway::new();
    let id = house.run(r#"{"input":1}"#).await;
    let path = format!("/stream/{id}");
    let events = house.sends(request("GET", &path, &[("accept", "text/event-stream")], ""));
    let work = async {
        house.take("w1").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        house.post(&format!("/job-done/w1/{id}"), r#"{"status":"IN_PROGRESS","output":0.5}"#).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        house.post(&format!("/job-stream/w1/{id}"), r#"{"output":"a"}"#).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        house.post(&format!("/job-done/w1/{id}"), r#"{"output":["a"]}"#).await;
    };
    let ((status, events), ()) = tokio::join!(events, work);
    assert_eq!(status, 200);
    let told: Vec<(&str, Value)> = events
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("event: ")?.split_once("\ndata: "))
        .map(|(name, data)| (name, serde_json::from_str(data).unwrap()))
        .collect();
    let brief: Vec<String> =
        told.iter().map(|(name, data)| format!("{name} {} {}", data["status"], data["output"])).collect();
    let end = r#"status "COMPLETED" ["a"]"#;
    let begin = [r#"status "IN_QUEUE" null"#, r#"status "IN_PROGRESS" null"#, r#"status "IN_PROGRESS" 0.5"#];
    assert_eq!(brief, [&begin[..], &[r#"chunk null "a""#, end]].concat());
    let head = house.head(request("GET", &path, &[("accept", "text/event-stream")], "")).await;
    assert_eq!(head["x-accel-buffering"], "no", "or nginx would hold events back");
    let gone = house.sends(request("GET", "/stream/unknown", &[("accept", "text/event-stream")], "")).await;
    assert_eq!(gone.0, 404);
}

/// The head says 200 by then: a body without a status would leave a client with nothing that it knows how to read.
#[tokio::test(start_paused = true)]
async fn what_goes_wrong_after_the_head_is_a_status_too() {
    let house = TestGateway::new();
    let job = r#"{"input":1,"policy":{"ttl":10000}}"#;
    let taken = async {
        let id = house.take("w1").await;
        let events =
            house.sends(request("GET", &format!("/stream/{id}"), &[("accept", "text/event-stream")], "")).await;
        (id, events.1)
    };
    let expires = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        house.pass(11).await;
    };
    let ((status, body), (id, events), ()) = tokio::join!(house.post("/runsync?wait=60000", job), taken, expires);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["id"], &body["status"]), (200, &(*id).into(), &"TIMED_OUT".into()));
    assert!(body["error"].as_str().unwrap().contains("ttl"), "{body}");
    let last: Value = serde_json::from_str(events.rsplit("event: error\ndata: ").next().unwrap().trim()).unwrap();
    assert_eq!(last, body, "{events}");
    // A store that fails takes nothing away: the job stands as it did.
    let away = super::super::reply::ApiError::from(crate::store::StoreError::Failed("x".into()));
    let told: Value = serde_json::from_str(&away.late("j", crate::queue::JobState::InProgress)).unwrap();
    assert_eq!((&told["id"], &told["status"]), (&"j".into(), &"IN_PROGRESS".into()));
    assert!(told["error"].as_str().unwrap().contains("cannot be reached"), "{told}");
}
