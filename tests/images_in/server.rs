//! A host that answers as it is told to, on a loopback address, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time;

/// What follows the bytes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The end.
    Close,
    /// Bytes without end, as fast as they are taken.
    Endless,
    /// A byte a second without end, on a clock that is paused from now on.
    Drip,
    /// Nothing, on a clock that is paused from now on.
    Silence,
}

/// One answer: raw bytes, and what follows.
pub(crate) type Answer = (Vec<u8>, Then);

/// A server that ends with its value.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _task: JoinSet<()>,
}

impl Server {
    /// Answers request number n, from 0, with `answer(n, path)`.
    pub(crate) async fn start(answer: impl Fn(usize, &str) -> Answer + Send + 'static) -> Self {
        Self::at("127.0.0.1:0", answer).await
    }

    pub(crate) async fn at(address: &str, answer: impl Fn(usize, &str) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = request(&mut stream).await;
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(request);
                    seen.len() - 1
                };
                connections.spawn(reply(stream, answer(number, &path)));
            }
        });
        Self { address, asked, _task: task }
    }

    /// A URL of this server.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests, whole heads.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// A client that hangs up ends this.
async fn reply(mut stream: TcpStream, (bytes, then): Answer) {
    if matches!(then, Then::Drip | Then::Silence) {
        time::pause();
    }
    let mut open = stream.write_all(&bytes).await.is_ok();
    while open {
        open = match then {
            Then::Close => stream.shutdown().await.is_err(),
            Then::Endless => stream.write_all(&[b'x'; 4096]).await.is_ok(),
            Then::Drip => {
                time::sleep(Duration::from_secs(1)).await;
                stream.write_all(b"x").await.is_ok()
            }
            Then::Silence => std::future::pending().await,
        };
    }
}

/// A whole answer with a body.
pub(crate) fn ok(body: &[u8]) -> Answer {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    ([head.as_bytes(), body].concat(), Then::Close)
}

/// A whole answer without a body.
pub(crate) fn status(line: &str) -> Answer {
    (format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into(), Then::Close)
}

/// A redirect.
pub(crate) fn moved(to: &str) -> Answer {
    status(&format!("302 Found\r\nLocation: {to}"))
}
