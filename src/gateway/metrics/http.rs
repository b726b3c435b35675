//! Requests, counted.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Seconds until an answer begins: from one that is in memory to a long poll's.
const ANSWER_SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 90.0, 300.0];

/// Labels of so many names.
pub(super) type Labels<const N: usize> = [(&'static str, String); N];

/// Requests, since the process began.
pub(in crate::gateway) struct HttpMetrics {
    pub(super) registry: Registry,
    requests: Family<Labels<3>, Counter>,
    seconds: Family<Labels<1>, Histogram>,
    /// Those of the families above, found without a label being written for each request.
    routes: RwLock<HashMap<String, Arc<RouteMetrics>>>,
}

/// Requests of one route.
struct RouteMetrics {
    seconds: Histogram,
    /// By method and status: few of each.
    requests: Mutex<Vec<(&'static str, StatusCode, Counter)>>,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("latentd");
        let requests = Family::default();
        let seconds = Family::new_with_constructor((|| Histogram::new(ANSWER_SECONDS)) as fn() -> Histogram);
        registry.register(
            "http_requests",
            "Requests that were answered, by route, method and status",
            requests.clone(),
        );
        let help = "From the head of a request to that of its answer, by route";
        registry.register("http_request_seconds", help, seconds.clone());
        Self { registry, requests, seconds, routes: RwLock::default() }
    }
}

impl fmt::Debug for HttpMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpMetrics").finish_non_exhaustive()
    }
}

impl HttpMetrics {
    pub(super) fn answered(&self, route: &str, method: &'static str, status: StatusCode, time: Duration) {
        let metrics = self.of(route);
        metrics.seconds.observe(time.as_secs_f64());
        let mut requests = metrics.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((.., counter)) = requests.iter().find(|(other, code, _)| *other == method && *code == status) {
            counter.inc();
            return;
        }
        let labels =
            [("route", route.to_owned()), ("method", method.to_owned()), ("status", status.as_str().to_owned())];
        let counter = self.requests.get_or_create_owned(&labels);
        counter.inc();
        requests.push((method, status, counter));
    }

    fn of(&self, route: &str) -> Arc<RouteMetrics> {
        if let Some(known) = self.routes.read().unwrap_or_else(PoisonError::into_inner).get(route) {
            return known.clone();
        }
        let new = || {
            let seconds = self.seconds.get_or_create_owned(&[("route", route.to_owned())]);
            Arc::new(RouteMetrics { seconds, requests: Mutex::default() })
        };
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        routes.entry(route.to_owned()).or_insert_with(new).clone()
    }
}
