//! The endpoint API: what clients and workers of the hosted platform speak, on a store of our own.
//!
//! A request names an endpoint and an operation; what may come of it, [`crate::queue`] says, and the store keeps it. Long polls wait at
//! the `hub`'s bells. What time does, `timers` brings about.

mod auth;
mod body;
mod browsers;
mod check;
mod chunks;
mod client;
mod encoding;
mod history;
mod idempotency;
mod job_status;
mod limits;
mod long_poll;
mod memory_budget;
mod notifier;
mod openapi;
mod page;
mod probes;
mod receivers;
mod reply;
mod serve;
mod shared_limits;
mod shared_workers;
mod sse;
mod take;
mod timers;
mod uri;
mod webhooks;
mod worker;
mod worker_registry;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get, post};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::clock::{Course, WallClock};
use crate::date::UnixTime;
use crate::queue::{Record, Rules};
use crate::store::{Store, StoreError};

pub use auth::{Access, ApiKey, Role};
pub use browsers::BrowserPolicy;
pub use check::Handler;
pub use openapi::document as openapi;
pub use serve::serve;
pub use webhooks::WebhookCaller;

use auth::ApiKeys;
use limits::Limits;
use memory_budget::MemoryBudgets;
use notifier::Notifier;
use receivers::Receivers;
use reply::ApiError;
use worker_registry::WorkerRegistry;

/// An endpoint: a queue that has names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// What its jobs are kept under.
    pub id: String,
    /// Other names that clients know it by.
    pub aliases: Vec<String>,
    /// Who works on its jobs.
    pub handler: Handler,
    /// How long an attempt may take, if a job does not say.
    pub execution_timeout: Duration,
    /// The memory of its workers' GPUs in GB, for workers that do not say.
    pub gpu: u32,
}

/// What a gateway is set to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its endpoints; others are 404.
    pub endpoints: Vec<Endpoint>,
    /// How patient it is with workers.
    pub rules: Rules,
    /// How long a worker's poll is held. Well below the 90 seconds after which the SDK gives up.
    pub poll_hold: Duration,
    /// Connections at the same time; others wait to be accepted.
    pub connections: usize,
    /// How long a connection may wait for its next request.
    pub keep_alive: Duration,
    /// Bytes of a request, of `/run` and of `/runsync`.
    pub max_input: (usize, usize),
    /// Bytes of a result.
    pub max_result: usize,
    /// Bytes of bodies and answers that are under way: of jobs, of results, of answers and of webhooks so many each.
    pub in_flight: usize,
    /// Who may ask. None: everybody.
    pub keys: Vec<ApiKey>,
    /// The key of a worker in this process: who may ask is up to the others.
    pub local_worker_key: Option<ApiKey>,
    /// Whether clients may ask only so often.
    pub limits: bool,
    /// Which browsers' requests are answered while nobody needs a key.
    pub browsers: BrowserPolicy,
    /// Whether routes without an endpoint's name are the first one's, as on the SDK's local server.
    pub serve_at_root: bool,
    /// What calls webhooks; without it, workers do.
    pub webhooks: Option<WebhookCaller>,
}

impl Default for Settings {
    /// One endpoint, as the hosted platform has it.
    fn default() -> Self {
        let id = "stable-diffusion-v1".to_owned();
        Self {
            endpoints: vec![Endpoint {
                id,
                aliases: Vec::new(),
                handler: Handler::External,
                execution_timeout: Duration::from_mins(10),
                gpu: 0,
            }],
            rules: Rules::default(),
            poll_hold: Duration::from_secs(20),
            connections: 16 * 1024,
            keep_alive: Duration::from_secs(75),
            max_input: (10 << 20, 20 << 20),
            max_result: 64 << 20,
            in_flight: 256 << 20,
            keys: Vec::new(),
            local_worker_key: None,
            limits: true,
            browsers: BrowserPolicy::default(),
            serve_at_root: false,
            webhooks: None,
        }
    }
}

/// Which of the two APIs a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Version {
    /// What its paths begin with.
    const fn prefix(self) -> &'static str {
        match self {
            Self::V1 => "/v1",
            Self::V2 => "/v2",
        }
    }
}

/// Answers requests.
#[derive(Debug)]
pub struct Gateway<S> {
    store: Arc<S>,
    /// The time of the queue.
    course: Course,
    began: UnixTime,
    settings: Settings,
    notifier: Arc<Notifier>,
    registry: WorkerRegistry,
    limits: Limits,
    receivers: Arc<Receivers>,
    budgets: MemoryBudgets,
    keys: ApiKeys,
    /// Cancelled when long polls are to end: nothing is handed out any more.
    closing: CancellationToken,
}

impl<S: Store> Gateway<S> {
    /// A gateway on a store, whose time goes on where it was.
    ///
    /// # Errors
    /// The store fails.
    pub async fn open(store: Arc<S>, clock: Arc<dyn WallClock>, settings: Settings) -> Result<Arc<Self>, StoreError> {
        let began = store.sync_clock(None, clock.now()).await?;
        Ok(Self::new(store, Course::from(clock, began), settings))
    }

    fn new(store: Arc<S>, course: Course, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            store,
            began: course.now(),
            course,
            budgets: MemoryBudgets::new(settings.in_flight),
            keys: ApiKeys::new(settings.keys.clone(), settings.local_worker_key.clone()),
            settings,
            notifier: Arc::default(),
            registry: WorkerRegistry::default(),
            limits: Limits::new(S::SHARED),
            receivers: Arc::default(),
            closing: CancellationToken::new(),
        })
    }

    /// Takes in the keys of the store. Returns who needs one now.
    ///
    /// # Errors
    /// The store fails.
    pub async fn access(&self) -> Result<Access, StoreError> {
        self.keys.learn(&self.store.keys().await?);
        Ok(self.keys.access())
    }

    /// Its routes. They work only while [`Gateway::run`] does.
    pub fn routes(self: &Arc<Self>) -> Router {
        let probes = Router::new()
            .route("/healthz", get(probes::alive))
            .route("/readyz", get(probes::ready::<S>))
            .route("/metrics", get(probes::metrics::<S>))
            .route("/openapi.json", get(openapi::json))
            .route("/docs", get(openapi::page))
            .route("/docs/page.css", get(openapi::style))
            .route("/docs/page.js", get(openapi::script))
            .with_state(self.clone());
        let both = [Version::V1, Version::V2];
        let router = both.into_iter().fold(probes, |router, version| router.merge(self.clone().operations(version)));
        let router = router.merge(page::routes(&self.settings.endpoints));
        router.fallback(async || ApiError::NoRoute).method_not_allowed_fallback(async || ApiError::NoMethod)
    }

    /// Keeps time and wakes polls, until the store tells no more.
    pub fn run(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        let hub = self.notifier.clone().run(self.store.subscribe());
        async move {
            // Boxed: whoever waits for them would be large.
            let (time, open) = (Box::pin(self.keep_time()), Box::pin(self.report_open_requests()));
            let workers = Box::pin(self.follow_workers());
            tokio::select! {
                () = hub => {}
                () = time => {}
                () = open => {}
                () = workers => {}
            }
        }
    }

    fn operations(self: Arc<Self>, version: Version) -> Router {
        // Written out: a router within another has each request's path written anew.
        let at = |operation: &str| format!("{}/{{endpoint}}{operation}", version.prefix());
        let clients = Router::new()
            .route(&at("/run"), post(client::run::<S>))
            .route(&at("/runsync"), post(client::runsync::<S>))
            .route(&at("/status/{id}"), get(client::status::<S>).post(client::status::<S>))
            .route(&at("/status-sync/{id}"), get(client::status_sync::<S>).post(client::status_sync::<S>))
            .route(&at("/stream/{id}"), get(client::stream::<S>).post(client::stream::<S>))
            .route(&at("/cancel/{id}"), post(client::cancel::<S>).get(client::cancel::<S>))
            .route(&at("/retry/{id}"), post(client::retry::<S>))
            .route(&at("/purge-queue"), post(client::purge::<S>))
            .route(&at("/health"), get(client::health::<S>))
            .route(&at("/requests"), get(history::requests::<S>))
            .route(&at("/history/{id}"), get(history::history::<S>))
            .route_layer(from_fn_with_state(self.clone(), auth::user::<S>));
        let workers = Router::new()
            .route(&at("/job-take/{worker}"), get(take::take::<S>))
            .route(&at("/job-take-batch/{worker}"), get(take::take_batch::<S>))
            .route(&at("/job-done/{worker}/{id}"), post(worker::done::<S>))
            .route(&at("/job-stream/{worker}/{id}"), post(worker::stream::<S>))
            .route(&at("/job-stop/{worker}"), get(worker::stops::<S>))
            .route(&at("/ping/{worker}"), any(worker::ping::<S>))
            .route_layer(from_fn_with_state(self.clone(), auth::worker::<S>));
        clients.merge(workers).layer(axum::Extension(version)).with_state(self)
    }

    /// The endpoint that a path names.
    fn endpoint(&self, name: &str) -> Result<&Endpoint, ApiError> {
        let known = |endpoint: &&Endpoint| endpoint.id == name || endpoint.aliases.iter().any(|alias| alias == name);
        self.settings.endpoints.iter().find(known).ok_or_else(|| ApiError::NoEndpoint(name.to_owned()))
    }

    /// A job that clients can see.
    async fn visible(&self, endpoint: &Endpoint, id: &str) -> Result<Record, ApiError> {
        let record = self.store.read(&endpoint.id, id).await?.ok_or_else(|| ApiError::NoJob(id.to_owned()))?;
        self.check_visible(&record)?;
        Ok(record)
    }

    /// Refuses a job that clients cannot see any more.
    fn check_visible(&self, record: &Record) -> Result<(), ApiError> {
        let gone = record.hidden || record.expires <= self.now();
        if gone { Err(ApiError::NoJob(record.id.clone())) } else { Ok(()) }
    }

    /// Whether a bell rang before the time was over and before the gateway closes.
    async fn woken(&self, bell: impl Future<Output = ()> + Send, until: Instant) -> bool {
        tokio::select! {
            () = bell => true,
            () = sleep_until(until) => false,
            () = self.closing.cancelled() => false,
        }
    }

    /// The time of the queue. What is said to others is a date of the wall clock.
    fn now(&self) -> UnixTime {
        self.course.now()
    }
}

/// What a store's error means to what runs in the background: it is told, unless the store has done so, and tried again.
fn log_failure<T>(what: &'static str, done: Result<T, StoreError>) -> Option<T> {
    let tell = |error: &StoreError| match error {
        StoreError::NoSpace(_) => {}
        error => tracing::error!(cause = %error, "{what}: the store fails, and is asked again"),
    };
    done.inspect_err(tell).ok()
}
