//! What this endpoint adds to the protocol.

use axum::http::HeaderMap;

use super::*;
use crate::gateway::openapi::ROUTES;
use crate::gateway::{ApiKey, Endpoint, Handler, Role};
use crate::job::OfferedModel;
use crate::queue::Rules;
use crate::store::Store;

/// Of an endpoint whose inputs are ours to check.
fn checking(models: Option<Vec<OfferedModel>>) -> TestGateway {
    let usual = GatewaySettings::default();
    let handler = Handler::Latentd { models };
    let endpoints = usual.endpoints.iter().map(|endpoint| Endpoint { handler: handler.clone(), ..endpoint.clone() });
    TestGateway::with(GatewaySettings { endpoints: endpoints.collect(), ..usual })
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(format!("/v2/stable-diffusion-v1{path}"));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Body::from(body.to_owned())).unwrap()
}

async fn page(house: &TestGateway, query: &str) -> Value {
    serde_json::from_str(&house.get(&format!("/requests{query}")).await.1).unwrap()
}

impl TestGateway {
    async fn submits(&self, key: &str, body: &str) -> (u16, Value) {
        let (status, reply) = self.sends(request("POST", "/run", &[("idempotency-key", key)], body)).await;
        (status, serde_json::from_str(&reply).unwrap())
    }

    async fn head(&self, request: Request<Body>) -> HeaderMap {
        service(&self.gateway).oneshot(request).await.unwrap().headers().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_input_is_told_at_once_and_never_queued() {
    let house = checking(None);
    let (status, reply) = house.post("/run", r#"{"input":{"prompt":7,"width":500,"lora":"ink","model":"any"}}"#).await;
    let texts = ["prompt should be <class 'str'> type, not <class 'int'>.", "width does not meet the constraints."];
    let hints = ["prompt: use text of at most 32 KiB", "width: use 128, 256, 384, 448, 512, 576, 640, 704 or 768"];
    let wanted = serde_json::json!({ "error": texts.join("; "), "errors": texts, "hints": hints });
    assert_eq!((status, serde_json::from_str::<Value>(&reply).unwrap()), (400, wanted));
    let deep = format!(r#"{{"input":{{"prompt":{}{}}}}}"#, "[".repeat(500), "]".repeat(500));
    assert_eq!(house.post("/runsync", &deep).await.0, 400);
    house.run(r#"{"input":{"prompt":"p","lora":"ink","model":"any"}}"#).await;
    assert_eq!(house.store.counts("stable-diffusion-v1").await.unwrap().in_queue, 1);
    let known = checking(Some(vec!["sd".into()]));
    let (status, reply) = known.post("/run", r#"{"input":{"prompt":"p","model":"any"}}"#).await;
    assert!(status == 400 && reply.contains("only sd is"), "{reply}");
}

#[tokio::test(start_paused = true)]
async fn a_submission_that_is_sent_again_is_the_same_job() {
    let house = TestGateway::new();
    let (status, first) = house.submits("k1", r#"{"input":1}"#).await;
    assert_eq!((status, house.submits("k1", r#"{"input":1}"#).await), (200, (200, first.clone())));
    assert_eq!(house.submits("k1", r#"{"input":2}"#).await.0, 409);
    assert_ne!(house.submits("k2", r#"{"input":1}"#).await.1["id"], first["id"]);
    assert_eq!(house.submits("", r#"{"input":1}"#).await.0, 400);
    let id = first["id"].as_str().unwrap();
    assert_eq!(house.take("w1").await, id);
    house.post(&format!("/job-done/w1/{id}"), r#"{"output": 1}"#).await;
    house.pass(3600).await;
    assert_eq!(house.get(&format!("/status/{id}")).await.0, 404, "its result is no longer kept");
    let payload = house.store.payload("stable-diffusion-v1", id, crate::store::PayloadKind::Output).await.unwrap();
    assert_eq!(payload, None, "nor are its payloads");
    let again = house.submits("k1", r#"{"input":1}"#).await.1;
    assert_eq!((&again["id"], &again["status"]), (&first["id"], &"COMPLETED".into()));
    house.pass(24 * 3600).await;
    assert_eq!(house.store.next_due().await.unwrap(), None, "nothing is left");
    assert_eq!(house.submits("k1", r#"{"input":2}"#).await.1["status"], "IN_QUEUE");
}

#[tokio::test(start_paused = true)]
async fn a_key_is_one_client_however_it_is_spelled() {
    let keys = vec![ApiKey::new("k", Role::User, None), ApiKey::new("w", Role::Worker, None)];
    let house = TestGateway::with(GatewaySettings { keys, ..GatewaySettings::default() });
    let (mut ids, mut purged) = (Vec::new(), Vec::new());
    for spelled in ["k", "Bearer k", "bearer  k", "BEARER k "] {
        let headers = [("authorization", spelled), ("idempotency-key", "i")];
        let reply = house.sends(request("POST", "/run", &headers, r#"{"input":1}"#)).await.1;
        ids.push(serde_json::from_str::<Value>(&reply).unwrap()["id"].clone());
        purged.push(house.sends(request("POST", "/purge-queue", &headers[..1], "")).await.0);
    }
    assert!(ids.iter().all(|id| *id == ids[0] && id.is_string()), "{ids:?}");
    assert_eq!(purged, [200, 200, 429, 429], "two in ten seconds, whatever the scheme");
}

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

#[tokio::test(start_paused = true)]
async fn all_jobs_and_all_attempts_can_be_seen() {
    let house = TestGateway::new();
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(house.run(&format!(r#"{{"input":{number}}}"#)).await);
    }
    assert_eq!(house.take("w1").await, ids[0]);
    house.get("/ping/w1?status=unhealthy&check=gpu&reason=lost").await;
    house.take("w2").await;
    let first = page(&house, "?limit=2").await;
    assert_eq!((&first["total"], &first["hasMore"], &first["limit"]), (&3.into(), &true.into(), &2.into()));
    assert_eq!((&first["requests"][0]["id"], &first["requests"][1]["id"]), (&(*ids[0]).into(), &(*ids[1]).into()));
    assert_eq!(page(&house, "?offset=2").await["requests"][0]["id"], *ids[2]);
    assert_eq!(page(&house, "?status=IN_QUEUE").await["total"], 2);
    assert_eq!(house.get("/requests?status=LOST").await.0, 400);
    let history: Value = serde_json::from_str(&house.get(&format!("/history/{}", ids[0])).await.1).unwrap();
    let attempts = history["attempts"].as_array().unwrap();
    let brief: Vec<_> = attempts.iter().map(|tried| (tried["number"].as_u64(), tried["workerId"].as_str())).collect();
    assert_eq!(brief, [(Some(1), Some("w1")), (Some(2), Some("w2"))]);
    assert_eq!((&attempts[0]["why"], &history["forgotten"]), (&"its worker is not fit".into(), &0.into()));
}

/// Every route that the gateway has is one of the document's, and the other way round.
#[tokio::test(start_paused = true)]
async fn the_document_tells_of_all_routes_and_no_others() {
    let house = TestGateway::with(GatewaySettings {
        poll_hold: Duration::from_millis(1),
        limits: false,
        ..GatewaySettings::default()
    });
    let mut paths: Vec<&str> = ROUTES.iter().map(|route| route.path).collect();
    paths.dedup();
    for path in paths {
        for method in ["get", "post", "put", "delete"] {
            let told = ROUTES.iter().any(|route| route.path == path && route.method == method);
            let asked = path.replace("{id}", "j").replace("{worker}", "w");
            let asked = house.sends(request(&method.to_uppercase(), &format!("{asked}?wait=1"), &[], "")).await;
            // Any method is a heartbeat.
            assert!(told != (asked.0 == 405) || path.starts_with("/ping"), "{method} {path}: {asked:?}");
            assert!(!asked.1.contains("no such route"), "{method} {path}");
        }
    }
    let source = include_str!("../mod.rs");
    let routed: Vec<&str> = source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    for path in routed.iter().filter(|path| !["/healthz", "/readyz", "/metrics", "/openapi.json"].contains(path)) {
        assert!(path.starts_with("/docs") || ROUTES.iter().any(|route| route.path == *path), "{path} is not told of");
    }
}

#[test]
fn the_committed_document_is_this_one() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let committed: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert!(committed == crate::gateway::openapi(None), "run `latentd openapi > docs/openapi.json`");
    let text = committed.to_string();
    let names = text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next());
    for name in names {
        assert!(committed["components"]["schemas"][name].is_object(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn probes_and_numbers() {
    let keys = vec![ApiKey::new("user", Role::User, None), ApiKey::new("work", Role::Worker, Some("other".into()))];
    let house = TestGateway::with(GatewaySettings { keys, ..GatewaySettings::default() });
    let ask = |path: &str, key: &str| {
        house.sends(Request::get(path).header("authorization", key).body(Body::empty()).unwrap())
    };
    assert_eq!((ask("/healthz", "").await.0, ask("/readyz", "").await.0, ask("/docs", "").await.0), (200, 200, 200));
    for (key, status) in [("", 401), ("no", 401), ("Bearer user", 200), ("work", 200)] {
        assert_eq!(ask("/metrics", key).await.0, status, "{key}");
    }
    house.sends(request("POST", "/run", &[("authorization", "user")], r#"{"input":1}"#)).await;
    house.clock.advance(Duration::from_millis(2500));
    let text = ask("/metrics", "user").await.1;
    for line in [
        r#"latentd_queue_jobs{endpoint="stable-diffusion-v1",state="IN_QUEUE"} 1"#,
        r#"latentd_queue_oldest_seconds{endpoint="stable-diffusion-v1"} 2.5"#,
        r#"latentd_queue_workers{endpoint="stable-diffusion-v1",state="idle"} 0"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    house.gateway.closing.cancel();
    assert_eq!(ask("/readyz", "").await.0, 503);
}

#[tokio::test(start_paused = true)]
async fn a_queue_has_an_end() {
    let rules = Rules { max_waiting: Some(2), ..Rules::default() };
    let house = TestGateway::with(GatewaySettings { rules, limits: false, ..GatewaySettings::default() });
    let key = [("idempotency-key", "k")];
    let known = house.sends(request("POST", "/run", &key, r#"{"input":1}"#)).await;
    house.run(r#"{"input":2}"#).await;
    for path in ["/run", "/runsync"] {
        let refused = service(&house.gateway).oneshot(request("POST", path, &[], r#"{"input":3}"#)).await.unwrap();
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["retry-after"]),
            (429, &"1".parse().unwrap()),
            "{path}"
        );
        let body = to_bytes(refused.into_body(), 1000).await.unwrap();
        assert!(String::from_utf8_lossy(&body).contains("2 jobs wait at this endpoint already"), "{body:?}");
    }
    let again = house.sends(request("POST", "/run", &key, r#"{"input":1}"#)).await;
    assert_eq!(again, known, "it is queued already");
    assert!(house.get("/health").await.1.contains(r#""inQueue":2"#));
    house.take("w1").await;
    house.run(r#"{"input":3}"#).await;
}

#[tokio::test(start_paused = true)]
async fn who_asks_too_often_waits() {
    let house = TestGateway::new();
    assert_eq!([house.post("/purge-queue", "").await.0, house.post("/purge-queue", "").await.0], [200, 200]);
    let refused = service(&house.gateway).oneshot(request("POST", "/purge-queue", &[], "")).await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &"1".parse().unwrap()));
    assert_eq!(house.get("/health").await.0, 200, "another operation");
    let waiting: Vec<_> = (0..2).map(|_| house.asks("GET", "/requests", "")).collect();
    assert!(waiting.len() == 2 && house.get("/requests").await.0 == 200, "what has not begun holds no place");
    house.clock.advance(Duration::from_secs(20));
    assert_eq!(house.post("/purge-queue", "").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn an_answer_has_the_name_of_its_request() {
    let house = TestGateway::new();
    let ask = async |headers: &[(&str, &str)]| {
        let reply = service(&house.gateway).oneshot(request("GET", "/health", headers, "")).await.unwrap();
        reply.headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(ask(&[("x-request-id", "from-a-proxy")]).await, "from-a-proxy");
    let (one, other) = (ask(&[]).await, ask(&[("x-request-id", &"x".repeat(999))]).await);
    assert!(one != other && [&one, &other].map(String::len) == [36, 36], "{one} {other}");
    let refused =
        service(&house.gateway).oneshot(request("POST", "/health", &[("x-request-id", "a")], "")).await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["x-request-id"]), (405, &"a".parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn requests_are_counted_by_route_method_and_status_and_names_are_no_labels() {
    let house = TestGateway::new();
    for path in ["/status/a", "/status/b", "/status/c"] {
        assert_eq!(house.get(path).await.0, 404);
    }
    for _ in 0..3 {
        house.post("/purge-queue", "").await;
    }
    house.sends(Request::builder().method("MADEUP").uri("/nowhere/4711").body(Body::empty()).unwrap()).await;
    house.sends(Request::get("/v2/other/health").body(Body::empty()).unwrap()).await;
    house.sends(request("DELETE", "/run", &[], "")).await;
    let text = house.sends(Request::get("/metrics").body(Body::empty()).unwrap()).await.1;
    for line in [
        r#"latentd_http_requests_total{route="/v2/{endpoint}/status/{id}",method="GET",status="404"} 3"#,
        r#"latentd_http_requests_total{route="/v2/{endpoint}/purge-queue",method="POST",status="429"} 1"#,
        r#"latentd_http_requests_total{route="/v2/{endpoint}/purge-queue",method="POST",status="200"} 2"#,
        r#"latentd_http_requests_total{route="unmatched",method="other",status="404"} 1"#,
        r#"latentd_http_requests_total{route="/v2/{endpoint}/health",method="GET",status="404"} 1"#,
        r#"latentd_http_request_seconds_count{route="/v2/{endpoint}/status/{id}"} 3"#,
        "# TYPE latentd_http_requests_total counter",
        "# TYPE latentd_http_request_seconds histogram",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(text.contains(r#"method="other",status="405""#), "{text}");
    assert!(!text.contains("4711") && !text.contains("other/health"), "{text}");
}
