//! Which route goes where, and what runs beside them.

use std::sync::Arc;

use axum::Router;
use axum::http::header::ALLOW;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, any, get, head, post};

use crate::store::Store;

use super::reply::ApiError;
use super::state::Gateway;
use super::version::Version;
use super::{auth, client, history, metrics, openapi, page, probes, take, worker};

impl<S: Store> Gateway<S> {
    /// Its routes. They work only while [`Gateway::run`] does.
    pub fn routes(self: &Arc<Self>) -> Router {
        let probes = Router::new()
            .route("/healthz", get(probes::alive))
            .route("/readyz", get(probes::ready::<S>))
            .route("/metrics", get(metrics::metrics::<S>))
            .route("/openapi.json", get(openapi::json::<S>))
            .route("/docs", get(openapi::page))
            .route("/docs/page.css", get(openapi::style))
            .route("/docs/page.js", get(openapi::script))
            .with_state(self.clone())
            .merge(page::routes(&self.settings.endpoints))
            .route_layer(from_fn(metrics::note_route));
        let both = [Version::V1, Version::V2];
        let router = both.into_iter().fold(probes, |router, version| router.merge(self.clone().operations(version)));
        router.fallback(async || ApiError::NoRoute).method_not_allowed_fallback(async || ApiError::NoMethod)
    }

    /// Keeps time and wakes polls, until the store tells no more.
    pub fn run(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        let notified = self.notifier.clone().run(self.store.subscribe());
        async move {
            // Boxed: whoever waits for them would be large.
            let (time, open) = (Box::pin(self.keep_time()), Box::pin(self.report_open_requests()));
            let workers = Box::pin(self.follow_workers());
            tokio::select! {
                () = notified => {}
                () = time => {}
                () = open => {}
                () = workers => {}
            }
        }
    }

    fn operations(self: Arc<Self>, version: Version) -> Router {
        // Written out: a router within another rewrites each request's path.
        let at = |operation: &str| format!("{}/{{endpoint}}{operation}", version.prefix());
        let clients = Router::new()
            .route(&at("/run"), post(client::run::<S>))
            .route(&at("/runsync"), post(client::runsync::<S>))
            .route(&at("/status/{id}"), get(client::status::<S>).post(client::status::<S>))
            .route(&at("/status-sync/{id}"), get(client::status_sync::<S>).post(client::status_sync::<S>))
            .route(&at("/stream/{id}"), get(client::stream::<S>).post(client::stream::<S>).merge(no_head("GET, POST")))
            .route(&at("/cancel/{id}"), post(client::cancel::<S>).get(client::cancel::<S>).merge(no_head("GET, POST")))
            .route(&at("/retry/{id}"), post(client::retry::<S>))
            .route(&at("/purge-queue"), post(client::purge::<S>))
            .route(&at("/health"), get(client::health::<S>))
            .route(&at("/requests"), get(history::requests::<S>))
            .route(&at("/history/{id}"), get(history::history::<S>))
            .route_layer(from_fn_with_state(self.clone(), auth::user::<S>));
        let workers = Router::new()
            .route(&at("/job-take/{worker}"), get(take::take::<S>).merge(no_head("GET")))
            .route(&at("/job-take-batch/{worker}"), get(take::take_batch::<S>).merge(no_head("GET")))
            .route(&at("/job-done/{worker}/{id}"), post(worker::done::<S>))
            .route(&at("/job-stream/{worker}/{id}"), post(worker::stream::<S>))
            .route(&at("/job-stop/{worker}"), get(worker::stops::<S>).merge(no_head("GET")))
            .route(&at("/ping/{worker}"), any(worker::ping::<S>))
            .route_layer(from_fn_with_state(self.clone(), auth::worker::<S>));
        clients.merge(workers).with_state(self)
    }
}

/// Refuses HEAD where GET acts: who asks for a head alone would take jobs, stops or parts of a result, and not get them.
fn no_head<S: Store>(methods: &'static str) -> MethodRouter<Arc<Gateway<S>>> {
    head(async move || ([(ALLOW, methods)], ApiError::NoMethod))
}
