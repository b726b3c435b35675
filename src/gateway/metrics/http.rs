//! Requests, counted.
//!
//! Each thread counts for itself, as threads would wait for each other's counters at every request; whoever reads the numbers has them added up.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// Seconds until an answer begins: from one that is in memory to a long poll's.
const ANSWER_SECONDS: [f64; 17] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 90.0, 300.0, f64::INFINITY];

/// As many as threads of a usual machine; more share them.
const SHARDS: usize = 16;

/// Requests, since the process began.
#[derive(Debug, Clone, Default)]
pub(in crate::gateway) struct HttpMetrics(Arc<[Shard; SHARDS]>);

/// What some threads have counted, by route. Alone in its lines of the processors' caches.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<HashMap<String, RouteMetrics>>);

/// Requests of one route.
#[derive(Debug, Default)]
struct RouteMetrics {
    /// By method and status: few of each.
    requests: Vec<(&'static str, StatusCode, u64)>,
    /// By [`ANSWER_SECONDS`].
    buckets: [u64; ANSWER_SECONDS.len()],
    seconds: f64,
}

impl RouteMetrics {
    fn add(&mut self, method: &'static str, status: StatusCode, count: u64) {
        match self.requests.iter_mut().find(|(known, code, _)| *known == method && *code == status) {
            Some((.., counted)) => *counted += count,
            None => self.requests.push((method, status, count)),
        }
    }

    fn merge(&mut self, other: &Self) {
        for (method, status, count) in &other.requests {
            self.add(method, *status, *count);
        }
        for (bucket, more) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket += more;
        }
        self.seconds += other.seconds;
    }
}

impl Shard {
    /// The one of the current thread.
    fn index() -> usize {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static INDEX: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS;
        }
        INDEX.with(|index| *index)
    }

    fn routes(&self) -> MutexGuard<'_, HashMap<String, RouteMetrics>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpMetrics {
    pub(super) fn answered(&self, route: &str, method: &'static str, status: StatusCode, time: Duration) {
        let seconds = time.as_secs_f64();
        let mut routes = self.0[Shard::index()].routes();
        let metrics = match routes.get_mut(route) {
            Some(metrics) => metrics,
            None => routes.entry(route.to_owned()).or_default(),
        };
        metrics.add(method, status, 1);
        metrics.buckets[ANSWER_SECONDS.partition_point(|bound| *bound < seconds)] += 1;
        metrics.seconds += seconds;
    }

    pub(super) fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("latentd");
        registry.register_collector(Box::new(self.clone()));
        registry
    }
}

impl Collector for HttpMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut all: BTreeMap<String, RouteMetrics> = BTreeMap::new();
        for shard in self.0.iter() {
            for (route, metrics) in shard.routes().iter() {
                all.entry(route.clone()).or_default().merge(metrics);
            }
        }
        let help = "Requests that were answered, by route, method and status";
        let mut requests = encoder.encode_descriptor("http_requests", help, None, MetricType::Counter)?;
        for (route, metrics) in &all {
            for (method, status, count) in &metrics.requests {
                let labels = [("route", route.as_str()), ("method", method), ("status", status.as_str())];
                requests.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        let help = "From the head of a request to that of its answer, by route";
        let mut seconds = encoder.encode_descriptor("http_request_seconds", help, None, MetricType::Histogram)?;
        for (route, metrics) in &all {
            let buckets: Vec<_> = ANSWER_SECONDS.into_iter().zip(metrics.buckets).collect();
            let count = metrics.buckets.iter().sum();
            let labels = [("route", route.as_str())];
            seconds.encode_family(&labels)?.encode_histogram::<NoLabelSet>(metrics.seconds, count, &buckets, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread::scope;

    use super::*;
    use crate::telemetry::exposition;

    #[test]
    fn what_threads_count_is_added_up() {
        let metrics = HttpMetrics::default();
        scope(|threads| {
            for millis in [1, 2, 400_000] {
                let metrics = &metrics;
                threads.spawn(move || metrics.answered("/r", "GET", StatusCode::OK, Duration::from_millis(millis)));
            }
        });
        metrics.answered("/r", "POST", StatusCode::NOT_FOUND, Duration::from_millis(30));
        let text = exposition::text(&metrics.registry());
        for line in [
            r#"latentd_http_requests_total{route="/r",method="GET",status="200"} 3"#,
            r#"latentd_http_requests_total{route="/r",method="POST",status="404"} 1"#,
            r#"latentd_http_request_seconds_count{route="/r"} 4"#,
            r#"latentd_http_request_seconds_bucket{le="0.001",route="/r"} 1"#,
            r#"latentd_http_request_seconds_bucket{le="0.0025",route="/r"} 2"#,
            r#"latentd_http_request_seconds_bucket{le="300.0",route="/r"} 3"#,
            r#"latentd_http_request_seconds_bucket{le="+Inf",route="/r"} 4"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(text.contains(r#"latentd_http_request_seconds_sum{route="/r"} 400.03"#), "{text}");
    }
}
