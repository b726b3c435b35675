//! What is queued and what is refused: inputs, keys that make a request idempotent, limits.

use super::*;
use crate::gateway::{ApiKey, Endpoint, Handler, Role};
use crate::job::{Contract, OfferedModel};
use crate::queue::Rules;
use crate::store::Store;

/// Of an endpoint whose inputs are ours to check.
fn checking(models: Option<Vec<OfferedModel>>, contract: Contract) -> TestGateway {
    let usual = GatewaySettings::default();
    let handler = Handler::Latentd { models, contract };
    let endpoints = usual.endpoints.iter().map(|endpoint| Endpoint { handler: handler.clone(), ..endpoint.clone() });
    TestGateway::with(GatewaySettings { endpoints: endpoints.collect(), ..usual })
}

impl TestGateway {
    async fn submits(&self, key: &str, body: &str) -> (u16, Value) {
        let (status, reply) = self.sends(request("POST", "/run", &[("idempotency-key", key)], body)).await;
        (status, serde_json::from_str(&reply).unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_input_is_told_at_once_and_never_queued() {
    let house = checking(None, Contract::Sd1);
    let (status, reply) = house.post("/run", r#"{"input":{"prompt":7,"width":500,"lora":"ink","model":"any"}}"#).await;
    let texts = ["prompt should be <class 'str'> type, not <class 'int'>.", "width does not meet the constraints."];
    let hints = ["prompt: use text of at most 32 KiB", "width: use 128, 256, 384, 448, 512, 576, 640, 704 or 768"];
    let wanted = serde_json::json!({ "error": texts.join("; "), "errors": texts, "hints": hints });
    assert_eq!((status, serde_json::from_str::<Value>(&reply).unwrap()), (400, wanted));
    let deep = format!(r#"{{"input":{{"prompt":{}{}}}}}"#, "[".repeat(500), "]".repeat(500));
    assert_eq!(house.post("/runsync", &deep).await.0, 400);
    house.run(r#"{"input":{"prompt":"p","lora":"ink","model":"any"}}"#).await;
    assert_eq!(house.store.counts("stable-diffusion-v1").await.unwrap().in_queue, 1);
    let known = checking(Some(vec![OfferedModel::new("sd", Contract::Sd1)]), Contract::Sd1);
    let (status, reply) = known.post("/run", r#"{"input":{"prompt":"p","model":"any"}}"#).await;
    assert!(status == 400 && reply.contains("only sd is"), "{reply}");
}

#[tokio::test(start_paused = true)]
async fn an_input_has_the_fields_of_its_model_s_contract_or_of_its_endpoint_s() {
    let both = vec![OfferedModel::new("sd", Contract::Sd1), OfferedModel::new("xl", Contract::Sdxl)];
    let (known, sdxl, sd1) =
        (checking(Some(both), Contract::Sd1), checking(None, Contract::Sdxl), checking(None, Contract::Sd1));
    for (house, input, wrong) in [
        (&known, r#"{"prompt":"p","width":512,"num_outputs":2}"#, None),
        (&known, r#"{"prompt":"p","model":"xl","width":1000,"num_images":2}"#, None),
        (&known, r#"{"image_url":"http://x/i.png","model":"xl"}"#, None),
        (&known, r#"{"prompt":"p","num_images":2}"#, Some("num_images is not a valid input option")),
        (&known, r#"{"prompt":"p","model":"xl","num_outputs":2}"#, Some("num_outputs is not a valid input option")),
        (&known, r#"{"prompt":"p","model":"any"}"#, Some("only sd, xl are")),
        (&sdxl, r#"{"prompt":"p","width":1000,"num_images":2,"scheduler":"K_EULER"}"#, None),
        (&sdxl, r#"{"prompt":"p","model":"any","high_noise_frac":0.8}"#, None),
        (&sdxl, r#"{"prompt":"p","width":1001}"#, Some("width: use a multiple of 8 from 64 to 2048")),
        (&sdxl, "{}", Some("prompt: send it, or image_url")),
        (&sd1, r#"{"prompt":"p","model":"any","num_images":2}"#, Some("num_images is not a valid input option")),
    ] {
        let (status, reply) = house.post("/run", &format!(r#"{{"input":{input}}}"#)).await;
        let expected = if wrong.is_some() { 400 } else { 200 };
        assert!(status == expected && reply.contains(wrong.unwrap_or("IN_QUEUE")), "{input}: {status} {reply}");
    }
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
    house.clock.advance(Duration::from_secs(20));
    assert_eq!(house.post("/purge-queue", "").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn who_has_too_many_requests_open_waits_until_one_is_answered() {
    let house = TestGateway::new();
    let id = house.run(START).await;
    let path = format!("/status-sync/{id}?wait=300000");
    let mut polls = JoinSet::new();
    for _ in 0..400 {
        polls.spawn(house.asks("GET", &path, ""));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(polls.len(), 400, "all are held");
    let (status, why) = house.get(&path).await;
    assert!(status == 429 && why.contains("more than 400 requests to status-sync at once"), "{status} {why}");
    assert_eq!(house.get(&format!("/status/{id}")).await.0, 200, "another operation");
    house.post(&format!("/cancel/{id}"), "").await;
    assert!(polls.join_all().await.iter().all(|(status, _)| *status == 200));
    assert_eq!(house.get(&path).await.0, 200);
}
