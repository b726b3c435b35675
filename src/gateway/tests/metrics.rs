//! What operators see: probes, numbers, names of requests, the list of jobs.

use std::collections::BTreeSet;

use super::*;
use crate::gateway::{ApiKey, Role};
use crate::telemetry::Metrics;

async fn page(house: &TestGateway, query: &str) -> Value {
    serde_json::from_str(&house.get(&format!("/requests{query}")).await.1).unwrap()
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

/// Names of metrics in an exposition.
fn told(exposition: &str) -> impl Iterator<Item = &str> {
    exposition.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
}

/// Those in the first column of the tables of a page.
fn documented(page: &str) -> impl Iterator<Item = &str> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `latentd_").and(line.split('|').nth(1)));
    cells.flat_map(|cell| cell.split('`').filter(|word| word.starts_with("latentd_")))
}

#[tokio::test(start_paused = true)]
async fn the_docs_have_the_metrics_of_gateway_and_worker_and_no_others() {
    let house = TestGateway::new();
    house.get("/status/a").await;
    let gateway = house.sends(Request::get("/metrics").body(Body::empty()).unwrap()).await.1;
    // Those with a label are told of with its first value.
    let metrics = Metrics::default();
    metrics.take("429");
    metrics.retry("done");
    let engine = metrics.engine("engine-0");
    engine.memory(0, 0);
    engine.warmed(1);
    let worker = metrics.text();
    let all: BTreeSet<&str> = told(&gateway).chain(told(&worker)).collect();
    let pages = [include_str!("../../../docs/operating.md"), include_str!("../../../docs/gateway.md")];
    assert_eq!(pages.into_iter().flat_map(documented).collect::<BTreeSet<_>>(), all);
}
