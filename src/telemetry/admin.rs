//! The admin port: `/healthz`, `/readyz` and `/metrics`, for whoever watches the process.
//!
//! It is served by hyper itself and not by a framework, because three routes need none, and because hyper lets us say what a client
//! may cost: one request a connection, few connections, little time. Dropping [`AdminPort::serve`] ends it with all of its connections.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::Telemetry;
use super::health::Phase;

/// Connections at the same time; others wait to be accepted.
const MAX_CONNECTIONS: usize = 32;

/// For a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// For a whole connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that a connection may hold: the least that hyper allows.
const MAX_HEAD_BYTES: usize = 8 << 10;

/// After an error that is not of one connection, such as too many open files.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// A port that is listened on.
#[derive(Debug)]
pub struct AdminPort {
    listener: TcpListener,
    address: SocketAddr,
}

impl AdminPort {
    /// Listens on `address`; port 0 is any that is free.
    ///
    /// # Errors
    /// The address is taken, or none of this machine.
    pub async fn listen(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until it is dropped.
    pub async fn serve(self, telemetry: Telemetry) -> Infallible {
        let mut connections = JoinSet::new();
        loop {
            select! {
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(connection(stream, telemetry.clone()))),
                    Err(cause) => {
                        warn!("the admin port takes no connection: {cause}");
                        sleep(ACCEPT_RETRY).await;
                    }
                }
            }
        }
    }
}

async fn connection(stream: TcpStream, telemetry: Telemetry) {
    let answer = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &telemetry))));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), answer);
    match timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(cause)) => debug!("a client of the admin port: {cause}"),
        Err(_) => debug!("a client of the admin port took longer than {} s", CONNECTION_TIMEOUT.as_secs()),
    }
}

fn answer(request: &Request<Incoming>, telemetry: &Telemetry) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD are answered here\n".into());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let phase = telemetry.health.phase();
    match request.uri().path() {
        "/healthz" => text(status(phase.alive()), format!("{}\n", phase.name())),
        "/readyz" => text(status(phase == Phase::Ready), format!("{}\n", phase.name())),
        "/metrics" => text(StatusCode::OK, telemetry.metrics.text()),
        _ => text(StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics\n".into()),
    }
}

fn status(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// The content type is that of Prometheus' text, which is plain text of a version.
fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
