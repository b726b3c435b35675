//! What a browser's requests come to, whole.

use axum::http::HeaderMap;

use super::*;
use crate::gateway::{ApiKey, BrowserPolicy, Role};
use crate::store::Store;

const PAGE: (&str, &str) = ("origin", "https://app.example");

fn house(keys: Vec<ApiKey>) -> TestGateway {
    let browsers = BrowserPolicy { hosts: vec!["gpu.lan".into()], origins: vec!["https://app.example".into()] };
    TestGateway::with(GatewaySettings { browsers, keys, serve_at_root: true, ..GatewaySettings::default() })
}

impl TestGateway {
    async fn heads(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap) {
        let request = Request::builder().method(method).uri(path);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let reply = service(&self.gateway).oneshot(request.body(r#"{"input":1}"#.into()).unwrap()).await.unwrap();
        (reply.status().as_u16(), reply.headers().clone())
    }

    async fn waiting(&self) -> u64 {
        self.store.counts("stable-diffusion-v1").await.unwrap().in_queue
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_page_changes_nothing_and_reads_nothing() {
    let house = house(Vec::new());
    house.run(r#"{"input":1}"#).await;
    let form = ("content-type", "text/plain");
    for path in [
        "/v2/stable-diffusion-v1/run",
        "/v1/stable-diffusion-v1/runsync",
        "//v2//stable-diffusion-v1/run",
        "/run",
        "/purge-queue",
    ] {
        for headers in [
            &[("origin", "https://evil.example"), form][..],
            &[("sec-fetch-site", "cross-site")],
            &[("host", "evil.example:8000")],
        ] {
            assert_eq!(house.heads("POST", path, headers).await.0, 403, "{path} {headers:?}");
        }
        assert_eq!(house.heads("POST", path, &[("sec-fetch-site", "same-origin"), form]).await.0, 415, "{path}");
    }
    assert_eq!(house.waiting().await, 1, "none was queued, none was purged");
    let (rebound, linked) = ([("host", "evil.example")], [("sec-fetch-site", "cross-site")]);
    for path in ["/requests", "/metrics", "/page/settings.json", "/docs", "/"] {
        let path = if path == "/requests" { "/v2/stable-diffusion-v1/requests" } else { path };
        assert_eq!(house.heads("GET", path, &rebound).await.0, 403, "{path}");
    }
    for (path, status) in [("/", 200), ("/docs", 200), ("/healthz", 200), ("/v2/stable-diffusion-v1/requests", 403)] {
        assert_eq!(house.heads("GET", path, &linked).await.0, status, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn our_own_page_works_behind_a_proxy_that_sends_its_upstream_s_name() {
    let house = house(Vec::new());
    let (host, json) = (("host", "127.0.0.1:8000"), ("content-type", "application/json"));
    for headers in [
        [host, json, ("sec-fetch-site", "same-origin"), ("origin", "https://gpu.example")],
        // Over plain HTTP browsers say no more than this.
        [host, json, ("x-latentd-page", "1"), ("origin", "http://192.168.1.5")],
        [("host", "gpu.lan"), json, ("x-any", "1"), ("origin", "http://gpu.lan:8080")],
    ] {
        assert_eq!(house.heads("POST", "/v2/stable-diffusion-v1/run", &headers).await.0, 200, "{headers:?}");
    }
    // Everybody else that is no browser: curl's forms, Node's texts.
    let curl = [("content-type", "application/x-www-form-urlencoded"), ("host", "localhost:8000")];
    assert_eq!(house.heads("POST", "/run", &curl).await.0, 200);
    assert_eq!(house.waiting().await, 4);
}

#[tokio::test(start_paused = true)]
async fn a_listed_page_may_ask_and_read() {
    for keys in [vec![], vec![ApiKey::new("k", Role::User, None), ApiKey::new("w", Role::Worker, None)]] {
        let house = house(keys);
        let path = "/v2/stable-diffusion-v1/run";
        let asks = [
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,x-stainless"),
        ];
        let (status, head) = house.heads("OPTIONS", path, &[&[PAGE][..], &asks].concat()).await;
        assert_eq!((status, &head["access-control-allow-origin"]), (204, &"https://app.example".parse().unwrap()));
        assert_eq!(head["access-control-allow-headers"], "authorization,x-stainless");
        assert!(head["access-control-allow-methods"].to_str().unwrap().contains("POST"));
        let (status, head) =
            house.heads("POST", path, &[PAGE, ("sec-fetch-site", "cross-site"), ("authorization", "k")]).await;
        assert_eq!(
            (status, &head["access-control-allow-origin"], &head["vary"]),
            (200, &"https://app.example".parse().unwrap(), &"origin".parse().unwrap())
        );
        let other = [("origin", "https://app.example.evil"), asks[0]];
        let (status, head) = house.heads("OPTIONS", path, &other).await;
        assert!(status >= 400 && !head.contains_key("access-control-allow-origin"), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_keys_are_wanted_they_decide() {
    let house = house(vec![ApiKey::new("k", Role::User, None), ApiKey::new("w", Role::Worker, None)]);
    let named = [("host", "gpu.example"), ("origin", "http://gpu.example:81"), ("authorization", "k")];
    assert_eq!(house.heads("POST", "/v2/stable-diffusion-v1/run", &named).await.0, 200);
    assert_eq!(house.heads("POST", "/v2/stable-diffusion-v1/run", &named[..2]).await.0, 401);
}
