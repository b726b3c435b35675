//! A host that answers as it is told to, on a loopback address, and remembers what it was sent.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::worker::queue::LONG;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// A header's value; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }
}

/// What comes of a request.
pub(crate) enum Answer {
    Whole(String),
    HangUp,
    /// The connection stays open.
    Silence,
}

/// A server that ends with its value.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<watch::Sender<Vec<Request>>>,
    _task: JoinSet<()>,
}

impl Server {
    /// Answers request number n, from 0, with `answer(n, request)`.
    pub(crate) async fn start(answer: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(watch::Sender::new(Vec::new()));
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
        self.asked.borrow().clone()
    }

    /// Waits until it was asked so often.
    pub(crate) async fn until(&self, times: usize) -> Vec<Request> {
        let mut asked = self.asked.subscribe();
        let enough = asked.wait_for(|asked| asked.len() >= times);
        assert!(timeout(LONG, enough).await.is_ok(), "it was asked {} times, not {times}", self.asked().len());
        self.asked()
    }
}

async fn serve(
    mut stream: TcpStream,
    seen: Arc<watch::Sender<Vec<Request>>>,
    answer: Arc<impl Fn(usize, &Request) -> Answer + Send + Sync + 'static>,
) {
    let Some(request) = read(&mut stream).await else { return };
    let mut number = 0;
    seen.send_modify(|seen| {
        number = seen.len();
        seen.push(request.clone());
    });
    match answer(number, &request) {
        // Whoever hangs up first ends this.
        Answer::Whole(answer) => drop(stream.write_all(answer.as_bytes()).await),
        Answer::HangUp => {}
        Answer::Silence => std::future::pending().await,
    }
}

/// A request with a body of the length that it announces; `None` if the client hangs up before.
async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let mut request = Request { method, target, headers, body: Vec::new() };
    request.body.resize(request.header("content-length").parse().unwrap_or(0), 0);
    stream.read_exact(&mut request.body).await.ok()?;
    Some(request)
}

/// An answer without a body.
pub(crate) fn status(line: &str) -> Answer {
    said(line, "")
}

/// An answer with one.
pub(crate) fn said(line: &str, body: &str) -> Answer {
    Answer::Whole(format!("HTTP/1.1 {line}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()))
}

/// A redirect.
pub(crate) fn moved(code: &str, to: &str) -> Answer {
    status(&format!("{code} Moved\r\nLocation: {to}"))
}
