//! The sockets of a gateway: who may hold one, and for how long.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};
use tracing::{debug, warn};

use crate::store::Store;

use super::{Gateway, browsers, uri};

/// Connections at the same time; others wait to be accepted.
const MOST: usize = 16 * 1024;

/// For the head of a request, from the end of the one before: proxies keep connections for a minute.
const HEAD: Duration = Duration::from_secs(75);

/// For the next bytes of a body.
const BODY: Duration = Duration::from_secs(30);

/// After an error that is not of one connection, such as too many open files.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves a gateway until `stop`; then long polls end, and what is being answered is.
pub async fn serve<S: Store>(listener: TcpListener, gateway: Arc<Gateway<S>>, stop: CancellationToken) {
    let (closing, routes) = (gateway.closing.clone(), service(&gateway));
    let answering = async {
        let mut connections = JoinSet::new();
        loop {
            select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept(), if connections.len() < MOST => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(connection(stream, routes.clone(), closing.clone()))),
                    Err(cause) => {
                        warn!("no connection can be taken: {cause}");
                        sleep(PAUSE).await;
                    }
                }
            }
        }
        drop(listener);
        closing.cancel();
        while connections.join_next().await.is_some() {}
    };
    select! {
        () = answering => {}
        () = gateway.run() => {}
    }
}

/// The routes as a server needs them, which hears paths as the Python SDK writes them.
pub(super) fn service<S: Store>(
    gateway: &Arc<Gateway<S>>,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + use<S> {
    let settings = &gateway.settings;
    let home = settings.endpoints.first().filter(|_| settings.root).map(|endpoint| format!("/v2/{}", endpoint.id));
    let (gateway, routes) = (gateway.clone(), gateway.routes());
    tower::service_fn(move |request| {
        let request = uri::at_home(uri::cut(request), home.as_deref());
        browsers::ask(gateway.clone(), routes.clone(), request)
    })
}

async fn connection<R>(stream: TcpStream, routes: R, closing: CancellationToken)
where
    R: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send,
{
    // Answers are small: none should wait for the next.
    let _ = stream.set_nodelay(true);
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let body = |body: Incoming| if body.is_end_stream() { Body::empty() } else { in_time(Body::new(body)) };
        routes.clone().oneshot(request.map(body))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), answer);
    let mut served = pin!(served);
    let ended = select! {
        ended = served.as_mut() => ended,
        () = closing.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(cause) = ended {
        debug!("a connection ended early: {cause}");
    }
}

/// A body that fails when nothing more of it comes.
fn in_time(body: Body) -> Body {
    Body::from_stream(unfold(Some(body.into_data_stream()), async |rest| {
        let mut rest = rest?;
        match timeout(BODY, rest.next()).await {
            Ok(Some(data)) => Some((data.map_err(io::Error::other), Some(rest))),
            Ok(None) => None,
            Err(_) => {
                let late = format!("nothing came for {} s", BODY.as_secs());
                Some((Err(io::Error::new(io::ErrorKind::TimedOut, late)), None))
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use bytes::Bytes;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_fails() {
        let slow = |seconds: u64| {
            let parts = futures_util::stream::iter([0, seconds]).then(|pause| async move {
                sleep(Duration::from_secs(pause)).await;
                Ok::<_, Infallible>(Bytes::from_static(b"ab"))
            });
            in_time(Body::from_stream(parts))
        };
        assert_eq!(to_bytes(slow(29), 100).await.unwrap(), "abab");
        assert!(to_bytes(slow(31), 100).await.is_err());
    }
}
