//! A host that answers as it is told to, on a loopback address, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// Path and query.
    pub(crate) target: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
}

impl Request {
    /// A header's value; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    /// The same request for something else.
    pub(crate) fn at(&self, target: &str) -> Self {
        Self { target: target.into(), ..self.clone() }
    }

    /// The first byte that is asked for.
    pub(crate) fn from(&self) -> usize {
        self.header("range").trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or(0)
    }
}

/// What follows the bytes of an answer.
#[derive(Debug, Clone)]
pub(crate) enum Then {
    /// The end.
    Close,
    /// Nothing, on a clock that is paused from now on.
    Silence,
    /// More bytes, each a second after the one before, on a clock that was paused before.
    Drip(Vec<u8>),
    /// Nothing until somebody gives a permit, then more bytes.
    Wait(Arc<Semaphore>, Vec<u8>),
}

/// One answer: raw bytes, and what follows.
pub(crate) type Answer = (Vec<u8>, Then);

/// A server that ends with its value.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Request>>>,
    _task: JoinSet<()>,
}

impl Server {
    /// Answers each request with `answer(n, request)`, where n counts the earlier ones for the same path.
    pub(crate) async fn start(answer: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&seen), Arc::clone(&answer)));
            }
        });
        Self { address, asked, _task: task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    /// The requests for what ends so.
    pub(crate) fn asked_for(&self, ending: &str) -> Vec<Request> {
        self.asked().into_iter().filter(|request| request.target.ends_with(ending)).collect()
    }
}

async fn serve(
    mut stream: TcpStream,
    seen: Arc<Mutex<Vec<Request>>>,
    answer: Arc<impl Fn(usize, &Request) -> Answer + Send + Sync + 'static>,
) {
    let Some(request) = read(&mut stream).await else { return };
    let number = {
        let mut seen = seen.lock().unwrap();
        let number = seen.iter().filter(|earlier| earlier.target == request.target).count();
        seen.push(request.clone());
        number
    };
    let (bytes, then) = answer(number, &request);
    if matches!(then, Then::Silence) {
        time::pause();
    }
    // A client that hangs up ends this.
    if stream.write_all(&bytes).await.is_err() {
        return;
    }
    match then {
        Then::Close => drop(stream.shutdown().await),
        Then::Silence => std::future::pending().await,
        Then::Drip(more) => {
            for byte in more {
                time::sleep(time::Duration::from_secs(1)).await;
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        }
        Then::Wait(permits, more) => {
            permits.acquire().await.unwrap().forget();
            drop(stream.write_all(&more).await);
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let target = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Some(Request { target, headers })
}

/// A status with headers and a body.
pub(crate) fn said(status: &str, headers: &str, body: &[u8]) -> Answer {
    announced(status, headers, body.len(), body, Then::Close)
}

/// An answer that announces another length than its body has so far.
pub(crate) fn announced(status: &str, headers: &str, length: usize, body: &[u8], then: Then) -> Answer {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
    ([head.as_bytes(), body].concat(), then)
}

/// A redirect.
pub(crate) fn moved(to: &str) -> Answer {
    said("302 Found", &format!("Location: {to}\r\n"), b"")
}
