//! Requests, answered by the routes themselves: no socket, and a clock that tests move.

mod browsers;
mod clients;
mod clocks;
mod events;
mod large_jobs;
mod memory_budget;
mod metrics;
mod openapi;
mod results;
mod submissions;
mod takes;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, to_bytes};
use axum::http::{HeaderMap, Request};
use serde_json::Value;
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::serve::activity::ConnectionActivity;
use super::serve::service;
use super::{Gateway, GatewaySettings, peer};
use crate::clock::{Course, FakeClock, WallClock};
use crate::date::UnixTime;
use crate::store::MemoryStore;

const START: &str = r#"{"input":{"prompt":"p"},"webhook":"https://a.example","s3Config":{"accessId":"a"}}"#;

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(format!("/v2/stable-diffusion-v1{path}"));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Body::from(body.to_owned())).unwrap()
}

/// A gateway that runs as long as this lives.
struct TestGateway {
    gateway: Arc<Gateway<MemoryStore>>,
    store: Arc<MemoryStore>,
    clock: Arc<FakeClock>,
    tasks: JoinSet<()>,
}

/// A reply's status and body.
type Reply = (u16, String);

impl TestGateway {
    fn new() -> Self {
        Self::with(GatewaySettings::default())
    }

    fn with(settings: GatewaySettings) -> Self {
        let clock = Arc::new(FakeClock::at(UnixTime::from_millis(1_000_000_000)));
        let store = Arc::new(MemoryStore::new(settings.rules.clone()));
        let gateway = Gateway::new(store.clone(), Course::new(clock.clone()), settings);
        let mut tasks = JoinSet::new();
        tasks.spawn(gateway.clone().run());
        Self { gateway, store, clock, tasks }
    }

    /// Another gateway on its store.
    fn beside(&self) -> Self {
        self.beside_with(GatewaySettings::default())
    }

    fn beside_with(&self, settings: GatewaySettings) -> Self {
        let gateway = Gateway::new(self.store.clone(), Course::new(self.clock.clone()), settings);
        let mut tasks = JoinSet::new();
        tasks.spawn(gateway.clone().run());
        Self { gateway, store: self.store.clone(), clock: self.clock.clone(), tasks }
    }

    /// One that begins on what a store has.
    async fn begin(store: Arc<MemoryStore>, clock: Arc<FakeClock>) -> Self {
        let gateway = Gateway::open(store.clone(), clock.clone(), GatewaySettings::default()).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(gateway.clone().run());
        Self { gateway, store, clock, tasks }
    }

    /// The next process, after this one has ended.
    async fn restarted(self) -> Self {
        let (store, clock) = (self.store.clone(), self.clock.clone());
        drop(self);
        Self::begin(store, clock).await
    }

    /// Asks without waiting for the answer.
    fn asks(&self, method: &str, path: &str, body: &str) -> impl Future<Output = Reply> + Send + 'static {
        let request = Request::builder().method(method).uri(format!("/v2/stable-diffusion-v1{path}"));
        self.sends(request.body(Body::from(body.to_owned())).unwrap())
    }

    fn sends(&self, request: Request<Body>) -> impl Future<Output = Reply> + Send + 'static {
        let answer = service(&self.gateway).oneshot(request);
        peer::on_connection(None, ConnectionActivity::default(), async move {
            let reply = answer.await.unwrap();
            let status = reply.status().as_u16();
            (status, String::from_utf8(to_bytes(reply.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap())
        })
    }

    /// An answer whose body was not read yet.
    async fn unread(&self, path: &str, accept: &str) -> BodyDataStream {
        let request = Request::get(format!("/v2/stable-diffusion-v1{path}")).header("accept", accept);
        let reply = service(&self.gateway).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(reply.status(), 200);
        reply.into_body().into_data_stream()
    }

    async fn head(&self, request: Request<Body>) -> HeaderMap {
        service(&self.gateway).oneshot(request).await.unwrap().headers().clone()
    }

    async fn get(&self, path: &str) -> Reply {
        self.asks("GET", path, "").await
    }

    async fn post(&self, path: &str, body: &str) -> Reply {
        self.asks("POST", path, body).await
    }

    /// Queues a job. Returns its id.
    async fn run(&self, body: &str) -> String {
        let (status, reply) = self.post("/run", body).await;
        assert_eq!(status, 200, "{reply}");
        let reply: Value = serde_json::from_str(&reply).unwrap();
        assert_eq!(reply["status"], "IN_QUEUE");
        reply["id"].as_str().unwrap().to_owned()
    }

    /// Takes a job. Returns its id.
    async fn take(&self, worker: &str) -> String {
        let (status, job) = self.get(&format!("/job-take/{worker}?gpu=X&job_in_progress=0")).await;
        assert_eq!(status, 200, "{job}");
        serde_json::from_str::<Value>(&job).unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// A field of a job's status.
    async fn field(&self, id: &str, field: &str) -> Value {
        let (code, reply) = self.get(&format!("/status/{id}")).await;
        assert_eq!(code, 200, "{reply}");
        serde_json::from_str::<Value>(&reply).unwrap()[field].take()
    }

    /// Lets time pass, for dates and for waits alike, and what is due then happen.
    async fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}
