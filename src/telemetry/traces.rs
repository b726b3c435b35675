//! Traces for who asks for them: a span for each job, which continues the trace that it came with, and spans for its stages.
//!
//! Without a collector nothing listens to these spans, and making one costs a look at an atomic. They carry ids, numbers and words of
//! our own: no prompt, no URL, no picture. What the log says is not sent.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::{Builder, Runtime};
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing::{Span, Subscriber, info_span, warn};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::net::{self, Call, NoClient, Proxies, TrustedClient, Url};

/// What only our spans have in common.
const TARGET: &str = "latentd::trace";

/// For one export. Spans that are not taken by then are lost; jobs do not wait for them.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// For what is left at the end of the process.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// Bytes of a collector's answer.
const MAX_COLLECTOR_ANSWER: u64 = 1 << 16;

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
pub enum NoTraces {
    /// The endpoint is no URL; as it may be shown.
    #[error("telemetry.otlp_endpoint = {0:?} is no http or https URL such as http://127.0.0.1:4318")]
    Endpoint(String),
    /// There is no HTTP client.
    #[error(transparent)]
    Client(#[from] NoClient),
    /// The exporter could not be set up.
    #[error("traces cannot be sent: {0}")]
    Exporter(String),
}

/// Traces on their way to a collector.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Sends traces to the collector at `endpoint`, through `proxies`, by OTLP over HTTP, as protobuf, to `v1/traces` below it. The `OTEL_*` variables of
    /// the specification say more: headers, sampler, name of the service.
    ///
    /// # Errors
    /// The endpoint is no URL, or what sends cannot be set up.
    pub fn start(endpoint: &str, proxies: &Proxies) -> Result<Self, NoTraces> {
        let base: Option<Url> = endpoint.parse().ok();
        if !base.is_some_and(|base| matches!(base.scheme(), "http" | "https")) {
            return Err(NoTraces::Endpoint(net::shown(endpoint)));
        }
        let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|cause| NoTraces::Exporter(cause.to_string()))?;
        let http = TrustedClient::through(None, proxies)?;
        let post = Exporter { http, runtime: Mutex::new(runtime), failing: AtomicBool::new(false) };
        let exporter = SpanExporter::builder().with_http().with_http_client(post).with_endpoint(url);
        let exporter =
            exporter.with_timeout(EXPORT_TIMEOUT).build().map_err(|cause| NoTraces::Exporter(cause.to_string()))?;
        let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let mut resource = Resource::builder().with_attribute(version);
        let named = Resource::builder().build().get(&"service.name".into());
        if named.is_none_or(|name| name.as_str().starts_with("unknown_service")) {
            resource = resource.with_service_name("latentd");
        }
        Ok(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build()))
    }

    /// What makes traces of our spans, for a subscriber.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync>(&self) -> impl Layer<S> + Send + Sync + use<S> {
        let ours = filter_fn(|metadata| metadata.is_span() && metadata.target() == TARGET);
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("latentd"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(ours.with_max_level_hint(LevelFilter::INFO))
    }

    /// Sends what is left, for a moment. Blocks: not for a runtime's thread.
    pub fn finish(self) {
        if let Err(cause) = self.0.shutdown_with_timeout(SHUTDOWN_TIMEOUT) {
            warn!("the last traces are not sent: {cause}");
        }
    }
}

/// Our own HTTP client for the exporter. The exporter has a thread, so calls may block it; connections live in `runtime`,
/// which runs while a call does.
struct Exporter {
    http: TrustedClient,
    runtime: Mutex<Runtime>,
    /// Whether the last export failed: an outage is one line of the log.
    failing: AtomicBool,
}

impl Exporter {
    fn post(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let url: Url = parts.uri.to_string().parse()?;
        let headers = parts.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let headers: Vec<(&str, &str)> = headers.collect();
        let call =
            Call { url: &url, body: Some(body), headers: &headers, time: EXPORT_TIMEOUT, most: MAX_COLLECTOR_ANSWER };
        // Another call that panicked left the runtime whole.
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = runtime.block_on(self.http.call(call));
        let fault = match &answer {
            Ok(answer) if (200..300).contains(&answer.status) => None,
            Ok(answer) => Some(format!("it answered {}", answer.status)),
            Err(cause) => Some(cause.to_string()),
        };
        let failed_before = self.failing.swap(fault.is_some(), Ordering::Relaxed);
        if let Some(fault) = fault.filter(|_| !failed_before) {
            warn!("the collector of traces takes none for now: {fault}");
        }
        let answer = answer?;
        Ok(Response::builder().status(answer.status).body(answer.body.into())?)
    }
}

impl HttpClient for Exporter {
    fn send_bytes<'a, 'f>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        'a: 'f,
        Self: 'f,
    {
        Box::pin(ready(self.post(request)))
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post").finish_non_exhaustive()
    }
}

/// The span of a job; `parent` and `state` are the trace context that it came with, as in the W3C's headers `traceparent` and
/// `tracestate`. What is none begins a trace of its own.
pub fn job(id: &str, parent: Option<&str>, state: Option<&str>) -> Span {
    let span = info_span!(target: TARGET, "job", otel.kind = "consumer", job.id = id, job.outcome = Empty);
    if let (false, Some(parent)) = (span.is_disabled(), parent) {
        let mut context = HashMap::from([("traceparent".to_owned(), parent.to_owned())]);
        context.extend(state.map(|state| ("tracestate".to_owned(), state.to_owned())));
        // It fails where a subscriber knows no traces, and then there is nothing to continue.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&context));
    }
    span
}

/// The span of images that a job names, on their way.
pub fn fetch() -> Span {
    info_span!(target: TARGET, "fetch")
}

/// The span of a model that a job waits for.
pub fn load(model: &str) -> Span {
    info_span!(target: TARGET, "load", model)
}

/// The span of a job inside the engine, to which its parts are noted at its end.
pub fn engine() -> Span {
    info_span!(
        target: TARGET,
        "engine",
        wait_ms = Empty,
        text_ms = Empty,
        encode_ms = Empty,
        denoise_ms = Empty,
        decode_ms = Empty,
        evaluations = Empty
    )
}

/// The span of pixels on their way to a PNG file.
pub fn png() -> Span {
    info_span!(target: TARGET, "png")
}

/// The span of the delivery of a job's end.
pub fn deliver(bytes: usize) -> Span {
    info_span!(target: TARGET, "deliver", otel.kind = "producer", bytes)
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::{NoSubscriber, with_default};

    use super::*;

    #[test]
    fn spans_are_nothing_where_nobody_asked_for_traces() {
        with_default(NoSubscriber::default(), || {
            assert!(job("j1", Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), None).is_disabled());
            assert!(engine().is_disabled());
        });
    }

    #[test]
    fn an_endpoint_is_a_url() {
        for wrong in ["collector:4318", "grpc://collector:4317", "", "http://"] {
            assert!(
                matches!(Traces::start(wrong, &Proxies::default()), Err(NoTraces::Endpoint(told)) if told == wrong),
                "{wrong}"
            );
        }
    }
}
