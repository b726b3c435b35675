//! A queue on a loopback address that speaks HTTP by script, and remembers what it was asked.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// However busy the machine is.
pub(crate) const LONG: Duration = Duration::from_mins(2);

/// What becomes of one request.
pub(crate) enum Reply {
    /// A whole answer.
    Answer { status: u16, kind: &'static str, more: &'static str, body: Vec<u8> },
    /// None, until the client hangs up.
    Hold,
    /// None: we hang up.
    Drop,
    /// A head that announces a body of so many bytes, which never comes.
    Announced(u64),
    /// Another, once this is notified.
    After(Arc<Notify>, Box<Reply>),
}

/// A status without a body.
pub(crate) fn status(status: u16) -> Reply {
    Reply::Answer { status, kind: "", more: "", body: Vec::new() }
}

/// A body of JSON.
#[expect(clippy::needless_pass_by_value, reason = "callers make it on the spot")]
pub(crate) fn json(body: Value) -> Reply {
    text(&body.to_string())
}

/// A body that is said to be JSON.
pub(crate) fn text(body: &str) -> Reply {
    Reply::Answer { status: 200, kind: "application/json; charset=utf-8", more: "", body: body.into() }
}

/// A request, or that the client of one hung up.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Asked {
    /// `take`, `take-batch`, `progress`, `done`, `stream`, `stop` or `ping`; with `gone ` before it if the client hung up.
    pub(crate) fn route(&self) -> String {
        let route = self.path.split('/').nth(3).unwrap_or_default().trim_start_matches("job-");
        // It goes the same way as the end of a job.
        let route = if self.body.contains("IN_PROGRESS") { "progress" } else { route };
        if self.method == "GONE" { format!("gone {route}") } else { route.to_owned() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Answers by route, first come first served; what a route answers then is its usual.
#[derive(Default)]
struct Script(BTreeMap<&'static str, VecDeque<Reply>>);

impl Script {
    fn next(&mut self, route: &str) -> Reply {
        // A batch is a take.
        let route = if route == "take-batch" && !self.0.contains_key(route) { "take" } else { route };
        let scripted = self.0.get_mut(route).and_then(VecDeque::pop_front);
        scripted.unwrap_or_else(|| match route {
            "take" | "take-batch" | "stop" => Reply::Hold,
            _ => json(json!({})),
        })
    }
}

/// A queue that ends with its value.
pub(crate) struct Queue {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
    log: Arc<watch::Sender<Vec<Asked>>>,
    _task: JoinSet<()>,
}

impl Queue {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (script, log) = (Arc::new(Mutex::new(Script::default())), Arc::new(watch::Sender::new(Vec::new())));
        let mut task = JoinSet::new();
        let (answers, heard) = (Arc::clone(&script), Arc::clone(&log));
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&answers), Arc::clone(&heard)));
            }
        });
        Self { address, script, log, _task: task }
    }

    /// Answers `route` like this, after all that it was told before.
    pub(crate) fn answer(&self, route: &'static str, reply: Reply) -> &Self {
        self.script.lock().unwrap().0.entry(route).or_default().push_back(reply);
        self
    }

    /// Hands out this job.
    #[expect(clippy::needless_pass_by_value, reason = "callers make it on the spot")]
    pub(crate) fn job(&self, id: &str, input: Value) -> &Self {
        self.answer("take", json(json!({"id": id, "input": input})))
    }

    /// The base of its endpoint.
    pub(crate) fn base(&self) -> String {
        format!("http://{}/v2/ep1", self.address)
    }

    /// What it was asked on a route.
    pub(crate) fn asked(&self, route: &str) -> Vec<Asked> {
        self.log.borrow().iter().filter(|asked| asked.route() == route).cloned().collect()
    }

    /// Every route, in the order in which it was asked.
    pub(crate) fn routes(&self) -> Vec<String> {
        self.log.borrow().iter().map(Asked::route).collect()
    }

    /// Waits until a route was asked so often.
    pub(crate) async fn until(&self, route: &str, times: usize) -> Vec<Asked> {
        let enough = |log: &Vec<Asked>| log.iter().filter(|asked| asked.route() == route).count() >= times;
        self.when(enough).await;
        self.asked(route)
    }

    /// Waits until this holds of everything that was asked.
    pub(crate) async fn when(&self, holds: impl Fn(&Vec<Asked>) -> bool) {
        let mut log = self.log.subscribe();
        assert!(timeout(LONG, log.wait_for(holds)).await.is_ok(), "it never held: {:?}", self.routes());
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Mutex<Script>>, log: Arc<watch::Sender<Vec<Asked>>>) {
    while let Some(asked) = request(&mut stream).await {
        let mut reply = script.lock().unwrap().next(&asked.route());
        let gone = Asked { method: "GONE".into(), ..asked.clone() };
        log.send_modify(|log| log.push(asked));
        while let Reply::After(event, then) = reply {
            event.notified().await;
            reply = *then;
        }
        if let Reply::Announced(bytes) = reply {
            let head = format!("HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: {bytes}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
        }
        let Reply::Answer { status, kind, more, body } = reply else {
            if matches!(reply, Reply::Hold | Reply::Announced(_)) {
                let _ = stream.read_u8().await;
                log.send_modify(|log| log.push(gone));
            }
            return;
        };
        let head =
            format!("HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n{more}Content-Length: {}\r\n\r\n", body.len());
        if stream.write_all(&[head.as_bytes(), &body].concat()).await.is_err() {
            return;
        }
    }
}

async fn request(stream: &mut TcpStream) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ').map(str::to_owned);
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.into()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Asked { method: first.next()?, path: first.next()?, headers, body: String::from_utf8(body).unwrap() })
}
