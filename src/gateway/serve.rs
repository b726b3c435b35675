//! The sockets of a gateway: who may hold one, and for how long.

pub(super) mod activity;
mod connection_limit;
mod min_rate;

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::{debug, warn};

use crate::store::Store;

use super::reply::ApiError;
use super::{Gateway, metrics, peer, probes, uri};
use activity::ConnectionActivity;
use connection_limit::{ConnectionLimit, ConnectionPermit};
use min_rate::MinRate;

/// Bytes that are read ahead or written at once on a connection, and of the head of a request. Counted nowhere, so they are few.
const BUFFER_BYTES: usize = 16 << 10;

/// For the head of a guest's request.
const GUEST_HEAD: Duration = Duration::from_secs(5);

/// After an error that is not of one connection, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Serves a gateway until `stop`; then long polls end, and what is being answered is, unless its peer does not move.
pub async fn serve<S: Store>(listener: TcpListener, gateway: Arc<Gateway<S>>, stop: CancellationToken) {
    let (closing, routes, keep) = (gateway.closing.clone(), service(&gateway), gateway.settings.keep_alive);
    let limit = ConnectionLimit::new(gateway.settings.connections);
    let answering = async {
        let (mut connections, mut arrived) = (JoinSet::new(), None);
        loop {
            select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = accept(&listener, &limit, &mut arrived) => match accepted {
                    Ok((stream, from)) => {
                        // Answers are small: none should wait for the next.
                        let _ = stream.set_nodelay(true);
                        let place = limit.join(&closing);
                        let activity = place.activity.clone();
                        let served = connection(stream, routes.clone(), keep, closing.clone(), place);
                        connections.spawn(peer::on_connection(Some(from.ip()), activity, served));
                    }
                    Err(cause) => {
                        warn!("no connection can be taken: {cause}");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
        drop((listener, arrived));
        closing.cancel();
        while connections.join_next().await.is_some() {}
    };
    select! {
        () = answering => {}
        () = gateway.run() => {}
    }
}

/// The next connection, once there is room for it. It waits where the caller has it, who may give up and ask again.
async fn accept(
    listener: &TcpListener,
    limit: &ConnectionLimit,
    arrived: &mut Option<(TcpStream, SocketAddr)>,
) -> io::Result<(TcpStream, SocketAddr)> {
    if arrived.is_none() {
        *arrived = Some(listener.accept().await?);
    }
    limit.room().await;
    match arrived.take() {
        Some(arrived) => Ok(arrived),
        None => listener.accept().await,
    }
}

/// The routes as a server needs them, which hears paths as the SDKs write them.
pub(super) fn service<S: Store>(
    gateway: &Arc<Gateway<S>>,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + use<S> {
    let settings = &gateway.settings;
    let home = settings.endpoints.first().filter(|_| settings.serve_at_root);
    let home: Option<Arc<str>> = home.map(|endpoint| format!("/v2/{}", endpoint.id).into());
    let (gateway, routes) = (gateway.clone(), gateway.routes());
    tower::service_fn(move |request| {
        let request = uri::at_home(uri::mend(request), home.as_deref());
        metrics::count(gateway.clone(), routes.clone(), request)
    })
}

/// Answers what comes on a connection; the head of each request has to be there by `keep` after the answer before.
async fn connection<T, R>(stream: T, routes: R, keep: Duration, closing: CancellationToken, place: ConnectionPermit)
where
    T: AsyncRead + AsyncWrite + Unpin,
    R: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send,
{
    let activity = place.activity.clone();
    let stream = activity.on(stream);
    // A guest is heard once, and soon.
    let keep = if place.guest.is_some() { keep.min(GUEST_HEAD) } else { keep };
    let (cut, guest, place) = (place.cut.clone(), place.guest.clone(), Arc::new(place));
    let seen = activity.clone();
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let activity = seen.clone();
        activity.working();
        let of = activity.clone();
        let body = |body: Incoming| if body.is_end_stream() { Body::empty() } else { in_time(Body::new(body), of) };
        let answer = answered(place.clone(), routes.clone(), request.map(body));
        async move { answer.await.map(|reply| reply.map(|body| activity.answered(body))) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(keep)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), answer);
    let mut served = pin!(served);
    let dismissed = async {
        match guest {
            // One that asks gives way by an answer.
            Some(guest) => guest.cancelled_owned().await,
            None => pending().await,
        }
        activity.peers_turn().await;
    };
    let ended = select! {
        ended = served.as_mut() => ended,
        () = dismissed => return debug!("a connection gave way to another"),
        () = cut.cancelled() => {
            if !closing.is_cancelled() {
                return debug!("a connection that did not move was cut off for another");
            }
            served.as_mut().graceful_shutdown();
            select! {
                ended = served => ended,
                () = activity.stalled_or_overtime() => return debug!("a connection was cut off that did not move"),
            }
        }
    };
    if let Err(cause) = ended {
        debug!("a connection ended early: {cause}");
    }
}

/// What the routes answer; to a guest, if it asks how the gateway is, or as soon as it has a place of its own.
async fn answered<R>(place: Arc<ConnectionPermit>, mut routes: R, request: Request) -> Result<Response, Infallible>
where
    R: Service<Request, Response = Response, Error = Infallible>,
{
    let is_guest = place.guest.is_some();
    let may_ask = !is_guest || probes::PATHS.contains(&request.uri().path()) || Box::pin(place.become_resident()).await;
    // The routes are always ready: to wait for that would move every request once more.
    let mut reply = if may_ask { routes.call(request).await? } else { ApiError::Crowded.into_response() };
    if is_guest {
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(reply)
}

/// A body that fails with [`io::ErrorKind::TimedOut`] when too little more of it comes.
fn in_time(body: Body, activity: ConnectionActivity) -> Body {
    Body::from_stream(unfold(Some((body.into_data_stream(), activity, MinRate::default())), async |rest| {
        let (mut rest, activity, mut rate) = rest?;
        activity.waiting_for_peer();
        let began = Instant::now();
        let next = timeout(rate.left(), rest.next()).await;
        activity.working();
        match next {
            Ok(Some(data)) => {
                rate.moved(began.elapsed(), data.as_ref().map_or(0, Bytes::len));
                Some((data.map_err(io::Error::other), Some((rest, activity, rate))))
            }
            Ok(None) => None,
            Err(_) => Some((Err(io::ErrorKind::TimedOut.into()), None)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::clock::{Course, SystemClock};
    use crate::gateway::GatewaySettings;
    use crate::store::MemoryStore;

    const KEEP_ALIVE: Duration = Duration::from_secs(620);

    /// Takes a body and works for ten seconds, then answers with a megabyte.
    async fn works(request: Request) -> Result<Response, Infallible> {
        let taken = to_bytes(request.into_body(), usize::MAX).await.is_ok();
        sleep(Duration::from_secs(if taken { 10 } else { 0 })).await;
        Ok(Response::new(Body::from(vec![b'x'; 1 << 20])))
    }

    /// How many seconds a connection takes to end after it is told to, with such a peer.
    async fn takes<F: Future<Output = DuplexStream>>(peer: impl FnOnce(DuplexStream) -> F) -> u64 {
        let (ours, theirs) = duplex(16 * 1024);
        let closing = CancellationToken::new();
        let close = async {
            sleep(Duration::from_secs(1)).await;
            closing.cancel();
            Instant::now()
        };
        let served = async {
            connection(
                ours,
                tower::service_fn(works),
                KEEP_ALIVE,
                closing.clone(),
                ConnectionLimit::new(1).join(&closing),
            )
            .await;
            Instant::now()
        };
        // Until all is over the peer keeps its end open.
        let (began, ended, _theirs) = tokio::join!(close, served, peer(theirs));
        (ended - began).as_secs()
    }

    async fn says(mut stream: DuplexStream, text: &str) -> DuplexStream {
        // What is cut off while it is said shows in how long that took.
        let _ = stream.write_all(text.as_bytes()).await;
        stream
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_move_is_not_waited_for_when_the_gateway_closes() {
        let get = "GET / HTTP/1.1\r\n\r\n";
        let post = "POST / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n";
        for (what, text) in [("nothing", ""), ("half a head", "GET / HT"), ("a stalled body", post)] {
            assert!(takes(|stream| says(stream, text)).await <= 4, "{what}");
        }
        // Ten seconds of work, of which one was before, and no reader.
        let unread = takes(|stream| says(stream, get)).await;
        assert!((9..=16).contains(&unread), "{unread}");
        for (what, begin) in [("a head", "GET / HTTP/1.1\r\nX: "), ("a body", post)] {
            let drips = takes(|stream| async move {
                let mut stream = says(stream, begin).await;
                while stream.write_all(b"x").await.is_ok() {
                    sleep(Duration::from_secs(1)).await;
                }
                stream
            });
            assert!(drips.await <= 4, "{what}, byte by byte");
        }
    }

    /// A gateway of four connections, and what ends it.
    async fn small_gateway() -> (SocketAddr, CancellationToken, JoinSet<()>) {
        let settings = GatewaySettings { connections: 4, ..GatewaySettings::default() };
        let store = Arc::new(MemoryStore::new(settings.rules.clone()));
        let gateway = Gateway::new(store, Course::new(Arc::new(SystemClock)), settings);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, gateway, stop.clone()));
        (address, stop, serving)
    }

    /// What a new connection is answered, within a minute.
    async fn answer(address: SocketAddr, request: &str) -> String {
        let mut honest = TcpStream::connect(address).await.unwrap();
        honest.write_all(format!("{request}Host: localhost\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = timeout(Duration::from_mins(1), honest.read_to_string(&mut answer));
        read.await.unwrap().unwrap();
        answer
    }

    const PROBE: &str = "GET /healthz HTTP/1.1\r\nConnection: close\r\n";

    #[tokio::test]
    async fn half_requests_lock_nobody_out() {
        let (address, stop, mut serving) = small_gateway().await;
        let mut halves = Vec::new();
        for _ in 0..8 {
            let mut half = TcpStream::connect(address).await.unwrap();
            half.write_all(b"GET /healthz HT").await.unwrap();
            halves.push(half);
        }
        let probed = answer(address, PROBE).await;
        assert!(probed.starts_with("HTTP/1.1 200"), "{probed}");
        let asks = "GET /v2/stable-diffusion-v1/health HTTP/1.1\r\nConnection: close\r\n";
        let asked = answer(address, asks).await;
        assert!(asked.starts_with("HTTP/1.1 200"), "{asked}");
        stop.cancel();
        timeout(Duration::from_mins(1), serving.join_next()).await.unwrap();
    }

    #[tokio::test]
    async fn probes_are_answered_while_all_connections_are_worked_for() {
        let (address, stop, mut serving) = small_gateway().await;
        let asks = "POST /v2/stable-diffusion-v1/run HTTP/1.1\r\nConnection: close\r\nContent-Length: 11\r\n";
        let mut submits = TcpStream::connect(address).await.unwrap();
        submits.write_all(format!("{asks}Host: localhost\r\n\r\n{{\"input\":1}}").as_bytes()).await.unwrap();
        let mut submitted = String::new();
        submits.read_to_string(&mut submitted).await.unwrap();
        let id = submitted.split('"').find(|part| part.ends_with("-l1")).unwrap();
        let mut polls = Vec::new();
        for _ in 0..8 {
            let mut poll = TcpStream::connect(address).await.unwrap();
            let path = format!("/v2/stable-diffusion-v1/status-sync/{id}?wait=300000");
            poll.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
            polls.push(poll);
        }
        for probe in [PROBE, &PROBE.replace("healthz", "readyz"), &PROBE.replace("Connection: close\r\n", "")] {
            let probed = answer(address, probe).await;
            assert!(probed.starts_with("HTTP/1.1 200"), "{probed}");
        }
        let asked = answer(address, "GET /v2/stable-diffusion-v1/health HTTP/1.1\r\n").await;
        assert!(asked.starts_with("HTTP/1.1 503") && asked.contains("as many connections"), "{asked}");
        stop.cancel();
        timeout(Duration::from_mins(1), serving.join_next()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_kept_for_as_long_as_was_set_and_no_longer() {
        let (ours, theirs) = duplex(4 << 20);
        let (began, never) = (Instant::now(), CancellationToken::new());
        let served =
            connection(ours, tower::service_fn(works), KEEP_ALIVE, never.clone(), ConnectionLimit::new(1).join(&never));
        let ((), _theirs) = tokio::join!(served, async {
            let theirs = says(theirs, "GET / HTTP/1.1\r\n\r\n").await;
            sleep(Duration::from_secs(609)).await;
            says(theirs, "GET / HTTP/1.1\r\n\r\n").await
        });
        // Ten seconds of work, 599 at rest, ten of work, and the whole rest.
        assert_eq!(began.elapsed().as_secs(), 609 + 10 + 620);
    }

    #[tokio::test(start_paused = true)]
    async fn what_moves_keeps_its_time_and_that_has_an_end() {
        let sends = |bytes: usize| {
            move |stream| async move {
                let head = format!("POST / HTTP/1.1\r\nContent-Length: {bytes}\r\n\r\n");
                let mut stream = says(stream, &head).await;
                for _ in 0..bytes / 8192 {
                    sleep(Duration::from_secs(1)).await;
                    if stream.write_all(&[b'x'; 8192]).await.is_err() {
                        break;
                    }
                }
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer).await;
                assert_eq!(answer.len() > 1 << 20, bytes < 1 << 20, "{}", answer.len());
                stream
            }
        };
        let whole = takes(sends(10 * 8192)).await;
        assert!((19..=21).contains(&whole), "ten seconds of body and ten of work: {whole}");
        let endless = takes(sends(1 << 20)).await;
        assert!((20..=24).contains(&endless), "{endless}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_or_drips_fails() {
        let slow = |seconds: Vec<u64>, bytes: usize| {
            let parts = futures_util::stream::iter(seconds).then(move |pause| async move {
                sleep(Duration::from_secs(pause)).await;
                Ok::<_, Infallible>(Bytes::from(vec![b'x'; bytes]))
            });
            to_bytes(in_time(Body::from_stream(parts), ConnectionActivity::default()), usize::MAX)
        };
        assert_eq!(slow(vec![0, 29], 2).await.unwrap(), "xxxx");
        assert!(slow(vec![0, 31], 2).await.is_err());
        assert!(slow(vec![1; 40], 2).await.is_err(), "drop by drop");
        assert_eq!(slow(vec![20; 9], 128 << 10).await.unwrap().len(), 9 * (128 << 10));
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_a_body_too_slowly_is_told_so_and_may_send_it_again() {
        let settings = GatewaySettings::default();
        let store = Arc::new(MemoryStore::new(settings.rules.clone()));
        let gateway = Gateway::new(store, Course::new(Arc::new(SystemClock)), settings);
        let never = CancellationToken::new();
        for path in ["run", "job-done/w1/j1", "job-stream/w1/j1"] {
            let (ours, theirs) = duplex(16 * 1024);
            let place = ConnectionLimit::new(1).join(&never);
            let served = connection(ours, service(&gateway), KEEP_ALIVE, never.clone(), place);
            let asks = async {
                let head = format!("POST /v2/stable-diffusion-v1/{path} HTTP/1.1\r\nHost: localhost\r\n");
                let mut stream = says(theirs, &format!("{head}Content-Length: 99\r\n\r\n{{")).await;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                answer
            };
            let ((), answer) = tokio::join!(served, asks);
            let why = "too little of the body came for too long; nothing was changed";
            assert!(answer.starts_with("HTTP/1.1 408") && answer.contains(why), "{path}: {answer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_time_in_which_its_sender_is_waited_for_counts_against_a_body() {
        let body = futures_util::stream::iter([1, 1, 1]).then(|pause| async move {
            sleep(Duration::from_secs(pause)).await;
            Ok::<_, Infallible>(Bytes::from_static(b"ab"))
        });
        let mut body = in_time(Body::from_stream(body), ConnectionActivity::default()).into_data_stream();
        for _ in 0..3 {
            sleep(Duration::from_mins(1)).await;
            assert_eq!(body.next().await.unwrap().unwrap(), "ab");
        }
    }

    /// How long an answer of a megabyte is written to a peer who takes so many bytes a second, and how many it got.
    async fn read_at(bytes: usize) -> (u64, usize) {
        let (ours, mut theirs) = duplex(16 * 1024);
        let (began, never) = (Instant::now(), CancellationToken::new());
        let served = async {
            connection(ours, tower::service_fn(works), KEEP_ALIVE, never.clone(), ConnectionLimit::new(1).join(&never))
                .await;
            began.elapsed().as_secs()
        };
        let reads = async {
            theirs.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await.unwrap();
            let (mut part, mut all) = (vec![0; bytes], 0);
            // Into no room nothing is read.
            while let Ok(read @ 1..) = theirs.read(&mut part).await {
                all += read;
                sleep(Duration::from_secs(1)).await;
            }
            // Until it is cut off it keeps its end open.
            (all, theirs)
        };
        let both = async { tokio::join!(served, reads) };
        let (took, (all, _theirs)) = timeout(Duration::from_mins(10), both).await.unwrap();
        (took, all)
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_an_answer_is_cut_off_and_who_reads_slowly_is_not() {
        let (took, _) = read_at(0).await;
        assert!((39..=42).contains(&took), "ten seconds of work, and thirty of waiting: {took}");
        let (took, all) = read_at(512).await;
        assert!((39..=42).contains(&took) && all < 64 << 10, "drop by drop: {took} {all}");
        let (took, all) = read_at(8192).await;
        assert!(took > 100 && all > 1 << 20, "{took} {all}");
    }
}
