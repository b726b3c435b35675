//! Spans of jobs, as a collector gets them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use latentd::net::Proxies;
use latentd::telemetry::Traces;
use latentd::worker::WorkerEnd;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::worker::engine::{OPTIONS, Worker, input};
use crate::worker::queue::{Queue, json};

const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const PARENT: u64 = 0x00f0_67aa_0ba9_02b7;

/// Takes traces until it is dropped.
struct Collector {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<Vec<u8>>>>,
    _task: JoinSet<()>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, taken) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let (mut task, bodies) = (JoinSet::new(), Arc::clone(&taken));
        task.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                while let Some(body) = take(&mut stream).await {
                    bodies.lock().unwrap().push(body);
                }
            }
        });
        Self { address, taken, _task: task }
    }

    /// All spans, and the attributes of who sent them.
    fn spans(&self) -> (Vec<Span>, Vec<KeyValue>) {
        let (mut spans, mut resource) = (Vec::new(), Vec::new());
        for body in self.taken.lock().unwrap().iter() {
            for sent in ExportTraceServiceRequest::decode(body.as_slice()).unwrap().resource_spans {
                resource = sent.resource.unwrap().attributes;
                spans.extend(sent.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        (spans, resource)
    }
}

/// One request, answered with 200.
async fn take(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(
        head.starts_with("post /v1/traces http") && head.contains("content-type: application/x-protobuf"),
        "{head}"
    );
    let length = head.split("content-length: ").nth(1)?.lines().next()?.parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.ok()?;
    Some(body)
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

/// Lets a worker do `jobs`, with traces to this address.
async fn traced(address: SocketAddr, jobs: serde_json::Value) {
    let traces = Traces::start(&format!("http://{address}/"), &Proxies::default()).unwrap();
    let guard = tracing_subscriber::registry().with(traces.layer()).set_default();
    let (queue, count) = (Queue::start().await, jobs.as_array().unwrap().len());
    queue.answer("take", json(jobs));
    let worker = Worker::start(&queue, OPTIONS).await;
    queue.until("done", count).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    drop(guard);
    let mut last = JoinSet::new();
    last.spawn_blocking(move || traces.finish());
    last.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_job_continues_the_trace_that_it_came_with() {
    let collector = Collector::start().await;
    let known =
        json!({"id": "j1", "input": input("s3cret"), "traceparent": format!("00-{TRACE:032x}-{PARENT:016x}-01")});
    let unknown = json!({"id": "j2", "input": {}, "traceparent": "nonsense", "tracestate": 5});
    traced(collector.address, json!([known, unknown])).await;

    let (spans, resource) = collector.spans();
    assert_eq!(text(&resource, "service.name"), Some("latentd"));
    let job = |id: &str| {
        spans.iter().find(|span| span.name == "job" && text(&span.attributes, "job.id") == Some(id)).unwrap()
    };
    let (first, second) = (job("j1"), job("j2"));
    assert_eq!((&first.trace_id[..], &first.parent_span_id[..]), (&TRACE.to_be_bytes()[..], &PARENT.to_be_bytes()[..]));
    assert_eq!(text(&first.attributes, "job.outcome"), Some("completed"));
    let parts = spans.iter().filter(|span| span.trace_id == first.trace_id && span.span_id != first.span_id);
    let mut parts: Vec<(&str, bool)> =
        parts.map(|span| (span.name.as_str(), span.parent_span_id == first.span_id)).collect();
    parts.sort_unstable();
    // A PNG file is made while the engine draws.
    assert_eq!(parts, [("deliver", true), ("engine", true), ("load", true), ("png", false)]);

    assert_ne!(second.trace_id, first.trace_id);
    assert!(second.parent_span_id.is_empty());
    assert_eq!(text(&second.attributes, "job.outcome"), Some("invalid"));
    let sent = collector.taken.lock().unwrap().concat();
    assert!(!sent.windows(6).any(|bytes| bytes == b"s3cret"), "a prompt was sent to the collector");
}

#[tokio::test]
async fn a_collector_that_is_gone_holds_up_nobody() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    traced(nobody, json!([{"id": "j1", "input": input("a")}])).await;
}
